"""Cells of a row to record times: milliseconds since 1970, as Kafka keeps them, in both formats of the stream.

A time is cut to the millisecond, towards the past. Kafka has no time before 1970, and its client takes 0 for the
present; a bigint beyond the year 9999 is in another unit.
"""

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from cdc.replication.frames import EPOCH_OFFSET_MS
from cdc.replication.values import INT8, TIMESTAMP, TIMESTAMPTZ

FIRST: Final = 1
LAST: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_integer = struct.Struct(">q").unpack


def of_integer(cell: bytes) -> int:
    """Return the time of a binary bigint. This and the others raise ValueError for what is no record time."""
    (milliseconds,) = _cut(cell)
    if FIRST <= milliseconds <= LAST:
        return int(milliseconds)
    raise ValueError(f"{milliseconds} is no time in milliseconds between 1970 and 9999")


def of_digits(cell: bytes) -> int:
    """Return the time of a bigint in text."""
    milliseconds = int(cell)
    if FIRST <= milliseconds <= LAST:
        return milliseconds
    raise ValueError(f"{milliseconds} is no time in milliseconds between 1970 and 9999")


def of_microseconds(cell: bytes) -> int:
    """Return the time of a binary timestamp, with or without time zone: both count from 2000 in UTC."""
    (microseconds,) = _cut(cell)
    milliseconds = microseconds // 1000 + EPOCH_OFFSET_MS
    if FIRST <= milliseconds <= LAST:
        return int(milliseconds)
    raise ValueError("a time before 1970, after 9999 or infinite cannot be the time of a record")


def of_text(cell: bytes) -> int:
    """Return the time of a timestamp in DateStyle ISO; without an offset it is in UTC."""
    text = cell.decode(errors="replace")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = _EPOCH
    milliseconds = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
    if FIRST <= milliseconds <= LAST:
        return milliseconds
    raise ValueError("a time before 1970, after 9999 or infinite cannot be the time of a record")


def _cut(cell: bytes) -> tuple[int]:
    try:
        return _integer(cell)
    except struct.error:
        raise ValueError(f"has {len(cell)} bytes, not 8") from None


KINDS: Final[dict[tuple[int, bool], str]] = {
    (TIMESTAMP, True): "microseconds",
    (TIMESTAMPTZ, True): "microseconds",
    (INT8, True): "integer",
    (TIMESTAMP, False): "timestamp",
    (TIMESTAMPTZ, False): "timestamptz",
    (INT8, False): "digits",
}
"""How a cell is read, by the oid of its type and whether it is binary, as the accelerators name it."""

READERS: Final[dict[str, Callable[[bytes], int]]] = {
    "microseconds": of_microseconds,
    "integer": of_integer,
    "timestamp": of_text,
    "timestamptz": of_text,
    "digits": of_digits,
}

TYPES: Final = frozenset(type_oid for type_oid, _ in KINDS)
"""The types of columns that may be the time of records."""


def to_moment(type_oid: int, *, binary: bool) -> Callable[[bytes], int] | None:
    """Return the decoder of a cell to milliseconds since 1970; None for a type that is no time of records."""
    kind = KINDS.get((type_oid, binary))
    return READERS[kind] if kind else None
