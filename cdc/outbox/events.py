"""Convert outbox rows to events, by the column names and types in the stream's Relation messages.

Reading is planned once per Relation message and combination of format bytes, never from the current catalog, because
old rows follow the table's definition at the time of writing. Format bytes mark null cells, so a plan needs no checks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from cdc.errors import PoisonEvent, PostgresError, PostgresUnavailable, ProtocolError
from cdc.outbox.topic_template import TopicTemplate, is_topic_name
from cdc.replication.messages import Relation
from cdc.replication.transactions import Row
from cdc.replication.values import BYTEA, to_payload, to_text, to_utf8

TRACE_COLUMNS: Final = ("traceparent", "tracestate")
_CACHED_TOPICS: Final = 10_000  # bounds the cache if the template contains a column of many values
_BINARY, _NULL, _UNCHANGED = b"bnu"

T = TypeVar("T")


class Event(NamedTuple):
    """One outbox row as an event: topic, key, payload and headers of the record to be published."""

    row: Row
    id: str
    topic: str
    key: bytes
    type: str
    aggregate: str
    payload: bytes | None  # None: a tombstone
    payload_is_avro: bool  # bytea, sent unchanged as the record's value; otherwise JSON text to encode
    headers: list[tuple[str, str]]  # from columns, in addition to the three headers of every record


@dataclass(frozen=True, slots=True)
class Columns:
    """The column names for the parts of an event; Debezium's names by default."""

    id: str = "id"
    aggregate: str = "aggregatetype"
    key: str = "aggregateid"
    type: str = "type"
    payload: str = "payload"

    def resolve(self, placeholder: str, present: Sequence[str]) -> str:
        """Return the column of a topic placeholder: one of the table's, or the one mapped to Debezium's name."""
        if placeholder not in present:
            for role in self.__slots__:
                if getattr(DEBEZIUM_COLUMNS, role) == placeholder:
                    return str(getattr(self, role))
        return placeholder

    def needed(self, present: Sequence[str], template: TopicTemplate, headers: Sequence[str]) -> list[str]:
        """Return every column that must exist and be published: parts of events, placeholders, headers, traces."""
        roles = [self.id, self.aggregate, self.key, self.type, self.payload]
        placeholders = [self.resolve(name, present) for name in template.columns]
        return list(dict.fromkeys([*roles, *placeholders, *headers, *trace_columns(present, headers)]))


DEBEZIUM_COLUMNS: Final = Columns()


def trace_columns(present: Sequence[str], headers: Sequence[str]) -> list[str]:
    """Return the table's columns of W3C Trace Context, which become headers without being configured."""
    return [name for name in TRACE_COLUMNS if name in present and name not in headers]


class Outbox:
    """Converts rows to events.

    `stream` is the first part of positions: 8 hexadecimal digits, see `position`. With `tombstones`, an empty payload
    means a record without a value; without, the event is poison.
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
        """Convert one row. Raises PoisonEvent if it cannot be published, PostgresError if a column is missing."""
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
        """Return an event's unique position, `{stream}-{commit_lsn}-{index}`: sortable as text within a stream."""
        return f"{self.stream}-{row.transaction.commit_lsn:016X}-{row.index:08X}"

    def _payload(self, plan: "_Plan", values: list[bytes]) -> bytes | None:
        payload = plan.payload.read(values[plan.payload.place])
        # Debezium's rule: null or only white space.
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
    """A cell's index in the row, and the function that decodes it."""

    place: int
    read: Callable[[bytes], T]


class _Plan:
    """The decoders for rows of one relation in one combination of formats."""

    def __init__(self, relation: Relation, formats: bytes, outbox: Outbox) -> None:
        self._relation = relation
        self._formats = formats
        self._places = {column.name: place for place, column in enumerate(relation.columns)}
        self.poison = ""
        if len(formats) != len(relation.columns):
            raise ProtocolError(f"received a row of {len(formats)} columns for a table of {len(relation.columns)}")
        columns, present = outbox.columns, list(self._places)
        self.id = self._required(columns.id, to_text)
        self.key = self._required(columns.key, to_utf8)
        self.type = self._required(columns.type, to_text)
        self.aggregate = self._required(columns.aggregate, to_text)
        self.payload = self._payload(columns.payload, tombstones=outbox.tombstones)
        self.payload_is_avro = relation.columns[self.payload.place].type_oid == BYTEA
        self.topic = [
            (name, self._required(columns.resolve(name, present), to_text)) for name in outbox.template.columns
        ]
        self.headers = [
            (name, self._required(name, to_text))
            for name in [*outbox.headers, *trace_columns(present, outbox.headers)]
            if formats[self._place(name)] not in (_NULL, _UNCHANGED)
        ]

    def _place(self, column: str) -> int:
        if column not in self._places:
            raise PostgresError(
                f"table {self._relation.namespace}.{self._relation.name} has no column {column!r}"
                f" (it has {', '.join(self._places)})",
                hint="map it in [outbox] columns, or add the column again",
            )
        return self._places[column]

    def _payload(self, column: str, *, tombstones: bool) -> _Cell[bytes]:
        place = self._place(column)
        if tombstones and self._formats[place] == _NULL:
            return _Cell(place, bytes)
        return self._required(column, to_payload)

    def _required(self, column: str, decoder: "Callable[[int, bool], Callable[[bytes], T] | None]") -> _Cell[T]:
        place = self._place(column)
        type_oid, kind = self._relation.columns[place].type_oid, self._formats[place]
        if kind in (_NULL, _UNCHANGED):
            self.poison = (
                self.poison or f"column {column!r} is {'null' if kind == _NULL else 'an unchanged TOAST value'}"
            )
        read = decoder(type_oid, kind == _BINARY)
        if read is None:
            # The column's type changed while it was read in binary format: the next session requests text.
            raise PostgresUnavailable(f"column {column!r} has binary values of an unknown type (oid {type_oid})")
        return _Cell(place, read)
