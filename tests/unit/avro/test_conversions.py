"""Values in another notation of the same value: converted exactly, or rejected with the type that accepts them."""

import datetime
import io
import json
import math
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.avro.compiled import compiler
from cdc.avro.compiled.plan import plan
from cdc.avro.contracts import Contract
from cdc.avro.mapping import convert
from cdc.avro.mapping.mismatch import Mismatch
from cdc.avro.mapping.rules import STRICT, Rules
from tests.examples import examples
from tests.unit.contract import seen

UTC = datetime.UTC
NOON = datetime.datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
LOCAL_NOON = NOON.replace(tzinfo=None)
ID = UUID("00112233-4455-6677-8899-aabbccddeeff")


def logical(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


DATE, TIME_MS, TIME_US = logical("int", "date"), logical("int", "time-millis"), logical("long", "time-micros")
MS, US, NS = (logical("long", f"timestamp-{unit}") for unit in ("millis", "micros", "nanos"))
LOCAL_MS, LOCAL_US = (logical("long", f"local-timestamp-{unit}") for unit in ("millis", "micros"))
UUID_TEXT = logical("string", "uuid")
MONEY = logical("bytes", "decimal", precision=6, scale=2)
TRUNCATE = Rules(timestamps="truncate")

CONVERTED: list[tuple[Any, str, Any]] = [
    # doubles of Java, Go and Python
    ("int", "1.0", 1), ("int", "1e3", 1000), ("int", "-0.0", 0), ("long", "1.769881500123E12", 1769881500123),
    ("long", "9007199254740993.0", 9007199254740993), ("long", "9223372036854775807.0", (1 << 63) - 1),
    (MS, "1769860800000.0", NOON), (MS, "1.7698608e12", NOON), (MS, "0.0", datetime.datetime(1970, 1, 1, tzinfo=UTC)),
    (DATE, "20484.0", datetime.date(2026, 1, 31)), (TIME_MS, "43200000.0", datetime.time(12)),
    # 64-bit integers of proto3 JSON, and of Jackson and .NET with numbers as strings
    ("long", '"9223372036854775807"', (1 << 63) - 1), ("long", '"-5"', -5), ("int", '"5"', 5), ("int", '"1e3"', 1000),
    (MS, '"1769860800000"', NOON),
    # doubles of Jackson, proto3 JSON, .NET and PostgreSQL that are not finite
    ("double", '"Infinity"', math.inf), ("float", '"-Infinity"', -math.inf),
    # UUIDs of Python, .NET and Java
    (UUID_TEXT, '"00112233445566778899AABBCCDDEEFF"', ID),
    (UUID_TEXT, '"{00112233-4455-6677-8899-AABBCCDDEEFF}"', ID),
    (UUID_TEXT, '"urn:uuid:00112233-4455-6677-8899-aabbccddeeff"', ID),
    # RFC 3339 in lower case, PostgreSQL, Ruby, ISO 8601 with a comma, more digits than needed
    (MS, '"2026-01-31t12:00:00z"', NOON), (US, '"2026-01-31 12:00:00+00"', NOON),
    (US, '"2026-01-31T12:00:00+0000"', NOON),
    (US, '"2026-01-31 13:00:00 +0100"', NOON), (US, '"2026-01-31 12:00:00 UTC"', NOON),
    (US, '"2026-01-31 12:53:28+00:53:28"', NOON), (US, '"2026-01-31T12:00:00,000Z"', NOON),
    (MS, '"2026-01-31T12:00:00.0000000Z"', NOON), (MS, '"2026-01-31T12:00:00.000000000000Z"', NOON),
    (LOCAL_US, '"2026-01-31t12:00:00,0"', LOCAL_NOON), (TIME_US, '"12:00:00.0000000"', datetime.time(12)),
    # dates with the time of midnight, as .NET, JavaScript and PostgreSQL write them
    (DATE, '"2026-01-31T00:00:00"', datetime.date(2026, 1, 31)),
    (DATE, '"2026-01-31T00:00:00.000Z"', datetime.date(2026, 1, 31)),
    (DATE, '"2026-01-31 00:00:00+00"', datetime.date(2026, 1, 31)),
    # arrays of Jackson
    (DATE, "[2026,1,31]", datetime.date(2026, 1, 31)), (LOCAL_MS, "[2026,1,31,12,0]", LOCAL_NOON),
    (LOCAL_MS, "[2026,1,31,12,0,0,1000000]", LOCAL_NOON.replace(microsecond=1000)),
    (TIME_MS, "[12,0]", datetime.time(12)), (TIME_MS, "[12,0,1]", datetime.time(12, 0, 1)),
    (TIME_US, "[12,0,1,5000]", datetime.time(12, 0, 1, 5)),
    (["null", "long"], '"5"', 5), (["null", US], '"2026-01-31t12:00:00z"', NOON),
    (["null", "long", "boolean"], "1.0", 1),
    (["null", "double", "long"], '"NaN"', math.nan), (["long", "int"], '"5"', 5),
    ({"type": "array", "items": "long"}, '["1", 2.0, 3]', [1, 2, 3]),
    ({"type": "map", "values": "int"}, '{"a": "1"}', {"a": 1}),
]  # fmt: skip

REJECTED: list[tuple[Any, str, str]] = [
    ("int", "1.5", "1.5 is not an int; double and decimal accept it"),
    ("int", "1.00000000000000000001", "1.00000000000000000001 is not an int; double and decimal accept it"),
    ("int", "3000000000", "3000000000 is out of range for int; long accepts it"),
    ("int", '"3000000000"', "3000000000 is out of range for int; long accepts it"),
    ("long", "9223372036854775808", "9223372036854775808 is out of range for long; decimal accepts it"),
    ("long", '"9223372036854775808"', "9223372036854775808 is out of range for long; decimal and string accept it"),
    ("int", '"05"', '"05" is not an int; string accepts it'),
    ("int", '" 5"', '" 5" is not an int; string accepts it'),
    ("boolean", "1", "1 is not a boolean; long accepts it"),
    ("boolean", "0", "0 is not a boolean; long accepts it"),
    ("boolean", '"true"', '"true" is not a boolean; string accepts it'),
    ("string", "5", "5 is not a string; long accepts it"),
    ("string", "1.5", "1.5 is not a string; double and decimal accept it"),
    ("double", '"1.5"', '"1.5" is not a number; decimal and string accept it'),
    ("double", '"nan"', '"nan" is not a number; string accepts it'),
    ("float", "3.5e38", "3.5E+38 is out of range for float; double accepts it"),
    ({"type": "enum", "name": "E", "symbols": ["RED"]}, '"red"', '"red" is not a symbol of E; RED is'),
    ({"type": "enum", "name": "E", "symbols": ["RED"]}, "0", "0 is not a symbol of E"),
    (UUID_TEXT, '"0011223344556677-8899-aabbccddeeff"',
     '"0011223344556677-8899-aabbccddeeff" is not a uuid; string accepts it'),
    (MONEY, "0.001", "0.001 has more than 2 decimal places; decimal(6, 3) accepts it"),
    (MONEY, "12345.678", "12345.678 is out of range for decimal(6, 2); decimal(8, 3) accepts it"),
    (MONEY, "100000", "100000 is out of range for decimal(6, 2); decimal(8, 2) accepts it"),
    (MS, "1769881500.0",
     "1769881500.0 may be in seconds: expected an integer, or text; double and decimal accept it"),
    (MS, "1769881500.123456789",
     "1769881500.123456789 may be in seconds: expected an integer, or text; double and decimal accept it"),
    (TIME_MS, "63900.0", "63900.0 may be in seconds: expected an integer, or text; double and decimal accept it"),
    (MS, '"1769881500"', "1769881500 may be in seconds: expected an integer, or text"),
    (MS, '"20260131174500"', '"20260131174500" is not a timestamp such as 2026-01-31T17:45:00.5Z'),
    (DATE, '"20260131"', '"20260131" is not a date such as 2026-01-31'),
    (TIME_MS, '"174500"', '"174500" is not a time such as 17:45:00.5'),
    (DATE, '"2026-01-31T00:00:00+01:00"',
     '"2026-01-31T00:00:00+01:00" is not a date such as 2026-01-31; timestamp-millis accepts it'),
    (DATE, '"2026-01-31T00:00:00.5"',
     '"2026-01-31T00:00:00.5" is not a date such as 2026-01-31; local-timestamp-millis accepts it'),
    (DATE, "[2026,2,30]", '"2026-02-30": day is out of range for month'),
    (MS, "[2026,1,31,12,0]", "an array is not a timestamp such as 2026-01-31T17:45:00.5Z"),
    (LOCAL_MS, "[2026,1,31,12,0,0,5]", "an array is not a local timestamp such as 2026-01-31T17:45:00.5"),
    (MS, '"2026-01-31"', '"2026-01-31" is not a timestamp such as 2026-01-31T17:45:00.5Z; date accepts it'),
    (MS, '"2026-01-31T12:00:00"',
     '"2026-01-31T12:00:00" has no offset from UTC: expected a timestamp such as 2026-01-31T17:45:00.5Z;'
     " local-timestamp-millis accepts it"),
    (LOCAL_MS, '"2026-01-31T12:00:00.1234Z"',
     '"2026-01-31T12:00:00.1234Z" has an offset from UTC: expected a local timestamp such as 2026-01-31T17:45:00.5;'
     " timestamp-micros accepts it"),
    (NS, '"9999-01-01T00:00:00Z"', '"9999-01-01T00:00:00Z" is out of range for long; timestamp-millis accepts it'),
    (MS, '"infinity"', '"infinity" is not a timestamp such as 2026-01-31T17:45:00.5Z'),
]  # fmt: skip

DROPS = '[avro] timestamps = "truncate" drops the excess digits'
TOO_PRECISE: list[tuple[Any, str, int, str]] = [
    (MS, '"2026-01-31T12:00:00.123456+00:00"', 3, f"timestamp-micros accepts it; {DROPS}"),
    (MS, '"2026-01-31 12:00:00.123456+00"', 3, f"timestamp-micros accepts it; {DROPS}"),
    (MS, '"2026-01-31T12:00:00.1234567Z"', 3, f"timestamp-nanos accepts it; {DROPS}"),
    (US, '"2026-01-31T12:00:00.1234567Z"', 6, f"timestamp-nanos accepts it; {DROPS}"),
    (US, '"2026-01-31T12:00:00.123456789Z"', 6, f"timestamp-nanos accepts it; {DROPS}"),
    (NS, '"2026-01-31T12:00:00.1234567891Z"', 9, DROPS),
    (LOCAL_MS, '"2026-01-31T12:00:00.123456"', 3, f"local-timestamp-micros accepts it; {DROPS}"),
    (TIME_MS, '"12:00:00.123456"', 3, f"time-micros accepts it; {DROPS}"),
    (TIME_US, '"12:00:00.1234567"', 6, DROPS),
]


def label(value: Any) -> str:
    return str(value).replace(" ", "").replace("logicalType", "")[:60]


def outcomes(kind: Any, text: str, rules: Rules) -> list[Any]:
    """The body or message of the text encoder, with and without a decimal in the contract, and of the mapping alone."""
    found: list[Any] = []
    for more in ([], [{"name": "w", "type": ["null", MONEY], "default": None}]):
        fields = [{"name": "v", "type": kind}, *more]
        schema: Any = fastavro.parse_schema({"type": "record", "name": "R", "fields": fields}, named_schemas={})
        value = json.loads(f'{{"v": {text}}}', parse_float=Decimal)

        def mapped(schema: Any = schema, value: Any = value) -> bytes:
            body = io.BytesIO()
            fastavro.schemaless_writer(body, schema, convert.mapper(schema, rules)(value))
            return body.getvalue()

        contract = Contract(schema, "test.avsc", rules=rules)
        payload = f'{{"v": {text}}}'.encode()
        encoders: list[Callable[..., Any]] = [
            mapped,
            partial(contract.encode, payload, b""),
            partial(compiler.compile_encoder(schema, rules), value, b""),
        ]
        for encode in encoders:
            try:
                found.append(encode().removesuffix(b"\x00") if more else encode())
            except Mismatch as mismatch:
                found.append(str(mismatch))
    return found


@pytest.mark.parametrize(("kind", "text", "expected"), CONVERTED, ids=label)
def test_case_e2_another_notation_of_the_same_value_is_accepted(kind: Any, text: str, expected: Any) -> None:
    got = seen(kind, text)
    assert got == expected or (got != got and expected != expected)
    assert type(got) is type(expected)
    assert len(set(outcomes(kind, text, STRICT))) == 1


@pytest.mark.parametrize(("kind", "text", "reason"), REJECTED, ids=label)
def test_case_e2_inexact_or_ambiguous_notation_names_the_accepting_type(kind: Any, text: str, reason: str) -> None:
    assert set(outcomes(kind, text, STRICT)) == {f"$.v: {reason}"}


@pytest.mark.parametrize(("branches", "text", "index"), [
    (["null", "long", "string"], '"5"', 2), (["long", "string"], '"5"', 1), (["long", "bytes"], '"5"', 1),
    (["long", "double"], "1.0", 1), (["int", "float"], "1e3", 1), (["long", MONEY], "1.0", 1),
    (["double", "string"], '"NaN"', 1), ([UUID_TEXT, "bytes"], '"00112233445566778899AABBCCDDEEFF"', 1),
    ([US, "string"], '"2026-01-31t12:00:00z"', 1), ([US, MONEY], "1769860800000.0", 0),
    ([DATE, "string"], '"2026-01-31T00:00:00Z"', 1), ([DATE, US], '"2026-01-31T00:00:00Z"', 1),
    ([DATE, {"type": "array", "items": "int"}], "[2026,1,31]", 1),
    (["long", {"type": "enum", "name": "E", "symbols": ["A"], "default": "A"}], '"5"', 1),
    (["long", {"type": "map", "values": "long"}], '{"long": 5}', 1),
    (["double", {"type": "map", "values": "long"}], '{"double": 1.5}', 0),
    (["double", {"type": "map", "values": "long"}], '{"double": 1.0}', 0),  # tagged as it is, before any conversion
    (["long", {"type": "map", "values": "long"}], '{"long": "5"}', 1),
])  # fmt: skip
def test_case_e2_a_union_never_converts_a_value_that_a_branch_accepts(
    branches: list[Any], text: str, index: int
) -> None:
    found = outcomes(branches, text, STRICT)
    assert len(set(found)) == 1
    assert found[0][0] == 2 * index


def test_case_e2_records_of_a_union_are_matched_as_they_are_first() -> None:
    number = {"type": "record", "name": "A", "fields": [{"name": "x", "type": "long"}]}
    text = {"type": "record", "name": "B", "fields": [{"name": "x", "type": "string"}]}
    assert outcomes([number, text], '{"x": "5"}', STRICT)[0] == b"\x02\x025"
    assert outcomes([number, "long"], '{"x": "5"}', STRICT)[0] == b"\x00\x0a"


@pytest.mark.parametrize(("kind", "text", "digits", "advice"), TOO_PRECISE, ids=label)
def test_case_e1_a_time_that_is_too_precise_names_the_contract_and_the_setting(
    kind: Any, text: str, digits: int, advice: str
) -> None:
    message = f"$.v: {text} is more precise than {digits} decimal places of a second; {advice}"
    assert set(outcomes(kind, text, STRICT)) == {message}


@pytest.mark.parametrize(("kind", "text", "digits", "advice"), TOO_PRECISE, ids=label)
def test_case_e1_truncate_drops_the_digits_beyond_the_unit(kind: Any, text: str, digits: int, advice: str) -> None:
    point = text.index(".")
    cut = text[: point + 1 + digits] + text[point + 1 :].lstrip("0123456789")
    found = outcomes(kind, text, TRUNCATE)
    assert set(found) == set(outcomes(kind, cut, STRICT)), advice
    assert isinstance(found[0], bytes)


@pytest.mark.parametrize(("kind", "text", "expected"), [
    (MS, '"1969-12-31T23:59:59.9999Z"', -1), (MS, "1769860800000.7", 1769860800000),
    (MS, "-1769860800000.2", -1769860800001), (["null", MS, "boolean"], '"1970-01-01T00:00:00.0019Z"', 1),
])  # fmt: skip
def test_case_e1_truncate_goes_back_in_time_also_before_1970(kind: Any, text: str, expected: int) -> None:
    body = outcomes(kind, text, TRUNCATE)[0]
    plain = outcomes(kind, str(expected), STRICT)[0]
    assert body == plain


def test_case_e1_truncate_does_not_touch_a_text_that_a_union_accepts() -> None:
    assert outcomes([MS, "string"], '"1970-01-01T00:00:00.0019Z"', TRUNCATE)[0][:1] == b"\x02"


KINDS = ["int", "long", "double", DATE, TIME_MS, TIME_US, MS, US, NS, LOCAL_MS, LOCAL_US, UUID_TEXT]
moments = st.datetimes(min_value=datetime.datetime(1, 1, 2), max_value=datetime.datetime(9999, 12, 30))
texts = st.one_of(
    moments.map(lambda moment: moment.isoformat() + "z"),
    st.builds(
        lambda moment, between, offset: moment.isoformat(between) + offset,
        moments,
        st.sampled_from([" ", "t", "T"]),
        st.sampled_from(["", "Z", " +00:00", "+00", " UTC", "-01:00:01"]),
    ),
    st.from_regex(r"[0-2][0-9]:[0-5][0-9]:[0-5][0-9][.,][0-9]{1,12}", fullmatch=True),
    st.integers(-(1 << 64), 1 << 64).map(str),
    st.decimals(allow_nan=False).map(str),
    st.uuids().map(lambda one: one.hex),
    st.sampled_from(["NaN", "Infinity", "-Infinity"]),
).map(json.dumps)  # fmt: skip
numbers = st.one_of(
    st.integers(-(1 << 64), 1 << 64).map(lambda number: f"{number}.0"),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.lists(st.integers(0, 9999), max_size=7).map(json.dumps),
)


@given(texts | numbers, st.lists(st.sampled_from(KINDS), min_size=1, max_size=2), st.sampled_from([STRICT, TRUNCATE]))
@examples(1500)
def test_case_e2_mapping_compiled_code_and_text_encoder_agree(text: str, kinds: list[Any], rules: Rules) -> None:
    distinct = list({kind if isinstance(kind, str) else kind["type"]: kind for kind in kinds}.values())
    assert len(set(outcomes(distinct[0] if len(distinct) == 1 else distinct, text, rules))) == 1


def test_case_e1_the_fast_encoders_drop_digits_themselves() -> None:
    fields = [
        {"name": "at", "type": ["null", MS]},
        {"name": "local", "type": LOCAL_US},
        {"name": "clock", "type": TIME_MS},
    ]
    schema: Any = fastavro.parse_schema({"type": "record", "name": "R", "fields": fields}, named_schemas={})
    payload = b'{"at":"2026-01-31T12:00:00.123456+00:00","local":"2026-01-31 12:00:00.1234567","clock":"12:00:00.1239"}'
    expected = Contract(schema, "test.avsc", rules=TRUNCATE).encode(payload, b"")

    def never(payload: bytes, header: bytes = b"") -> bytes:
        raise AssertionError(f"{payload!r} with {header!r} is left to the general encoder")

    typed = compiler.compile_text_encoder(schema, TRUNCATE, never, b"")
    assert typed is not None
    assert typed(payload) == expected
    native = pytest.importorskip("cdc_native", reason="the accelerator is not installed")
    assert native.encode(plan(schema, TRUNCATE), payload) == expected
    assert native.encode(plan(schema, STRICT), payload) is None


@pytest.mark.parametrize(("kind", "text"), [
    ([{"type": "record", "name": "A", "fields": [{"name": "string", "type": MS}]}, "string"],
     '{"string": "1970-01-01T00:00:00.0019Z"}'),
    (["string", {"type": "map", "values": MS}], '{"string": "1970-01-01T00:00:00.0019Z"}'),
])  # fmt: skip
def test_case_e1_a_tagged_text_is_not_taken_for_a_time_that_is_too_precise(kind: Any, text: str) -> None:
    found = outcomes(kind, text, TRUNCATE)
    assert len(set(found)) == 1
    assert found[0] == outcomes(kind, '{"string": "1970-01-01T00:00:00.0019Z"}', STRICT)[0]
