"""Column names of an event's parts, and where they are in the rows of one relation: the only reader of its columns.

The stream's Relation messages describe each row as it was when it was written; the catalog describes today's table. So
every path reads a row by the shape of its own relation, and a column that this relation lacks is a fact about its rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cdc.outbox.topic_template import TopicTemplate
from cdc.replication.messages import Relation

TRACE_COLUMNS: Final = ("traceparent", "tracestate")


def is_own(header: str) -> bool:
    """Return whether the publisher sets this header itself, so that no column can be a header of this name."""
    return header in ("id", "eventType") or header.startswith("cdc-")


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


class Shape:
    """The columns of one relation by name, and which of them are parts of an event."""

    def __init__(
        self, relation: Relation, columns: Columns, template: TopicTemplate, headers: Sequence[str] = ()
    ) -> None:
        self.relation = relation
        self.table = f"table {relation.namespace}.{relation.name}"
        self.names = [column.name for column in relation.columns]
        self.types = [column.type_oid for column in relation.columns]
        self.places = {name: place for place, name in enumerate(self.names)}
        self.topic = tuple([(name, columns.resolve(name, self.names)) for name in template.columns])
        """Each placeholder of the topic, and its column."""
        wanted = [*headers, *trace_columns(self.names, headers)]
        self.headers = tuple([(name, self.places[name]) for name in wanted if name in self.places])
        self.without = tuple([name for name in headers if name not in self.places])
        """The columns of headers that the relation lacks: its rows have fewer headers."""
        needed = columns.needed(self.names, template, [])
        self.missing = tuple([name for name in needed if name not in self.places])
        """The columns that the relation lacks and no event can do without."""
