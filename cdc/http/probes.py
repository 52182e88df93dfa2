"""`/livez` and `/readyz`: does the loop turn, and does the publisher do what it is for?

The rule: red means that a restart or a person must act. A publisher that waits for Kafka is as it must be.
"""

from http import HTTPStatus
from typing import Any

from cdc.http.answers import Answer, json, text
from cdc.telemetry.health import ALIVE_SECONDS


def live(alive: bool, accept: str) -> Answer:
    """Whether the loop turns."""
    words = "alive" if alive else f"not alive: the loop has stood still for more than {ALIVE_SECONDS:.0f} s"
    return _told(alive, {"alive": alive, "summary": words}, words, accept)


def ready(report: dict[str, Any], accept: str) -> Answer:
    """State and readiness of a report."""
    told = {name: report[name] for name in ("state", "ready", "summary", "since")}
    return _told(report["ready"], told, report["summary"], accept)


def _told(good: bool, told: dict[str, object], words: str, accept: str) -> Answer:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return text(words, status) if prefers_text(accept) else json(told, status)


def prefers_text(accept: str) -> bool:
    """Whether a client asks for plain text, and not for JSON."""
    kinds = {kind.partition(";")[0].strip().lower() for kind in accept.split(",")}
    return "text/plain" in kinds and "application/json" not in kinds
