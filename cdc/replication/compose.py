"""Frames out: rows of queries as the messages of a replication stream.

What reads the stream knows no difference. The cells of `COPY ... (FORMAT binary)` and those of pgoutput have the same
bytes; only the lengths before them differ.
<https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>
<https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-BINARY>
"""

import struct
from typing import Final

from cdc.errors import ProtocolError
from cdc.lsn import LSN
from cdc.replication.frames import XLOG_DATA, XLOG_HEADER_SIZE
from cdc.replication.messages import Relation

_XLOG: Final = XLOG_DATA + bytes(XLOG_HEADER_SIZE - 1)
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
_TRAILER: Final = b"\xff\xff"

_begin_fields = struct.Struct(">cQqI")
_commit_fields = struct.Struct(">cBQQq")
_keepalive_fields = struct.Struct(">cQqB")
_column_fields = struct.Struct(">Ii")
_length = struct.Struct(">i").unpack_from
_count = struct.Struct(">h").unpack_from
_number = struct.Struct(">hiq")  # how many cells, and the first of them: a bigint


def begin(commit_lsn: LSN, committed: int) -> bytes:
    """Return a Begin; `committed` is a time in microseconds since 2000."""
    return _XLOG + _begin_fields.pack(b"B", commit_lsn, committed, 0)


def commit(commit_lsn: LSN, end_lsn: LSN, committed: int) -> bytes:
    """Return a Commit; `committed` is a time in microseconds since 2000."""
    return _XLOG + _commit_fields.pack(b"C", 0, commit_lsn, end_lsn, committed)


def keepalive(wal_end: LSN) -> bytes:
    """Return a keepalive that asks for no reply."""
    return _keepalive_fields.pack(b"k", wal_end, 0, False)


def relation(described: Relation) -> bytes:
    """Return a Relation."""
    columns = (
        bytes([column.flags]) + _text(column.name) + _column_fields.pack(column.type_oid, column.type_modifier)
        for column in described.columns
    )
    head = struct.pack(">cI", b"R", described.oid) + _text(described.namespace) + _text(described.name)
    head += described.replica_identity.encode() + struct.pack(">H", len(described.columns))
    return _XLOG + head + b"".join(columns)


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def copied(data: bytes) -> int | None:
    """Return where a row begins in data of `COPY ... (FORMAT binary)`; None for data behind the last row.

    PostgreSQL sends one piece of data for each row, and the header of the format before the first.
    """
    at = 0
    if data.startswith(_SIGNATURE):
        (extension,) = _length(data, len(_SIGNATURE) + 4)
        at = len(_SIGNATURE) + 8 + extension
    return None if data[at : at + 2] in (_TRAILER, b"") else at


def copied_number(data: bytes) -> int | None:
    """Return the bigint of a row that has nothing else; None for data behind the last row."""
    at = copied(data)
    return None if at is None else int(_number.unpack_from(data, at)[2])


class CopiedRows:
    """Makes Inserts of the data of `COPY ... (FORMAT binary)`, in which each row has a bigint before its cells.

    All cells are binary, or all are text, which that format leaves as it is.
    """

    def __init__(self, described: Relation, *, binary: bool) -> None:
        self._columns = len(described.columns)
        self._head = _XLOG + struct.pack(">cIcH", b"I", described.oid, b"N", self._columns)
        self._kind = b"b" if binary else b"t"

    def insert(self, data: bytes) -> tuple[int, bytes] | None:
        """Return a row's bigint and its Insert; None for data behind the last row. Raises ProtocolError."""
        at = copied(data)
        if at is None:
            return None
        try:
            count, size, number = _number.unpack_from(data, at)
            if count != self._columns + 1 or size != 8:
                raise ProtocolError(f"a copied row has {count} columns, the first of {size} bytes")
            at += _number.size
            parts, kind = [self._head], self._kind
            for _ in range(self._columns):
                (size,) = _length(data, at)
                at += 4
                if size < 0:
                    parts.append(b"n")
                else:
                    parts += kind, data[at - 4 : at + size]
                    at += size
        except struct.error as error:
            raise ProtocolError(f"a copied row is cut off: {error}") from None
        if at != len(data):
            raise ProtocolError(f"a copied row has {len(data)} bytes, not {at}")
        return number, b"".join(parts)
