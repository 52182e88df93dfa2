"""Times of records, from cells in both formats of the stream."""

import struct
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.replication.messages import Type
from cdc.replication.moments import FIRST, LAST, to_moment
from cdc.replication.values import DATE, INT4, INT8, TEXT, TIMESTAMP, TIMESTAMPTZ, TIMETZ, base_type

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FROM_2000 = 946_684_800_000_000


def read(type_oid: int, cell: bytes, *, binary: bool = False) -> int:
    decode = to_moment(type_oid, binary=binary)
    assert decode is not None
    return decode(cell)


@pytest.mark.parametrize(("type_oid", "cell", "expected"), [
    (TIMESTAMPTZ, "2026-01-31 08:00:00.123999+00", 1_769_846_400_123),
    (TIMESTAMPTZ, "2026-01-31 08:00:00+05:30", 1_769_826_600_000),
    (TIMESTAMP, "2026-01-31 08:00:00.5", 1_769_846_400_500), (TIMESTAMP, "1970-01-01 00:00:00.001", 1),
    (TIMESTAMP, "9999-12-31 23:59:59.999999", LAST), (INT8, "1769846400123", 1_769_846_400_123), (INT8, "1", 1),
])  # fmt: skip
def test_text_is_read_to_the_millisecond(type_oid: int, cell: str, expected: int) -> None:
    assert read(type_oid, cell.encode()) == expected


@pytest.mark.parametrize(("type_oid", "cell"), [
    (TIMESTAMPTZ, "infinity"), (TIMESTAMP, "-infinity"), (TIMESTAMPTZ, "0044-03-15 12:00:00+00 BC"),
    (TIMESTAMP, "10000-01-01 00:00:00"), (TIMESTAMP, "1970-01-01 00:00:00"), (TIMESTAMP, "1969-12-31 23:59:59.999"),
    (INT8, "0"), (INT8, "-5"), (INT8, "1769846400123456"),
])  # fmt: skip
def test_what_kafka_cannot_keep_is_refused_in_both_formats(type_oid: int, cell: str) -> None:
    with pytest.raises(ValueError, match=r"between 1970 and 9999|before 1970, after 9999 or infinite"):
        read(type_oid, cell.encode())
    if type_oid == INT8:
        with pytest.raises(ValueError, match="between 1970 and 9999"):
            read(INT8, struct.pack(">q", int(cell)), binary=True)


@given(st.integers(FIRST * 1000, LAST * 1000 + 999))
def test_both_formats_have_the_same_times(microseconds: int) -> None:
    text = str(EPOCH + timedelta(microseconds=microseconds)).encode()
    cell = struct.pack(">q", microseconds - FROM_2000)
    expected = microseconds // 1000
    assert read(TIMESTAMPTZ, text) == read(TIMESTAMPTZ, cell, binary=True) == expected
    assert read(TIMESTAMP, text.removesuffix(b"+00:00")) == read(TIMESTAMP, cell, binary=True) == expected
    assert read(INT8, b"%d" % expected) == read(INT8, struct.pack(">q", expected), binary=True) == expected


@pytest.mark.parametrize("number", [-(1 << 63), (1 << 63) - 1, -FROM_2000])
def test_binary_infinity_and_the_beginning_of_1970_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match="infinite"):
        read(TIMESTAMPTZ, struct.pack(">q", number), binary=True)


def test_a_binary_cell_of_another_size_is_refused() -> None:
    for type_oid in (TIMESTAMP, INT8):
        with pytest.raises(ValueError, match="has 4 bytes, not 8"):
            read(type_oid, bytes(4), binary=True)


def test_other_types_are_no_times_of_records() -> None:
    assert [to_moment(oid, binary=binary) for oid in (DATE, TIMETZ, TEXT, INT4) for binary in (False, True)] == [
        None
    ] * 8


def test_domains_over_times_are_read_as_their_base_types() -> None:
    names = {"timestamptz": TIMESTAMPTZ, "timestamp": TIMESTAMP, "timetz": TIMETZ}
    assert {name: base_type(Type(99999, "", name)) for name in names} == names
