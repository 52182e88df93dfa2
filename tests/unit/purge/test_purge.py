"""Which rows may go: the arithmetic of transaction ids, and the horizons that are kept."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdc.errors import PostgresError
from cdc.lsn import LSN
from cdc.purge.horizon import BELOW, ROOM, WIDEST, Age, AgeClock, Horizon, Horizons, age, window

TURN = 1 << 32
IDS = st.integers(3, 5 * TURN)
COLUMNS = {"id": (2950, "uuid"), "payload": (3802, "jsonb")}
DATED = {**COLUMNS, "created_at": (1184, "timestamp with time zone"), "day": (1082, "date")}


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
        known.add(Horizon(int(moment) * 10, LSN(int(moment) * 100), moment))
    return known


def test_the_newest_horizon_that_is_confirmed_and_old_enough_counts() -> None:
    known = horizons(1, 2, 3, 4)
    assert known.reached(LSN(99), 9) is None
    assert known.reached(LSN(300), 9) == Horizon(30, LSN(300), 3)
    assert known.reached(LSN(999), 2.5) == Horizon(20, LSN(200), 2)
    assert known.reached(LSN(999), 0.5) is None
    known.forget(Horizon(30, LSN(300), 3))
    assert known.reached(LSN(299), 9) is None
    assert known.reached(LSN(300), 9) == Horizon(30, LSN(300), 3)
    assert len(known) == 2


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=300))
def test_few_horizons_are_kept_the_oldest_and_the_newest_among_them(pauses: list[float]) -> None:
    known, now = Horizons(), 0.0
    for number, pause in enumerate(pauses):
        now += pause
        known.add(Horizon(number, LSN(number), now))
    assert len(known) == min(ROOM, len(pauses))
    newest, oldest = known.reached(LSN(len(pauses)), now), known.reached(LSN(0), now)
    assert (newest and newest.xid, oldest and oldest.xid) == (len(pauses) - 1, 0)


def test_horizons_of_a_long_outage_are_spread_over_it() -> None:
    known = horizons(*range(10_000))
    for moment in range(0, 10_000, 500):
        found = known.reached(LSN(2**63), moment)
        assert found
        assert moment - found.taken < 500


def test_age_is_told_by_the_column_before_anything_else() -> None:
    assert age(60, None, DATED, commits=True, watch=True) == Age(60, AgeClock.COLUMN, "created_at")
    assert age(60, "day", DATED, commits=True, watch=True) == Age(60, AgeClock.COLUMN, "day")
    assert age(60, None, COLUMNS, commits=True, watch=True) == Age(60, AgeClock.COMMIT, None)
    assert age(60, None, COLUMNS, commits=False, watch=True) == Age(60, AgeClock.HORIZON, None)


def test_without_a_grace_no_age_is_asked_for() -> None:
    assert age(0, None, COLUMNS, commits=False, watch=False) == Age(0, AgeClock.NONE, None)
    assert age(0, None, DATED, commits=False, watch=False) == Age(0, AgeClock.NONE, "created_at")


@pytest.mark.parametrize(
    ("column", "columns", "told"),
    [
        (None, COLUMNS, "the age of rows is unknown"),
        (None, {**COLUMNS, "created_at": (20, "bigint")}, "the age of rows is unknown"),
        ("when", DATED, "the outbox has no column 'when'; its columns that hold a time: created_at, day"),
        ("payload", DATED, "column 'payload' is jsonb, not timestamptz, timestamp or date"),
    ],
)
def test_an_age_that_nothing_tells_is_refused(
    column: str | None, columns: dict[str, tuple[int, str]], told: str
) -> None:
    with pytest.raises(PostgresError) as raised:
        age(60, column, columns, commits=False, watch=False)
    assert told in str(raised.value)


@given(st.integers(1, 10_000), st.integers(1, 290))
def test_windows_come_to_hold_about_a_batch(batch: int, rows_in_a_block: int) -> None:
    blocks = 64
    for _ in range(40):
        blocks = window(blocks, min(batch, blocks * rows_in_a_block), batch)
        assert 1 <= blocks <= WIDEST
    assert blocks in (1, WIDEST) or batch / 4 <= blocks * rows_in_a_block <= batch * 2
