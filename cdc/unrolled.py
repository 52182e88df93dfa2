"""Runs of plain rows in Python: source code written for one layout, without a loop over columns or a call per cell.

From frame to record, but for the encoder, a row of five columns costs 1.9 us so; the general road takes 8. `source`
shows the code. Whatever goes wrong in it ends the run: the general road meets the same frame again, and says what is
wrong with it.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from cdc import cells
from cdc.encoding import Delivered, Sendable
from cdc.runs import Layout, Route

_HEAD_AT: Final = 25  # of the pgoutput message in its frame: kind, relation, `N`, number of columns
_CELLS_AT: Final = _HEAD_AT + 8
_XLOG_DATA: Final = ord("w")

_INDEXES: Final = tuple([f"{index:08X}" for index in range(1024)])  # to format one costs 0.12 us

_FIXED: Final = {"uuid": 16, "bool": 1}  # bytes of a cell, where there is only one size
Take = Callable[[list[bytes], int, str, int, int, Delivered], list[Sendable]]

_TEXTS: Final = {
    "text": "{0}.decode()",
    "uuid": "uuid({0})",
    "integer": "integer({0})",
    "bool": "boolean({0})",
    "bool-text": "boolean_text({0})",
    "jsonb": "jsonb({0})",
}


class Unrolled:
    """Fits `cdc.runs.Runs`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._routes: dict[tuple[bytes, ...], tuple[Any, ...]] = {}
        names = {**_NAMES, "routes": self._routes, "HEAD": _head(layout)}
        exec(compile(source(layout), "<unrolled>", "exec"), names)
        self.take: Take = names["take"]

    def learn(self, event_type: bytes, topic_cells: tuple[bytes, ...], route: Route) -> None:
        """From now on rows with these cells take this route."""
        self._routes[event_type, *topic_cells] = (
            route.topic,
            ("eventType", route.type),
            route.header,
            route.encode,
            route.spare(self._layout),
        )

    def forget(self) -> None:
        """There are no routes any more."""
        self._routes.clear()


def source(layout: Layout) -> str:
    """The source of `take` for a layout, to be read."""
    lines = ["def take(frames, at, prefix, index, timestamp, report):", "    records = []", "    try:"]
    lines += ["        for place in range(at, len(frames)):", "            frame = frames[place]"]
    body = [f"if frame[{_HEAD_AT}:{_CELLS_AT}] != HEAD or frame[0] != {_XLOG_DATA}: break"]
    body += _Splitting(layout).lines()
    body += ["if o != len(frame): break", *_record(layout)]
    lines += [f"            {line}" for line in body]
    lines += ["    except Exception:  # of whatever kind: the general road meets it again", "        pass"]
    return "\n".join([*lines, "    return records", ""])


class _Splitting:
    """Statements that cut a frame into the cells that are needed, `c0` and so on.

    Where a cell begins is a number as long as all before it have one size only, and then the variable `o`.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._optional = {place for _, place in layout.headers} - {
            layout.id, layout.key, layout.type, layout.payload, *layout.topic,
        }  # fmt: skip
        self._kind = ord("b") if layout.binary else ord("t")
        self._at: int | None = _CELLS_AT

    def lines(self) -> Iterator[str]:
        for place, how in enumerate(self._layout.cells):
            size = _FIXED.get(how) if self._layout.binary else None
            if place in self._optional:
                yield from self._nullable(place)
            elif not how:
                yield from self._skipped()
            elif size and self._at is not None:
                yield from self._fixed(place, size)
            else:
                yield from self._variable(place)
        yield from self._move()

    def _move(self) -> Iterator[str]:
        """From here on the offset is in `o`."""
        if self._at is not None:
            yield f"o = {self._at}"
            self._at = None

    def _fixed(self, place: int, size: int) -> Iterator[str]:
        assert self._at is not None
        start = self._at + 5
        yield f"if frame[{self._at}:{start}] != {struct.pack('>BI', self._kind, size)!r}: break"
        yield f"c{place} = frame[{start}:{start + size}]"
        self._at = start + size

    def _variable(self, place: int) -> Iterator[str]:
        yield f"kind, n = cell(frame, {'o' if self._at is None else self._at})"
        yield f"if kind != {self._kind}: break"
        yield "o += 5" if self._at is None else f"o = {self._at + 5}"
        self._at = None
        yield f"c{place} = frame[o : o + n]; o += n"

    def _nullable(self, place: int) -> Iterator[str]:
        yield from self._move()
        yield f"if frame[o] == {ord('n')}:"
        yield f"    c{place} = None; o += 1"
        yield "else:"
        yield from (f"    {line}" for line in self._variable(place))

    def _skipped(self) -> Iterator[str]:
        yield from self._move()
        yield f"if frame[o] in {(ord('b'), ord('t'))}: o += 5 + size(frame, o + 1)[0]"
        yield f"elif frame[o] in {(ord('n'), ord('u'))}: o += 1"
        yield "else: break"


def _record(layout: Layout) -> Iterator[str]:
    """Statements that make the record of the cells."""
    cells_of_route = ", ".join(f"c{place}" for place in (layout.type, *layout.topic))
    yield f"route = routes.get(({cells_of_route},))"
    yield "if route is None: break"
    yield "topic, event_type, header, encode, spare = route"
    payload = f"c{layout.payload}"
    if layout.cells[layout.payload] == "jsonb":
        yield f"if {payload}[0] != {cells.JSONB_VERSION}: break"
        payload += "[1:]"
    if layout.tombstones:
        yield f"if not {payload} or {payload}.isspace(): break"
    yield f"value = header + {payload}" if layout.avro else f"value = encode({payload}, header)"
    yield "if len(value) + 4 * len(frame) > spare: break"
    if layout.cells[layout.id] == "uuid":
        yield f"h = c{layout.id}.hex('-', 2)"  # three of the seven dashes are too many: 0.06 us less than to set four
        event_id = "f'{h[:4]}{h[5:29]}{h[30:34]}{h[35:]}'"
    else:
        event_id = _text(layout, layout.id)
    position = f"prefix + INDEXES[index] if index < {len(_INDEXES)} else f'{{prefix}}{{index:08X}}'"
    yield f"headers = [('id', {event_id}), event_type, ('cdc-position', {position})]"
    for name, place in layout.headers:
        yield f"if c{place} is not None: headers.append(({name!r}, {_text(layout, place)}))"
    plain = layout.cells[layout.key] == "text"
    key = f"c{layout.key}" if plain else f"{_text(layout, layout.key)}.encode()"
    yield f"records.append((topic, {key}, value, timestamp, headers, report, -1))"
    yield "index += 1"


def _text(layout: Layout, place: int) -> str:
    return _TEXTS[layout.cells[place]].format(f"c{place}")


def _head(layout: Layout) -> bytes:
    return struct.pack(">cIcH", b"I", layout.relation, b"N", len(layout.cells))


def _reader(type_oid: int, *, binary: bool = True) -> Any:
    return cells.to_text(type_oid, binary)


_NAMES: Final[dict[str, Any]] = {
    "cell": struct.Struct(">BI").unpack_from,
    "size": struct.Struct(">I").unpack_from,
    "INDEXES": _INDEXES,
    "uuid": _reader(cells.UUID),
    "integer": _reader(cells.INT8),
    "boolean": _reader(cells.BOOL),
    "boolean_text": _reader(cells.BOOL, binary=False),
    "jsonb": _reader(cells.JSONB),
}
