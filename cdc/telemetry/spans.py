"""Spans: what a tracer is told of each event, from its commit in PostgreSQL to Kafka's confirmation.

The road itself knows nothing of tracing: the encoding, and what becomes of poison, are exchanged for ones that tell.
Without a tracer nothing is exchanged, and nothing costs anything. With one, every row goes the general road.
<https://www.w3.org/TR/trace-context/>
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from cdc.errors import PoisonEvent
from cdc.outbox.events import TRACE_COLUMNS, Event
from cdc.records.dead_letters import HEADER_PREFIX
from cdc.records.encoding import DeadLetters, Encoder, Encoding
from cdc.records.record import Delivered, Headers, Record
from cdc.replication.transactions import Row

TRACEPARENT, TRACESTATE = TRACE_COLUMNS
_NAMES: Final = frozenset(TRACE_COLUMNS)


class Facts(NamedTuple):
    """What is known of a span when it begins."""

    topic: str  # empty: it cannot be told
    id: str
    type: str
    position: str
    timestamp: int  # of the commit, milliseconds since 1970
    size: int | None  # of the value, bytes


class Span(Protocol):
    """One event's. None of this ever fails; a span that does not end is not exported."""

    @property
    def follows(self) -> bool:
        """Whether the carrier had a trace context; then the span is a part of that trace."""
        ...

    @property
    def traceparent(self) -> str:
        """Itself, for what comes after it."""
        ...

    @property
    def tracestate(self) -> str:
        """What a trace that begins here has beside it; may be empty."""
        ...

    def end(self, error: object, message: object) -> None:
        """As the delivery report has it."""
        ...

    def refuse(self, poison: PoisonEvent) -> None:
        """It has failed whatever its end says."""
        ...


class Tracer(Protocol):
    """Makes spans."""

    def begin(self, facts: Facts, carrier: Mapping[str, str]) -> Span | None:
        """Begin at the commit, under the trace context of the carrier; None when it is not sampled. Never fails."""
        ...


class TracedEncoding(Encoding):
    """Makes records that continue the traces of their rows, and end spans when they are delivered."""

    def __init__(self, tracer: Tracer, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._tracer = tracer

    def record(self, event: Event) -> Record:
        """See `Encoding.record`."""
        record = super().record(event)
        size = None if record.value is None else len(record.value)
        facts = Facts(record.topic, event.id, event.type, self._outbox.position(event.row), record.timestamp, size)
        carrier = _carrier(event.headers)
        span = self._tracer.begin(facts, carrier)
        if span is None:
            return record
        record = record._replace(on_delivery=_reporting(record.on_delivery, span))
        if TRACEPARENT in carrier and not span.follows:
            return record  # what the row has instead of a trace context stays as it is
        return record._replace(headers=_continued(record.headers, span, carrier))

    def route(self, event: Event) -> tuple[Encoder | None, bytes] | None:  # noqa: ARG002 - each has its own headers
        """None: no row takes the short way."""
        return None


class TracedPoison:
    """What becomes of poison, with a span that says so. Without `dead_letters` it stays poison."""

    def __init__(self, tracer: Tracer, dead_letters: DeadLetters | None) -> None:
        self._tracer = tracer
        self._dead_letters = dead_letters

    def record(self, row: Row, event: Event | None, poison: PoisonEvent) -> Record:
        """The dead letter, which keeps the row's own trace context. Raises the poison when there are none."""
        if self._dead_letters is None:
            self._refuse(row, event, poison)
            raise poison
        letter = self._dead_letters.record(row, event, poison)
        facts = Facts(
            letter.topic,
            poison.event_id,
            event.type if event else "",
            poison.position,
            letter.timestamp,
            None if letter.value is None else len(letter.value),
        )
        span = self._tracer.begin(facts, _carrier(letter.headers, HEADER_PREFIX))
        if span is None:
            return letter
        span.refuse(poison)
        return letter._replace(on_delivery=_reporting(letter.on_delivery, span))

    def _refuse(self, row: Row, event: Event | None, poison: PoisonEvent) -> None:
        topic, event_type = (event.topic, event.type) if event else ("", "")
        facts = Facts(topic, poison.event_id, event_type, poison.position, row.transaction.timestamp, None)
        span = self._tracer.begin(facts, _carrier(event.headers if event else []))
        if span:
            span.refuse(poison)
            span.end(None, None)


def encoding(tracer: Tracer | None) -> Callable[..., Encoding]:
    """What makes an encoding."""
    return functools.partial(TracedEncoding, tracer) if tracer else Encoding


def refusals(tracer: Tracer | None, dead_letters: DeadLetters | None) -> DeadLetters | None:
    """What becomes of poison."""
    return TracedPoison(tracer, dead_letters) if tracer else dead_letters


def _carrier(headers: Iterable[tuple[str, object]], prefix: str = "") -> dict[str, str]:
    """The trace context among headers."""
    named = ((name.removeprefix(prefix), value) for name, value in headers if name.startswith(prefix))
    return {name: value for name, value in named if name in _NAMES and isinstance(value, str)}


def _continued(headers: Headers, span: Span, carrier: Mapping[str, str]) -> Headers:
    context: Headers = [(TRACEPARENT, span.traceparent)]
    tracestate = carrier.get(TRACESTATE) if span.follows else span.tracestate
    if tracestate:
        context.append((TRACESTATE, tracestate))
    return [header for header in headers if header[0] not in _NAMES] + context


def _reporting(report: Delivered, span: Span) -> Delivered:
    def both(error: object, message: object) -> None:
        report(error, message)  # first: the ledger depends on it
        span.end(error, message)

    return both
