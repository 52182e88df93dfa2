"""What the judge allows compaction to remove: older records of a key, a tombstone at the end of one, nothing else."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.torture.judge import FILLER, Kind, Record, Rules, Verdict, judge
from tests.torture.ledger import Ledger, Outcome, Row, digest
from tests.torture.topics import with_removed
from tests.unit.torture.test_judge import TOPIC, History, found

COMPACTED = Rules(compacted=frozenset({TOPIC}))
ONCE = Rules(exactly_once=True, compacted=frozenset({TOPIC}))


def cleaned(log: list[Record], end: int) -> list[Record]:
    """What the cleaner leaves of a log whose part before `end` it cleaned."""
    newest = {record.key: record.offset for record in log[:end]}
    return [record for record in log if record.offset >= end or newest[record.key] == record.offset]


def verdict(
    history: History, left: list[Record], seen: list[Record] | None = None, rules: Rules = COMPACTED, unproven: str = ""
) -> Verdict:
    """Judge what is left, where Kafka acknowledged every event but one."""
    proven = {(lsn, index) for row, lsn, index in history.rows if row.id != unproven}
    return judge(history.ledger, with_removed(left, seen or []), rules=rules, proven=proven)


@pytest.mark.parametrize("rules", [COMPACTED, ONCE])
def test_older_records_of_a_key_may_be_gone_whether_they_were_seen_or_not(rules: Rules) -> None:
    history = History("a", "ab", "ca", "b")
    log = history.log()
    for seen, unseen in ((log, 0), (log[:2], 1), ([], 3)):
        judged = verdict(history, cleaned(log, len(log)), seen, rules)
        assert (found(judged), judged.removed, judged.unseen) == ([], 3, unseen)


@pytest.mark.parametrize("rules", [COMPACTED, ONCE])
def test_a_topic_that_is_not_compacted_loses_what_is_gone(rules: Rules) -> None:
    history = History("a", "a")
    assert found(verdict(history, cleaned(history.log(), 2), rules=rules._replace(compacted=frozenset()))) == [
        (Kind.LOST, "a0")
    ]


@pytest.mark.parametrize("rules", [COMPACTED, ONCE])
def test_the_newest_event_of_a_key_may_not_be_gone(rules: Rules) -> None:
    history = History("a", "b", "a", "b")
    without = history.log("a0", "b0", "b1")
    assert found(verdict(history, without, rules=rules)) == [(Kind.LOST, "a1"), (Kind.STALE, "a1")]
    assert found(verdict(history, history.log("b0", "b1"), rules=rules)) == [(Kind.LOST, "a0"), (Kind.LOST, "a1")]
    left = [record for record in history.log() if record.id != "a1"]
    assert found(verdict(history, left, history.log(), rules)) == [(Kind.STALE, "a1")]


def test_an_older_event_that_kafka_never_acknowledged_is_lost() -> None:
    history = History("a", "b", "a", "b")
    left = cleaned(history.log(), 4)
    assert found(verdict(history, left, unproven="a0")) == [(Kind.LOST, "a0")]


def test_an_older_event_is_lost_where_no_record_can_have_been_removed() -> None:
    history = History("a", "a", "a")
    assert found(verdict(history, history.log("a0", "a2"))) == [(Kind.LOST, "a1")]


def test_a_replay_of_what_was_removed_ends_with_the_newest_event() -> None:
    history = History("a", "a", "a", "b")
    log = history.log("a0", "a1", "a2", "b0", "a0", "a1", "a2")
    assert found(verdict(history, [log[2], *log[3:]])) == []
    assert found(verdict(history, [log[2], *log[3:]], log)) == []
    stale = verdict(history, [log[2], *log[3:6]], log[:6])
    assert found(stale) == [(Kind.STALE, "a2")]
    assert "the last record of key 'a' is number 1, the newest event is 2" in str(stale.findings[0])


def test_a_replay_that_leaves_out_later_events_of_the_key_is_found_though_newer_ones_follow() -> None:
    history = History("a", "a", "a", "a")
    log = history.log("a0", "a1", "a2", "a0", "a3")
    judged = verdict(history, log)
    assert found(judged) == [(Kind.REORDERED, "a3")]
    assert "number 3 follows number 0, which was sent again behind number 2" in str(judged.findings[0])


@pytest.mark.parametrize("rules", [COMPACTED, ONCE])
def test_an_order_that_is_broken_is_found_where_everything_was_seen(rules: Rules) -> None:
    history = History("a", "a", "a", "a")
    log = history.log("a0", "a2", "a1", "a3")
    for left in (log, cleaned(log, 4)):
        assert (Kind.REORDERED, "a1") in found(verdict(history, left, log, rules))


def test_an_order_that_is_broken_behind_a_cleaned_part_is_found() -> None:
    history = History("a", "a", "a", "a", "a")
    log = history.log("a0", "a1", "a3", "a2", "a4")
    found_ = found(verdict(history, cleaned(log, 2)))
    assert (Kind.REORDERED, "a2") in found_


@pytest.mark.parametrize("rules", [COMPACTED, ONCE])
def test_a_phantom_is_one_in_a_compacted_topic_too(rules: Rules) -> None:
    history = History("a", "a")
    log = history.log()
    wrong = log[1]._replace(offset=2, id="nobody's")
    assert found(verdict(history, [*log, wrong], rules=rules)) == [(Kind.PHANTOM, "nobody's")]
    wrong = log[1]._replace(digest=1)
    assert found(verdict(history, [wrong], log, rules))[0] == (Kind.PHANTOM, "a1")


def test_a_duplicate_that_compaction_hides_is_one_in_exactly_once() -> None:
    history = History("a", "b")
    log = history.log("a0", "a0", "b0")
    assert found(verdict(history, cleaned(log, 3), log, ONCE)) == [(Kind.DUPLICATE, "a0")]
    assert found(verdict(history, cleaned(log, 3), log)) == []


def test_records_that_only_make_the_cleaner_run_are_passed_over() -> None:
    history = History("a")
    filler = Record(TOPIC, 0, 1, FILLER, "", "", digest(b"{}"))
    assert found(verdict(history, [*history.log(), filler])) == []
    assert found(judge(history.ledger, [*history.log(), filler])) == [(Kind.PHANTOM, "")]


def test_a_tombstone_at_the_end_of_its_key_may_be_gone_and_another_record_may_not() -> None:
    ledger = Ledger()
    rows = [Row("a0", TOPIC, "a", 0, digest(b"a0")), Row("a1", TOPIC, "a", 1, digest(None))]
    log = []
    for offset, row in enumerate(rows):
        ledger.record(offset + 1, [row], Outcome.COMMITTED)
        ledger.place(offset + 1, 100 * (offset + 1))
        position = f"5d4fdb41-{100 * (offset + 1):016X}-{0:08X}"
        log.append(Record(TOPIC, 0, offset, "a", row.id, position, row.digest, is_left=False))
    places = {(100, 0), (200, 0)}
    assert judge(ledger, log, rules=COMPACTED, proven=places).is_clean
    assert found(judge(ledger, log[:1], rules=COMPACTED, proven=places)) == [(Kind.LOST, "a1"), (Kind.STALE, "a1")]


@st.composite
def compactions(draw: st.DrawFn) -> tuple[History, list[Record], list[Record]]:
    """A history, the log as it was written with replays of some keys, and what the cleaner left of it."""
    history = History(*draw(st.lists(st.text("abc", min_size=1, max_size=4), min_size=2, max_size=10)))
    log = history.log()
    for _ in range(draw(st.integers(0, 3))):
        end = draw(st.integers(1, len(log)))
        keys = set(draw(st.text("abc", max_size=3)))
        begin = draw(st.integers(0, end - 1))
        # Of a key, all that follows the first event that is sent again is sent again too.
        firsts = {r.id: r for r in reversed(log[:end])}
        again = sorted((r for r in firsts.values() if r.key in keys and r.offset >= begin), key=lambda r: r.position)
        log = [r._replace(offset=at) for at, r in enumerate(log[:end] + again + log[end:])]
    return history, log, cleaned(log, draw(st.integers(0, len(log))))


@given(compactions(), st.randoms(use_true_random=False))
def test_whatever_the_cleaner_removes_after_replays_is_allowed(
    made: tuple[History, list[Record], list[Record]], chance: random.Random
) -> None:
    history, log, left = made
    seen = [record for record in log if chance.random() < 0.8]
    assert found(verdict(history, left, seen)) == []


def without_newest(log: list[Record], left: list[Record], chance: random.Random) -> None:
    """The newest event of a key is nowhere."""
    key = chance.choice(log).key
    event = max((r for r in log if r.key == key), key=lambda r: r.position).id
    for records in (log, left):
        records[:] = [record for record in records if record.id != event]


def older_last(log: list[Record], left: list[Record], chance: random.Random) -> None:
    """An older event of a key comes behind its newest."""
    older = [r for r in log if any(o.key == r.key and o.position > r.position for o in log)]
    if not older:
        without_newest(log, left, chance)
        return
    record = chance.choice(older)._replace(offset=log[-1].offset + 1)
    log.append(record)
    left[:] = [r for r in left if r.key != record.key] + [record]


def invented(log: list[Record], left: list[Record], chance: random.Random) -> None:
    left.append(chance.choice(log)._replace(offset=log[-1].offset + 1, id="invented"))


@pytest.mark.parametrize("mutate", [without_newest, older_last, invented])
@given(made=compactions(), chance=st.randoms(use_true_random=False))
def test_one_violation_in_a_compacted_topic_is_always_caught(
    mutate: Callable[[list[Record], list[Record], random.Random], None],
    made: tuple[History, list[Record], list[Record]],
    chance: random.Random,
) -> None:
    history, log, left = made
    mutate(log, left, chance)
    assert not verdict(history, left, log).is_clean
