"""Spans: one per event, from its commit in PostgreSQL to Kafka's confirmation.

The delivery itself does not know about tracing: the encoding and the handler of poison events are replaced by traced
ones. Without a tracer they are not replaced and cost nothing. With one, every row takes the general path.
<https://www.w3.org/TR/trace-context/>
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from cdc.errors import PoisonEvent
from cdc.outbox.columns import TRACE_COLUMNS
from cdc.outbox.events import Event
from cdc.records.dead_letters import HEADER_PREFIX
from cdc.records.encoding import DeadLetters, Encoding
from cdc.records.record import Delivered, Headers, Record
from cdc.records.router import Route
from cdc.replication.transactions import Row

TRACEPARENT, TRACESTATE = TRACE_COLUMNS
_NAMES: Final = frozenset(TRACE_COLUMNS)


class SpanFacts(NamedTuple):
    """Facts of an event that are known when its span begins."""

    topic: str  # empty: unknown
    id: str
    type: str
    position: str
    timestamp: int  # of the commit, milliseconds since 1970
    size: int | None  # of the value, bytes


class Span(Protocol):
    """Span of one event. Its methods never raise; a span that does not end is not exported."""

    @property
    def follows(self) -> bool:
        """Whether the carrier had a trace context, whose trace the span is then a part of."""
        ...

    @property
    def traceparent(self) -> str:
        """Context of this span, for spans that follow it."""
        ...

    @property
    def tracestate(self) -> str:
        """State of a trace that begins with this span; may be empty."""
        ...

    def end(self, error: object, message: object) -> None:
        """End the span with the arguments of a delivery report."""
        ...

    def refuse(self, poison: PoisonEvent) -> None:
        """Mark the span as failed, regardless of its delivery report."""
        ...


class Tracer(Protocol):
    """Makes spans."""

    def begin(self, facts: SpanFacts, carrier: Mapping[str, str]) -> Span | None:
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
        committed = event.row.transaction.timestamp
        facts = SpanFacts(record.topic, event.id, event.type, self._outbox.position(event.row), committed, size)
        carrier = _carrier(event.headers)
        span = self._tracer.begin(facts, carrier)
        if span is None:
            return record
        record = record._replace(on_delivery=_reporting(record.on_delivery, span))
        if TRACEPARENT in carrier and not span.follows:
            return record  # an invalid trace context of the row is kept
        return record._replace(headers=_continued(record.headers, span, carrier))

    def shared(self, event: Event) -> Route | None:  # noqa: ARG002 - each has its own headers
        """Return None: every row takes the general path."""
        return None


class TracedPoison:
    """Makes dead letters of poison events, with a span marked as failed; without `dead_letters` they stay poison."""

    def __init__(self, tracer: Tracer, dead_letters: DeadLetters | None) -> None:
        self._tracer = tracer
        self._dead_letters = dead_letters

    def takes(self, poison: PoisonEvent) -> bool:  # noqa: ARG002 - `record` decides, so that it can end the span
        """Return True."""
        return True

    def record(self, row: Row, event: Event | None, poison: PoisonEvent) -> Record:
        """Make the dead letter, with the row's own trace context. Raises the poison event without `dead_letters`."""
        if self._dead_letters is None or not self._dead_letters.takes(poison):
            self._refuse(row, event, poison)
            raise poison
        letter = self._dead_letters.record(row, event, poison)
        facts = SpanFacts(
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
        facts = SpanFacts(topic, poison.event_id, event_type, poison.position, row.transaction.timestamp, None)
        span = self._tracer.begin(facts, _carrier(event.headers if event else []))
        if span:
            span.refuse(poison)
            span.end(None, None)


def encoding(tracer: Tracer | None) -> Callable[..., Encoding]:
    """Return the class of the encoding, traced if there is a tracer."""
    return functools.partial(TracedEncoding, tracer) if tracer else Encoding


def refusals(tracer: Tracer | None, dead_letters: DeadLetters | None) -> DeadLetters | None:
    """Return the handler of poison events, traced if there is a tracer."""
    return TracedPoison(tracer, dead_letters) if tracer else dead_letters


def _carrier(headers: Iterable[tuple[str, object]], prefix: str = "") -> dict[str, str]:
    """Return the trace context among headers."""
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
