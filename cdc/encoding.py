"""Events to Kafka records: key, value by contract, headers, timestamp.

| part      | value                                                             |
|-----------|-------------------------------------------------------------------|
| key       | the key column, UTF-8                                             |
| value     | Avro body of the event type's contract, framed; bytea as it is    |
| timestamp | commit time of the transaction, milliseconds                      |
| headers   | `id`, `eventType`, `cdc-position`, then those of named columns    |
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from cdc.errors import PoisonEvent
from cdc.outbox import Event, Outbox

Headers = list[tuple[str, str | bytes | None]]

Delivered = Callable[[object, object], None]
"""Called once for each record, with None or the error, and the client library's message."""


class Record(NamedTuple):
    """One Kafka record, and whom to tell how its delivery ended."""

    topic: str
    key: bytes
    value: bytes
    timestamp: int  # milliseconds since 1970
    headers: Headers
    on_delivery: Delivered


class Encoder(Protocol):
    """Encodes the payloads of one event type."""

    def encode(self, payload: bytes) -> bytes:
        """JSON text to a framed value. Raises ValueError when it does not fit."""
        ...


class Encoders(Protocol):
    """Encoders by event type."""

    def get(self, event_type: str, /) -> Encoder | None:
        """The encoder, or None when the type has no contract."""
        ...

    def missing(self, event_type: str) -> str:
        """Why there is none."""
        ...


class Encoding:
    """Makes records of events."""

    def __init__(self, outbox: Outbox, encoders: Encoders) -> None:
        self._outbox = outbox
        self._encoders = encoders

    def record(self, event: Event) -> Record:
        """Encode one event. Raises PoisonEvent when there is no contract or the payload does not fit it."""
        position = self._outbox.position(event.row)
        try:
            value = event.payload if event.payload_is_avro else self._encode(event)
        except ValueError as error:
            raise PoisonEvent(str(error), position=position, event_id=event.id) from None
        headers: Headers = [("id", event.id), ("eventType", event.type), ("cdc-position", position), *event.headers]
        transaction = event.row.transaction
        return Record(event.topic, event.key, value, transaction.timestamp, headers, transaction.report)

    def _encode(self, event: Event) -> bytes:
        encoder = self._encoders.get(event.type)
        if encoder is None:
            raise ValueError(self._encoders.missing(event.type))
        try:
            return encoder.encode(event.payload)
        except ValueError as error:
            raise ValueError(f"{event.type} {error}") from None
