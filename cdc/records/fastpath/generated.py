"""Runs in Python: source code written for one layout, without a loop over columns or members, or a call per cell.

From frame to record, without the encoder, a row of five columns costs 1.5 us; the general path takes 8. `source` shows
the code. Any error in it ends the run: the general path reads the same frame again, and reports what is wrong with it.
"""

import re
import struct
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

import orjson

from cdc.outbox.keys import escaped
from cdc.outbox.messages import GIVEN, Members
from cdc.records.fastpath.layout import Layout
from cdc.records.headers import ID, POSITION, TYPE
from cdc.records.record import Delivered, Sendable
from cdc.records.router import MOST, Route, text_value
from cdc.replication import values
from cdc.replication.moments import READERS

_HEAD_AT: Final = 25  # of the pgoutput message in its frame: kind, relation, `N`, number of columns
_XLOG_DATA: Final = ord("w")
_INSERT: Final = ord("I")
_MESSAGE: Final = ord("M")
_TRANSACTIONAL: Final = b"M\x01"

_SPACE: Final = rb"[ \t\n\r]*"
_NUMBER: Final = rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
_PLAIN: Final = rb'"?((?<=")[^"\\\x00-\x1f]*(?=")|(?<!")' + _NUMBER + rb'(?!"))"?'
"""A number, or the text between quotes if it has no escapes."""
_ANYTHING: Final = rb"(.*[^ \t\n\r])"

_INDEXES: Final = tuple([f"{index:08X}" for index in range(1024)])  # to format one costs 0.12 us

_FIXED: Final = {"uuid": 16, "bool": 1}  # bytes of a cell, where there is only one size
_ID_PARTS: Final = "id1, id2, id3"  # of a UUID: what stands in its text before, between and behind dashes
_CUTS: Final = tuple([struct.Struct(f">{size}sBI").unpack_from for size in range(128)])
"""By the size of a text: its bytes, and the kind and the size of the cell behind it. A call less is 0.07 us."""

Take = Callable[[list[bytes], int, str, int, int, Delivered], list[Sendable]]

_TEXTS: Final = {
    "text": "{0}.decode()",
    "padded": "{0}.rstrip(b' ').decode()",
    "uuid": "uuid({0})",
    "integer": "integer({0})",
    "bool": "boolean({0})",
    "bool-text": "boolean_text({0})",
    "jsonb": "jsonb({0})",
    # Of headers only, in ISO format.
    "timestamp": "iso_timestamp({0})",
    "timestamptz": "iso_timestamptz({0})",
    "timetz": "iso_timetz({0})",
    "bytea": "base64({0})",
    "bytea-text": "base64_of_text({0})",
}
_ISO: Final = "iso:"


class Unrolled:
    """Fits `cdc.records.fastpath.layout.Runs`."""

    def __init__(self, layout: Layout) -> None:
        self._routes: dict[tuple[bytes, ...], tuple[object, ...]] = {}
        self._of_messages = layout.members is not None
        splitting = _splitting(layout)
        names = {**_NAMES, **splitting.names, "routes": self._routes, "moment": READERS.get(layout.time[0])}
        exec(compile(_source(layout, splitting), "<unrolled>", "exec"), names)
        self.take: Take = names["take"]

    def learn(self, event_type: bytes, topic_cells: tuple[bytes, ...], route: Route, room: int) -> None:
        """Let rows with these cells take this route."""
        cells = event_type, *topic_cells
        if len(self._routes) >= MOST and cells not in self._routes:
            self._routes.clear()
        encode = _json_text if self._of_messages and route.encode is text_value else route.encode
        self._routes[cells] = route.topic, (TYPE, route.type), route.header, encode, route.headers, room

    def forget(self) -> None:
        """Drop all routes."""
        self._routes.clear()


def source(layout: Layout) -> str:
    """The source of `take` for a layout, to be read."""
    return _source(layout, _splitting(layout))


def _splitting(layout: Layout) -> "_Splitting | _Scanning":
    return _Splitting(layout) if layout.members is None else _Scanning(layout, layout.members)


def _source(layout: Layout, splitting: "_Splitting | _Scanning") -> str:
    lines = ["def take(frames, at, prefix, index, timestamp, report):", "    records = []", "    try:"]
    lines += ["        for place in range(at, len(frames)):", "            frame = frames[place]"]
    lines += [
        f"            if frame[{_HEAD_AT}] != {splitting.kind}: break"
    ]  # most runs end so: an exception is 0.7 us more
    body = [*splitting.statements, *_record(layout, splitting)]
    lines += [f"            {line}" for line in body]
    lines += ["    except Exception:  # of any kind: the general path reads the frame again", "        pass"]
    return "\n".join([*lines, "    return records", ""])


class _Splitting:
    """Statements that cut a frame into the cells that are needed, `c0` and so on.

    What stands in the same place of every row is cut by one struct, `start`, with the head of the text behind it;
    that is 0.1 us less than slice by slice. From there on, `o` is the offset of the rest of the frame.
    """

    kind = _INSERT

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        others = {layout.key, layout.type, layout.payload, *layout.topic}
        headers = {place for _, place in layout.headers}
        times = {layout.time[1]} if layout.time[0] else set[int]()
        self._optional = (headers | times) - others - {layout.id}
        self.bare = layout.payload not in headers | {layout.id, layout.key, layout.type, *layout.topic}
        """Whether the cell of the payload is without the version of jsonb."""
        self._id_only = layout.cells[layout.id] == "uuid" and layout.id not in headers | others
        self.parts = False
        """Whether the id is in three parts instead of a cell."""
        self._of_cells = ord("b") if layout.binary else ord("t")
        self._ahead = -1  # the cell of which kind and size are read already
        self._format = ">"
        self.statements = [*self._lines(), "if o != len(frame): break"]
        self.names: dict[str, object] = {"start": struct.Struct(self._format).unpack_from}

    def _lines(self) -> Iterator[str]:
        first = yield from self._beginning()
        for place in range(first, len(self._layout.cells)):
            if place in self._optional:
                yield from self._nullable(place)
            elif self._layout.cells[place]:
                yield from self._required(place)
            else:
                yield from self._skipped()

    def _beginning(self) -> Generator[str, None, int]:
        """The head, and cells of one size only; returns the first that is none."""
        place, constant = 0, _head(self._layout)
        names: list[str] = []
        tests = [f"frame[0] != {_XLOG_DATA}"]
        while size := self._fixed(place):
            constant += struct.pack(">BI", self._of_cells, size)
            parts = self._id_only and place == self._layout.id
            self._format += f"{len(constant)}s" + ("4s6s6s" if parts else f"{size}s")
            names += [f"h{place}", _ID_PARTS if parts else f"c{place}"]
            self.parts |= parts
            tests.append(f"h{place} != {constant!r}")
            place, constant = place + 1, b""
        if constant:
            self._format += f"{len(constant)}s"
            names.append("head")
            tests.append(f"head != {constant!r}")
        if self._is_required(place):
            self._format += "BI"
            names += [f"k{place}", f"n{place}"]
            self._ahead = place
        yield f"{', '.join(names)}, = start(frame, {_HEAD_AT})"
        yield f"if {' or '.join(tests)}: break"
        yield f"o = {_HEAD_AT + struct.calcsize(self._format)}"
        return place

    def _fixed(self, place: int) -> int:
        """The bytes of a cell that has one size only, or 0."""
        return _FIXED.get(self._layout.cells[place], 0) if self._layout.binary and self._is_required(place) else 0

    def _is_required(self, place: int) -> bool:
        cells = self._layout.cells
        return place < len(cells) and bool(cells[place]) and place not in self._optional

    def _required(self, place: int) -> Iterator[str]:
        cell, kind, size = f"c{place}", f"k{place}", f"n{place}"
        if self._ahead != place:
            yield f"{kind}, {size} = cell(frame, o); o += 5"
        yield f"if {kind} != {self._of_cells}: break"
        if place == self._layout.payload and self.bare and self._layout.cells[place] == "jsonb":
            yield f"if frame[o] != {values.JSONB_VERSION}: break"
            yield f"{cell} = frame[o + 1 : o + {size}]; o += {size}"
        elif place == self._layout.payload or place in self._optional or not self._is_required(place + 1):
            yield f"{cell} = frame[o : o + {size}]; o += {size}"
        else:
            self._ahead = place + 1
            head = f"k{place + 1}, n{place + 1}"
            yield f"if {size} < {len(_CUTS)}: {cell}, {head} = CUTS[{size}](frame, o); o += {size} + 5"
            yield f"else: {cell} = frame[o : o + {size}]; {head} = cell(frame, o + {size}); o += {size} + 5"

    def _nullable(self, place: int) -> Iterator[str]:
        yield f"if frame[o] == {ord('n')}:"
        yield f"    c{place} = None; o += 1"
        yield "else:"
        yield from (f"    {line}" for line in self._required(place))

    def _skipped(self) -> Iterator[str]:
        yield f"if frame[o] in {(ord('b'), ord('t'))}: o += 5 + size(frame, o + 1)[0]"
        yield f"elif frame[o] in {(ord('n'), ord('u'))}: o += 1"
        yield "else: break"


class _Scanning:
    """Statements that cut a message into cells, by one regular expression for members of these names in this order.

    Names and members but the payload are matched. The payload begins behind its colon, and what follows it is matched
    back from the end. So it is a value of JSON just when all of it is one, which the encoder finds out.
    """

    kind = _MESSAGE
    bare = True
    parts = False

    def __init__(self, layout: Layout, members: Members) -> None:
        self._layout = layout
        header = struct.Struct(f">2s8x{len(layout.prefix) + 1}sI")
        content = _HEAD_AT + header.size
        optional = {place for _, place in layout.headers} | ({layout.time[1]} if layout.time[0] else set())
        self._optional = optional - {layout.id, layout.key, layout.type, layout.payload, *layout.topic}
        self._places: list[int] = []  # of the cells, in the order of their members
        object_ = self._object(members.outer, members.given)
        pattern = re.compile(_SPACE + object_ + _SPACE, re.DOTALL)
        self.names: dict[str, object] = {"start": header.unpack_from, "match": pattern.fullmatch}
        self.statements = [
            f"kind, marked, length = start(frame, {_HEAD_AT})",
            "o = len(frame)",
            f"if frame[0] != {_XLOG_DATA} or kind != {_TRANSACTIONAL!r} or marked != {layout.prefix + bytes(1)!r}"
            f" or length != o - {content}: break",
            f"found = match(frame, {content})",
            "if found is None: break",
            f"{''.join(f'c{place}, ' for place in self._places)}= found.groups()",
            *(f"c{place} = None" for place in sorted({*range(len(layout.cells))} - {*self._places})),
            *self._checks(),
        ]

    def _object(self, members: tuple[tuple[bytes, int], ...], given: tuple[tuple[bytes, int], ...]) -> bytes:
        pairs = [re.escape(name) + _SPACE + b":" + _SPACE + self._value(place, given) for name, place in members]
        return rb"\{" + _SPACE + (_SPACE + b"," + _SPACE).join(pairs) + _SPACE + rb"\}"

    def _value(self, place: int, given: tuple[tuple[bytes, int], ...]) -> bytes:
        if place == GIVEN:
            return self._object(given, ()) if given else rb"(?:null|\{" + _SPACE + rb"\})"
        self._places.append(place)
        if place == self._layout.payload:
            return _ANYTHING
        return b"(?:" + _PLAIN + b"|null)" if place in self._optional else _PLAIN

    def _checks(self) -> Iterator[str]:
        payload = f"c{self._layout.payload}"
        yield f"if {payload} == b'null': break"
        # Python's scanner, which the general path uses, gives up before parsers do.
        yield f"if len({payload}) > 1000 and {payload}.count(b'[') + {payload}.count(b'{{') > 500: break"
        kind, place = self._layout.time
        if kind:  # the layout has it by the type of another cell
            is_other = "not " if kind == "digits" else ""
            yield f"if c{place} is not None and {is_other}c{place}.lstrip(b'-').isdigit(): break"


def _record(layout: Layout, splitting: _Splitting | _Scanning) -> Iterator[str]:
    """Statements that make the record of the cells."""
    cells_of_route = ", ".join(f"c{place}" for place in (layout.type, *layout.topic))
    yield f"route = routes.get(({cells_of_route},))"
    yield "if route is None: break"
    yield "topic, event_type, header, encode, constant, room = route"
    payload = f"c{layout.payload}"
    if layout.cells[layout.payload] == "jsonb" and not splitting.bare:
        yield f"if {payload}[0] != {values.JSONB_VERSION}: break"
        payload += "[1:]"
    if layout.tombstones:
        yield f"if not {payload} or {payload}.isspace(): break"
    yield (
        f"value = header + {payload}"
        if layout.cells[layout.payload] == "bytea"
        else f"value = encode({payload}, header)"
    )
    key = _key(layout)
    if layout.key_frame.after:
        yield f"key = {key}"
        key = "key"
        yield "if len(value) + len(key) + 4 * o > room: break"
    else:
        yield "if len(value) + 4 * o > room: break"
    if layout.cells[layout.id] == "uuid":
        if not splitting.parts:
            yield f"{_ID_PARTS} = parts(c{layout.id})"
        event_id = "f'{id1.hex()}-{id2.hex(\"-\", 2)}-{id3.hex()}'"  # 0.1 us less than to cut the whole text
    else:
        event_id = _text(layout, layout.id)
    position = f"prefix + INDEXES[index] if index < {len(_INDEXES)} else f'{{prefix}}{{index:08X}}'"
    yield f"headers = [({ID!r}, {event_id}), event_type, ({POSITION!r}, {position})]"
    yield "if constant: headers += constant"
    for name, place in layout.headers:
        if layout.cells[place].startswith(_ISO):
            yield f"headers.append(({name!r}, None if c{place} is None else {_text(layout, place)}))"
        else:
            yield f"if c{place} is not None: headers.append(({name!r}, {_text(layout, place)}))"
    if key == f"c{layout.key}":
        yield f"if not {key}.isascii(): {key}.decode()"
    timestamp = "timestamp"
    if layout.time[0]:
        cell = f"c{layout.time[1]}"
        timestamp = f"timestamp if {cell} is None else moment({cell})"
    yield f"records.append((topic, value, {key}, -1, report, None, {timestamp}, headers))"
    yield "index += 1"


def _key(layout: Layout) -> str:
    """The expression of the key."""
    before, after, is_string = layout.key_frame
    if layout.cells[layout.key] == "text" and not after:
        return f"c{layout.key}"
    text = _text(layout, layout.key)
    key = f"escaped({text}).encode()" if is_string else f"{text}.encode()"
    return f"{before!r} + {key} + {after!r}" if after else key


def _text(layout: Layout, place: int) -> str:
    kind = layout.cells[place].removeprefix(_ISO)
    return _TEXTS[f"{kind}-text" if kind == "bytea" and not layout.binary else kind].format(f"c{place}")


def _head(layout: Layout) -> bytes:
    return struct.pack(">cIcH", b"I", layout.relation, b"N", len(layout.cells))


def _json_text(payload: bytes, header: bytes) -> bytes:
    """Return the payload of a message, which nothing has parsed before. Raises ValueError if it is not JSON."""
    orjson.loads(payload)
    return header + payload


def _reader(type_oid: int, *, binary: bool = True) -> Callable[[bytes], object] | None:
    return values.to_text(type_oid, binary)


_NAMES: Final[dict[str, Any]] = {
    "cell": struct.Struct(">BI").unpack_from,
    "CUTS": _CUTS,
    "parts": struct.Struct("4s6s6s").unpack,
    "size": struct.Struct(">I").unpack_from,
    "INDEXES": _INDEXES,
    "uuid": _reader(values.UUID),
    "integer": _reader(values.INT8),
    "boolean": _reader(values.BOOL),
    "boolean_text": _reader(values.BOOL, binary=False),
    "jsonb": _reader(values.JSONB),
    "escaped": escaped,
    "iso_timestamp": values.iso_timestamp,
    "iso_timestamptz": values.iso_timestamptz,
    "iso_timetz": values.iso_timetz,
    "base64": values.base64,
    "base64_of_text": values.base64_of_text,
}
