"""Detection of gaps, duplicates and reordering by number and position, with bounded memory, across restarts."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.consumer import (
    Duplicate,
    Event,
    Foreign,
    Gap,
    GapDetector,
    InOrder,
    Position,
    Recounted,
    Reordered,
    Repaired,
    Replayed,
    Started,
    Verdict,
)

STREAM, OTHER = "5d4fdb41", "0000beef"


def headers(lsn: int, number: int | None = None, stream: str = STREAM, **more: str) -> list[tuple[str, bytes]]:
    made = [("id", f"event {stream} {lsn}"), ("cdc-position", f"{stream}-{lsn:016X}-00000000")]
    if number is not None:
        made.append(("cdc-sequence", str(number)))
    return [(name, text.encode()) for name, text in [*made, *((name.replace("_", "-"), v) for name, v in more.items())]]


class Reader:
    """Reads one partition: gives every record the next offset."""

    def __init__(self, detector: GapDetector | None = None) -> None:
        self.detector = detector or GapDetector()
        self.offset = 0

    def read(self, lsn: int, number: int | None = None, stream: str = STREAM, **more: str) -> Verdict:
        return self.read_headers(headers(lsn, number, stream, **more))

    def read_headers(self, given_headers: Any) -> Verdict:
        self.offset += 1
        return self.detector.observe("t", 0, self.offset - 1, given_headers)

    def all(self, *records: tuple[int, int]) -> list[Verdict]:
        return [self.read(lsn, number) for lsn, number in records]


def kinds(verdicts: list[Verdict]) -> list[str]:
    return [type(verdict).__name__ for verdict in verdicts]


def test_reading_can_start_in_the_middle() -> None:
    verdicts = Reader().all((100, 17), (101, 18), (105, 19))
    assert kinds(verdicts) == ["Started", "InOrder", "InOrder"]
    first = verdicts[0]
    assert first == Started("t", 0, 0, f"event {STREAM} 100", Position(STREAM, 100, 0), 17, None)


def test_an_event_at_another_position_is_a_duplicate_by_its_id() -> None:
    reader = Reader()
    reader.all((100, 1), (101, 2))
    state = json.loads(json.dumps(reader.detector.state()))
    again = reader.read_headers([("id", f"event {STREAM} 100".encode()), *headers(900, 3)[1:]])
    assert isinstance(again, Duplicate)
    assert again.first_offset == 0
    assert kinds([reader.read(901, 4)]) == ["InOrder"]
    restored = Reader(GapDetector())
    restored.detector.restore(state)
    restored.offset = 2
    assert kinds([restored.read_headers([("id", f"event {STREAM} 101".encode()), *headers(902, 3)[1:]])]) == [
        "Duplicate"
    ]
    del state["partitions"][0]["streams"][0][1]["ids"]  # as an earlier version saved it
    GapDetector().restore(state)


def test_ids_are_forgotten_after_as_many_as_positions() -> None:
    reader = Reader(GapDetector(memory=2))
    assert kinds(reader.all((100, 1), (101, 2), (102, 3))) == ["Started", "InOrder", "InOrder"]
    assert kinds([reader.read_headers([("id", f"event {STREAM} 100".encode()), *headers(900, 4)[1:]])]) == ["InOrder"]


def test_a_lost_record_is_a_gap_at_the_next_one() -> None:
    reader = Reader()
    reader.all((100, 1), (101, 2))
    gap = reader.read(105, 6)
    assert isinstance(gap, Gap)
    assert (gap.expected, gap.found, gap.missing) == (3, 6, 3)
    assert str(gap) == f"t[0]@2 event event {STREAM} 105: numbers 3 to 5 are missing"
    assert isinstance(reader.read(106, 7), InOrder)


def test_an_event_that_was_sent_again_has_a_new_number_and_an_old_position() -> None:
    reader = Reader()
    reader.all((100, 1), (101, 2))
    again = reader.read(100, 3)
    assert again == Duplicate("t", 0, 2, f"event {STREAM} 100", Position(STREAM, 100, 0), 3, first_offset=0)
    assert isinstance(reader.read(102, 4), InOrder)


def test_a_copied_record_is_a_duplicate_by_its_number_and_position() -> None:
    reader = Reader()
    reader.all((100, 1), (101, 2))
    assert isinstance(reader.read(100, 1), Duplicate)
    assert isinstance(reader.read(102, 3), InOrder)


def test_swapped_records_are_a_gap_and_then_a_reorder_that_fills_it() -> None:
    reader = Reader()
    verdicts = reader.all((100, 1), (102, 3), (101, 2), (103, 4))
    assert kinds(verdicts) == ["Started", "Gap", "Reordered", "InOrder"]
    late = verdicts[2]
    assert isinstance(late, Reordered)
    assert late.after == Position(STREAM, 102, 0)


def test_an_event_that_is_late_by_position_alone_is_reordered() -> None:
    reader = Reader()
    assert kinds(reader.all((100, 1), (102, 2), (101, 3), (103, 4))) == ["Started", "InOrder", "Reordered", "InOrder"]


def test_positions_alone_reveal_duplicates_and_reordering_but_no_loss() -> None:
    reader = Reader()
    verdicts = [reader.read(lsn) for lsn in (100, 110, 105, 105, 100, 120)]
    assert kinds(verdicts) == ["Started", "InOrder", "Reordered", "Duplicate", "Duplicate", "InOrder"]


def test_an_event_older_than_the_memory_is_presumed_a_duplicate() -> None:
    reader = Reader(GapDetector(memory=2))
    reader.all((100, 1), (101, 2), (103, 3), (104, 4))
    old = reader.read(101, 5)
    assert isinstance(old, Duplicate)
    assert old.first_offset is None
    assert str(old).endswith("a duplicate, presumably")
    before_the_start = reader.read(50, 6)
    assert isinstance(before_the_start, Duplicate)


def test_an_old_number_for_a_new_event_is_recounted_and_becomes_the_next_number() -> None:
    reader = Reader()
    verdicts = reader.all((100, 1), (101, 2), (102, 3), (103, 2), (104, 3), (105, 4))
    assert kinds(verdicts) == ["Started", "InOrder", "InOrder", "Recounted", "InOrder", "InOrder"]
    verdict = verdicts[3]
    assert isinstance(verdict, Recounted)
    assert (verdict.expected, verdict.found) == (4, 2)


def test_another_stream_is_reported_as_started_and_both_are_tracked() -> None:
    reader = Reader()
    reader.all((100, 1), (101, 2))
    started = reader.read(7, 1, OTHER)
    assert isinstance(started, Started)
    assert started.previous == STREAM
    assert f"stream {OTHER} begins after stream {STREAM}" in str(started)
    assert isinstance(reader.read(102, 3), InOrder)
    assert isinstance(reader.read(9, 3, OTHER), Gap)


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (None, Foreign),
        ([], Foreign),
        ([("id", None), ("cdc-position", None)], Foreign),
        ([("cdc-position", b"\xff\xfe"), ("cdc-sequence", b"7")], Foreign),
        ([("cdc-position", b"5d4fdb41-0-0")], Foreign),
        ({"cdc-position": "nonsense"}, Foreign),
        (headers(50, cdc_replayed="2026-01-31T10:00:00Z"), Replayed),
        ([("id", b"x"), ("cdc-repaired", b"2026-01-31T10:00:00Z")], Repaired),
    ],
)
def test_foreign_replayed_and_repaired_records_do_not_affect_the_sequence(found: Any, kind: type[Verdict]) -> None:
    reader = Reader()
    reader.all((100, 1), (101, 2))
    assert type(reader.read_headers(found)) is kind
    assert isinstance(reader.read(102, 3), InOrder)


@pytest.mark.parametrize("number", ["", "0", "01", "-1", "x", "1" * 30, "\u0661"])
def test_an_invalid_number_is_treated_as_absent(number: str) -> None:
    reader = Reader()
    reader.all((100, 1), (101, 2))
    assert isinstance(reader.read(102, None, cdc_sequence=number), InOrder)
    assert isinstance(reader.read(103, 3), InOrder)


def test_records_read_again_are_not_duplicates() -> None:
    reader = Reader()
    reader.all((100, 1), (101, 2), (102, 3))
    reader.offset = 1
    assert kinds(reader.all((101, 2), (102, 3), (103, 4))) == ["Reread", "Reread", "InOrder"]


def test_a_re_created_topic_starts_again() -> None:
    reader = Reader()
    reader.all((100, 1), (101, 2), (102, 3))
    reader.offset = 0
    verdicts = reader.all((103, 1), (104, 2), (106, 4))
    assert kinds(verdicts) == ["Started", "InOrder", "Gap"]


def test_forgotten_partitions_start_again_and_others_continue() -> None:
    detector = GapDetector()
    for partition in (0, 1):
        detector.observe("t", partition, 0, headers(100, 1))
    detector.forget("t", 0)
    assert isinstance(detector.observe("t", 0, 5, headers(110, 9)), Started)
    assert isinstance(detector.observe("t", 1, 5, headers(110, 9)), Gap)
    detector.forget()
    assert isinstance(detector.observe("t", 1, 6, headers(120, 20)), Started)


def test_callbacks_get_verdicts_of_their_class() -> None:
    detector = GapDetector()
    gaps: list[Gap] = []
    heard: list[Verdict] = []
    detector.on(Gap, gaps.append)
    detector.on(Verdict, heard.append)
    verdicts = Reader(detector).all((100, 1), (105, 5), (106, 6))
    assert gaps == [verdicts[1]]
    assert heard == verdicts


@pytest.mark.parametrize("state", [{}, {"version": 2, "partitions": []}, {"version": 1, "partitions": [{}]}, []])
def test_an_invalid_state_is_refused_and_changes_nothing(state: Any) -> None:
    reader = Reader()
    reader.all((100, 1))
    with pytest.raises(ValueError, match="not a saved state"):
        reader.detector.restore(state)
    assert isinstance(reader.read(101, 2), InOrder)


def test_memory_is_bounded_for_any_input() -> None:
    reader = Reader(GapDetector(memory=10))
    for at in range(1, 2000):
        reader.read(at * 2, at * 3, f"{at % 100:08x}")
    (partition,) = reader.detector.state()["partitions"]
    assert len(partition["streams"]) == 64
    for _, stream in partition["streams"]:
        assert len(stream["seen"]) <= 10
        assert len(stream["holes"]) <= 100


class Message:
    """What confluent-kafka hands over, as far as an event needs it."""

    def __init__(self, found: Any) -> None:
        self._headers = found

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 2

    def offset(self) -> int:
        return 7

    def timestamp(self) -> tuple[int, int]:
        return 1, 1000

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"raw"

    def headers(self) -> Any:
        return self._headers


def test_an_event_parses_headers_and_decodes_its_value_once_at_first_access() -> None:
    calls = []

    def decode(value: bytes | None, _: Any) -> dict[str, Any]:
        calls.append(value)
        return {"n": len(calls)}

    event = Event.of(Message([*headers(100, 5), ("eventType", b"Noted"), ("id", b"second")]), decode)
    assert (event.id, event.type, event.sequence) == (f"event {STREAM} 100", "Noted", 5)
    assert str(event.position) == f"{STREAM}-{100:016X}-00000000"
    assert event.header("id") == f"event {STREAM} 100".encode()
    assert event.header("none") is None
    assert not calls
    assert event.value == event.value == {"n": 1}
    assert calls == [b"raw"]
    assert Event.of(Message(None)).value == b"raw"


# A log of one partition, and what happened to it. Positions grow by one, as numbers do.

logs = st.integers(3, 60)


@given(logs, st.data())
def test_a_correct_log_raises_no_alarm_wherever_reading_begins(size: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(1, size))
    verdicts = Reader(GapDetector(memory=3)).all(*((100 + n, n) for n in range(start, size + 1)))
    assert kinds(verdicts) == ["Started"] + ["InOrder"] * (size - start)


@given(logs, st.data())
def test_gaps_name_exactly_the_records_that_were_deleted(size: int, data: st.DataObject) -> None:
    deleted = data.draw(st.sets(st.integers(2, size - 1)))
    verdicts = Reader(GapDetector(memory=3)).all(*((100 + n, n) for n in range(1, size + 1) if n not in deleted))
    missing = [number for v in verdicts if isinstance(v, Gap) for number in range(v.expected, v.found)]
    assert missing == sorted(deleted)
    assert set(kinds(verdicts)) <= {"Started", "InOrder", "Gap"}


@given(logs, st.data(), st.booleans())
def test_duplicates_are_exactly_the_redelivered_events(size: int, data: st.DataObject, resent: bool) -> None:
    # Copies have their old number, resent events the next one.
    source = [100 + n for n in range(size)]
    log: list[tuple[int, bool]] = []
    for at, lsn in enumerate(source):
        log.append((lsn, False))
        log += [(earlier, True) for earlier in data.draw(st.lists(st.sampled_from(source[: at + 1]), max_size=2))]
    reader, number, first = Reader(), 0, dict[int, int]()
    for lsn, again in log:
        number += 1 if resent or not again else 0
        verdict = reader.read(lsn, number if resent else first.get(lsn, number))
        first.setdefault(lsn, number)
        assert isinstance(verdict, Duplicate) == again, (lsn, verdict)
        assert not isinstance(verdict, (Gap, Reordered, Recounted))


@given(logs, st.data())
def test_a_shuffled_log_ends_with_every_gap_filled(size: int, data: st.DataObject) -> None:
    tail = data.draw(st.permutations(range(2, size + 1)))
    reader = Reader()
    open_gaps: set[int] = set()
    for number in [1, *tail, size + 1]:
        verdict = reader.read(100 + number, number)
        if isinstance(verdict, Gap):
            open_gaps |= set(range(verdict.expected, verdict.found))
        elif isinstance(verdict, Reordered):
            open_gaps.remove(number)
    assert open_gaps == set()
    assert isinstance(verdict, InOrder)


records = st.lists(
    st.tuples(
        st.integers(0, 3),  # partition
        st.integers(0, 12),  # offset
        st.integers(0, 30),  # lsn
        st.none() | st.integers(1, 30),
        st.sampled_from([STREAM, OTHER, "not a stream"]),
    ),
    max_size=60,
)


@given(records, st.integers(0, 60), st.integers(1, 5))
def test_a_restored_detector_judges_as_if_it_had_never_stopped(log: Any, stop: int, memory: int) -> None:
    through, before, after = GapDetector(memory), GapDetector(memory), GapDetector(memory)
    for at, (partition, offset, lsn, number, stream) in enumerate(log):
        if at == stop:
            after.restore(json.loads(json.dumps(before.state())))
        detector = before if at < stop else after
        found = headers(lsn, number, stream)
        assert through.observe("t", partition, offset, found) == detector.observe("t", partition, offset, found)


@given(records)
def test_partitions_are_independent(log: Any) -> None:
    together, alone = GapDetector(5), {partition: GapDetector(5) for partition in range(4)}
    for partition, offset, lsn, number, stream in log:
        found = headers(lsn, number, stream)
        expected = alone[partition].observe("t", partition, offset, found)
        assert together.observe("t", partition, offset, found) == expected


@given(st.lists(st.tuples(st.text(max_size=12) | st.sampled_from(["id", "cdc-position", "cdc-sequence"]),
                          st.none() | st.binary(max_size=40) | st.text(max_size=40))), st.integers(-5, 5))  # fmt: skip
def test_no_header_makes_it_raise(found: Any, offset: int) -> None:
    detector = GapDetector(memory=1)
    detector.observe("t", 0, offset, found)
    detector.observe("t", 0, 0, found)
    state = json.loads(json.dumps(detector.state()))
    detector.restore(state)
    assert json.loads(json.dumps(detector.state())) == state
