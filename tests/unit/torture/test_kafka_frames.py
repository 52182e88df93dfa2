"""What the proxies of the torture runs take from Kafka's requests and responses: which events are there for good."""

import struct
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.torture.connection import Direction
from tests.torture.kafka_batches import Producer, batches, visible
from tests.torture.kafka_fields import END_TXN, FETCH, PRODUCE
from tests.torture.kafka_frames import KafkaFrames
from tests.torture.postgres_frames import Tape
from tests.torture.watch import Unsafe, Watch
from tests.unit.torture.test_nemesis import chunked

OLD, NEW = (7, 0), (7, 1)  # producers: of one transactional id, before and after it was taken over
NOBODY: Producer = (-1, -1)
MARK = struct.pack(">hi", 0, 1)  # version, and the coordinator's epoch


def batch(
    *events: tuple[int, int],
    producer: Producer = NOBODY,
    sequence: int = -1,
    first: int = 0,
    mark: int | None = None,
) -> bytes:
    """A record batch; with a real producer it is transactional."""
    attributes = (0 if producer == NOBODY else 0x10) | (0 if mark is None else 0x20)
    records = b"".join(
        b"...\x18cdc-positionD5d4fdb41-%016X-%08X..." % event for event in events
    )  # as good as records: they are not taken apart
    if mark is not None:  # length, attributes, two deltas, the key with its length, the value with its length
        records = b"\x20\0\0\0\x08" + struct.pack(">hh", 0, mark) + b"\x0c" + MARK + b"\0"
    count = max(1, len(events))
    body = struct.pack(">hiqqqhii", attributes, count - 1, 0, 0, *producer, sequence, count) + records
    return struct.pack(">qiibI", first, 9 + len(body), 0, 2, zlib.crc32(body)) + body


def request(api: int, version: int, correlation: int, body: bytes, *, flexible: bool) -> bytes:
    header = struct.pack(">hhi", api, version, correlation) + b"\0\2me" + (b"\0" if flexible else b"")
    return struct.pack(">I", len(header) + len(body)) + header + body


def response(correlation: int, body: bytes, *, flexible: bool) -> bytes:
    header = struct.pack(">i", correlation) + (b"\0" if flexible else b"")
    return struct.pack(">I", len(header) + len(body)) + header + body


def compact(data: bytes) -> bytes:
    """With its length before it, as flexible versions have it."""
    size, head = len(data) + 1, b""
    while size >= 0x80:
        head += bytes([size & 0x7F | 0x80])
        size >>= 7
    return head + bytes([size]) + data


def produce(version: int, correlation: int, records: bytes) -> bytes:
    """A Produce request for partition 2 of topic t."""
    if version >= 9:
        body = b"\0" + struct.pack(">hi", -1, 1000) + b"\2\2t\2" + struct.pack(">i", 2) + compact(records) + b"\0\0\0"
    else:
        body = struct.pack(">hhii", -1, -1, 1000, 1) + b"\0\1t" + struct.pack(">iii", 1, 2, len(records)) + records
    return request(PRODUCE, version, correlation, body, flexible=version >= 9)


def produced(version: int, correlation: int, error: int) -> bytes:
    """The response to it."""
    if version >= 9:
        body = b"\2\2t\2" + struct.pack(">ihqqq", 2, error, 40, -1, 0) + b"\1\0\0\0" + b"\0\0\0\0\0"
    else:
        body = struct.pack(">i", 1) + b"\0\1t" + struct.pack(">iihqqq", 1, 2, error, 40, -1, 0)
        body += struct.pack(">ih", 0, -1) if version >= 8 else b""
        body += struct.pack(">i", 0)
    return response(correlation, body, flexible=version >= 9)


def end(version: int, correlation: int, producer: Producer, *, commit: bool) -> bytes:
    """An EndTxn request."""
    name = compact(b"cdc") if version >= 3 else b"\0\3cdc"
    body = name + struct.pack(">qh?", *producer, commit) + (b"\0" if version >= 3 else b"")
    return request(END_TXN, version, correlation, body, flexible=version >= 3)


def ended(version: int, correlation: int, error: int) -> bytes:
    """The response to it."""
    body = struct.pack(">ih", 0, error) + (b"\0" if version >= 3 else b"")
    return response(correlation, body, flexible=version >= 3)


def fetch(version: int, correlation: int, *, read_committed: bool) -> bytes:
    """A Fetch request, as far as it matters."""
    body = (b"" if version >= 15 else struct.pack(">i", -1)) + struct.pack(">iii?", 100, 1, 1 << 20, read_committed)
    return request(FETCH, version, correlation, body + b"\0" * 12, flexible=version >= 12)


def fetched(version: int, correlation: int, records: bytes, aborted: Sequence[tuple[int, int]] = ()) -> bytes:
    """The response to it, of one partition."""
    flexible = version >= 12
    body = struct.pack(">i", 0) + (struct.pack(">hi", 0, 0) if version >= 7 else b"")
    one = b"\2" if flexible else struct.pack(">i", 1)
    body += one + (bytes(16) if version >= 13 else b"\2t" if flexible else b"\0\1t") + one
    body += struct.pack(">ihqq", 2, 0, 90, 90) + (struct.pack(">q", 0) if version >= 5 else b"")
    body += bytes([len(aborted) + 1]) if flexible else struct.pack(">i", len(aborted))
    body += b"".join(struct.pack(">qq", *each) + (b"\0" if flexible else b"") for each in aborted)
    body += struct.pack(">i", -1) if version >= 11 else b""
    body += compact(records) if flexible else struct.pack(">i", len(records)) + records
    return response(correlation, body + (b"\0\0\0" if flexible else b""), flexible=flexible)


class Wire:
    """Connections to two brokers, and a stream of which one transaction was read: two events at 0xA0."""

    def __init__(self) -> None:
        self.tape = Tape(Watch(), lambda xid, lsn: None, lambda unsafe: None)  # noqa: ARG005
        self.sessions: dict[tuple[str, int], list[tuple[int, int]]] = {}
        self.leader, self.coordinator = (KafkaFrames(self.tape, self.sessions) for _ in range(2))
        self.tape.watch.begin(0xA0)
        self.tape.watch.commit(0xA0, 0xB0, 2)

    @property
    def missing(self) -> int:
        """How many events a confirmation would lose."""
        found = self.tape.watch.status(0xB0)
        for read in self.tape.watch._reading:
            read.is_reported = False
        return sum(unsafe.missing for unsafe in found)

    def say(self, frames: KafkaFrames, asked: bytes, answer: bytes | None) -> None:
        """A request, and its response; None: the answer is lost."""
        assert list(frames.up(bytearray(asked))) == [asked]
        if answer is not None:
            (passed,) = frames.down(bytearray(answer))
            frames.passing(passed)

    def produce(self, records: bytes, error: int = 0) -> None:
        self.say(self.leader, produce(7, 1, records), produced(7, 1, error))

    def end(self, producer: Producer, *, commit: bool = True, error: int | None = 0, version: int = 1) -> None:
        answer = None if error is None else ended(version, 2, error)
        self.say(self.coordinator, end(version, 2, producer, commit=commit), answer)

    def fetch(
        self, records: bytes, aborted: Sequence[tuple[int, int]] = (), *, read_committed: bool = True, version: int = 11
    ) -> None:
        asked = fetch(version, 3, read_committed=read_committed)
        self.say(self.coordinator, asked, fetched(version, 3, records, aborted))


@given(st.lists(st.integers(1, 40), max_size=30), st.lists(st.binary(min_size=8, max_size=30), max_size=8))
def test_kafka_messages_are_the_same_however_they_arrive(sizes: list[int], bodies: list[bytes]) -> None:
    messages = [struct.pack(">Ihh", 4 + len(body), 3, 1) + body for body in bodies]
    frames = Wire().leader
    up, data = [], bytearray()
    for chunk in chunked(b"".join(messages), sizes):
        data += chunk
        up += list(frames.up(data))
    assert (up, bytes(data)) == (messages, b"")


@pytest.mark.parametrize("version", [7, 8, 9, 10])
@pytest.mark.parametrize(("error", "missing"), [(0, 0), (46, 0), (19, 2)])
def test_i6_what_a_broker_accepted_is_acknowledged_and_what_it_refused_is_not(
    version: int, error: int, missing: int
) -> None:
    wire = Wire()
    frames = wire.leader
    wire.say(frames, produce(version, 9, batch((0xA0, 0)) + batch((0xA0, 1))), None)
    answer = produced(version, 9, error)
    assert frames.is_produced(answer, ("t", 2))
    assert not frames.is_produced(answer, ("t", 1))
    assert wire.missing == 2
    (passed,) = frames.down(bytearray(answer))
    frames.passing(passed)
    assert wire.missing == missing
    assert wire.sessions == ({} if missing else {("t", 2): [(40, 0)]})


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4])
def test_i6_a_record_in_a_transaction_counts_when_the_answer_to_its_commit_arrives(version: int) -> None:
    wire = Wire()
    wire.produce(batch((0xA0, 0), (0xA0, 1), producer=OLD, sequence=0))
    assert wire.missing == 2
    asked, answer = end(version, 5, OLD, commit=True), ended(version, 5, 0)
    wire.say(wire.coordinator, asked, None)
    directions: list[tuple[bytes, Direction]] = [(asked, "up"), (answer, "down")]
    for frame, direction in directions:
        found = wire.coordinator.ending(frame, direction)
        assert found
        assert found.transaction
        assert found.transaction.positions == [(0xA0, 0), (0xA0, 1)]
        assert wire.leader.ending(frame, direction) is None
    assert wire.missing == 2
    wire.coordinator.passing(answer)
    assert wire.missing == 0
    assert wire.tape.commits.committed == 1


def test_i6_a_confirmation_before_the_commit_is_a_violation() -> None:
    wire = Wire()
    wire.produce(batch((0xA0, 0), (0xA0, 1), producer=OLD, sequence=0))
    wire.end(OLD, error=None)
    assert wire.tape.watch.status(0xB0) == [Unsafe(0xB0, 0xA0, 2)]


def test_i6_a_refused_commit_and_an_abort_prove_nothing() -> None:
    wire = Wire()
    wire.produce(batch((0xA0, 0), (0xA0, 1), producer=OLD, sequence=0))
    wire.end(OLD, error=90)  # PRODUCER_FENCED
    assert wire.missing == 2
    wire.end(OLD, commit=False)
    assert wire.missing == 2
    wire.end(OLD)  # the next transaction of the producer, an empty one
    assert wire.missing == 2
    assert (wire.tape.commits.committed, wire.tape.commits.aborted) == (0, 1)


def test_i6_a_commit_holds_what_was_acknowledged_until_it_was_asked_for() -> None:
    wire = Wire()
    wire.produce(batch((0xA0, 0), producer=OLD, sequence=0))
    wire.produce(batch((0xA0, 1), producer=OLD, sequence=1), error=19)
    wire.end(OLD)
    assert wire.missing == 1
    wire.produce(batch((0xA0, 1), producer=OLD, sequence=1))
    assert wire.missing == 1
    wire.end(OLD)
    assert wire.missing == 0


def test_i6_a_commit_is_of_one_producer_only() -> None:
    wire = Wire()
    wire.produce(batch((0xA0, 0), (0xA0, 1), producer=OLD, sequence=0))
    wire.end(NEW)
    wire.end((8, 0))
    assert wire.missing == 2


def test_i6_a_late_answer_does_not_commit_the_transaction_after_it() -> None:
    wire = Wire()
    wire.produce(batch((0xA0, 0), producer=OLD, sequence=0))
    wire.say(wire.coordinator, end(1, 50, OLD, commit=True), None)  # taken for lost, and asked again
    wire.end(OLD)
    wire.produce(batch((0xA0, 1), producer=OLD, sequence=1))
    wire.coordinator.passing(ended(1, 50, 0))
    assert wire.missing == 1
    assert wire.tape.commits.committed == 1


@pytest.mark.parametrize("version", [4, 6, 7, 11, 12, 13, 15, 16])
def test_i6_a_commit_without_an_answer_is_proven_by_who_reads_any_of_it(version: int) -> None:
    wire = Wire()
    position = batch(producer=OLD, sequence=0)
    wire.produce(batch((0xA0, 0), (0xA0, 1), producer=OLD, sequence=0))
    wire.produce(position)
    wire.end(OLD, error=None)
    wire.fetch(batch(producer=NEW, sequence=0), version=version)
    assert wire.missing == 2
    wire.fetch(position, version=version)
    assert wire.missing == 0
    assert (wire.tape.commits.committed, wire.tape.commits.read_back) == (1, 1)


def test_i6_what_an_aborted_transaction_left_in_the_log_proves_nothing() -> None:
    wire = Wire()
    lost = batch((0xA0, 0), (0xA0, 1), producer=OLD, sequence=0, first=10)
    kept = batch((0xA0, 1), producer=OLD, sequence=2, first=13)
    wire.produce(lost)
    wire.fetch(lost, aborted=[(OLD[0], 10)])
    assert wire.missing == 2
    wire.fetch(lost + batch(producer=OLD, first=12, mark=0) + kept, aborted=[(OLD[0], 10)])
    assert wire.missing == 1  # what the producer sent after the abort is another transaction's


def test_i6_a_reader_of_everything_proves_only_what_is_in_no_transaction() -> None:
    wire = Wire()
    wire.fetch(batch((0xA0, 0), producer=OLD, sequence=0) + batch((0xA0, 1)), read_committed=False)
    assert wire.missing == 1


def test_i6_events_that_a_reader_is_given_are_there() -> None:
    wire = Wire()
    wire.fetch(batch((0xA0, 0)) + batch((0xA0, 1), producer=OLD, sequence=0))
    assert wire.missing == 0


def test_a_batch_that_was_not_fetched_to_its_end_is_left_out() -> None:
    data = batch((1, 0)) + batch((2, 0))
    assert [found.positions for found in batches(data[:-1])] == [[(1, 0)]]
    assert [found.positions for found in batches(data)] == [[(1, 0)], [(2, 0)]]
    assert list(batches(b"")) == []


def test_marks_are_no_records_and_only_an_abort_ends_what_is_aborted() -> None:
    committed = batch(producer=OLD, first=1, mark=1)
    aborted = batch(producer=OLD, first=3, mark=0)
    assert [(found.is_mark, found.is_abort) for found in batches(committed + aborted)] == [(True, False), (True, True)]
    log = batch((1, 0), producer=OLD, sequence=0) + committed
    log += batch((2, 0), producer=OLD, sequence=1, first=2) + aborted
    log += batch((3, 0), producer=OLD, sequence=2, first=4)
    assert [found.positions for found in visible(log, [(OLD[0], 2)], read_committed=True)] == [[(1, 0)], [(3, 0)]]
