"""Headers in ISO format, from cells in both formats of the stream."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.replication.values import BOOL, BYTEA, INT8, TEXT, TIMESTAMP, TIMESTAMPTZ, TIMETZ, UUID, to_iso, to_text

DATE, TIME, NUMERIC, INTERVAL, INT_ARRAY = 1082, 1083, 1700, 1186, 1007


@pytest.mark.parametrize(("type_oid", "cell", "expected"), [
    (TIMESTAMPTZ, "2026-01-31 08:00:00.123456+00", "2026-01-31T08:00:00.123456Z"),
    (TIMESTAMPTZ, "2026-01-31 08:00:00+00", "2026-01-31T08:00:00Z"),
    (TIMESTAMPTZ, "2026-01-31 08:00:00+02", "2026-01-31T08:00:00+02:00"),
    (TIMESTAMPTZ, "2026-01-31 08:00:00-05:30", "2026-01-31T08:00:00-05:30"),
    (TIMESTAMPTZ, "0044-03-15 12:00:00+00 BC", "0044-03-15 12:00:00+00 BC"),
    (TIMESTAMPTZ, "infinity", "infinity"), (TIMESTAMP, "-infinity", "-infinity"),
    (TIMESTAMP, "2026-01-31 08:00:00.5", "2026-01-31T08:00:00.5"),
    (TIMESTAMP, "12026-01-31 08:00:00", "12026-01-31T08:00:00"),
    (DATE, "2026-01-31", "2026-01-31"), (TIME, "08:00:00.5", "08:00:00.5"),
    (TIMETZ, "08:00:00.5+00", "08:00:00.5Z"), (TIMETZ, "08:00:00-02", "08:00:00-02:00"),
    (NUMERIC, "12.50", "12.50"), (INTERVAL, "1 day 02:00:00", "1 day 02:00:00"),
    (INT_ARRAY, "{1,NULL,3}", "{1,NULL,3}"),
    (TEXT, "2026-01-31 08:00:00+00", "2026-01-31 08:00:00+00"), (BOOL, "t", "true"), (BYTEA, "\\x6d6900", "bWkA"),
])  # fmt: skip
def test_case_g4_text_cells_become_iso_headers(type_oid: int, cell: str, expected: str) -> None:
    read = to_iso(type_oid, binary=False)
    assert read is not None
    assert read(cell.encode()) == expected


def test_case_g4_binary_cells_are_those_of_the_other_format_or_have_no_decoder() -> None:
    read = to_iso(BYTEA, binary=True)
    assert read is not None
    assert read(b"mi\0") == "bWkA"
    assert [to_iso(oid, binary=True) for oid in (UUID, INT8, TEXT)] == [
        to_text(oid, binary=True) for oid in (UUID, INT8, TEXT)
    ]
    assert [to_iso(oid, binary=True) for oid in (TIMESTAMP, TIMESTAMPTZ, TIMETZ, DATE)] == [None] * 4


@given(st.datetimes(timezones=st.just(datetime.UTC)))
def test_case_g4_a_timestamp_reads_back_as_the_same_moment(moment: datetime.datetime) -> None:
    read = to_iso(TIMESTAMPTZ, binary=False)
    assert read is not None
    text = read(moment.isoformat(" ").removesuffix(":00").encode())
    assert datetime.datetime.fromisoformat(text) == moment
    assert text.endswith("Z")
