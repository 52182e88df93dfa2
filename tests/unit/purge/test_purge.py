"""The age that rows need, and how much one statement scans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import PostgresError
from cdc.purge.age import WIDEST, Age, AgeClock, age, window

COLUMNS = {"id": (2950, "uuid"), "payload": (3802, "jsonb")}
DATED = {**COLUMNS, "created_at": (1184, "timestamp with time zone"), "day": (1082, "date")}


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
