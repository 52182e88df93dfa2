"""Column names of an event's parts, and where they are in the rows of one relation: the only reader of its columns.

The stream's Relation messages describe each row as it was when it was written; the catalog describes today's table. So
every path reads a row by the shape of its own relation, and a column that this relation lacks is a fact about its rows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from cdc.outbox.topic_template import TopicTemplate
from cdc.replication.messages import Relation

TRACE_COLUMNS: Final = ("traceparent", "tracestate")
SEQUENCE_COLUMN: Final = "cdc_seq"
"""The column that `outbox init` makes to number rows. It is no part of an event: see `cdc.postgres.numbers`."""

GIVEN_HEADER: Final = 2
"""The flag of a column that a message brought as a header, beside those that are set."""
GIVEN_PREFIX: Final = "headers."
"""How the name of such a column begins; the rest is the name of the header."""

LONGEST_NAME: Final = 63
"""Bytes of a PostgreSQL name."""


CLOUD_EVENTS: Final = "ce_"
"""How the headers of a CloudEvent in binary mode begin."""


def is_own(header: str) -> bool:
    """Return whether the publisher sets this header itself, so that no column can be a header of this name."""
    return header in ("id", "eventType", "content-type") or header.startswith("cdc-")


_QUOTED: Final = re.compile(r'"((?:[^"]|"")+)"(?::(.*))?', re.DOTALL)


class Header(NamedTuple):
    """A column that is sent as a record header, and the name of the header."""

    column: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `column`, `column:name` or `"a:column":name`. Raises ValueError with what to write instead."""
        if text.startswith('"'):
            found = _QUOTED.fullmatch(text)
            if not found:
                raise ValueError(f"{text!r} has no closing double quote; a double quote within a name is written twice")
            column, name = found[1].replace('""', '"'), found[2]
        else:
            column, *names = text.split(":")
            if len(names) > 1:
                raise ValueError(f"{text!r} has two colons: put the column's name in double quotes")
            name = names[0] if names else None
        if not column or len(column.encode()) > LONGEST_NAME:
            raise ValueError(f"{text!r}: a PostgreSQL name has 1 to {LONGEST_NAME} bytes")
        if name is None:
            return cls(column, column)
        if not name or ":" in name:
            raise ValueError(f"{text!r}: the name of a header is not empty and has no colon")
        return cls(column, name)


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

    def needed(self, present: Sequence[str], template: TopicTemplate, headers: Sequence[Header]) -> list[str]:
        """Return every column that must exist and be published: parts of events, placeholders, headers, traces."""
        roles = [self.id, self.aggregate, self.key, self.type, self.payload]
        placeholders = [self.resolve(name, present) for name in template.columns]
        columns = [header.column for header in with_traces(present, headers)]
        return list(dict.fromkeys([*roles, *placeholders, *columns]))


DEBEZIUM_COLUMNS: Final = Columns()


def with_traces(present: Sequence[str], headers: Sequence[Header]) -> list[Header]:
    """Return the headers, and the table's columns of W3C Trace Context, which are headers without being configured."""
    taken = {name for header in headers for name in header}
    return [*headers, *(Header(name, name) for name in TRACE_COLUMNS if name in present and name not in taken)]


class Shape:
    """The columns of one relation by name, and which of them are parts of an event."""

    def __init__(
        self, relation: Relation, columns: Columns, template: TopicTemplate, headers: Sequence[Header] = ()
    ) -> None:
        self.relation = relation
        self.table = f"table {relation.namespace}.{relation.name}"
        self.names = [column.name for column in relation.columns]
        self.types = [column.type_oid for column in relation.columns]
        self.places = {name: place for place, name in enumerate(self.names)}
        self.topic = tuple([(name, columns.resolve(name, self.names)) for name in template.columns])
        """Each placeholder of the topic, and its column."""
        wanted = with_traces(self.names, headers)
        wanted += [
            Header(column.name, column.name.removeprefix(GIVEN_PREFIX))
            for column in relation.columns
            if column.flags & GIVEN_HEADER
        ]
        self.headers = tuple(
            [(header.name, self.places[header.column]) for header in wanted if header.column in self.places]
        )
        """Each header, and the place of its column."""
        self.without = tuple([column for column, _ in headers if column not in self.places])
        """The columns of headers that the relation lacks: its rows have fewer headers."""
        needed = columns.needed(self.names, template, [])
        self.missing = tuple([name for name in needed if name not in self.places])
        """The columns that the relation lacks and no event can do without."""
        self.plans: dict[bytes, Any] = {}
        """How to read rows of each combination of formats: see `cdc.outbox.events`."""
