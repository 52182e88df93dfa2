"""Logical messages as rows: the members of a JSON object are the columns of an outbox.

The payload is cut out as it stands, and never written again: that would change numbers. All other cells are text. So
from here on a message is a row like any other.

| member     | value                                                                                            |
|------------|--------------------------------------------------------------------------------------------------|
| columns    | those of `[outbox] columns`, of `[outbox] headers` and of the topic template, as text or numbers |
| time       | that of `[record] timestamp`, if that is a column: ISO 8601, or milliseconds since 1970          |
| payload    | any JSON                                                                                         |
| `headers`  | an object: each member is sent as a header, or is the column of a header that is set             |
"""

import json
import re
from collections.abc import Sequence
from json.decoder import scanstring  # type: ignore[attr-defined]  # documented nowhere, and there in every version
from typing import Any, Final, NamedTuple

from cdc.outbox.columns import GIVEN_HEADER, GIVEN_PREFIX, TRACE_COLUMNS, Columns, Header, is_own
from cdc.outbox.topic_template import TopicTemplate
from cdc.replication.messages import Column, Relation, TupleData
from cdc.replication.transactions import MESSAGE, Row
from cdc.replication.values import INT8, JSON, TEXT, TIMESTAMPTZ

HEADERS: Final = "headers"
NOT_UTF8: Final = "emit messages as bytea, by convert_to(..., 'UTF8'), as outbox_emit does"
ALONE: Final = (
    "it is not transactional: it came outside of a transaction, and is there even if the one that wrote it was rolled"
    " back"
)

GIVEN: Final = -1
"""Stands for the place of the member `headers`."""

_MOST: Final = 1000
"""Shapes of messages that are remembered."""

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_PLAIN: Final = re.compile(r'[-0-9"]')  # how text and numbers begin


class _Member(NamedTuple):
    """A member of a JSON object: the text of a string, else what the scanner makes of it; and where it stands."""

    value: Any
    start: int
    end: int


class Members(NamedTuple):
    """Which members messages of one shape have, in their order: the name as JSON, and the place of the cell.

    The place of the member `headers` is that of no cell, but `GIVEN`: its own members are `given`.
    """

    outer: tuple[tuple[bytes, int], ...]
    given: tuple[tuple[bytes, int], ...] = ()


_Names = tuple[tuple[str, ...], tuple[str, ...]]
"""The names of a message's members, and of those of its member `headers`, in their order."""


class Messages:
    """Reads messages as rows with these columns."""

    def __init__(
        self, columns: Columns, template: TopicTemplate, headers: Sequence[Header], time: str | None = None
    ) -> None:
        self._time = time  # the column with the time of records
        self._payload = columns.payload
        self._needed = columns.needed([], template, [])
        self._parts = {columns.id, columns.key, columns.aggregate, columns.type}
        # A member of `headers` may have the name of the column, or that of the header.
        self._columns = {header.name: header.column for header in headers} | {
            header.column: header.column for header in headers
        }
        self._columns |= {time: time} if time else {}
        optional = [*(header.column for header in headers), *([time] if time else [])]
        self._base = list(dict.fromkeys([*self._needed, *optional]))
        self._known = {*self._base, *TRACE_COLUMNS, HEADERS}
        self._relations: dict[tuple[int, tuple[str, ...], _Names | None], Relation] = {}
        self._members: dict[int, Members] = {}  # by the oid of the relation
        self._last_oid = 0

    def row(self, message: Row) -> Row:
        """Return a message as a row. Raises ValueError, with a reason, for one that cannot be read."""
        content = message.data.cells[0]
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"the message is not UTF-8: {error}; {NOT_UTF8}") from None
        found = _members(text, 0)
        cells = {name: self._cell(text, name, member) for name, member in found.items() if name in self._base}
        more: list[str] = [name for name in TRACE_COLUMNS if name in found]
        cells |= {name: self._cell(text, name, found[name]) for name in more}
        headers: dict[str, _Member] = {}
        if HEADERS not in self._base and HEADERS in found:
            headers = self._given(text, found[HEADERS])
            given = {}
            for name, member in headers.items():
                column = self._column(name)
                given[column] = self._cell(text, column, member)
            cells = given | cells
            more += [name for name in given if name not in self._base and name not in more]
        for name in self._needed:
            if name not in cells:
                raise ValueError(f"the message has no member {name!r}")
        # A time is text in ISO 8601, or a number of milliseconds as it would be in a column of bigint.
        time = cells.get(self._time) if self._time else None
        of_time = INT8 if time and time.lstrip(b"-").isdigit() else TIMESTAMPTZ
        relation = self._relation(of_time, tuple(more), self._names(found, headers))
        row = [cells.get(column.name) for column in relation.columns]
        formats = bytes([ord("n" if cell is None else "t") for cell in row])
        return Row(message.transaction, message.index, relation, TupleData(formats, [cell or b"" for cell in row]))

    def _cell(self, text: str, name: str, member: _Member) -> bytes | None:
        value, start, end = member
        if value is None and text.startswith("null", start):
            return None
        if name == self._payload:
            return text[start:end].encode()
        if name in self._parts and not _PLAIN.match(text, start):
            raise ValueError(f"member {name!r} of the message is neither text nor a number")
        try:
            return (value if text[start] == '"' else text[start:end]).encode()
        except UnicodeEncodeError:
            raise ValueError(f"member {name!r} of the message has half of a surrogate pair") from None

    def _given(self, text: str, headers: _Member) -> dict[str, _Member]:
        """Return the members of the member `headers`."""
        if text[headers.start] != "{":
            if text.startswith("null", headers.start):
                return {}
            raise ValueError("member 'headers' of the message is not an object")
        members = _members(text, headers.start, headers.end)
        for name in members:
            if is_own(name) or not name:
                raise ValueError(f"header {name!r} of the message: the publisher sets it itself, or it has no name")
        return members

    def _column(self, header: str) -> str:
        """Return the column of a member of `headers`."""
        return self._columns.get(header) or (header if header in TRACE_COLUMNS else GIVEN_PREFIX + header)

    def _names(self, found: dict[str, _Member], headers: dict[str, _Member]) -> _Names | None:
        """Return the names of the members if each of them is a cell of its own; else None."""
        columns = [*found, *map(self._column, headers)]
        if not self._known.issuperset(found) or len(set(columns)) < len(columns):
            return None
        return tuple(found), tuple(headers)

    def _relation(self, of_time: int, more: tuple[str, ...], names: _Names | None) -> Relation:
        found = self._relations.get((of_time, more, names))
        if found is None:
            if len(self._relations) >= _MOST:
                self._relations.clear()
                self._members.clear()
            self._last_oid -= 1  # no table has such an oid
            types = {self._time: of_time, self._payload: JSON}
            columns = [Column(0, name, types.get(name, TEXT), -1) for name in self._base]
            columns += [Column(GIVEN_HEADER * name.startswith(GIVEN_PREFIX), name, TEXT, -1) for name in more]
            found = MESSAGE._replace(oid=self._last_oid, columns=tuple(columns))
            self._relations[of_time, more, names] = found
            if names is not None:
                self._learn(found, names)
        return found

    def _learn(self, relation: Relation, names: _Names) -> None:
        places = {column.name: place for place, column in enumerate(relation.columns)}
        try:
            outer = [(_quoted(name), places.get(name, GIVEN)) for name in names[0]]
            given = [(_quoted(name), places[self._column(name)]) for name in names[1]]
        except UnicodeEncodeError:  # half of a surrogate pair in the name of a header
            return
        self._members[relation.oid] = Members(tuple(outer), tuple(given))

    def members(self, relation: Relation) -> Members | None:
        """Return which members the messages of a relation have; None if they are not plain, or it is of a table."""
        return self._members.get(relation.oid)


def _quoted(name: str) -> bytes:
    """Return a name as JSON. Raises UnicodeEncodeError for half of a surrogate pair."""
    return json.dumps(name, ensure_ascii=False).encode()


def _nothing(pairs: object) -> None:  # noqa: ARG001 - objects are only passed over
    return None


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_scan: Final = json.JSONDecoder(
    object_pairs_hook=_nothing, parse_float=str, parse_int=str, parse_constant=_refused
).scan_once  # type: ignore[attr-defined]
"""Checks a JSON value, and returns where it ends: what it makes of objects and numbers is not used."""


def _members(text: str, at: int, until: int | None = None) -> dict[str, _Member]:
    """Return the members of the JSON object at a place, which reaches to `until` or to the end of the text."""
    try:
        return _object(text, at, len(text) if until is None else until)
    except StopIteration as stop:
        raise ValueError(f"the message is not JSON: a value is missing at character {stop.value}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the message is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("the message is nested too deeply") from None


def _object(text: str, at: int, until: int) -> dict[str, _Member]:
    found: dict[str, _Member] = {}
    at = _next(text, at)
    if text[at : at + 1] != "{":
        raise json.JSONDecodeError("expected an object", text, at)
    at = _next(text, at + 1)
    while text[at : at + 1] != "}" or found:
        if text[at : at + 1] != '"':
            raise json.JSONDecodeError("expected the name of a member", text, at)
        name, at = scanstring(text, at + 1, True)
        at = _next(text, at)
        if text[at : at + 1] != ":":
            raise json.JSONDecodeError("expected ':'", text, at)
        start = _next(text, at + 1)
        value, end = _scan(text, start)
        if name in found:
            raise ValueError(f"the message has the member {name!r} twice")
        found[name] = _Member(value, start, end)
        at = _next(text, end)
        if text[at : at + 1] == "}":
            break
        if text[at : at + 1] != ",":
            raise json.JSONDecodeError("expected ',' or '}'", text, at)
        at = _next(text, at + 1)
    if not at < until <= (end := _next(text, at + 1)):
        raise json.JSONDecodeError("expected nothing behind the object", text, end)
    return found


def _next(text: str, at: int) -> int:
    """Return the place of the next character that is no white space."""
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
