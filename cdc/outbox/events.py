"""Outbox rows to events: which column is what, by the table's own description in the stream.

How to read a row is planned once per Relation message and row format, never from today's catalog: old rows come
with the description they were written under. The format bytes say which cells are null, so a plan needs no checks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from cdc.errors import PoisonEvent, PostgresError, PostgresUnavailable, ProtocolError
from cdc.outbox.topic_template import TopicTemplate, is_topic_name
from cdc.replication import values as cells
from cdc.replication.messages import Relation
from cdc.replication.transactions import Row

TRACE_COLUMNS: Final = ("traceparent", "tracestate")
_CACHED_TOPICS: Final = 10_000  # a template may hold a column of many values: the cache must not grow with them
_BINARY, _NULL, _UNCHANGED = b"bnu"

T = TypeVar("T")


class Event(NamedTuple):
    """What one outbox row asks to be published."""

    row: Row
    id: str
    topic: str
    key: bytes
    type: str
    aggregate: str
    payload: bytes | None  # None: a tombstone
    payload_is_avro: bool  # bytea: the record's value as it is; else JSON text to be encoded by contract
    headers: list[tuple[str, str]]  # from columns, beyond the three that every record has


@dataclass(frozen=True, slots=True)
class Columns:
    """The table's column for each part of an event; Debezium's names by default."""

    id: str = "id"
    aggregate: str = "aggregatetype"
    key: str = "aggregateid"
    type: str = "type"
    payload: str = "payload"

    def resolve(self, placeholder: str, present: Sequence[str]) -> str:
        """The column a topic placeholder means: one of the table's, or Debezium's name of a mapped one."""
        if placeholder not in present:
            for role in self.__slots__:
                if getattr(DEBEZIUM_COLUMNS, role) == placeholder:
                    return str(getattr(self, role))
        return placeholder

    def needed(self, present: Sequence[str], template: TopicTemplate, headers: Sequence[str]) -> list[str]:
        """Every column that must be there and readable."""
        roles = [self.id, self.aggregate, self.key, self.type, self.payload]
        placeholders = [self.resolve(name, present) for name in template.columns]
        return list(dict.fromkeys([*roles, *placeholders, *headers, *trace_columns(present, headers)]))


DEBEZIUM_COLUMNS: Final = Columns()


def trace_columns(present: Sequence[str], headers: Sequence[str]) -> list[str]:
    """The columns of W3C Trace Context that the table has, which become headers unasked."""
    return [name for name in TRACE_COLUMNS if name in present and name not in headers]


class Outbox:
    """Reads events out of rows.

    `stream` is the first part of positions: 8 hex digits, see `position`. `tombstones` says that an empty payload
    means a record without a value; else it is poison.
    """

    def __init__(
        self,
        stream: str,
        columns: Columns,
        template: TopicTemplate,
        headers: Sequence[str] = (),
        *,
        tombstones: bool = False,
    ) -> None:
        self.stream = stream
        self.columns = columns
        self.template = template
        self.headers = tuple(headers)
        self.tombstones = tombstones
        self._relation: Relation | None = None
        self._plans: dict[bytes, _Plan] = {}
        self._topics: dict[tuple[bytes, ...], str] = {}

    def event(self, row: Row) -> Event:
        """Read one row. Raises PoisonEvent when it cannot be published, PostgresError when the table cannot."""
        if row.relation is not self._relation:
            self._relation = row.relation
            self._plans.clear()
            self._topics.clear()
        formats, values = row.data
        plan = self._plans.get(formats)
        if plan is None:
            plan = self._plans[formats] = _Plan(row.relation, formats, self)
        event_id = ""
        try:
            event_id = plan.id.read(values[plan.id.place])
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
                plan.payload_is_avro,
                [(name, cell.read(values[cell.place])) for name, cell in plan.headers],
            )
        except ValueError as error:
            raise PoisonEvent(
                str(error), position=self.position(row), event_id=event_id, kind="unreadable-row"
            ) from None

    def position(self, row: Row) -> str:
        """Identity and order of an event, `{stream}-{commit_lsn}-{index}`: sortable as text within a stream."""
        return f"{self.stream}-{row.transaction.commit_lsn:016X}-{row.index:08X}"

    def _payload(self, plan: "_Plan", values: list[bytes]) -> bytes | None:
        payload = plan.payload.read(values[plan.payload.place])
        # As Debezium has it: null, or nothing but white space.
        return None if self.tombstones and (not payload or payload.isspace()) else payload

    def _topic(self, plan: "_Plan", values: list[bytes]) -> str:
        key = tuple([values[cell.place] for _, cell in plan.topic])
        topic = self._topics.get(key)
        if topic is None:
            topic = self.template.fill({name: cell.read(values[cell.place]) for name, cell in plan.topic})
            if not is_topic_name(topic):
                raise ValueError(f"{topic!r} is not a valid topic name")
            if len(self._topics) >= _CACHED_TOPICS:
                self._topics.clear()
            self._topics[key] = topic
        return topic


class _Cell(NamedTuple, Generic[T]):
    """Where a cell stands in the row, and how to read it."""

    place: int
    read: Callable[[bytes], T]


class _Plan:
    """How to read the rows of one relation that come in one combination of formats."""

    def __init__(self, relation: Relation, formats: bytes, outbox: Outbox) -> None:
        self._relation = relation
        self._formats = formats
        self._places = {column.name: place for place, column in enumerate(relation.columns)}
        self.poison = ""
        if len(formats) != len(relation.columns):
            raise ProtocolError(f"a row of {len(formats)} columns came for a table of {len(relation.columns)}")
        columns, present = outbox.columns, list(self._places)
        self.id = self._required(columns.id, cells.to_text)
        self.key = self._required(columns.key, cells.to_utf8)
        self.type = self._required(columns.type, cells.to_text)
        self.aggregate = self._required(columns.aggregate, cells.to_text)
        self.payload = self._payload(columns.payload, tombstones=outbox.tombstones)
        self.payload_is_avro = relation.columns[self.payload.place].type_oid == cells.BYTEA
        self.topic = [
            (name, self._required(columns.resolve(name, present), cells.to_text)) for name in outbox.template.columns
        ]
        self.headers = [
            (name, self._required(name, cells.to_text))
            for name in [*outbox.headers, *trace_columns(present, outbox.headers)]
            if formats[self._place(name)] not in (_NULL, _UNCHANGED)
        ]

    def _place(self, column: str) -> int:
        if column not in self._places:
            raise PostgresError(
                f"table {self._relation.namespace}.{self._relation.name} has no column {column!r}"
                f" (it has {', '.join(self._places)})",
                hint="map it in [outbox] columns, or put the column back",
            )
        return self._places[column]

    def _payload(self, column: str, *, tombstones: bool) -> _Cell[bytes]:
        place = self._place(column)
        if tombstones and self._formats[place] == _NULL:
            return _Cell(place, bytes)
        return self._required(column, cells.to_payload)

    def _required(self, column: str, decoder: "Callable[[int, bool], Callable[[bytes], T] | None]") -> _Cell[T]:
        place = self._place(column)
        type_oid, kind = self._relation.columns[place].type_oid, self._formats[place]
        if kind in (_NULL, _UNCHANGED):
            self.poison = (
                self.poison or f"column {column!r} is {'null' if kind == _NULL else 'an unchanged TOAST value'}"
            )
        read = decoder(type_oid, kind == _BINARY)
        if read is None:
            # The column's type changed while we were reading binary: a new session asks for text.
            raise PostgresUnavailable(
                f"column {column!r} came in binary format of type {type_oid} (oid), which is not known"
            )
        return _Cell(place, read)
