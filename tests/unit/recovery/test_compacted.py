"""What a recovery sends again in compacted topics: each key ends with its newest event."""

import random

from hypothesis import given
from hypothesis import strategies as st

from cdc.recovery.compacted import KeyEntry, repeats


def held(nth: int, offset: int, *, position: int | None = None, confirmed: bool = False) -> KeyEntry:
    place = None if position is None else (1, position, 0)
    return KeyEntry(nth, nth * 1_000_000, nth * 1000, False, place, confirmed, nth * 1000, 0, offset)


def missing(nth: int, *, committed: bool = True) -> KeyEntry:
    return KeyEntry(nth, nth * 1_000_000 if committed else 0, nth * 1000, True)


def alone(name: int, offset: int, *, position: int | None = None) -> KeyEntry:
    """A record without a row, of an event that was committed in second `name`."""
    place = None if position is None else (1, position, 0)
    return KeyEntry(None, 0, None, False, place, False, name * 1000, 0, offset)


def sent(*entries: KeyEntry, timed: bool = False, began: bool = False) -> list[int]:
    found = repeats(entries, began=began, timed=timed).sent
    return [(entry.timestamp or 0) // -1000 if entry.nth is None else entry.nth for entry in found]


def test_what_follows_a_missing_event_is_sent_behind_it() -> None:
    assert sent(held(0, 1), missing(1), held(2, 5), missing(3), held(4, 6)) == [1, 2, 3, 4]
    assert sent(held(0, 1), held(2, 5)) == []


def test_an_event_counts_only_where_no_older_one_comes_behind_it() -> None:
    assert sent(held(0, 1), held(1, 9), held(2, 5), held(3, 6)) == [2, 3]
    assert sent(held(0, 1), held(1, 9), held(2, 5), held(3, 10)) == [2, 3]


def test_a_later_record_without_a_row_is_sent_as_kafka_has_it() -> None:
    assert sent(missing(1), alone(2, 4)) == [1, -2]
    assert sent(alone(1, 4), missing(2)) == [2], "its commit was before"
    assert sent(alone(9, 1, position=5), held(1, 2, position=6), missing(2)) == [2], "positions are certain"
    assert sent(missing(1), alone(1, 7, position=9), held(2, 5, position=8)) == [1, 2, -1]


def test_without_times_a_record_without_a_row_is_taken_for_later() -> None:
    young = missing(5, committed=False)
    assert sent(young, alone(2, 4)) == [5, -2]
    assert sent(young, alone(2, 4), began=True) == [5], "the transaction began after its commit"


def test_an_event_that_is_no_candidate_does_not_begin_a_repetition() -> None:
    assert sent(alone(2, 1, position=9), alone(1, 7, position=8), held(3, 8, position=10)) == []


def test_what_a_kafka_transaction_confirmed_is_not_missing_though_compaction_removed_it() -> None:
    entries = missing(1), missing(2), held(3, 5, confirmed=True), missing(4)
    found = repeats(entries, began=False, timed=True)
    assert [row.nth for row in found.known] == [1, 2]
    assert [row.nth for row in found.sent] == [4]
    assert sent(*entries) == [1, 2, 3, 4], "without commit times it is not certain"
    assert sent(missing(1), held(3, 5), timed=True) == [1, 3], "no transaction confirms it"


@given(st.lists(st.sampled_from(["missing", "held", "alone"]), min_size=1, max_size=8), st.randoms())
def test_a_key_ends_with_its_newest_event(kinds: list[str], chance: random.Random) -> None:
    offsets = list(range(len(kinds)))
    chance.shuffle(offsets)
    entries = {
        "missing": lambda n: missing(n),
        "held": lambda n: held(n, offsets[n], position=n),
        "alone": lambda n: alone(n, offsets[n], position=n),
    }
    every = [entries[kind](number) for number, kind in enumerate(kinds)]
    log = {offsets[n]: n for n, kind in enumerate(kinds) if kind != "missing"}
    end = [log[offset] for offset in sorted(log)]
    found = repeats(every, began=True, timed=True).sent
    end += [(entry.timestamp or 0) // 1000 if entry.nth is None else entry.nth for entry in found]
    assert {n for n, kind in enumerate(kinds) if kind == "missing"} <= set(end)
    last_row = max((n for n, kind in enumerate(kinds) if kind != "alone"), default=None)
    if last_row is not None:
        behind = end[len(end) - 1 - end[::-1].index(last_row) :]
        assert all(n >= last_row for n in behind), "no older event behind the newest row"


def test_a_record_with_the_time_of_a_column_is_taken_for_later() -> None:
    record = alone(1, 4)
    assert sent(missing(2), record._replace(timestamp=None)) == [2, 0]
    assert sent(missing(2), record) == [2]
