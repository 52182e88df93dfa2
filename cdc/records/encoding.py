"""Events to Kafka records: key, value by contract, headers, timestamp.

| part      | value                                                                                           |
|-----------|-------------------------------------------------------------------------------------------------|
| key       | the key column, UTF-8; none when it is null                                                     |
| value     | Avro body of the event type's contract, framed; or its JSON, or the payload; bytea as it is     |
| timestamp | commit time of the transaction, or the column of `[record] timestamp`, milliseconds             |
| headers   | `id`, `eventType`, `cdc-position`, `content-type` of JSON and text, then those of named columns |
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from cdc.errors import PoisonEvent, Unfit
from cdc.outbox.events import Event, Outbox
from cdc.records.headers import ID, POSITION, TYPE
from cdc.records.record import Headers, Record
from cdc.records.router import AVRO, Encoder, Encoders, Framing, Route, Router, Values
from cdc.replication.transactions import Row


class Topics(Protocol):
    """The known limits and partitions of topics."""

    @property
    def changes(self) -> int:
        """How often something that was known has ceased to be true."""
        ...

    def largest(self, topic: str, /) -> int | None:
        """How many bytes a record batch of the topic may have; None while it is not known that the topic exists.

        Never waits. Raises Unfit when the topic cannot be used and others may be, KafkaError when none can,
        KafkaUnavailable when the session must end.
        """
        ...

    @property
    def most(self) -> int:
        """How many bytes a record batch may have in any topic."""
        ...

    @property
    def refused(self) -> Mapping[str, str]:
        """The rows, by their header `cdc-position`, whose records Kafka refused, and why; nearly always empty."""
        ...

    def partitions(self, topic: str, /) -> int | None:
        """How many partitions a topic has; None while that is not known."""
        ...


class Encoding:
    """Makes records of events.

    `envelope` encodes events whose type has no contract; without it they are poison. `frame_bytea` says that bytea
    payloads are bare Avro bodies, to be framed like encoded ones. `examine` is called with event type and Avro body of
    the first events of each type, until it returns that it has seen enough. `values` are the kinds of values by type.
    """

    def __init__(
        self,
        outbox: Outbox,
        encoders: Encoders,
        framing: Framing,
        *,
        envelope: Encoder | None = None,
        frame_bytea: bool = False,
        examine: Callable[[str, bytes], bool] | None = None,
        values: Values = AVRO,
    ) -> None:
        self._outbox = outbox
        self._router = Router(encoders, framing, envelope=envelope, frame_bytea=frame_bytea, values=values)
        self._values = values
        self._examine = examine
        self._examined: set[str] = set()  # event types

    def record(self, event: Event) -> Record:
        """Encode one event.

        Raises PoisonEvent when there is no contract or the payload does not fit it, Pending when the schema's
        id is not known yet.
        """
        position = self._outbox.position(event.row)
        headers: Headers = [(ID, event.id), (TYPE, event.type), (POSITION, position)]
        value = None
        try:
            if event.payload is not None:
                route = self._router.route(event)
                headers += route.headers
                value = self._value(event, event.payload, route)
            elif not self._outbox.tombstones:
                self._router.without_value(event)
        except ValueError as error:
            kind = error.kind if isinstance(error, Unfit) else "payload-mismatch"
            of_column = f"column {self._outbox.columns.payload!r} " if kind == "unreadable-row" else ""
            raise PoisonEvent(f"{of_column}{error}", position=position, event_id=event.id, kind=kind) from None
        headers += event.headers
        return Record.to(event.topic, event.key, value, event.timestamp, headers, event.row.transaction.report)

    def shared(self, event: Event) -> Route | None:
        """Return the route of an event that was encoded, if others on it are encoded by their payloads alone."""
        if event.payload is None:
            return None
        route = self._router.route(event)
        return None if route.enveloped or self._examines(event, route) else route

    def _examines(self, event: Event, route: Route) -> bool:
        return (
            self._examine is not None
            and route.encode is not None
            and event.type not in self._examined
            and self._values.of(event.type) == "avro"
        )

    def _value(self, event: Event, payload: bytes, route: Route) -> bytes:
        if route.enveloped:
            assert self._router.envelope
            return self._router.envelope.encode_value(_enveloped(event, payload), route.header)
        if route.encode is None:
            return route.header + payload
        try:
            value = route.encode(payload, route.header)
        except Unfit:
            raise
        except ValueError as error:
            raise ValueError(f"{event.type} {error}") from None
        if self._examine and self._examines(event, route) and self._examine(event.type, value[len(route.header) :]):
            self._examined.add(event.type)
        return value


def _enveloped(event: Event, payload: bytes) -> dict[str, object]:
    """The event as `schemas/cdc/Envelope.avsc` describes it."""
    return {
        "id": event.id,
        "type": event.type,
        "aggregate": event.aggregate,
        "key": (event.key or b"").decode(),
        "payload": payload.decode(),
        "headers": {name: text for name, text in event.headers if text is not None},
        "committed_at": event.row.transaction.timestamp,
    }


class DeadLetters(Protocol):
    """What becomes of events that cannot be published as they should."""

    def takes(self, poison: PoisonEvent) -> bool:
        """Whether this event becomes a dead letter; otherwise it stays poison."""
        ...

    def record(self, row: Row, event: Event | None, poison: PoisonEvent) -> Record:
        """The record that keeps a row for later; `event` is what could be read of it."""
        ...
