"""Answers each path of the HTTP endpoint."""

import logging
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from cdc.http import answers, probes
from cdc.http.answers import Answer
from cdc.http.page import Page
from cdc.http.prometheus import Exposition, families
from cdc.status.document import StatusDocument
from cdc.status.from_metrics import PublisherIdentity, describe
from cdc.telemetry.health import ALIVE_SECONDS, alive
from cdc.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

METHODS: Final = ("GET", "HEAD")


class Routes:
    """Answers requests from any thread; a route takes the value of the Accept header."""

    def __init__(self, routes: Mapping[str, Callable[[str], Answer]]) -> None:
        self._routes = routes

    def answer(self, method: str, path: str, accept: str) -> Answer:
        """Answer a request; `accept` is the value of its Accept header."""
        route = self._routes.get(path)
        if route is None:
            message = f"Not found. The paths are: {', '.join(self._routes)}"
            return answers.text(message, HTTPStatus.NOT_FOUND)
        if method not in METHODS:
            return answers.text(
                "Only GET and HEAD are allowed.", HTTPStatus.METHOD_NOT_ALLOWED, Allow=", ".join(METHODS)
            )
        try:
            return route(accept)
        except Exception:
            log.exception("no answer could be made for %s", path, extra={"event": "http_answer_failed"})
            return answers.text("an internal error; see the log", HTTPStatus.INTERNAL_SERVER_ERROR)


class Application(Routes):
    """Answers for one publisher."""

    def __init__(self, metrics: Metrics, identity: PublisherIdentity) -> None:
        self._metrics = metrics
        self._identity = identity
        self._born = time.monotonic()
        self._exposition = Exposition(lambda: families(self._document(), metrics.figures))
        self._page = Page()
        routes: Mapping[str, Callable[[str], Answer]] = {
            "/": lambda _: self._page.answer,
            "/livez": lambda accept: probes.live(self._alive(), accept),
            "/readyz": lambda accept: probes.ready(self._document(), accept),
            "/status": lambda _: answers.json(self._document().served()),
            "/metrics": self._exposition.answer,
        }
        super().__init__(routes)

    def _document(self) -> StatusDocument:
        return describe(self._metrics, self._identity, time.time())

    def _alive(self) -> bool:
        now = time.monotonic()
        # Starting the program takes a while before the first turn.
        return alive(self._metrics, now) or now - self._born < ALIVE_SECONDS
