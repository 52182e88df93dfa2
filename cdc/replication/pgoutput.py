"""Bytes to messages: the whole of pgoutput, protocol version 1.

One rule: `decode` returns a message or raises ProtocolError. Slices of Python never fail, so a length that
points past the end is caught by the last line of `decode`, where what was read is compared with what was sent.

<https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>
"""

import struct
from collections.abc import Callable

from cdc.errors import ProtocolError
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

_uint32 = struct.Struct(">I").unpack_from
_uint16 = struct.Struct(">H").unpack_from
_begin_fields = struct.Struct(">QqI")
_commit_fields = struct.Struct(">BQQq")
_column_fields = struct.Struct(">Ii")
_truncate_fields = struct.Struct(">IB")
_message_fields = struct.Struct(">BQ")
_insert_fields = struct.Struct(">Ic")

_NULL, _UNCHANGED, _TEXT, _BINARY = b"nutb"


def decode(payload: bytes, start: int = 0) -> Message:
    """Decode the message that fills `payload` from `start` to its end.

    Raises ProtocolError for an unknown kind, a truncated or an over-long message, and nothing else.
    """
    kind = payload[start : start + 1]
    try:
        message, end = READERS[kind](payload, start + 1)
    except KeyError:
        raise ProtocolError(f"unknown pgoutput message kind {kind!r}") from None
    except (struct.error, ValueError, IndexError) as error:
        raise ProtocolError(f"malformed pgoutput message {kind!r}: {error}") from None
    if end != len(payload):
        raise ProtocolError(f"pgoutput message {kind!r} is {len(payload) - start} bytes long, not {end - start}")
    return message


def _string(payload: bytes, at: int) -> tuple[str, int]:
    end = payload.index(0, at)
    return payload[at:end].decode(), end + 1


def _tuple_data(payload: bytes, at: int) -> tuple[TupleData, int]:
    (count,) = _uint16(payload, at)
    at += 2
    formats = bytearray()
    cells: list[bytes] = []
    for _ in range(count):
        kind = payload[at]
        formats.append(kind)
        if kind == _BINARY or kind == _TEXT:
            start = at + 5
            at = start + _uint32(payload, at + 1)[0]
            cells.append(payload[start:at])
        elif kind == _NULL or kind == _UNCHANGED:
            cells.append(b"")
            at += 1
        else:
            raise ValueError(f"unknown column format {kind:#04x} at byte {at}")
    return TupleData(bytes(formats), cells), at


def _begin(payload: bytes, at: int) -> tuple[Begin, int]:
    commit_lsn, commit_time, xid = _begin_fields.unpack_from(payload, at)
    return Begin(LSN(commit_lsn), commit_time, xid), at + _begin_fields.size


def _commit(payload: bytes, at: int) -> tuple[Commit, int]:
    flags, commit_lsn, end_lsn, commit_time = _commit_fields.unpack_from(payload, at)
    return Commit(flags, LSN(commit_lsn), LSN(end_lsn), commit_time), at + _commit_fields.size


def _origin(payload: bytes, at: int) -> tuple[Origin, int]:
    (commit_lsn,) = struct.unpack_from(">Q", payload, at)
    name, at = _string(payload, at + 8)
    return Origin(LSN(commit_lsn), name), at


def _relation(payload: bytes, at: int) -> tuple[Relation, int]:
    (oid,) = _uint32(payload, at)
    namespace, at = _string(payload, at + 4)
    name, at = _string(payload, at)
    replica_identity = chr(payload[at])
    (count,) = _uint16(payload, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        flags = payload[at]
        column, at = _string(payload, at + 1)
        columns.append(Column(flags, column, *_column_fields.unpack_from(payload, at)))
        at += _column_fields.size
    return Relation(oid, namespace, name, replica_identity, tuple(columns)), at


def _type(payload: bytes, at: int) -> tuple[Type, int]:
    (oid,) = _uint32(payload, at)
    namespace, at = _string(payload, at + 4)
    name, at = _string(payload, at)
    return Type(oid, namespace, name), at


def _insert(payload: bytes, at: int) -> tuple[Insert, int]:
    oid, kind = _insert_fields.unpack_from(payload, at)
    if kind != b"N":
        raise ValueError(f"expected the new row, got {kind!r}")
    new, at = _tuple_data(payload, at + 5)
    return Insert(oid, new), at


def _old_row(payload: bytes, at: int) -> tuple[TupleData | None, TupleData | None, int]:
    """The replica identity (K) or the whole old row (O), of which a message has at most one."""
    key = old = None
    if payload[at] == ord("K"):
        key, at = _tuple_data(payload, at + 1)
    elif payload[at] == ord("O"):
        old, at = _tuple_data(payload, at + 1)
    return key, old, at


def _update(payload: bytes, at: int) -> tuple[Update, int]:
    (oid,) = _uint32(payload, at)
    key, old, at = _old_row(payload, at + 4)
    if payload[at] != ord("N"):
        raise ValueError(f"expected the new row, got {payload[at : at + 1]!r}")
    new, at = _tuple_data(payload, at + 1)
    return Update(oid, key, old, new), at


def _delete(payload: bytes, at: int) -> tuple[Delete, int]:
    (oid,) = _uint32(payload, at)
    key, old, at = _old_row(payload, at + 4)
    if key is None and old is None:
        raise ValueError(f"expected the old row, got {payload[at : at + 1]!r}")
    return Delete(oid, key, old), at


def _truncate(payload: bytes, at: int) -> tuple[Truncate, int]:
    count, options = _truncate_fields.unpack_from(payload, at)
    at += _truncate_fields.size
    if count > (len(payload) - at) // 4:  # or a hostile count would have us build a format of gigabytes
        raise ValueError(f"{count} relations do not fit")
    return Truncate(options, struct.unpack_from(f">{count}I", payload, at)), at + 4 * count


def _logical_message(payload: bytes, at: int) -> tuple[LogicalMessage, int]:
    flags, lsn = _message_fields.unpack_from(payload, at)
    at += _message_fields.size
    end = payload.index(0, at)
    # Any program may write messages, and in a database of SQL_ASCII their prefixes are any bytes.
    prefix, at = payload[at:end].decode(errors="replace"), end + 1
    (size,) = _uint32(payload, at)
    at += 4
    return LogicalMessage(bool(flags & 1), LSN(lsn), prefix, payload[at : at + size]), at + size


# The list of what is supported. Messages of streamed transactions (S, E, c, A) are not asked for, and
# would break the promise if they were mistaken for something else: they stop the session.
READERS: dict[bytes, Callable[[bytes, int], tuple[Message, int]]] = {
    b"B": _begin,
    b"C": _commit,
    b"O": _origin,
    b"R": _relation,
    b"Y": _type,
    b"I": _insert,
    b"U": _update,
    b"D": _delete,
    b"T": _truncate,
    b"M": _logical_message,
}
