"""Events that cannot be published, kept in a topic of their own: what a dead letter is, and how it is read back.

| part      | value                                                                                              |
|-----------|----------------------------------------------------------------------------------------------------|
| key       | the event's key; null when it cannot be read                                                       |
| value     | the payload as it stands in the row: text, or what bytea holds; null when that is null; the whole  |
|           | message when that cannot be read                                                                   |
| timestamp | commit time of the transaction, milliseconds                                                       |
| headers   | `id`, `eventType`, `cdc-position`; `cdc-topic`, `cdc-aggregate`, `cdc-payload` (json, avro, null), |
|           | `cdc-error-class`, `cdc-error-message`; `cdc-timestamp` where the event's record has another time, |
|           | milliseconds since 1970; `cdc-header-NAME` for each further header of the event                    |

What cannot be read of a broken row is empty. A record of the same key and position with the header `cdc-replayed`
and no value is a marker: the event was sent to its topic after all.
"""

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from cdc.errors import PoisonEvent, ProtocolError
from cdc.outbox.columns import Shape
from cdc.outbox.events import Event, Outbox, PayloadKind, payload_kind
from cdc.outbox.topic_template import is_topic_name
from cdc.records.headers import ID, POSITION, REPLAYED, TYPE, Position
from cdc.records.record import Headers, Record
from cdc.replication import values
from cdc.replication.transactions import Row

log = logging.getLogger(__name__)

TOPIC, AGGREGATE, PAYLOAD = "cdc-topic", "cdc-aggregate", "cdc-payload"
ERROR_CLASS, ERROR_MESSAGE = "cdc-error-class", "cdc-error-message"
TIME: Final = "cdc-timestamp"
HEADER_PREFIX: Final = "cdc-header-"
NULL: Final = "null"
_KINDS: Final[dict[str, PayloadKind]] = {"text": "text", "avro": "avro"}

_LONGEST_MESSAGE: Final = 1000
_DIGITS: Final = 19  # of a number of 64 bits

T = TypeVar("T")


class DeadLetters:
    """Makes records for `topic` of the rows that `outbox` or the encoding refuses; with `only`, of these positions."""

    def __init__(self, topic: str, outbox: Outbox, only: Collection[str] | None = None) -> None:
        self._topic = topic
        self._outbox = outbox
        self._only = only
        self._logged = ""

    def takes(self, poison: PoisonEvent) -> bool:
        """Return whether this event becomes a dead letter."""
        return self._only is None or poison.position in self._only

    def record(self, row: Row, event: Event | None, poison: PoisonEvent) -> Record:
        """The record that keeps a row for later; `event` is None when the row cannot be read as one. Never fails."""
        if event is None and poison.kind == "too-large":
            read = _Read.of_message(row)  # its length alone was looked at
        else:
            read = _Read.of_event(event) if event else _Read.of_row(row, self._outbox)
        position = self._outbox.position(row)
        if position != self._logged:  # the same row is asked for again while its topic is not known
            self._logged = position
            log.warning(
                "an event became a dead letter: %s",
                poison.reason,
                extra={
                    "event": "dead_lettered",
                    "id": read.id,
                    "type": read.type,
                    "position": position,
                    "error": poison.kind,
                },
            )
        headers: Headers = [
            (ID, read.id),
            (TYPE, read.type),
            (POSITION, position),
            (TOPIC, read.topic),
            (AGGREGATE, read.aggregate),
            (PAYLOAD, NULL if read.payload is None else read.payload_kind),
            (ERROR_CLASS, poison.kind),
            (ERROR_MESSAGE, _shortened(poison.reason)),
            *([] if read.time is None else [(TIME, str(read.time))]),
            *((f"{HEADER_PREFIX}{name}", value) for name, value in read.headers),
        ]
        transaction = row.transaction
        return Record.to(self._topic, read.key, read.payload, transaction.timestamp, headers, transaction.report)


class _Read(NamedTuple):
    """What could be read of a row."""

    id: str
    type: str
    topic: str
    aggregate: str
    key: bytes | None
    payload: bytes | None
    payload_kind: PayloadKind
    headers: list[tuple[str, str | None]]  # None: there is a value, but it cannot be read
    time: int | None = None

    @classmethod
    def of_event(cls, event: Event) -> "_Read":
        return cls(
            event.id,
            event.type,
            event.topic,
            event.aggregate,
            event.key,
            event.payload,
            event.payload_kind,
            [header for header in event.headers if header[1] is not None],  # None means that it cannot be read
            event.time,
        )

    @classmethod
    def of_message(cls, row: Row) -> "_Read":
        return cls("", "", "", "", None, row.data.cells[0], "text", [])

    @classmethod
    def of_row(cls, row: Row, outbox: Outbox) -> "_Read":
        try:
            row = outbox.plain(row)
        except ValueError:
            return cls.of_message(row)
        columns, shape = outbox.columns, outbox.shape(row.relation)
        row_cells = _Cells(row, shape)
        column_of = dict(shape.topic)
        topic = outbox.template.fill(lambda name: row_cells.text(column_of[name])) or ""
        payload, kind = row_cells.payload(columns.payload)
        return cls(
            row_cells.text(columns.id) or "",
            row_cells.text(columns.type) or "",
            topic if is_topic_name(topic) else "",
            row_cells.text(columns.aggregate) or "",
            row_cells.read(columns.key, outbox.keys.reader),
            payload,
            kind,
            [
                (name, row_cells.read(shape.names[place], values.to_iso if name in outbox.iso else values.to_text))
                for name, place in shape.headers
                if row_cells.has(shape.names[place])
            ],
        )


class _Cells:
    """The cells of a row by the names of their columns, read without ever failing."""

    def __init__(self, row: Row, shape: Shape) -> None:
        self._found = dict(zip(shape.names, zip(shape.types, *row.data, strict=False), strict=False))

    def has(self, name: str) -> bool:
        """Whether there is a value."""
        return name in self._found and self._found[name][1] in b"bt"

    def text(self, name: str) -> str | None:
        """A cell as text; None when there is none, or none that can be read."""
        return self.read(name, values.to_text)

    def read(self, name: str, decoder: Callable[[int, bool], Callable[[bytes], T] | None]) -> T | None:
        """A cell by its decoder, or None likewise."""
        if not self.has(name):
            return None
        type_oid, kind, cell = self._found[name]
        decode = decoder(type_oid, kind == ord("b"))
        try:
            return decode(cell) if decode else None
        except (ValueError, ProtocolError):
            return None

    def payload(self, name: str) -> tuple[bytes | None, PayloadKind]:
        """The payload, and its kind: the bytes of the cell itself when they cannot be read as its type."""
        if not self.has(name):
            return None, "json"
        type_oid, _, cell = self._found[name]
        read = self.read(name, values.to_payload)
        return (cell if read is None else read), payload_kind(type_oid)


def _shortened(message: str) -> str:
    # A lone surrogate, as a JSON escape may make one, has no UTF-8.
    message = message.encode(errors="replace").decode()
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"


class DeadLetter(NamedTuple):
    """A dead letter that was read back."""

    position: str
    id: str
    type: str
    topic: str  # where the event would have gone
    aggregate: str
    key: bytes | None
    timestamp: int
    error: str  # the class
    message: str
    payload: bytes | None
    payload_kind: PayloadKind
    headers: list[tuple[str, str | None]]
    time: int | None = None  # of the event's record, where that is not the commit's

    @property
    def payload_is_avro(self) -> bool:
        """Whether it is what bytea holds; otherwise it is text."""
        return self.payload_kind == "avro"


class Marker(NamedTuple):
    """What says that a dead letter was replayed; `at` is ISO 8601."""

    position: str
    at: str


def read(
    key: bytes | None, value: bytes | None, timestamp: int, headers: Iterable[tuple[str, bytes | None]]
) -> DeadLetter | Marker | None:
    """A record of the topic, or None for a record of another program."""
    given = list(headers)
    by_name = {name: (text or b"").decode(errors="replace") for name, text in reversed(given)}
    position = by_name.get(POSITION, "")
    if Position.parse(position) is None:
        return None
    if REPLAYED in by_name:
        return Marker(position, by_name[REPLAYED])
    if ERROR_CLASS not in by_name:
        return None
    return DeadLetter(
        position=position,
        id=by_name.get(ID, ""),
        type=by_name.get(TYPE, ""),
        topic=by_name.get(TOPIC, ""),
        aggregate=by_name.get(AGGREGATE, ""),
        key=key,
        timestamp=timestamp,
        error=by_name[ERROR_CLASS],
        message=by_name.get(ERROR_MESSAGE, ""),
        payload=None if by_name.get(PAYLOAD) == NULL else value,
        payload_kind=_KINDS.get(by_name.get(PAYLOAD, ""), "json"),
        headers=[
            (name.removeprefix(HEADER_PREFIX), text if text is None else text.decode(errors="replace"))
            for name, text in given
            if name.startswith(HEADER_PREFIX)
        ],
        time=int(time) if (time := by_name.get(TIME, "")).isdecimal() and len(time) < _DIGITS else None,
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters are asked for; None and nothing mean all."""

    ids: frozenset[str] = frozenset()  # ids of events, or positions
    since: int | None = None  # milliseconds since 1970, by commit time
    until: int | None = None
    type: str | None = None
    key: str | None = None
    topic: str | None = None
    error: str | None = None  # the class, or a part of the message in any case

    def matches(self, letter: DeadLetter) -> bool:
        """Whether this one is."""
        return (
            (not self.ids or letter.id in self.ids or letter.position in self.ids)
            and (self.since is None or letter.timestamp >= self.since)
            and (self.until is None or letter.timestamp <= self.until)
            and self.type in (None, letter.type)
            and (self.key is None or letter.key == self.key.encode())
            and self.topic in (None, letter.topic)
            and (self.error is None or self.error == letter.error or self.error.lower() in letter.message.lower())
        )
