"""`/livez` and `/readyz`.

A probe fails only when a restart or an operator must act: a publisher that waits for Kafka is ready.
"""

from http import HTTPStatus

from cdc.http.answers import Answer, json, text
from cdc.status.document import StatusDocument
from cdc.telemetry.health import ALIVE_SECONDS


def live(alive: bool, accept: str) -> Answer:
    """Whether the loop turns."""
    summary = "alive" if alive else f"not alive: the main loop has been blocked for more than {ALIVE_SECONDS:.0f} s"
    return _answer(alive, {"alive": alive, "summary": summary}, summary, accept)


def ready(document: StatusDocument, accept: str) -> Answer:
    """Whether the publisher works, or waits for something that passes by itself."""
    fields = document.model_dump(include={"state", "ready", "summary", "since"})
    return _answer(document.ready is True, fields, document.summary, accept)


def _answer(good: bool, fields: dict[str, object], summary: str, accept: str) -> Answer:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return text(summary, status) if prefers_text(accept) else json(fields, status)


def prefers_text(accept: str) -> bool:
    """Whether a client asks for plain text, and not for JSON."""
    kinds = {kind.partition(";")[0].strip().lower() for kind in accept.split(",")}
    return "text/plain" in kinds and "application/json" not in kinds
