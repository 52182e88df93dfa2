"""Runs: consecutive rows that are plain, or messages that stand for such rows, made into records at once.

The general path (pgoutput, transactions, outbox, encoding) takes each row through every step, and alone refuses rows.
Each row that it has taken leaves its route (`cdc.records.router`). Rows of the same shape on a known route need none of
the steps, only their result; rows that are not plain are declined, and left to the general path. So the code that
`cdc.records.fastpath.generated` writes for a table and the native accelerator differ in speed only.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from cdc.outbox.events import Outbox
from cdc.outbox.keys import Frame
from cdc.outbox.messages import Members
from cdc.records.record import Delivered, Sendable
from cdc.records.router import Route
from cdc.replication import values
from cdc.replication.messages import Relation
from cdc.replication.moments import KINDS

_BINARY_CELLS: Final = {
    values.BOOL: "bool",
    values.INT2: "integer",
    values.INT4: "integer",
    values.INT8: "integer",
    values.UUID: "uuid",
    values.JSONB: "jsonb",
    values.BYTEA: "bytea",
    values.BPCHAR: "padded",
    **dict.fromkeys(values.SAME_AS_TEXT, "text"),
}
_TEXT_CELLS: Final = {values.BOOL: "bool-text", values.BPCHAR: "padded"}


_ISO_CELLS: Final = {
    values.TIMESTAMP: "timestamp",
    values.TIMESTAMPTZ: "timestamptz",
    values.TIMETZ: "timetz",
    values.BYTEA: "bytea",
}


NO_TIME: Final = ("", 0)


class Layout(NamedTuple):
    """How the rows of one relation are read. Places are numbers of columns, from 0."""

    relation: int  # oid
    binary: bool  # the format of cells that are needed
    cells: tuple[str, ...]
    """How each is read: text, padded, uuid, integer, bool, bool-text, jsonb, bytea; empty when it is not needed;
    `moment` when it is only the time of the record.

    `iso:` before it, or before timestamp, timestamptz or timetz: it is only a header, in `header_format = "iso"`."""
    id: int
    key: int
    type: int
    payload: int
    topic: tuple[int, ...]  # the cells that decide about the topic
    headers: tuple[tuple[str, int], ...]  # name and place; a null is left out, or with `iso:` has no value
    tombstones: bool  # an empty payload means something
    key_frame: Frame = Frame()  # how the text of the key's cell becomes the key
    time: tuple[str, int] = NO_TIME
    """How the time of the record is read, by a name of `cdc.replication.moments`, and its place; where the cell is
    null, the record has the time of the commit, and so have all without a name."""
    members: Members | None = None
    """What messages have that stand for such rows; None: frames hold the rows themselves. Cells are text; those without
    a member are null."""
    prefix: bytes = b""  # of the messages


def room(layout: Layout, route: Route, largest: int) -> int:
    """A record batch is surely below `largest` when four times its frame and its value are not more than this."""
    constant = sum(4 * (len(name) + len(value)) + 10 for name, value in route.headers)
    return largest - 512 - constant - sum(len(name) + 1 for name, _ in layout.headers) * 8


class Runs(Protocol):
    """Makes records of the rows of one layout."""

    def learn(self, event_type: bytes, topic_cells: tuple[bytes, ...], route: Route, room: int, /) -> None:
        """Let rows with these cells take this route, with so much room: see `room`. It keeps `MOST` routes."""
        ...

    def take(
        self, frames: list[bytes], at: int, prefix: str, index: int, timestamp: int, report: Delivered, /
    ) -> list[Sendable]:
        """The records of `frames[at:]`, one for each, up to the first frame that is no plain row on a known route.

        `prefix` is the position's text before the index, `index` that of the first row, `timestamp` in milliseconds.
        Raises nothing because of what a frame holds.
        """
        ...

    def forget(self) -> None:
        """Drop all routes."""
        ...


Make = Callable[[Layout], Runs]


def layout(relation: Relation, outbox: Outbox, *, binary: bool, prefix: str | None = None) -> Layout | None:
    """How rows of a relation are read, or messages of a prefix that stand for them; None: only by the general path."""
    columns, shape = outbox.columns, outbox.shape(relation)
    members = outbox.members(relation)
    if shape.missing or (prefix is not None and members is None):
        return None
    places = shape.places
    payload = places[columns.payload]
    # The aggregate is asked for in each row, whether the topic depends on it or not.
    topic = dict.fromkeys([columns.aggregate, *(column for _, column in shape.topic)])
    texts = {places[name] for name in (columns.id, columns.key, columns.type, *topic)}
    headers = {place for _, place in shape.headers}
    iso = {place for name, place in shape.headers if name in outbox.iso}
    read = [""] * len(shape.types)
    for place in {payload, *texts, *headers}:
        special = _ISO_CELLS.get(shape.types[place]) if place in iso else None
        how = special or _how(shape.types[place], binary=binary)
        only_header = place not in texts and place != payload
        if how is None or (special and not only_header):
            return None
        if how == "bytea" and not special and place in texts | headers:
            return None
        read[place] = f"iso:{how}" if place in iso and only_header else how
    if read[payload] not in ("text", "jsonb", "bytea"):
        return None
    key = places[columns.key]
    frame = outbox.keys.frame(shape.types[key])
    if frame is None:
        return None
    if not binary and read[key] == "text" and shape.types[key] not in values.SAME_AS_TEXT:
        return None
    time = NO_TIME
    if outbox.time is not None and outbox.time in places:
        at = places[outbox.time]
        kind = KINDS.get((shape.types[at], binary))
        if kind is None:
            return None
        time, read[at] = (kind, at), read[at] or "moment"
    return Layout(
        0 if members else relation.oid,
        binary,
        tuple(read),
        places[columns.id],
        key,
        places[columns.type],
        payload,
        tuple([places[name] for name in topic]),
        shape.headers,
        outbox.tombstones,
        frame,
        time,
        members,
        (prefix or "").encode(),
    )


def _how(type_oid: int, *, binary: bool) -> str | None:
    if binary:
        return _BINARY_CELLS.get(type_oid)
    return None if type_oid == values.BYTEA else _TEXT_CELLS.get(type_oid, "text")
