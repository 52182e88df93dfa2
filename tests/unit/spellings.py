"""One value in many JSON texts, right and broken, and every kind of schema to try them on."""

import json
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from cdc.avro.contracts import Contract
from cdc.avro.mapping.rules import Rules


def made(schema: Any, how: Rules) -> Contract | None:
    """The contract, unless the schema is refused."""
    try:
        return Contract(schema, "test.avsc", rules=how)
    except (ValueError, TypeError, KeyError, ArithmeticError):
        return None


class Number(float):
    """A number that is printed as it was written."""

    def __new__(cls, text: str) -> "Number":
        number = super().__new__(cls, 0.5)
        number.text = text
        return number

    text: str

    def __repr__(self) -> str:
        return self.text


def printable(value: Any) -> Any:
    """The value with its decimals as numbers that json prints digit by digit."""
    if isinstance(value, Decimal):
        return Number(str(value))
    if isinstance(value, list):
        return [printable(item) for item in value]
    if isinstance(value, dict):
        return {key: printable(item) for key, item in value.items()}
    return value


def reordered(value: Any, reverse: bool) -> Any:
    """The value with its keys in the order of jsonb, or in just that order backwards."""
    if isinstance(value, list):
        return [reordered(item, reverse) for item in value]
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key), key), reverse=reverse)
        return {key: reordered(value[key], reverse) for key in keys}
    return value


def dumped(draw: st.DrawFn, value: Any) -> bytes:
    """One of the texts that mean the value."""
    value = printable(value)
    order = draw(st.sampled_from(["given", "jsonb", "backwards"]))
    if order != "given":
        value = reordered(value, order == "backwards")
    style: dict[str, Any] = draw(st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 1}]))
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), **style)
    return text.encode("utf-8", "surrogatepass")


SPELLINGS = [
    b"0", b"-0", b"-0.0", b"00", b"1.0", b"1.", b".5", b"1e2", b"1E+2", b"1e-2", b"1e400", b"1e-400", b"1e9999999",
    b"-1", b"12.345", b"12.30", b"1230e-2", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808",
    b"2147483648", b"1" * 19, b"9" * 20, b"1e38", b"3.4028235e38", b"3.4028236e38", b"0.1", b"4.9e-324", b"2e-324",
    b"NaN", b"-Infinity", b"true", b"null", b"{}", b"[]", b'""', b'"A"', b'"\\u0041"', b'"\\ud83d\\ude00"',
    b'"\\ud800"', b'"\\udc00x"', b'"\\x"', b'"\xc3\xa9"', b'"\xff"', b'"\x01"', b'"\x7f"', b'"a\\n"', b'"1.5"',
    b'"+1.5"', b'"1_0"', b'"\xd9\xa1"', b'"-.5e1"', b'"2026-01-31"', b'"2026-02-29"',
    b'"0001-01-01T00:00:00+23:59"', b'"2026-01-31T10:00:00.000Z"', b'"2026-01-31t10:00:00Z"',
    b'"2026-01-31T10:00:00z"', b'"2026-01-31T10:00:00.1234567890Z"', b'"2026-01-31T10:00:00+0100"',
    b'"2026-01-31T10:00+01"', b'"2026-01-31T23:59:60Z"', b'"2026-01-31T10:00:00-24:00"',
    b'"1677-09-21T00:12:43.145224192Z"', b'"2262-04-11T23:47:16.854775808Z"', b'"2026-01-31T10:00:00,5Z"',
    b'"00112233-4455-6677-8899-aabbccddeeff"', b'"00112233-4455-6677-8899-AABBCCDDEEFF"',
    b'"00112233445566778899aabbccddeeff"', b'"urn:uuid:00112233-4455-6677-8899-aabbccddeeff"', b'"NaN"', b'"Infinity"',
    b'"5"', b'"1e2"', b'"9223372036854775808"', b'"1769881500123"', b"1769881500123.0", b"1.769881500123e12",
    b"9007199254740993.0", b"1.00000000000000000001", b"[2026,1,31]", b"[17,45,0,500000000]", b'"2026-01-31T00:00:00Z"',
    b'"2026-01-31 10:00:00.0000001 +00:00:01"', b'"17:45:00.1234567"', b'"2026-01-31t10:00:00,1234567"',
    b'"0011223344556677-8899-aabbccddeeff"', b'"{0112233-4455-6677-8899-aabbccddeef}"',
]  # fmt: skip


@st.composite
def spoiled(draw: st.DrawFn, text: bytes) -> bytes:
    """The text with something put in, left out or doubled, or with a value in another spelling."""
    at = draw(st.integers(0, len(text)))
    to = draw(st.integers(at, min(len(text), at + 8)))
    new = draw(st.one_of(st.just(text[at:to] * 2), st.sampled_from(SPELLINGS), st.binary(max_size=3)))
    spot = draw(st.sampled_from([b"", b",", b":"]))
    if spot and spot in text:  # behind a colon or a comma a value comes
        before, after = text.split(spot, 1)
        rest = after.lstrip(b'0123456789.+-eE "ABxyz')
        return before + spot + new + rest
    return text[:at] + new + text[to:]


KINDS: list[Any] = [
    "null", "boolean", "int", "long", "float", "double", "string", "bytes",
    {"type": "enum", "name": "E", "symbols": ["A", "B"]},
    {"type": "enum", "name": "E", "symbols": ["A", "B"], "default": "B"},
    {"type": "fixed", "name": "F", "size": 2},
    {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2},
    {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 38},
    {"type": "bytes", "logicalType": "decimal", "precision": 39},
    {"type": "fixed", "name": "F", "size": 3, "logicalType": "decimal", "precision": 5},
    {"type": "fixed", "name": "F", "size": 20, "logicalType": "decimal", "precision": 38, "scale": 1},
    {"type": "fixed", "name": "F", "size": 12, "logicalType": "duration"},
    {"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"},
    {"type": "string", "logicalType": "uuid"},
    {"type": "string", "logicalType": "decimal", "precision": 4},
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "time-micros"},
    *({"type": "long", "logicalType": f"{local}timestamp-{unit}"}
      for local in ("", "local-") for unit in ("millis", "micros", "nanos")),
    {"type": "array", "items": "int"},
    {"type": "map", "values": "double"},
    ["null", "int", "long"], ["long", "int"], ["int", "double"], ["float", "double"], ["string", "bytes"],
    ["null", {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}],
    ["double", {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}],
    ["int", {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}],
    ["string", "double", {"type": "fixed", "name": "F", "size": 2}],
    ["string", {"type": "long", "logicalType": "timestamp-millis"}],
    ["boolean", {"type": "int", "logicalType": "date"}, "long"],
    [{"type": "map", "values": "int"}, "string"],
    [{"type": "record", "name": "S", "fields": [{"name": "v", "type": "int"}]}, "string", "null"],
    [{"type": "record", "name": "S", "fields": [{"name": "v", "type": "int", "default": 1}]}, "string"],
]  # fmt: skip

FORMS = [
    b'{"v":%s}',
    b'{"v":[%s]}',
    b'{"v":{"v":%s}}',
    b'{"v":{"u":%s}}',
    b'{"v":%s,"v":%s}',
    b'{"u":%s,"v":%s}',
]
