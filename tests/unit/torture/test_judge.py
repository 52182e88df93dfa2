"""The judge of the torture runs: each violation is found, alone and exactly; what is allowed is not."""

import random
from collections.abc import Callable
from itertools import groupby, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.torture.judge import Kind, Record, Rules, Undecided, Verdict, judge
from tests.torture.ledger import Ledger, Outcome, Row, digest
from tests.torture.watch import TooMany, Unsafe, Watch

TOPIC = "t"
EXACTLY_ONCE = Rules(exactly_once=True)
POLLING = Rules(exactly_once=True, polling=True)


class History:
    """A ledger made by hand: each transaction is a word of keys, such as "ab" for one event of a and one of b."""

    def __init__(self, *transactions: str) -> None:
        self.ledger = Ledger()
        self._next: dict[str, int] = {}
        self.rows: list[tuple[Row, int, int]] = []  # committed, with their places
        for xid, keys in enumerate(transactions, 1):
            rows = self._rows(keys)
            self.ledger.record(xid, rows, Outcome.COMMITTED)
            self.ledger.place(xid, xid * 100)
            self.rows += [(row, xid * 100, index) for index, row in enumerate(rows)]

    def _rows(self, keys: str) -> list[Row]:
        rows = []
        for key in keys:
            seq = self._next[key] = self._next.get(key, -1) + 1
            rows.append(Row(f"{key}{seq}", TOPIC, key, seq, digest(f"{key}{seq}".encode())))
        return rows

    def log(self, *ids: str, partition: int = 0) -> list[Record]:
        """The log of one partition: the events of these ids, each as it must be; all of them without any."""
        known = {row.id: (row, commit_lsn, index) for row, commit_lsn, index in self.rows}
        chosen = [known[event] for event in ids] if ids else list(known.values())
        return [
            Record(TOPIC, partition, offset, row.key, row.id, f"5d4fdb41-{lsn:016X}-{index:08X}", row.digest)
            for offset, (row, lsn, index) in enumerate(chosen)
        ]


def found(verdict: Verdict) -> list[tuple[Kind, str]]:
    return [(finding.kind, finding.id) for finding in verdict.findings]


def test_a_log_in_commit_order_is_clean() -> None:
    history = History("ab", "a", "cab")
    verdict = judge(history.ledger, history.log())
    assert verdict.is_clean
    assert (verdict.transactions, verdict.events, verdict.records, verdict.duplicates) == (3, 6, 6, 0)


def test_partitions_are_judged_one_by_one() -> None:
    history = History("ab", "a", "b")
    log = history.log("b0", "b1", partition=1) + history.log("a0", "a1", partition=0)
    assert judge(history.ledger, log).is_clean


def test_a_pure_rewind_is_clean_and_its_duplicates_are_counted() -> None:
    history = History("ab", "a", "b")
    log = history.log("a0", "b0", "a1", "a0", "b0", "a1", "b1")
    verdict = judge(history.ledger, log)
    assert verdict.is_clean
    assert verdict.duplicates == 3


def test_a_rewind_may_leave_out_what_is_there_already() -> None:
    history = History("abc", "a", "b")
    assert judge(history.ledger, history.log("a0", "b0", "c0", "a1", "b0", "a1", "b1")).is_clean


def test_duplicates_belong_to_the_session_that_wrote_them() -> None:
    history = History("ab", "a", "b")
    log = history.log("a0", "b0", "a0", "b0", "a1", "a1", "b1")
    verdict = judge(history.ledger, log, {(TOPIC, 0): [(0, 1), (2, 2), (5, 4)]})
    assert verdict.duplicates_by_session == {2: 2, 4: 1}


def test_i4_in_exactly_once_each_duplicate_is_a_violation() -> None:
    history = History("ab", "a", "b")
    log = history.log("a0", "b0", "a0", "b0", "a0", "a1", "b1")
    verdict = judge(history.ledger, log, rules=EXACTLY_ONCE)
    assert found(verdict) == [(Kind.DUPLICATE, "a0"), (Kind.DUPLICATE, "b0"), (Kind.DUPLICATE, "a0")]
    assert (verdict.duplicates, verdict.is_clean) == (3, False)
    assert "it is there 3 times" in str(verdict.findings[-1])


def test_i4_in_exactly_once_a_duplicate_in_another_partition_is_one_too() -> None:
    history = History("a")
    log = history.log("a0", partition=0) + history.log("a0", partition=1)
    assert found(judge(history.ledger, log, rules=EXACTLY_ONCE)) == [(Kind.DUPLICATE, "a0")]


def test_i4_in_exactly_once_a_log_without_duplicates_is_clean() -> None:
    history = History("ab", "a", "cab")
    assert judge(history.ledger, history.log(), rules=EXACTLY_ONCE, reads={}).is_clean


def test_i4_in_at_least_once_an_event_may_be_there_as_often_as_it_was_read() -> None:
    history = History("ab", "a")
    log = history.log("a0", "b0", "a0", "b0", "a1")
    assert judge(history.ledger, log, reads={100: 2, 200: 1}).is_clean
    verdict = judge(history.ledger, log, reads={100: 1, 200: 7})
    assert found(verdict) == [(Kind.DUPLICATE, "a0"), (Kind.DUPLICATE, "b0")]
    assert str(verdict.findings[0]).endswith("it is there 2 times, and was read 1 times")


def test_i4_a_duplicate_of_an_event_whose_place_is_not_known_is_only_counted() -> None:
    history = History("a")
    history.ledger.record(99, [Row("z0", TOPIC, "z", 0, digest(b"z0"))], Outcome.COMMITTED)
    twice = [Record(TOPIC, 0, offset, "z", "z0", "whatever", digest(b"z0")) for offset in (1, 2)]
    verdict = judge(history.ledger, [*history.log(), *twice], reads={})
    assert (found(verdict), verdict.duplicates) == ([], 1)


def numbered(log: list[Record], *numbers: str) -> list[Record]:
    return [record._replace(number=number) for record, number in zip(log, numbers, strict=True)]


@pytest.mark.parametrize(
    ("numbers", "wrong", "missing", "repeated"),
    [
        (("1", "2", "3", "4"), 0, 0, 0),
        (("2", "3", "4", "5"), 1, 1, 0),
        (("1", "2", "5", "6"), 1, 2, 0),
        (("1", "2", "2", "3"), 1, 0, 1),
        (("1", "2", "1", "3"), 1, 0, 1),
        (("1", "3", "2", "4"), 2, 1, 1),
        (("0", "1", "2", "3"), 1, 0, 1),
    ],
)
def test_numbers_count_up_from_one_without_gaps_and_repeats(
    numbers: tuple[str, ...], wrong: int, missing: int, repeated: int
) -> None:
    history = History("ab", "ab")
    log = numbered(history.log(), *numbers)
    verdict = judge(history.ledger, log, rules=Rules(exactly_once=True, numbered=True))
    assert [kind for kind, _ in found(verdict)] == [Kind.NUMBER] * wrong
    assert (verdict.numbers_missing, verdict.numbers_repeated) == (missing, repeated)
    at_least_once = judge(history.ledger, log, rules=Rules(numbered=True))
    assert at_least_once == verdict._replace(findings=[])
    assert judge(history.ledger, log, rules=EXACTLY_ONCE).is_clean


@pytest.mark.parametrize("exactly_once", [False, True])
@pytest.mark.parametrize("number", ["", "x", "-1", "1.0"])
def test_a_record_without_a_number_is_found_where_they_are_wanted(exactly_once: bool, number: str) -> None:
    history = History("a", "a")
    log = numbered(history.log(), "1", number)
    verdict = judge(history.ledger, log, rules=Rules(exactly_once=exactly_once, numbered=True))
    assert found(verdict) == [(Kind.NUMBER, "a1")]


def test_each_partition_and_each_stream_has_numbers_of_its_own() -> None:
    history = History("ab", "ab", "a", "a")
    log = history.log("b0", "b1", partition=1) + history.log("a0", "a1", "a2", "a3")
    log = numbered(log, "1", "2", "1", "2", "1", "2")
    log[-2:] = [record._replace(position="ffffffff" + record.position[8:]) for record in log[-2:]]
    verdict = judge(history.ledger, log, rules=Rules(exactly_once=True, numbered=True))
    assert verdict.is_clean


def test_i1_a_committed_event_that_is_nowhere_is_lost() -> None:
    history = History("ab", "a", "b")
    assert found(judge(history.ledger, history.log("a0", "b0", "b1"))) == [(Kind.LOST, "a1")]


def test_i1_everything_is_lost_when_there_is_no_record() -> None:
    history = History("ab")
    assert found(judge(history.ledger, [])) == [(Kind.LOST, "a0"), (Kind.LOST, "b0")]


def test_i2_events_of_a_key_that_changed_places_are_reordered() -> None:
    history = History("a", "a", "a")
    assert found(judge(history.ledger, history.log("a0", "a2", "a1"))) == [(Kind.REORDERED, "a1")]


def test_i2_a_key_that_moves_to_another_partition_is_reordered() -> None:
    history = History("a", "a")
    log = history.log("a0", partition=0) + history.log("a1", partition=1)
    assert found(judge(history.ledger, log)) == [(Kind.REORDERED, "a1")]


def test_i2_a_rewind_to_an_event_that_was_left_out_before_does_not_excuse_it() -> None:
    history = History("a", "a", "a")
    assert found(judge(history.ledger, history.log("a0", "a2", "a0", "a1", "a2"))) == [(Kind.REORDERED, "a1")]


def test_i3_a_log_that_goes_forward_over_an_event_of_another_key_has_a_gap() -> None:
    history = History("a", "b", "a")
    assert found(judge(history.ledger, history.log("a0", "a1", "b0"))) == [(Kind.GAP, "b0")]


def test_i3_a_gap_that_a_rewind_fills_is_a_gap_all_the_same() -> None:
    history = History("a", "b", "c")
    assert found(judge(history.ledger, history.log("a0", "c0", "a0", "b0", "c0"))) == [(Kind.GAP, "b0")]


def test_i3_holds_within_a_transaction_too() -> None:
    history = History("ab")
    assert found(judge(history.ledger, history.log("b0", "a0"))) == [(Kind.GAP, "a0")]


def test_i3_a_reordered_key_does_not_hide_the_gap_of_another() -> None:
    history = History("a", "b", "a", "a")
    log = history.log("a0", "a2", "a1", "b0")
    assert found(judge(history.ledger, log)) == [(Kind.REORDERED, "a1"), (Kind.GAP, "b0")]


def test_i3_says_nothing_of_a_transaction_whose_place_is_not_known() -> None:
    history = History("a")
    history.ledger.record(99, [Row("z0", TOPIC, "z", 0, digest(b"z0"))], Outcome.COMMITTED)
    log = [*history.log(), Record(TOPIC, 0, 1, "z", "z0", "whatever", digest(b"z0"))]
    assert judge(history.ledger, log).is_clean


@pytest.mark.parametrize(
    "change",
    [
        {"id": "nobody's"},
        {"digest": 1},
        {"key": "b"},
        {"position": "5d4fdb41-0000000000000064-00000001"},
        {"position": ""},
    ],
    ids=["id", "value", "key", "index", "no position"],
)
def test_i5_a_record_that_is_not_what_was_committed_is_a_phantom(change: dict[str, Any]) -> None:
    history = History("a", "a")
    wrong = history.log("a0")[0]._replace(offset=2, **change)
    (finding,) = judge(history.ledger, [*history.log(), wrong]).findings
    assert (finding.kind, finding.where) == (Kind.PHANTOM, "t/0@2")


def test_i5_an_event_of_another_topic_is_a_phantom_and_not_lost() -> None:
    history = History("a")
    (record,) = history.log()
    assert found(judge(history.ledger, [record._replace(topic="u")])) == [(Kind.PHANTOM, "a0")]


def test_i5_a_rolled_back_row_is_a_phantom() -> None:
    history = History("a")
    row = Row("r0", TOPIC, "r", 0, digest(b"r0"))
    history.ledger.record(50, [row], Outcome.ROLLED_BACK)
    record = Record(TOPIC, 0, 1, "r", "r0", "5d4fdb41-0000000000000100-00000000", row.digest)
    (finding,) = judge(history.ledger, [*history.log(), record]).findings
    assert (finding.kind, finding.id, finding.why) == (Kind.PHANTOM, "r0", "its transaction was rolled back")


def test_what_was_rolled_back_is_not_lost() -> None:
    history = History("a")
    history.ledger.record(50, [Row("r0", TOPIC, "r", 0, 0)], Outcome.ROLLED_BACK)
    assert judge(history.ledger, history.log()).is_clean


def test_a_transaction_of_unknown_outcome_has_to_be_settled_first() -> None:
    history = History("a")
    committed = history.ledger.record(50, [Row("u0", TOPIC, "u", 0, 0)], Outcome.UNKNOWN)
    rolled_back = history.ledger.record(51, [Row("v0", TOPIC, "v", 0, 0)], Outcome.UNKNOWN)
    with pytest.raises(Undecided, match="transaction 50"):
        judge(history.ledger, history.log())
    history.ledger.settle(committed, committed=True)
    history.ledger.settle(rolled_back, committed=False)
    assert found(judge(history.ledger, history.log())) == [(Kind.LOST, "u0")]
    assert history.ledger.events == 2


def test_a_log_that_was_not_read_in_order_is_no_evidence() -> None:
    history = History("a", "a")
    with pytest.raises(Undecided, match="t/0@0"):
        judge(history.ledger, history.log()[::-1])


def test_a_finding_says_where_and_why() -> None:
    history = History("a", "a")
    (finding,) = judge(history.ledger, history.log("a1", "a0")).findings
    assert str(finding) == "I2 reordered: event a0 t/0@1: number 0 of key 'a' comes after event a1"


def renumbered(log: list[Record]) -> list[Record]:
    return [record._replace(offset=offset) for offset, record in enumerate(log)]


def without_one(log: list[Record], chance: random.Random) -> Kind:
    event = chance.choice(log).id
    log[:] = [record for record in log if record.id != event]
    return Kind.LOST


def firsts(log: list[Record]) -> list[int]:
    """Where in the log each event comes for the first time."""
    seen: set[str] = set()
    return [at for at, record in enumerate(log) if not (record.id in seen or seen.add(record.id))]  # type: ignore[func-returns-value]


def late(log: list[Record], chance: random.Random) -> Kind:
    """One event comes only after the one that follows it, of its own key or of another."""
    one, two = chance.choice(list(pairwise(firsts(log))))
    moved, next_one = log[one], log[two]
    log[one : two + 1] = [record for record in log[one : two + 1] if record.id != moved.id] + [moved]
    return Kind.REORDERED if next_one.key == moved.key else Kind.GAP


def invented(log: list[Record], chance: random.Random) -> Kind:
    log.insert(chance.randrange(len(log) + 1), chance.choice(log)._replace(id="invented"))
    return Kind.PHANTOM


def spoiled(log: list[Record], chance: random.Random) -> Kind:
    at = chance.randrange(len(log))
    field, value = chance.choice([("digest", 1), ("key", "another"), ("position", "5d4fdb41-0-0")])
    log[at] = log[at]._replace(**{field: value})  # type: ignore[arg-type]
    return Kind.PHANTOM


@st.composite
def histories(draw: st.DrawFn) -> tuple[History, list[Record]]:
    """A ledger and a log that are clean: in commit order, with rewinds."""
    history = History(*draw(st.lists(st.text("abcd", min_size=1, max_size=6), min_size=2, max_size=12)))
    log = history.log()
    for _ in range(draw(st.integers(0, 4))):
        end = draw(st.integers(1, len(log)))
        begin = draw(st.integers(0, end - 1))
        log[end:end] = log[begin:end]
    return history, renumbered(log)


@given(histories())
def test_every_clean_history_passes(made: tuple[History, list[Record]]) -> None:
    history, log = made
    verdict = judge(history.ledger, log)
    assert verdict.is_clean
    assert verdict.duplicates == len(log) - verdict.events


@pytest.mark.parametrize("mutate", [without_one, late, invented, spoiled])
@given(made=histories(), chance=st.randoms(use_true_random=False))
def test_one_violation_in_a_clean_history_is_always_caught(
    mutate: Callable[[list[Record], random.Random], Kind], made: tuple[History, list[Record]], chance: random.Random
) -> None:
    history, log = made
    if len(firsts(log)) < 2:
        return
    expected = mutate(log, chance)
    verdict = judge(history.ledger, renumbered(log))
    assert expected in {finding.kind for finding in verdict.findings}


def test_a_clean_history_of_a_hundred_thousand_events_is_judged_clean() -> None:
    history = History(*["abcdefghij"] * 10_000)
    verdict = judge(history.ledger, history.log())
    assert verdict.is_clean
    assert verdict.events == 100_000


def test_i6_what_is_acknowledged_may_be_confirmed() -> None:
    watch = Watch()
    for lsn in (100, 200):
        watch.begin(lsn)
        watch.commit(lsn, lsn + 10, 2)
    watch.acknowledge(200, 1)
    watch.acknowledge(100, 0)
    watch.acknowledge(200, 0)
    assert watch.status(100) == []
    watch.acknowledge(100, 1)
    assert watch.status(210) == []
    assert (watch.settled, watch.unacknowledged, watch.violations) == (210, 0, [])


@pytest.mark.parametrize("flush", [101, 110, 1000])  # PostgreSQL skips what commits before the slot
def test_i6_a_transaction_of_which_one_event_is_missing_may_not_be_confirmed(flush: int) -> None:
    watch = Watch()
    watch.begin(100)
    watch.commit(100, 110, 3)
    watch.acknowledge(100, 0)
    watch.acknowledge(100, 2)
    assert watch.status(100) == []
    assert watch.status(flush) == watch.violations == [Unsafe(flush, 100, 1)]


def test_i6_a_finding_says_what_was_confirmed_and_is_made_once() -> None:
    watch = Watch()
    watch.begin(100)
    watch.commit(100, 110, 3)
    (finding,) = watch.status(110)
    assert str(finding) == "I6: 0/6E was confirmed, transaction 0/64 was 3 events unacknowledged"
    assert watch.status(120) == []


def test_i6_a_later_transaction_does_not_settle_an_earlier_one() -> None:
    watch = Watch()
    for lsn in (100, 200):
        watch.begin(lsn)
        watch.commit(lsn, lsn + 10, 1)
    watch.acknowledge(200, 0)
    assert watch.status(210) == [Unsafe(210, 100, 1)]


def test_i6_a_transaction_that_is_not_read_to_its_end_may_not_be_confirmed() -> None:
    watch = Watch()
    watch.begin(100)
    watch.acknowledge(100, 0)
    assert watch.status(100) == []
    assert watch.status(101) == [Unsafe(101, 100, -1)]


def test_i6_what_is_read_again_after_it_was_settled_stays_settled() -> None:
    watch = Watch()
    for _ in range(2):
        watch.begin(100)
        watch.acknowledge(100, 0)
        watch.commit(100, 110, 1)
        assert watch.status(110) == []


def test_i6_a_transaction_without_events_is_settled_by_itself() -> None:
    watch = Watch()
    watch.begin(100)
    watch.commit(100, 110, 0)
    assert watch.status(110) == []


def test_watch_counts_reads_of_a_transaction_and_pending_repeats() -> None:
    watch = Watch()
    steps: list[Callable[[], object]] = [
        lambda: watch.begin(100),
        lambda: watch.commit(100, 110, 1),
        lambda: watch.acknowledge(100, 0),
        lambda: watch.status(110),
    ]
    busy = [watch.is_busy]
    for step in steps:
        step()
        busy.append(watch.is_busy)
    assert busy == [False, True, True, True, False]  # delivered is not yet confirmed
    watch.begin(100)
    assert watch.reads == {100: 2}


def test_i6_the_same_event_acknowledged_twice_counts_once() -> None:
    watch = Watch()
    watch.begin(100)
    watch.commit(100, 110, 2)
    watch.acknowledge(100, 0)
    watch.acknowledge(100, 0)
    assert watch.status(110) == [Unsafe(110, 100, 1)]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_i6_the_watch_agrees_with_the_plain_definition(sizes: list[int], chance: random.Random) -> None:
    watch = Watch()
    events = [(100 * number, index) for number, size in enumerate(sizes, 1) for index in range(size)]
    for lsn, rows in groupby(events, key=lambda event: event[0]):
        watch.begin(lsn)
        watch.commit(lsn, lsn + 10, len(list(rows)))
    chance.shuffle(events)
    acknowledged: set[tuple[int, int]] = set()
    named: set[int] = set()
    for event in events:
        watch.acknowledge(*event)
        acknowledged.add(event)
        flush = chance.randrange(100 * len(sizes) + 20)
        unsafe = {lsn for lsn, index in events if lsn < flush and (lsn, index) not in acknowledged}
        assert {finding.commit_lsn for finding in watch.status(flush)} == unsafe - named
        named |= unsafe


def polled(*positions: tuple[str, int, int]) -> tuple[Ledger, list[Record]]:
    """A log without a slot: events, each with the batch and the index of its position; nothing else places them."""
    ledger, log = Ledger(), []
    for xid, (event, batch, index) in enumerate(positions, 1):
        row = Row(event, TOPIC, event[0], int(event[1:]), digest(event.encode()))
        ledger.record(xid, [row], Outcome.COMMITTED)
        log.append(Record(TOPIC, 0, xid, row.key, event, f"5d4fdb41-{batch:016X}-{index:08X}", row.digest))
    return ledger, log


def test_without_a_slot_the_records_of_a_partition_are_in_the_order_of_their_positions() -> None:
    ledger, log = polled(("a0", 1, 0), ("b0", 1, 1), ("a1", 2, 0))
    assert judge(ledger, log, rules=POLLING).is_clean
    ledger, log = polled(("a0", 1, 0), ("b0", 3, 0), ("c0", 2, 0))
    assert found(judge(ledger, log, rules=POLLING)) == [(Kind.GAP, "c0")]
    assert judge(ledger, log, rules=Rules(polling=True)).is_clean  # a process that was frozen may have sent it late


def test_a_position_that_two_events_have_is_found() -> None:
    ledger, log = polled(("a0", 1, 0), ("b0", 1, 0))
    assert found(judge(ledger, log, rules=Rules(polling=True))) == [(Kind.POSITION, "b0")]


def test_i6_a_relay_confirms_no_more_rows_than_kafka_has_events() -> None:
    watch = Watch()
    for index in range(3):
        watch.acknowledge(1, index)
    assert watch.count(3) == []
    assert watch.count(5) == [TooMany(5, 3)] == watch.violations
    assert watch.count(5) == []  # it is named once
    assert str(watch.violations[0]) == "I6: 5 rows were confirmed, 3 events were acknowledged"
    assert (watch.statuses, watch.confirmed) == (3, 5)
