"""Kafka's requests and responses as they pass a proxy: where each ends, and what it proves of records.

One object for each connection; a transaction's records and its end pass on different ones, so `Commits` is shared.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.torture import kafka_fields
from tests.torture.commits import Transaction
from tests.torture.connection import Direction
from tests.torture.kafka_batches import Batch, batches, visible
from tests.torture.kafka_fields import END_TXN, FETCH, LAST_KNOWN, PRODUCE, Ending, Partition
from tests.torture.postgres_frames import Tape

DELIVERED: Final = {0, 46}  # 46, DUPLICATE_SEQUENCE_NUMBER: the broker has it from an earlier attempt


class Sent(NamedTuple):
    """A Produce request that waits for its response."""

    version: int
    batches: dict[Partition, list[Batch]]
    session: int


class Ended(NamedTuple):
    """An EndTxn request that waits for its response."""

    version: int
    asked: Ending
    transaction: Transaction | None  # none where nothing was acknowledged


class Asked(NamedTuple):
    """A Fetch request that waits for its response."""

    version: int
    read_committed: bool


class KafkaFrames:
    """One connection's requests and responses; their evidence is passed to `tape` when it reaches the client."""

    def __init__(self, tape: Tape, sessions: dict[Partition, list[tuple[int, int]]]) -> None:
        self._tape = tape
        self._sessions = sessions
        self._waiting: dict[int, Sent | Ended | Asked] = {}

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
        sent = self._waiting.get(_correlation(frame))
        return isinstance(sent, Sent) and (partition is None or partition in sent.batches)

    def ending(self, frame: bytes, direction: Direction) -> Ended | None:
        """Parse an EndTxn request or its response; None for other frames."""
        found = self._waiting.get(_correlation(frame[4:] if direction == "up" else frame))
        return found if isinstance(found, Ended) else None

    def passing(self, frame: bytes) -> None:
        """A response is about to reach the client."""
        request = self._waiting.pop(_correlation(frame), None)
        if isinstance(request, Sent):
            for partition, error, base_offset in kafka_fields.produce_response(frame, request.version):
                if error in DELIVERED:
                    self._acknowledge(partition, base_offset, request)
        elif isinstance(request, Ended):
            if request.transaction and kafka_fields.end_response(frame, request.version) == 0:
                producer, commit = request.asked
                self._tape.commits.ended(producer, request.transaction, committed=commit)
        elif isinstance(request, Asked):
            for found in kafka_fields.fetch_response(frame, request.version):
                for batch in visible(found.records, found.aborted, read_committed=request.read_committed):
                    self._tape.commits.read(batch)

    def _acknowledge(self, partition: Partition, base_offset: int, sent: Sent) -> None:
        for batch in sent.batches.get(partition, ()):
            self._tape.commits.acknowledge(batch)
        begun = self._sessions.setdefault(partition, [])
        if base_offset >= 0 and (not begun or (begun[-1][1] < sent.session and begun[-1][0] < base_offset)):
            begun.append((base_offset, sent.session))

    def _heard_request(self, frame: bytes) -> None:
        api, version, correlation = struct.unpack_from(">hhi", frame, 4)
        if api not in LAST_KNOWN:
            return
        assert version <= LAST_KNOWN[api], f"version {version} of request {api} is not known here"
        if api == PRODUCE:
            sent = {partition: list(batches(data)) for partition, data in kafka_fields.produce_request(frame, version)}
            self._waiting[correlation] = Sent(version, sent, self._tape.sessions)
        elif api == END_TXN:
            asked = kafka_fields.end_request(frame, version)
            self._waiting[correlation] = Ended(version, asked, self._tape.commits.ending(asked.producer))
        elif api == FETCH:
            self._waiting[correlation] = Asked(version, kafka_fields.fetch_request(frame, version))


def _correlation(response: bytes) -> int:
    return int.from_bytes(response[4:8], "big", signed=True)


def _take(data: bytearray) -> bytes:
    if len(data) < 4:
        return b""
    size = 4 + int.from_bytes(data[:4], "big")
    if len(data) < size:
        return b""
    frame = bytes(data[:size])
    del data[:size]
    return frame
