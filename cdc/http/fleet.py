"""Answers for an instance of a fleet: one page, one `/status`, one `/metrics` for all of its units."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus

from prometheus_client.core import Metric

from cdc.http import answers, probes
from cdc.http.answers import Answer
from cdc.http.application import Routes
from cdc.http.page import Page
from cdc.http.prometheus import Exposition, families, fleet_families, labelled
from cdc.status.fleet import FleetDocument, UnitState
from cdc.telemetry.metrics import Figures

View = tuple[FleetDocument, Mapping[str, Figures]]
"""The document, and the figures of each unit that runs here."""


class FleetApplication(Routes):
    """Answers with the latest view that the loop has left; `alive` says whether the loop turns."""

    def __init__(self, view: Callable[[], View], alive: Callable[[], bool]) -> None:
        self._view = view
        self._alive = alive
        self._page = Page("fleet")
        self._exposition = Exposition(self._families)
        super().__init__(
            {
                "/": lambda _: self._page.answer,
                "/livez": lambda accept: probes.live(self._alive(), accept),
                "/readyz": self._ready,
                "/status": lambda _: answers.json(self._view()[0].served()),
                "/metrics": self._exposition.answer,
            }
        )

    def _ready(self, accept: str) -> Answer:
        document = self._view()[0]
        status = HTTPStatus.OK if document.ready else HTTPStatus.SERVICE_UNAVAILABLE
        if probes.prefers_text(accept):
            return answers.text(document.summary, status)
        return answers.json({"ready": document.ready, "summary": document.summary}, status)

    def _families(self) -> Iterator[Metric]:
        document, figures = self._view()
        publishers = {
            name: families(unit.status, figures[name])
            for name, unit in document.units.items()
            if unit.status and name in figures
        }
        yield from labelled(publishers)
        states = Counter({state.value: 0 for state in UnitState})
        states.update(unit.state.value for unit in document.units.values())
        elsewhere = (UnitState.ELSEWHERE, UnitState.UNREGISTERED)
        assigned = {
            name: unit.state not in elsewhere for name, unit in document.units.items() if unit.partition is not None
        }
        yield from fleet_families(states, assigned, ready=document.ready, joined=document.joined)
