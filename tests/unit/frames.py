"""The server's side of the stream, written from the documentation and not from the decoder.

<https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>
"""

import struct
from collections.abc import Sequence

from hypothesis import strategies as st

from cdc.lsn import LSN
from cdc.replication.messages import (
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    Truncate,
    TupleData,
    Type,
    Update,
)

Cell = bytes | str | None  # bytes are sent in binary format, str as text


def encode(message: Message) -> bytes:
    """A pgoutput payload."""
    if isinstance(message, Begin):
        return struct.pack(">cQqI", b"B", *message)
    if isinstance(message, Commit):
        return struct.pack(">cBQQq", b"C", *message)
    if isinstance(message, Origin):
        return struct.pack(">cQ", b"O", message.commit_lsn) + _name(message.name)
    if isinstance(message, Relation):
        head = struct.pack(">cI", b"R", message.oid) + _name(message.namespace) + _name(message.name)
        head += message.replica_identity.encode("latin-1") + struct.pack(">H", len(message.columns))
        return head + b"".join(map(_column, message.columns))
    if isinstance(message, Type):
        return struct.pack(">cI", b"Y", message.oid) + _name(message.namespace) + _name(message.name)
    if isinstance(message, Insert):
        return struct.pack(">cI", b"I", message.relation_oid) + b"N" + _tuple(message.new)
    if isinstance(message, Update):
        return struct.pack(">cI", b"U", message.relation_oid) + _old(message) + b"N" + _tuple(message.new)
    if isinstance(message, Delete):
        return struct.pack(">cI", b"D", message.relation_oid) + _old(message)
    if isinstance(message, Truncate):
        count = len(message.relation_oids)
        return struct.pack(f">cIB{count}I", b"T", count, message.options, *message.relation_oids)
    head = struct.pack(">cBQ", b"M", message.transactional, message.lsn) + _name(message.prefix)
    return head + struct.pack(">I", len(message.content)) + message.content


def _name(name: str) -> bytes:
    return name.encode() + b"\0"


def _column(column: Column) -> bytes:
    return bytes([column.flags]) + _name(column.name) + struct.pack(">Ii", column.type_oid, column.type_modifier)


def _old(message: Update | Delete) -> bytes:
    if message.key:
        return b"K" + _tuple(message.key)
    return b"O" + _tuple(message.old) if message.old else b""


def _tuple(data: TupleData) -> bytes:
    parts = [struct.pack(">H", len(data.formats))]
    for kind, cell in zip(data.formats, data.cells, strict=True):
        parts.append(bytes([kind]) + (struct.pack(">I", len(cell)) + cell if kind in b"tb" else b""))
    return b"".join(parts)


def xlog(message: Message, wal_start: int = 0) -> bytes:
    """A frame of XLogData. Its LSNs mean nothing to us: rows of one COPY share them (A5)."""
    return struct.pack(">cQQq", b"w", wal_start, wal_start, 0) + encode(message)


def keepalive(wal_end: int, *, reply: bool = False) -> bytes:
    return struct.pack(">cQqB", b"k", wal_end, 0, reply)


def row(*cells: Cell) -> TupleData:
    formats = bytes(ord("n" if cell is None else "t" if isinstance(cell, str) else "b") for cell in cells)
    return TupleData(formats, [cell.encode() if isinstance(cell, str) else cell or b"" for cell in cells])


def relation(oid: int, name: str, columns: Sequence[tuple[str, int]], namespace: str = "public") -> Relation:
    return Relation(oid, namespace, name, "d", tuple(Column(0, column, type_oid, -1) for column, type_oid in columns))


def messages() -> st.SearchStrategy[Message]:
    """Any message that protocol version 1 allows."""
    uint32 = st.integers(0, 0xFFFFFFFF)
    lsn = st.integers(0, 0xFFFFFFFF_FFFFFFFF).map(LSN)
    time = st.integers(-(1 << 63), (1 << 63) - 1)
    byte = st.integers(0, 255)
    name = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
    cell = st.one_of(
        st.tuples(st.sampled_from(b"tb"), st.binary(max_size=40)), st.tuples(st.sampled_from(b"nu"), st.just(b""))
    )
    data = st.lists(cell, max_size=6).map(lambda cells: TupleData(bytes(c[0] for c in cells), [c[1] for c in cells]))
    column = st.builds(Column, byte, name, uint32, st.integers(-(1 << 31), (1 << 31) - 1))
    columns = st.lists(column, max_size=6).map(tuple)
    identity = st.sampled_from("dnfi")
    none = st.none()
    return st.one_of(
        st.builds(Begin, lsn, time, uint32),
        st.builds(Commit, byte, lsn, lsn, time),
        st.builds(Origin, lsn, name),
        st.builds(Relation, uint32, name, name, identity, columns),
        st.builds(Type, uint32, name, name),
        st.builds(Insert, uint32, data),
        st.builds(Update, uint32, none, none, data),
        st.builds(Update, uint32, data, none, data),
        st.builds(Update, uint32, none, data, data),
        st.builds(Delete, uint32, data, none),
        st.builds(Delete, uint32, none, data),
        st.builds(Truncate, byte, st.lists(uint32, max_size=6).map(tuple)),
        st.builds(LogicalMessage, st.booleans(), lsn, name, st.binary(max_size=40)),
    )
