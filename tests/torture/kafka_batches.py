"""Kafka's record batches, as they are the same in Produce requests, in logs and in Fetch responses.

Events are recognised by their header `cdc-position` in a batch that is not compressed; records are not taken apart.
<https://kafka.apache.org/documentation/#recordbatch>
"""

import re
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

Position = tuple[int, int]  # commit LSN and index
Producer = tuple[int, int]  # id and epoch

_POSITION: Final = re.compile(rb"cdc-position.[0-9a-f]{8}-([0-9A-F]{16})-([0-9A-F]{8})", re.DOTALL)
_HEADER: Final = struct.Struct(">qi5x4shi16xqhi4x")
_BEFORE_LENGTH: Final = 12  # bytes that the batch's length does not count
_TRANSACTIONAL: Final = 0x10
_CONTROL: Final = 0x20
_TYPE: Final = _HEADER.size + 7  # where a mark says which it is: its record is small, so each length takes one byte
_ABORT: Final = 0


class Batch(NamedTuple):
    """One batch."""

    last_offset: int
    producer: Producer
    identity: bytes  # checksum, producer and sequence: a broker stores them as they came
    is_transactional: bool
    is_mark: bool  # of a transaction's end
    is_abort: bool
    positions: list[Position]


def batches(data: bytes) -> Iterator[Batch]:
    """The batches one after the other; what is fetched may end inside of the last."""
    at = 0
    while at + _HEADER.size <= len(data):
        first, size, checksum, attributes, delta, producer, epoch, sequence = _HEADER.unpack_from(data, at)
        end = at + _BEFORE_LENGTH + size
        if end > len(data):
            return
        is_mark = bool(attributes & _CONTROL)
        yield Batch(
            first + delta,
            (producer, epoch),
            checksum + struct.pack(">qhi", producer, epoch, sequence),
            bool(attributes & _TRANSACTIONAL),
            is_mark,
            is_mark and int.from_bytes(data[at + _TYPE : at + _TYPE + 2], "big") == _ABORT,
            [(int(lsn, 16), int(index, 16)) for lsn, index in _POSITION.findall(data, at, end)],
        )
        at = end


def visible(data: bytes, aborted: Sequence[tuple[int, int]], *, read_committed: bool) -> Iterator[Batch]:
    """Of what was fetched, what is there for good: neither aborted nor, to a reader of everything, undecided.

    `aborted` are (producer id, first offset) as the broker reports them to a read_committed reader.
    """
    waiting = sorted(((first, producer) for producer, first in aborted), reverse=True)
    gone: set[int] = set()
    for batch in batches(data):
        while waiting and waiting[-1][0] <= batch.last_offset:
            gone.add(waiting.pop()[1])
        if batch.is_abort:
            gone.discard(batch.producer[0])
        elif not batch.is_mark and not (batch.is_transactional and (not read_committed or batch.producer[0] in gone)):
            yield batch
