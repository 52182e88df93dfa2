"""Events to Kafka records: key, value by contract, headers, timestamp.

| part      | value                                                             |
|-----------|-------------------------------------------------------------------|
| key       | the key column, UTF-8; none when it is null                       |
| value     | Avro body of the event type's contract, framed; bytea as it is    |
| timestamp | commit time of the transaction, milliseconds                      |
| headers   | `id`, `eventType`, `cdc-position`, then those of named columns    |
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal, Protocol

from cdc.errors import CdcError, Everywhere, PoisonEvent, Unfit
from cdc.outbox.events import Event, Outbox
from cdc.records.headers import ID, POSITION, TYPE
from cdc.records.record import Headers, Record
from cdc.replication.transactions import Row

_KNOWN: Final = 10_000  # a topic template may hold a column of many values: what is known must not grow with them


class Encoder(Protocol):
    """Encodes by one contract, of which `name` is the full name."""

    name: str

    @property
    def plan(self) -> bytes | None:
        """The same for the native accelerator, if it can do the same: see `cdc.avro.compiled.plan`."""
        ...

    def encode(self, payload: bytes, header: bytes) -> bytes:
        """JSON text to `header` and Avro body. Raises ValueError when it does not fit."""
        ...

    def encode_value(self, value: object, header: bytes) -> bytes:
        """The same for a JSON value that is parsed already."""
        ...


class Encoders(Protocol):
    """Encoders by event type."""

    def get(self, event_type: str, /) -> Encoder | None:
        """The encoder, or None when the type has no contract."""
        ...

    def asks_again(self, event_type: str) -> bool:
        """Whether an unknown type is still being looked for, so that its event has to wait."""
        ...

    def missing(self, event_type: str) -> str:
        """Why there is none."""
        ...


class Framing(Protocol):
    """What stands before each Avro body."""

    def header(self, topic: str, contract: str) -> bytes | None:
        """The header for bodies of `contract` in `topic`; None while it is not known yet. Never waits."""
        ...

    def close(self) -> None:
        """Stop finding out."""
        ...


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
    def refused(self) -> Mapping[str, str]:
        """The rows, by their header `cdc-position`, whose records Kafka refused, and why; nearly always empty."""
        ...

    def partitions(self, topic: str, /) -> int | None:
        """How many partitions a topic has; None while that is not known."""
        ...


class Pending(Exception):
    """The id of the event's schema, or its topic, is not known yet: try the same event again.

    `waits_for` says who has to answer: `kafka` or `registry`.
    """

    def __init__(self, waits_for: Literal["kafka", "registry"] = "kafka") -> None:
        self.waits_for = waits_for
        super().__init__(waits_for)


class Encoding:
    """Makes records of events.

    `envelope` encodes events whose type has no contract; without it they are poison. `frame_bytea` says that bytea
    payloads are bare Avro bodies, to be framed like encoded ones. `examine` is called with event type and Avro body of
    the first events of each type, until it returns that it has seen enough.
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
    ) -> None:
        self._outbox = outbox
        self._encoders = encoders
        self._framing = framing
        self._envelope = envelope
        self._frame_bytea = frame_bytea
        self._examine = examine
        self._examined: set[str] = set()  # event types
        self._known: dict[tuple[str, str], tuple[Encoder, bytes]] = {}

    def record(self, event: Event) -> Record:
        """Encode one event.

        Raises PoisonEvent when there is no contract or the payload does not fit it, Pending when the schema's
        id is not known yet.
        """
        position = self._outbox.position(event.row)
        try:
            value = self._value(event)
        except ValueError as error:
            kind = error.kind if isinstance(error, Unfit) else "payload-mismatch"
            raise PoisonEvent(str(error), position=position, event_id=event.id, kind=kind) from None
        headers: Headers = [(ID, event.id), (TYPE, event.type), (POSITION, position), *event.headers]
        transaction = event.row.transaction
        return Record.to(event.topic, event.key, value, transaction.timestamp, headers, transaction.report)

    def route(self, event: Event) -> tuple[Encoder | None, bytes] | None:
        """What encodes the payloads of events like one that was encoded, and what stands before their bodies.

        No encoder: they are passed through. None: each is encoded in its own way.
        """
        if event.payload_is_avro and not self._frame_bytea:
            return None, b""
        known = self._known.get((event.type, event.topic))
        if known is None or (known[0] is self._envelope and not event.payload_is_avro):
            return None
        if event.payload_is_avro:
            return None, known[1]
        return known if self._examine is None or event.type in self._examined else None

    def _value(self, event: Event) -> bytes | None:
        payload = event.payload
        if payload is None or (event.payload_is_avro and not self._frame_bytea):
            return payload
        known = self._known.get((event.type, event.topic))
        if known is None:
            known = self._learn(event)
        encoder, header = known
        if event.payload_is_avro:
            return header + payload
        if encoder is self._envelope:
            return encoder.encode_value(_enveloped(event, payload), header)
        try:
            value = encoder.encode(payload, header)
        except ValueError as error:
            raise ValueError(f"{event.type} {error}") from None
        if self._examine and event.type not in self._examined and self._examine(event.type, value[len(header) :]):
            self._examined.add(event.type)
        return value

    def _learn(self, event: Event) -> tuple[Encoder, bytes]:
        encoder = self._encoders.get(event.type)
        if encoder is None:
            if self._encoders.asks_again(event.type):
                raise Pending("registry")
            encoder = self._encoders.get(event.type) or self._envelope
        if encoder is None:
            raise Unfit("contract-missing", self._encoders.missing(event.type))
        try:
            header = self._framing.header(event.topic, encoder.name)
        except Everywhere:
            raise
        except CdcError as error:
            # No consumer could read the record, so the event is poison, like one that does not fit.
            raise Unfit("schema-refused", f"{event.type} has no schema id: {error}") from None
        if header is None:
            raise Pending("registry")
        if len(self._known) >= _KNOWN:
            self._known.clear()
        known = self._known[event.type, event.topic] = encoder, header
        return known


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

    def record(self, row: Row, event: Event | None, poison: PoisonEvent) -> Record:
        """The record that keeps a row for later; `event` is what could be read of it."""
        ...
