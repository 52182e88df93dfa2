"""Which rows are below a horizon: the arithmetic of transaction ids, and the horizons that are kept."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdc.lsn import LSN
from cdc.replication.horizon import (
    BELOW,
    REMEMBERED,
    REMEMBERED_SECONDS,
    ROOM,
    Horizon,
    Horizons,
    counting,
    parsed,
    plain,
    remembered,
)

TURN = 1 << 32
IDS = st.integers(3, 5 * TURN)


def below(xid: int, horizon: int, following: int) -> bool:
    """Whether the row of a transaction is taken to be below, judged by the 32 bits that a row has of its id."""
    return bool(eval(BELOW.format(next=following, xmin=xid % TURN, horizon=horizon)))


@given(st.lists(IDS, min_size=3, max_size=3, unique=True).map(sorted), st.booleans())
@example([TURN - 1, TURN, TURN + 1], True)
def test_a_row_of_the_last_four_billion_transactions_is_told_exactly(ids: list[int], older: bool) -> None:
    xid, horizon, following = ids if older else (ids[1], ids[0], ids[2])
    if following - xid <= TURN:
        assert below(xid, horizon, following) == (xid < horizon)


@given(IDS, IDS, IDS)
@example(TURN + 5, TURN + 5, TURN + 6)
@example(5, TURN + 5, TURN + 6)  # older than a turn: taken for the horizon's own transaction, and kept
@example(TURN + 5, 9, TURN + 9)  # a horizon of long ago
def test_no_row_that_is_not_below_goes_however_old_row_and_horizon_are(xid: int, horizon: int, ahead: int) -> None:
    following = max(xid, horizon) + ahead
    assert not below(xid, horizon, following) or xid < horizon


def horizons(*taken: float) -> Horizons:
    known = Horizons()
    for moment in taken:
        known.add(Horizon(int(moment) * 10, LSN(int(moment) * 100), moment, 1))
    return known


def test_the_newest_horizon_that_is_confirmed_and_old_enough_counts() -> None:
    known = horizons(1, 2, 3, 4)
    assert known.reached(LSN(99), 9) is None
    assert known.reached(LSN(300), 9) == Horizon(30, LSN(300), 3, 1)
    assert known.reached(LSN(999), 2.5) == Horizon(20, LSN(200), 2, 1)
    assert known.reached(LSN(999), 0.5) is None
    known.forget(Horizon(30, LSN(300), 3, 1))
    assert known.reached(LSN(299), 9) is None
    assert known.reached(LSN(300), 9) == Horizon(30, LSN(300), 3, 1)
    assert len(known) == 2


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=300))
def test_few_horizons_are_kept_the_oldest_and_the_newest_among_them(pauses: list[float]) -> None:
    known, now = Horizons(), 0.0
    for number, pause in enumerate(pauses):
        now += pause
        known.add(Horizon(number, LSN(number), now, 1))
    assert len(known) == min(ROOM, len(pauses))
    newest, oldest = known.reached(LSN(len(pauses)), now), known.reached(LSN(0), now)
    assert (newest and newest.xid, oldest and oldest.xid) == (len(pauses) - 1, 0)


def test_horizons_of_a_long_outage_are_spread_over_it() -> None:
    known = horizons(*range(10_000))
    for moment in range(0, 10_000, 500):
        found = known.reached(LSN(2**63), moment)
        assert found
        assert moment - found.taken < 500


def test_a_record_keeps_horizons_of_the_last_minutes_and_of_hours_ago() -> None:
    kept: tuple[Horizon, ...] = ()
    for minute in range(3000):
        kept = remembered((*kept, Horizon(minute, LSN(minute), minute * 60.0, 1)))
    ages = [(2999 - one.xid) for one in kept]
    assert len(kept) == REMEMBERED
    assert ages == sorted(ages, reverse=True)
    assert ages[-3:] == [2, 1, 0]
    assert 120 <= ages[1] <= REMEMBERED_SECONDS / 60 <= 2 * ages[0]
    assert all(older <= 3 * newer for older, newer in itertools.pairwise(ages[:-1]))


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 10**6), st.floats(0, 10**6)), max_size=40))
def test_a_record_always_keeps_the_newest_horizon(seen: list[tuple[int, int, float]]) -> None:
    known = [Horizon(lsn, LSN(lsn), taken, timeline) for timeline, lsn, taken in seen]
    kept = remembered(known)
    assert len(kept) <= REMEMBERED
    assert set(kept) <= set(known)
    if known:
        assert (kept[-1].timeline, kept[-1].lsn) == max((one.timeline, one.lsn) for one in known)
    assert remembered((*kept, *kept)) == kept


def test_the_oldest_horizon_goes_when_the_next_one_is_hours_old_too() -> None:
    old, next_one, new = (
        Horizon(number, LSN(number), taken, 1) for number, taken in ((1, 0.0), (2, 100.0), (3, REMEMBERED_SECONDS))
    )
    assert remembered([old, next_one, new]) == (old, next_one, new)
    newer = Horizon(4, LSN(4), REMEMBERED_SECONDS + 100, 1)
    assert remembered([old, next_one, new, newer]) == (next_one, new, newer)


@pytest.mark.parametrize(
    ("timeline", "ends", "wal_end", "count"),
    [
        (1, {}, 500, {100, 200, 300}),
        (1, {}, 250, {100, 200}),  # the server was set back
        (2, {1: LSN(200)}, 500, {100, 200, 400}),
        (2, {1: LSN(199)}, 500, {100, 400}),
        (2, {}, 500, {400}),  # the history is gone
        (3, {1: LSN(200), 2: LSN(300)}, 500, {100, 200}),
        (3, {1: LSN(200)}, 500, {100, 200}),  # timeline 2 is of another branch
    ],
)
def test_a_horizon_counts_where_the_server_has_its_wal(
    timeline: int, ends: dict[int, LSN], wal_end: int, count: set[int]
) -> None:
    known = [Horizon(lsn, LSN(lsn), 1.0, 1 if lsn < 400 else 2) for lsn in (100, 200, 300, 400)]
    assert {one.lsn for one in counting(known, timeline, ends, LSN(wal_end))} == count


@given(st.integers(3, 2**63), st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(1, 2**31))
def test_a_horizon_survives_its_record(xid: int, lsn: int, millis: int, timeline: int) -> None:
    horizon = Horizon(xid, LSN(lsn), millis / 1000, timeline)
    assert Horizon.read(horizon.plain()) == horizon
    with_statistics = replace(horizon, updates=0, deletes=7)
    assert Horizon.read(with_statistics.plain()) == with_statistics


def test_the_tables_of_several_horizons_are_written_where_they_change() -> None:
    known = [
        Horizon(number, LSN(number), 1.0, 1, 5.0, 0, 0, tables, 7)
        for number, tables in enumerate(["1 2", "1 2", "2 3:9", None, "2"])
    ]
    written = plain(known)
    assert [one.get("tables", "-") for one in written] == ["1 2", "-", "2 3:9", None, "2"]
    assert parsed(written) == tuple(known)
