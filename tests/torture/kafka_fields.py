"""Fields of Kafka's requests and responses that show the fate of records. <https://kafka.apache.org/protocol>"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.torture.kafka_batches import Producer

Partition = tuple[str, int]

PRODUCE: Final = 0
FETCH: Final = 1
END_TXN: Final = 26
LAST_KNOWN: Final = {PRODUCE: 12, FETCH: 17, END_TXN: 5}  # versions
_FIRST_FLEXIBLE: Final = {PRODUCE: 9, FETCH: 12, END_TXN: 3}  # with compact lists and tagged fields
_READ_COMMITTED: Final = 1


class Ending(NamedTuple):
    """What an EndTxn request asks for."""

    producer: Producer
    commit: bool


class Fetched(NamedTuple):
    """What a Fetch response holds of one partition."""

    aborted: list[tuple[int, int]]  # (producer id, first offset) of transactions
    records: bytes


class _Cursor:
    """Reads the fields of one frame in turn."""

    def __init__(self, frame: bytes, at: int, *, flexible: bool) -> None:
        self._frame = frame
        self._at = at
        self._flexible = flexible

    @classmethod
    def request(cls, frame: bytes, api: int, version: int) -> "_Cursor":
        """At the first field behind the header."""
        cursor = cls(frame, 12, flexible=False)
        cursor.text()  # client id, the old way in every version
        cursor._flexible = version >= _FIRST_FLEXIBLE[api]
        cursor.tags()
        return cursor

    @classmethod
    def response(cls, frame: bytes, api: int, version: int) -> "_Cursor":
        """At the first field behind the header."""
        cursor = cls(frame, 8, flexible=version >= _FIRST_FLEXIBLE[api])
        cursor.tags()
        return cursor

    def int8(self) -> int:
        return self._fixed(">b", 1)

    def int16(self) -> int:
        return self._fixed(">h", 2)

    def int32(self) -> int:
        return self._fixed(">i", 4)

    def int64(self) -> int:
        return self._fixed(">q", 8)

    def count(self) -> int:
        """The length of a list; -1 for null."""
        return self._varint() - 1 if self._flexible else self.int32()

    def text(self) -> str:
        size = self._varint() - 1 if self._flexible else self.int16()
        return self.take(max(0, size)).decode()

    def blob(self) -> bytes:
        return self.take(max(0, self.count()))

    def tags(self) -> None:
        if self._flexible:
            for _ in range(self._varint()):
                self._varint()
                self.take(self._varint())

    def take(self, size: int) -> bytes:
        self._at += size
        return self._frame[self._at - size : self._at]

    def _fixed(self, layout: str, size: int) -> int:
        (value,) = struct.unpack(layout, self.take(size))
        return int(value)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7


def produce_request(frame: bytes, version: int) -> Iterator[tuple[Partition, bytes]]:
    """The record batches of each partition."""
    cursor = _Cursor.request(frame, PRODUCE, version)
    cursor.text()  # transactional id
    cursor.int16()  # acks
    cursor.int32()  # timeout
    for _ in range(cursor.count()):
        topic = cursor.text()
        for _ in range(cursor.count()):
            number = cursor.int32()
            yield (topic, number), cursor.blob()
            cursor.tags()
        cursor.tags()


def produce_response(frame: bytes, version: int) -> Iterator[tuple[Partition, int, int]]:
    """(partition, error, base offset)."""
    cursor = _Cursor.response(frame, PRODUCE, version)
    for _ in range(cursor.count()):
        topic = cursor.text()
        for _ in range(cursor.count()):
            number, error, base_offset = cursor.int32(), cursor.int16(), cursor.int64()
            cursor.int64()  # log append time
            if version >= 5:
                cursor.int64()  # log start offset
            if version >= 8:
                for _ in range(cursor.count()):
                    cursor.int32()
                    cursor.text()
                    cursor.tags()
                cursor.text()
            yield (topic, number), error, base_offset
            cursor.tags()
        cursor.tags()


def end_request(frame: bytes, version: int) -> Ending:
    """Whose transaction shall end, and how."""
    cursor = _Cursor.request(frame, END_TXN, version)
    cursor.text()  # transactional id
    return Ending((cursor.int64(), cursor.int16()), bool(cursor.int8()))


def end_response(frame: bytes, version: int) -> int:
    """The error, 0 for none."""
    cursor = _Cursor.response(frame, END_TXN, version)
    cursor.int32()  # throttle time
    return cursor.int16()


def fetch_request(frame: bytes, version: int) -> bool:
    """Whether the reader is read_committed."""
    cursor = _Cursor.request(frame, FETCH, version)
    if version < 15:
        cursor.int32()  # replica
    cursor.take(12)  # longest wait, fewest bytes, most bytes
    return version >= 4 and cursor.int8() == _READ_COMMITTED


def fetch_response(frame: bytes, version: int) -> Iterator[Fetched]:
    """What there is of each partition."""
    cursor = _Cursor.response(frame, FETCH, version)
    cursor.int32()  # throttle time
    if version >= 7:
        cursor.take(6)  # error, session
    for _ in range(cursor.count()):
        if version >= 13:
            cursor.take(16)  # the topic's id
        else:
            cursor.text()
        for _ in range(cursor.count()):
            cursor.take(14)  # partition, error, high watermark
            cursor.take(16 if version >= 5 else 8)  # last stable offset, first offset
            aborted = []
            for _ in range(cursor.count()):
                aborted.append((cursor.int64(), cursor.int64()))
                cursor.tags()
            if version >= 11:
                cursor.int32()  # preferred replica
            yield Fetched(aborted, cursor.blob())
            cursor.tags()
        cursor.tags()
