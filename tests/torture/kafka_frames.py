"""Kafka's requests and responses as they pass a proxy: where each ends, and which events a broker acknowledges.

Events are recognised by their header `cdc-position` in the uncompressed record batch; the batches are not taken apart.
<https://kafka.apache.org/protocol>
"""

import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.torture.postgres_frames import Tape

PRODUCE: Final = 0
FETCH: Final = 1
FIRST_FLEXIBLE: Final = 9  # the version of Produce with compact lists and tagged fields
LAST_KNOWN: Final = 12
DELIVERED: Final = {0, 46}  # 46, DUPLICATE_SEQUENCE_NUMBER: the broker has it from an earlier attempt
_POSITION: Final = re.compile(rb"cdc-position.[0-9a-f]{8}-([0-9A-F]{16})-([0-9A-F]{8})", re.DOTALL)

Partition = tuple[str, int]
Position = tuple[int, int]


class Sent(NamedTuple):
    """A Produce request that waits for its response."""

    version: int
    positions: dict[Partition, list[Position]]
    session: int


class KafkaFrames:
    """One connection's requests and responses. Acknowledgements are told to the `tape` when they reach the client."""

    def __init__(self, tape: Tape, sessions: dict[Partition, list[tuple[int, int]]]) -> None:
        self._tape = tape
        self._sessions = sessions
        self._waiting: dict[int, Sent] = {}
        self._fetches: set[int] = set()

    def up(self, data: bytearray) -> Iterator[bytes]:
        """Take the complete requests off the front of `data`."""
        while frame := _take(data):
            self._heard_request(frame)
            yield frame

    def down(self, data: bytearray) -> Iterator[bytes]:
        """Take the complete responses off the front of `data`."""
        while frame := _take(data):
            yield frame

    def is_produced(self, frame: bytes, partition: Partition | None = None) -> bool:
        """Whether a response is one of Produce, of `partition` if one is given."""
        sent = self._waiting.get(int.from_bytes(frame[4:8], "big"))
        return sent is not None and (partition is None or partition in sent.positions)

    def passing(self, frame: bytes) -> None:
        """A response is about to reach the client."""
        correlation = int.from_bytes(frame[4:8], "big")
        if sent := self._waiting.pop(correlation, None):
            for partition, error, base_offset in _results(frame, sent.version):
                if error in DELIVERED:
                    self._acknowledge(partition, base_offset, sent)
        elif correlation in self._fetches:
            self._fetches.discard(correlation)
            # What a publisher reads back is in Kafka for good: a reader is given replicated records only.
            for position in _positions(frame):
                self._tape.watch.acknowledge(*position)

    def _acknowledge(self, partition: Partition, base_offset: int, sent: Sent) -> None:
        for position in sent.positions.get(partition, ()):
            self._tape.watch.acknowledge(*position)
        begun = self._sessions.setdefault(partition, [])
        if base_offset >= 0 and (not begun or (begun[-1][1] < sent.session and begun[-1][0] < base_offset)):
            begun.append((base_offset, sent.session))

    def _heard_request(self, frame: bytes) -> None:
        api, version, correlation = struct.unpack_from(">hhi", frame, 4)
        if api == FETCH:
            self._fetches.add(correlation)
        elif api == PRODUCE:
            assert version <= LAST_KNOWN, f"Produce {version} is not known here"
            positions = dict(_batches(frame, version))
            self._waiting[correlation] = Sent(version, positions, self._tape.sessions)


class _Cursor:
    """Reads the fields of one frame in turn."""

    def __init__(self, frame: bytes, at: int, *, flexible: bool) -> None:
        self._frame = frame
        self._at = at
        self._flexible = flexible

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


def _batches(frame: bytes, version: int) -> Iterator[tuple[Partition, list[Position]]]:
    """The events of a Produce request."""
    header = _Cursor(frame, 12, flexible=False)
    header.text()  # client id, the old way in every version
    cursor = _Cursor(frame, header._at, flexible=version >= FIRST_FLEXIBLE)
    cursor.tags()
    cursor.text()  # transactional id
    cursor.int16()  # acks
    cursor.int32()  # timeout
    for _ in range(cursor.count()):
        topic = cursor.text()
        for _ in range(cursor.count()):
            number = cursor.int32()
            yield (topic, number), _positions(cursor.blob())
            cursor.tags()
        cursor.tags()


def _results(frame: bytes, version: int) -> Iterator[tuple[Partition, int, int]]:
    """(partition, error, base offset) of a Produce response."""
    cursor = _Cursor(frame, 8, flexible=version >= FIRST_FLEXIBLE)
    cursor.tags()
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


def _positions(data: bytes) -> list[Position]:
    return [(int(lsn, 16), int(index, 16)) for lsn, index in _POSITION.findall(data)]


def _take(data: bytearray) -> bytes:
    if len(data) < 4:
        return b""
    size = 4 + int.from_bytes(data[:4], "big")
    if len(data) < size:
        return b""
    frame = bytes(data[:size])
    del data[:size]
    return frame
