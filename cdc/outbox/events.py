"""Convert outbox rows to events, by the shape of the relation that each row came under.

Reading is planned once per relation and combination of format bytes. Format bytes mark null cells, so a plan needs no
checks.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from cdc.errors import BinaryUnreadable, PoisonEvent, PostgresUnavailable, ProtocolError
from cdc.lsn import LSN
from cdc.outbox.columns import Columns, Header, Shape
from cdc.outbox.keys import TEXT_KEYS, Keys
from cdc.outbox.messages import ALONE, Members, Messages
from cdc.outbox.topic_template import TopicTemplate, is_topic_name
from cdc.replication.messages import Relation
from cdc.replication.moments import to_moment
from cdc.replication.transactions import MESSAGE, Row
from cdc.replication.values import BYTEA, JSON, JSONB, to_iso, to_payload, to_text

log = logging.getLogger(__name__)

SKIP: Final = "to pass it to the dead letters, run once: cdc-publisher start --skip"

_BINARY, _NULL, _UNCHANGED = b"bnu"

_MOST: Final = 1000
"""Relations whose shapes are remembered: of the outbox, of tables that inherit from it, and of messages."""

PayloadKind = Literal["json", "text", "avro"]
_KINDS: Final[dict[int, PayloadKind]] = {JSON: "json", JSONB: "json", BYTEA: "avro"}

T = TypeVar("T")


def payload_kind(type_oid: int) -> PayloadKind:
    """Return what the payload is by the type of its column: json and jsonb, text of any type, or bytea."""
    return _KINDS.get(type_oid, "text")


class Event(NamedTuple):
    """One outbox row as an event: topic, key, payload and headers of the record to be published."""

    row: Row
    id: str
    topic: str
    key: bytes | None  # None: the record has no key, and no order
    type: str
    aggregate: str
    payload: bytes | None  # None: null, or a tombstone
    payload_kind: PayloadKind
    headers: Sequence[tuple[str, str | None]]  # from columns, in addition to the publisher's own
    time: int | None = None  # from a column, in milliseconds since 1970

    @property
    def timestamp(self) -> int:
        """The time of its record: from its column, or where there is none that of the commit."""
        return self.row.transaction.timestamp if self.time is None else self.time

    @property
    def payload_is_avro(self) -> bool:
        """Whether it is bytea, which is sent unchanged as the record's value; otherwise it is text to encode."""
        return self.payload_kind == "avro"


class Outbox:
    """Converts rows, and messages that stand for rows, to events.

    `stream` is the first part of positions: 8 hexadecimal digits, see `position`. With `tombstones`, an empty payload
    means a record without a value. With `iso`, headers are ISO 8601 and base64, and a
    null is a header without a value; `keys` is the form of keys; `time` is the column with the time of records, in
    place of the commit's. At the LSN `suited_at` the table had every needed
    column: a later row that lacks one was written to a changed table, any other is itself at fault.
    """

    def __init__(
        self,
        stream: str,
        columns: Columns,
        template: TopicTemplate,
        headers: Sequence[Header] = (),
        *,
        tombstones: bool = False,
        suited_at: LSN | None = None,
        iso: bool = False,
        keys: Keys = TEXT_KEYS,
        time: str | None = None,
    ) -> None:
        self.stream = stream
        self.time = time
        self.keys = keys
        self.columns = columns
        self.template = template
        self.headers = tuple(headers)
        self.iso = frozenset(header.name for header in headers) if iso else frozenset()
        """The headers in ISO 8601 and base64."""
        self.tombstones = tombstones
        self._suited_at = suited_at
        self._without_time = False  # as was reported
        self._without: set[str] = set()  # the columns of these headers, each of which is reported once
        self._messages = Messages(columns, template, self.headers, time)
        self._shapes: dict[int, Shape] = {}  # by oid

    def shape(self, relation: Relation) -> Shape:
        """Return the shape of the rows that came under this relation; a layout or plan of it lives no longer."""
        shape = self._shapes.get(relation.oid)
        if shape is None or shape.relation is not relation:
            if len(self._shapes) >= _MOST:
                self._shapes.clear()
            shape = self._shapes[relation.oid] = Shape(relation, self.columns, self.template, self.headers)
            self._report(shape)
        return shape

    def plain(self, row: Row) -> Row:
        """Return a row as it is, and a message as the row that it stands for. Raises ValueError for a broken one."""
        return self._messages.row(row) if row.relation is MESSAGE else row

    def members(self, relation: Relation) -> Members | None:
        """Return which members the messages of a relation have; None if they are not plain, or it is of a table."""
        return self._messages.members(relation)

    def _report(self, shape: Shape) -> None:
        if self.time is not None and self.time not in shape.places and not self._without_time:
            self._without_time = True
            log.warning(
                "rows were written when %s did not publish column %r: their records have the time of the commit",
                shape.table,
                self.time,
                extra={"event": "commit_time_used", "column": self.time},
            )
        for name in sorted({*shape.without} - self._without):
            self._without.add(name)
            log.warning(
                "rows were written when %s did not publish column %r: their records lack this header",
                shape.table,
                name,
                extra={"event": "header_left_out", "column": name},
            )

    def event(self, row: Row) -> Event:
        """Convert one row, or one message.

        Raises PoisonEvent if it cannot be published, BinaryUnreadable if only its text can be read, PostgresUnavailable
        if the table has changed and has to be checked again.
        """
        alone = row.transaction.alone
        try:
            row = self.plain(row)
        except ValueError as error:
            raise self._broken(row, ALONE if alone else str(error), alone=alone) from None
        shape = self.shape(row.relation)
        if shape.missing and self._suited_at is not None and row.transaction.commit_lsn >= self._suited_at:
            raise PostgresUnavailable(f"{shape.table} does not publish column {shape.missing[0]!r} any more")
        formats, values = row.data
        plan = shape.plans.get(formats)
        if plan is None:
            plan = shape.plans[formats] = _Plan(shape, formats, self)
        event_id = ""
        try:
            event_id = plan.id.read(values[plan.id.place])
            if alone:
                raise self._broken(row, ALONE, event_id, alone=True)
            if plan.poison:
                raise ValueError(plan.poison)
            return Event(
                row,
                event_id,
                self._topic(plan, values),
                plan.key.read(values[plan.key.place]),
                plan.type.read(values[plan.type.place]),
                plan.aggregate.read(values[plan.aggregate.place]),
                self._payload(plan, values),
                plan.payload_kind,
                [(name, cell.read(values[cell.place])) for name, cell in plan.headers],
                plan.time.read(values[plan.time.place]),
            )
        except ValueError as error:
            reason = plan.culprit(values) if isinstance(error, UnicodeDecodeError) else str(error)
            raise PoisonEvent(reason, position=self.position(row), event_id=event_id, kind="unreadable-row") from None

    def _broken(self, row: Row, reason: str, event_id: str = "", *, alone: bool = False) -> PoisonEvent:
        position = self.position(row)
        return PoisonEvent(
            reason,
            position=position,
            event_id=event_id,
            kind="not-transactional" if alone else "unreadable-row",
            hint=f"{SKIP} {position}",
        )

    def position(self, row: Row) -> str:
        """Return an event's unique position, `{stream}-{commit_lsn}-{index}`: sortable as text within a stream."""
        return f"{self.stream}-{row.transaction.commit_lsn:016X}-{row.index:08X}"

    def _payload(self, plan: "_Plan", values: list[bytes]) -> bytes | None:
        payload = plan.payload.read(values[plan.payload.place])
        # Debezium's rule: null or only white space.
        return None if self.tombstones and payload is not None and (not payload or payload.isspace()) else payload

    def _topic(self, plan: "_Plan", values: list[bytes]) -> str:
        def text(name: str) -> str:
            cell = plan.topic[name]
            return cell.read(values[cell.place])

        topic = self.template.fill(text)
        if topic is None or not is_topic_name(topic):
            raise ValueError(f"{topic!r} is not a valid topic name")
        return topic


class _Cell(NamedTuple, Generic[T]):
    """A cell's index in the row, and the function that decodes it."""

    place: int
    read: Callable[[bytes], T]


class _Plan:
    """The decoders for rows of one shape in one combination of formats."""

    def __init__(self, shape: Shape, formats: bytes, outbox: Outbox) -> None:
        self._shape = shape
        self._formats = formats
        self.poison = ""
        if len(formats) != len(shape.types):
            raise ProtocolError(f"received a row of {len(formats)} columns for a table of {len(shape.types)}")
        columns = outbox.columns
        self.id = self._required(columns.id, to_text)
        self.key = self._key(columns.key, outbox.keys)
        self.type = self._required(columns.type, to_text)
        self.aggregate = self._required(columns.aggregate, to_text)
        self.payload = self._nullable(columns.payload, to_payload)
        self.payload_kind = payload_kind(shape.types[self.payload.place])
        self.topic = {name: self._placeholder(column) for name, column in shape.topic}
        self.headers = [
            (name, self._header(place, iso=name in outbox.iso))
            for name, place in shape.headers
            if self._has(place) or name in outbox.iso
        ]
        self.time = self._time(outbox.time)

    def culprit(self, values: list[bytes]) -> str:
        """Return which column of a row is not UTF-8."""
        topic, headers = self.topic.values(), [cell for _, cell in self.headers]
        for cell in (self.id, self.type, self.aggregate, *topic, *headers):
            try:
                cell.read(values[cell.place])
            except UnicodeDecodeError as error:
                return f"column {self._shape.names[cell.place]!r} is not UTF-8: {error}"
            except ValueError:
                continue  # of a topic that does not depend on it
        return f"column {self._shape.names[self.key.place]!r} is not UTF-8"

    def _has(self, place: int) -> bool:
        return self._formats[place] not in (_NULL, _UNCHANGED)

    def _header(self, place: int, *, iso: bool) -> "_Cell[str] | _Cell[None]":
        if not self._has(place):
            return _Cell(place, _nothing)
        return self._required(self._shape.names[place], to_iso if iso else to_text)

    def _time(self, column: str | None) -> "_Cell[int] | _Cell[None]":
        """The time of the record; a row that has none in the column has that of its commit."""
        place = self._shape.places.get(column) if column is not None else None
        if place is None or not self._has(place):
            return _Cell(0, _nothing)
        read = to_moment(self._shape.types[place], binary=self._formats[place] == _BINARY)
        if read is None:
            self._refuse(f"column {column!r} was of a type that is no time of records when the row was written")
            return _Cell(0, _nothing)
        return _Cell(place, partial(_of_column, f"column {column!r}: ", read))

    def _placeholder(self, column: str) -> "_Cell[str]":
        """A cell that refuses the row only when it is read: the topic may not depend on it."""
        poison = self.poison
        cell = self._required(column, to_text)
        reason, self.poison = self.poison, poison
        return cell if reason == poison else _Cell(cell.place, partial(_refused, reason))

    def _is_null(self, column: str) -> bool:
        place = self._shape.places.get(column)
        return place is not None and self._formats[place] == _NULL

    def _nullable(
        self, column: str, decoder: "Callable[[int, bool], Callable[[bytes], bytes] | None]"
    ) -> "_Cell[bytes] | _Cell[None]":
        if self._is_null(column):
            return _Cell(self._shape.places[column], _nothing)
        return self._required(column, decoder)

    def _key(self, column: str, keys: Keys) -> "_Cell[bytes | None]":
        place = self._shape.places.get(column)
        if self._is_null(column):
            return _Cell(self._shape.places[column], _nothing)
        if place is not None and keys.frame(self._shape.types[place]) is None:
            self._refuse(keys.refusal(column, f"of the type with oid {self._shape.types[place]}"))
            return _Cell(place, _nothing)
        return self._required(column, keys.reader)

    def _required(self, column: str, decoder: "Callable[[int, bool], Callable[[bytes], T] | None]") -> "_Cell[T]":
        shape = self._shape
        place = shape.places.get(column)
        if place is None:
            self._refuse(
                f"the row was written when {shape.table} did not publish column {column!r}"
                f" (it published {', '.join(shape.names)})"
            )
            return _Cell(0, _unread)
        type_oid, kind = shape.types[place], self._formats[place]
        if kind in (_NULL, _UNCHANGED):
            self._refuse(f"column {column!r} is {'null' if kind == _NULL else 'an unchanged TOAST value'}")
        read = decoder(type_oid, kind == _BINARY)
        if read is not None:
            return _Cell(place, read)
        if type_oid != BYTEA:
            # The row was written when the column had a type that today's columns do not have.
            raise BinaryUnreadable(f"column {column!r} has binary values of an unknown type (oid {type_oid})")
        self._refuse(f"column {column!r} is bytea, not text")
        return _Cell(place, _unread)

    def _refuse(self, reason: str) -> None:
        self.poison = self.poison or reason


def _nothing(cell: bytes) -> None:  # noqa: ARG001 - it is null
    return None


def _refused(reason: str, cell: bytes) -> str:  # noqa: ARG001 - the row is refused
    raise ValueError(reason)


def _of_column(column: str, read: Callable[[bytes], T], cell: bytes) -> T:
    try:
        return read(cell)
    except ValueError as error:
        raise ValueError(f"{column}{error}") from None


def _unread(cell: bytes) -> Any:  # noqa: ARG001 - the row is refused
    return ""
