"""Logical types from JSON: exact, or rejected."""

import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from cdc.avro.mapping.mismatch import Mismatch
from tests.unit.contract import of, read_back, seen

UTC = datetime.UTC


def logical(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


def decimal(precision: int, scale: int | None = None) -> dict[str, Any]:
    return logical("bytes", "decimal", precision=precision, **({} if scale is None else {"scale": scale}))


def fixed(size: int, name: str, **more: Any) -> dict[str, Any]:
    return {**logical("fixed", name, **more), "name": "F", "size": size}


DATE = logical("int", "date")
TIME_MS, TIME_US = logical("int", "time-millis"), logical("long", "time-micros")
MS, US, NS = (logical("long", f"timestamp-{unit}") for unit in ("millis", "micros", "nanos"))
LOCAL_MS, LOCAL_US, LOCAL_NS = (logical("long", f"local-timestamp-{unit}") for unit in ("millis", "micros", "nanos"))
UUID_TEXT, UUID_FIXED = logical("string", "uuid"), fixed(16, "uuid")
ID = "00112233-4455-6677-8899-AABBccddeeff"
MONEY = decimal(6, 2)

TAKEN: list[tuple[Any, str, Any]] = [
    (MONEY, "1234.56", Decimal("1234.56")),
    (MONEY, '"1234.56"', Decimal("1234.56")),
    (MONEY, "-9999.99", Decimal("-9999.99")),
    (MONEY, "12", Decimal("12.00")),
    (MONEY, "1.500", Decimal("1.50")),
    (MONEY, "1.2e3", Decimal("1200.00")),
    (MONEY, '"+.5"', Decimal("0.50")),
    (MONEY, "0", Decimal("0.00")),
    (MONEY, "-0.000000", Decimal("0.00")),
    (MONEY, "0.1", Decimal("0.10")),
    (decimal(3), "999", Decimal(999)),
    (decimal(2, 2), "0.99", Decimal("0.99")),
    (decimal(38, 18), "12345678901234567890.123456789012345678", Decimal("12345678901234567890.123456789012345678")),
    (decimal(60, 0), "9" * 60, Decimal("9" * 60)),
    (fixed(4, "decimal", precision=9, scale=2), "-9999999.99", Decimal("-9999999.99")),
    (fixed(16, "decimal", precision=38, scale=0), "9" * 38, Decimal("9" * 38)),
    (UUID_TEXT, f'"{ID}"', UUID(ID)),
    (DATE, '"2026-01-31"', datetime.date(2026, 1, 31)),
    (DATE, '"1969-12-31"', datetime.date(1969, 12, 31)),
    (DATE, '"0001-01-01"', datetime.date(1, 1, 1)),
    (DATE, "1", datetime.date(1970, 1, 2)),
    (TIME_MS, '"17:45"', datetime.time(17, 45)),
    (TIME_MS, '"17:45:01.5"', datetime.time(17, 45, 1, 500_000)),
    (TIME_MS, '"00:00:00.123000"', datetime.time(0, 0, 0, 123_000)),
    (TIME_MS, "86399999", datetime.time(23, 59, 59, 999_000)),
    (TIME_US, '"23:59:59.999999"', datetime.time(23, 59, 59, 999_999)),
    (MS, '"2026-01-31T17:45:00Z"', datetime.datetime(2026, 1, 31, 17, 45, tzinfo=UTC)),
    (MS, '"2026-01-31T17:45:00.5+02:00"', datetime.datetime(2026, 1, 31, 15, 45, 0, 500_000, tzinfo=UTC)),
    (MS, '"2026-01-31 17:45:00-0130"', datetime.datetime(2026, 1, 31, 19, 15, tzinfo=UTC)),
    (US, '"2026-01-31 17:45:00.000001+00"', datetime.datetime(2026, 1, 31, 17, 45, 0, 1, tzinfo=UTC)),
    (US, '"1969-12-31T23:59:59.999999Z"', datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    (US, "-1", datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    (LOCAL_MS, '"2026-01-31T17:45:00.123"', datetime.datetime(2026, 1, 31, 17, 45, 0, 123_000)),
    (LOCAL_US, '"2026-01-31 17:45"', datetime.datetime(2026, 1, 31, 17, 45)),
    (["null", MONEY], "null", None),
    (["null", MONEY], "1.25", Decimal("1.25")),
    (["null", US, "string"], '"2026-01-31T17:45:00Z"', datetime.datetime(2026, 1, 31, 17, 45, tzinfo=UTC)),
    (["null", US, "string"], '"yesterday"', "yesterday"),
    ({"type": "array", "items": DATE}, '["1970-01-01"]', [datetime.date(1970, 1, 1)]),
    ({"type": "map", "values": MONEY}, '{"a": 0.01}', {"a": Decimal("0.01")}),
    # What the specification asks: an unknown logical type, or one that does not go with its type, is ignored.
    (logical("string", "upper"), '"x"', "x"),
    (logical("string", "date"), '"x"', "x"),
]  # fmt: skip

REFUSED: list[tuple[Any, str, str]] = [
    (MONEY, "10000", "10000 is out of range for decimal(6, 2)"),
    (MONEY, '"1e400"', '"1e400" is out of range for decimal(6, 2)'),
    (MONEY, "0.001", "0.001 has more than 2 decimal places"),
    (MONEY, "1234.561", "1234.561 has more than 2 decimal places"),
    (MONEY, "1e-900000", "1E-900000 has more than 2 decimal places"),
    (MONEY, '"1,5"', '"1,5" is not a decimal number'),
    (MONEY, '"NaN"', '"NaN" is not a decimal number'),
    (MONEY, '"Infinity"', '"Infinity" is not a decimal number'),
    (MONEY, '" 1"', '" 1" is not a decimal number'),
    (MONEY, '"1_0"', '"1_0" is not a decimal number'),
    (MONEY, '"\u0661"', '"\u0661" is not a decimal number'),
    (MONEY, '""', '"" is not a decimal number'),
    (MONEY, "true", "true is not a decimal number"),
    (MONEY, "null", "null is not a decimal number"),
    (decimal(2, 2), "1", "1 is out of range for decimal(2, 2)"),
    (decimal(3), "0.5", "0.5 has more than 0 decimal places"),
    (UUID_TEXT, '"0011223344556677-8899-aabbccddeeff"', '"0011223344556677-8899-aabbccddeeff" is not a uuid'),
    (UUID_TEXT, "5", "5 is not a uuid"),
    (UUID_FIXED, '"x"', '"x" is not a uuid'),
    (DATE, '"2026-02-30"', '"2026-02-30": day is out of range for month'),
    (DATE, '"2026-1-31"', '"2026-1-31" is not a date such as 2026-01-31'),
    (DATE, '"2026-01-31T00:00:01Z"', '"2026-01-31T00:00:01Z" is not a date such as 2026-01-31'),
    (DATE, "2147483648", "2147483648 is out of range for int"),
    (DATE, "1.5", "1.5 is not a date such as 2026-01-31"),
    (DATE, "true", "true is not a date such as 2026-01-31"),
    (TIME_MS, '"17:45:00.0001"', '"17:45:00.0001" is more precise than 3 decimal places of a second'),
    (TIME_MS, "86400000", "86400000 is not within a day"),
    (TIME_MS, "-1", "-1 is not within a day"),
    (TIME_US, '"24:00:00"', '"24:00:00": hour must be in 0..23'),
    (TIME_US, '"23:59:60"', '"23:59:60": second must be in 0..59'),
    (TIME_US, '"17"', '"17" is not a time such as 17:45:00.5'),
    (MS, '"2026-01-31T17:45:00"',
     '"2026-01-31T17:45:00" has no offset from UTC: expected a timestamp such as 2026-01-31T17:45:00.5Z'),
    (MS, '"2026-01-31T17:45:00.0005Z"',
     '"2026-01-31T17:45:00.0005Z" is more precise than 3 decimal places of a second'),
    (US, '"2026-01-31T17:45:00.0000001Z"',
     '"2026-01-31T17:45:00.0000001Z" is more precise than 6 decimal places of a second'),
    (US, '"2026-01-31T17:45:00+24:00"', '"2026-01-31T17:45:00+24:00": +24:00 is not an offset from UTC'),
    (US, '"2026-13-31T17:45:00Z"', '"2026-13-31T17:45:00Z": month must be in 1..12'),
    (US, '"2026-01-31"', '"2026-01-31" is not a timestamp such as 2026-01-31T17:45:00.5Z'),
    (US, "9223372036854775808", "9223372036854775808 is out of range for long"),
    (US, "1769881500123.5", "1769881500123.5 is not a timestamp such as 2026-01-31T17:45:00.5Z"),
    (NS, '"9999-01-01T00:00:00Z"', '"9999-01-01T00:00:00Z" is out of range for long'),
    (LOCAL_MS, '"2026-01-31T17:45:00Z"',
     '"2026-01-31T17:45:00Z" has an offset from UTC: expected a local timestamp such as 2026-01-31T17:45:00.5'),
    (fixed(12, "duration"), '{"months": 1, "days": 2}',
     "an object is not a duration: an object of months, days and millis"),
]  # fmt: skip


def label(value: Any) -> str:
    return str(value).replace(" ", "").replace("logicalType", "")[:60]


@pytest.mark.parametrize(("kind", "text", "expected"), TAKEN, ids=label)
def test_matching_value_is_decoded_as_expected(kind: Any, text: str, expected: Any) -> None:
    got = seen(kind, text)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(("kind", "text", "reason"), REFUSED, ids=label)
def test_inexact_value_is_rejected(kind: Any, text: str, reason: str) -> None:
    with pytest.raises(Mismatch) as caught:
        seen(kind, text)
    assert str(caught.value).partition("; ")[0] == f"$.v: {reason}"  # test_conversions.py has the advice behind it


@pytest.mark.parametrize("text", ["1e99999999999999999999", "0e99999999999999999999", "1e-99999999999999999999"])
def test_number_beyond_any_decimal_is_rejected_without_a_crash(text: str) -> None:
    with pytest.raises(ValueError, match=r"\$|not JSON|out of range"):
        seen(MONEY, text)


def test_numbers_of_thousands_of_digits_are_rejected_without_a_crash() -> None:
    with pytest.raises(ValueError, match=r"out of range|digits"):
        seen(MONEY, "9" * 5000)


def test_number_for_a_decimal_is_never_converted_to_float() -> None:
    assert seen(decimal(20, 18), "0.1") == Decimal("0.1")
    assert seen(decimal(20, 0), "12345678901234567890") == Decimal("12345678901234567890")
    assert seen(["null", decimal(34, 17)], "9007199254740993.00000000000000001") == Decimal(
        "9007199254740993.00000000000000001"
    )


def test_a_double_beside_a_decimal_is_still_a_double() -> None:
    target = {
        "type": "record",
        "name": "Both",
        "fields": [{"name": "d", "type": MONEY}, {"name": "f", "type": "double"}],
    }
    assert seen(target, '{"d": 0.1, "f": 0.1}') == {"d": Decimal("0.10"), "f": 0.1}


@pytest.mark.parametrize("kind", [NS, LOCAL_NS])
def test_nanoseconds_are_kept(kind: dict[str, Any]) -> None:
    offset = "Z" if kind is NS else ""
    body = of(kind).encode(f'{{"v": "1970-01-01T00:00:00.123456789{offset}"}}'.encode())[10:]
    assert body == of("long").encode(b'{"v": 123456789}')[10:]


def test_a_uuid_may_be_16_bytes() -> None:
    assert of(UUID_FIXED).encode(f'{{"v": "{ID}"}}'.encode())[10:] == UUID(ID).bytes


def test_a_duration_is_three_little_endian_numbers() -> None:
    body = of(fixed(12, "duration")).encode(b'{"v": {"months": 1, "days": 2, "millis": 4294967295}}')[10:]
    assert body.hex() == "0100000002000000ffffffff"


def test_a_duration_out_of_range_names_its_unit() -> None:
    with pytest.raises(Mismatch, match=r"^\$\.v\.days: -1 is out of range for a duration$"):
        seen(fixed(12, "duration"), '{"months": 1, "days": -1, "millis": 0}')


@pytest.mark.parametrize(("kind", "default", "expected"), [
    (MONEY, "\u0004\u00d2", Decimal("12.34")),  # Avro's own encoding: the bytes of the unscaled number
    (DATE, 1, datetime.date(1970, 1, 2)),
    (US, 1, datetime.datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
    (UUID_TEXT, ID, UUID(ID)),
    (["null", MONEY], None, None),
])  # fmt: skip
def test_a_default_of_a_logical_type_is_in_avros_own_encoding(kind: Any, default: Any, expected: Any) -> None:
    assert read_back(of(kind, default=default), "{}") == {"v": expected}


def test_a_reference_to_a_named_logical_type_is_that_type() -> None:
    money = fixed(4, "decimal", precision=9, scale=2)
    schema = {"type": "record", "name": "Two", "fields": [{"name": "a", "type": money}, {"name": "b", "type": "F"}]}
    assert seen(schema, '{"a": 1.5, "b": "2.25"}') == {"a": Decimal("1.50"), "b": Decimal("2.25")}
