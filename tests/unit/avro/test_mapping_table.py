"""docs/mapping.md, row by row: values are accepted or rejected as the table says."""

import json
import re
from decimal import Decimal
from typing import Any

import fastavro
import orjson
import pytest

from cdc.avro.compiled import compiler
from cdc.avro.mapping import convert
from cdc.avro.mapping.mismatch import Mismatch
from cdc.avro.mapping.rules import STRICT, Rules
from tests import ROOT

PAGE = ROOT / "docs" / "mapping.md"
ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
LINE = {"type": "record", "name": "L", "fields": [{"name": "x", "type": "int", "aliases": ["old", "older"]}]}
TWIN = {"type": "record", "name": "T", "fields": [{"name": "x", "type": "int"}]}


def logical(kind: str, logical_type: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": logical_type, **more}


def stamps(local: str) -> list[Any]:
    return [logical("long", f"{local}timestamp-{unit}") for unit in ("millis", "micros", "nanos")]


MONEY = logical("bytes", "decimal", precision=6, scale=2)
SMALL_MONEY = logical("fixed", "decimal", precision=4, scale=2, name="F", size=2)
ID = '"00112233-4455-6677-8899-AABBCCDDEEFF"'
TIMES = [logical("int", "time-millis"), logical("long", "time-micros")]

# The row, its schemas, JSON that is taken, JSON that is refused.
ROWS: list[tuple[str, list[Any], list[str], list[str]]] = [
    ("null", ["null"], ["null"], ["0", '""', "{}"]),
    ("boolean", ["boolean"], ["true", "false"], ["1", '"true"', "null"]),
    ("int", ["int"], ["-2147483648", "2147483647", "1.0", "1e3", '"1"'],
     ["2147483648", "-2147483649", "1.5", '"01"', "true"]),
    ("long", ["long"], ["-9223372036854775808", "9223372036854775807", "1.0", "1e3", '"9223372036854775807"'],
     ["9223372036854775808", "1.5", '"1.5"', '""', "true"]),
    ("float", ["float"], ["0.1", "3", "-3.4e38", '"NaN"'], ["3.5e38", '"1"', "true"]),
    ("double", ["double"], ["0.1", "3", "1.7e308", '"NaN"', '"Infinity"', '"-Infinity"'], ['"1"', "true", '"nan"']),
    ("string", ["string"], ['""', '"é"'], ["1", "null", "[]"]),
    ("bytes", ["bytes"], ['""', '"\\u0000ÿ"'], ['"€"', "[1]", "1"]),
    ("fixed", [{"type": "fixed", "name": "F", "size": 2}], ['"ab"'], ['"a"', '"abc"', "12"]),
    ("enum", [ENUM], ['"A"'], ['"C"', "1", "null"]),
    ("enum", [{**ENUM, "default": "A"}], ['"A"', '"C"'], ["1", "null"]),
    ("array", [{"type": "array", "items": "int"}], ["[]", "[1, 2]"], ["{}", '["a"]', "null"]),
    ("map", [{"type": "map", "values": "int"}], ["{}", '{"a": 1}'], ["[]", '{"a": "b"}']),
    ("record", [LINE], ['{"x": 1}', '{"old": 1}', '{"older": 1}'],
     ["{}", '{"x": 1, "y": 2}', '{"x": 1, "old": 1}', '{"old": 1, "older": 1}', "[]", "null"]),
    ("union", [["null", "int", LINE, TWIN]], ["null", "1", '{"int": 1}', '{"L": {"x": 1}}', '{"old": 1}'],
     ['"a"', '{"x": 1}', '{"L": {}}', '{"M": 1}']),
    ("decimal", [MONEY, SMALL_MONEY], ["1.5", '"1.50"', "-3", "1e1", "1.500"],
     ["1.501", "100000", '"1,5"', "true", "null"]),
    ("decimal", [SMALL_MONEY], ["99.99", "-99.99"], ["100", "-100"]),
    ("uuid", [logical("string", "uuid"), logical("fixed", "uuid", name="F", size=16)],
     [ID, '"00112233445566778899aabbccddeeff"',
     '"{00112233-4455-6677-8899-aabbccddeeff}"', '"urn:uuid:00112233-4455-6677-8899-aabbccddeeff"'],
     ['"0011223344556677-8899-aabbccddeeff"', "1", '"x"']),
    ("date", [logical("int", "date")], ['"2026-01-31"', "-1", "1.0", '"2026-01-31T00:00:00Z"', "[2026, 1, 31]"],
     ['"2026-02-30"', '"2026-01-31T00:00:01Z"', '"2026-01-31T00:00:00+01:00"', "1.5", '"1"']),
    ("time-millis", TIMES, ['"17:45"', '"17:45:00.5"', "0", '"17:45:00,5"', "[17, 45, 0, 500000000]"],
     ['"17:45:00.0000001"', '"24:00"', '"23:59:60"', "-1", "63900.0", '"17:45Z"', "[17, 45, 0, 5]"]),
    ("timestamp-millis", stamps(""),
     ['"2026-01-31T17:45:00.5Z"', '"2026-01-31 17:45+01:00"', '"2026-01-31T17:45:00+0100"',
      '"2026-01-31T17:45:00-01"', "1", "1769881500123.0", "1.769881500123e12", '"1769881500123"',
      '"2026-01-31t17:45:00z"', '"2026-01-31 17:45:00 +01:00"', '"2026-01-31 17:45:00+00:53:28"',
      '"2026-01-31 17:45:00 UTC"', '"2026-01-31T17:45:00,5Z"', '"2026-01-31T17:45:00.1000000000Z"'],
     ['"2026-01-31T17:45:00"', "1769881500.0", '"20260131174500"', "[2026, 1, 31, 17, 45]",
      '"2026-02-30T17:45:00Z"', '"2026-01-31T24:00:00Z"', '"2026-01-31T17:45:00.0000000001Z"']),
    ("local-timestamp-millis", stamps("local-"),
     ['"2026-01-31T17:45:00.5"', '"2026-01-31 17:45"', "1", '"2026-01-31t17:45:00"', "[2026, 1, 31, 17, 45]"],
     ["[2026, 1, 31, 17, 45, 0, 5]", "[2026, 1, 31]", '"2026-01-31T17:45:00Z"',
      '"2026-01-31T17:45:00+01"', '"2026-01-32T17:45:00"']),
    ("duration", [logical("fixed", "duration", name="F", size=12)],
     ['{"months": 1, "days": 2, "millis": 4294967295}',
     '{"months": 1.0, "days": "2", "millis": 3}'],
     ['{"months": 1}', '{"months": 1, "days": 2, "millis": -1}', '{"months": 1, "days": 2, "millis": 3, "x": 4}']),
]  # fmt: skip
CASES = [
    (schema, text, taken)
    for _, schemas, accepted, refused in ROWS
    for schema in schemas
    for taken, texts in ((True, accepted), (False, refused))
    for text in texts
]


def parsed(kind: Any, **more: Any) -> Any:
    field = {"name": "v", "type": kind, **more}
    return fastavro.parse_schema({"type": "record", "name": "R", "fields": [field]}, named_schemas={})


def value(text: str) -> Any:
    """Parse JSON with exact numbers, as contracts with a decimal do."""
    return json.loads(text, parse_float=Decimal)


def takes(schema: Any, payload: Any, rules: Rules = STRICT) -> bool:
    try:
        compiler.compile_encoder(schema, rules)(payload, b"")
    except Mismatch as mismatch:
        with pytest.raises(Mismatch, match=f"^{re.escape(str(mismatch))}$"):
            convert.mapper(schema, rules)(payload)
        return False
    convert.mapper(schema, rules)(payload)
    return True


@pytest.mark.parametrize(("kind", "text", "taken"), CASES, ids=lambda case: str(case).replace(" ", "")[:50])
def test_each_row_of_the_table(kind: Any, text: str, taken: bool) -> None:
    assert takes(parsed(kind), {"v": value(text)}) is taken


def test_every_row_of_the_page_has_its_cases() -> None:
    table = PAGE.read_text().split("## The table")[1].split("## Unions")[0]
    rows = [line.split("|")[1].split("(")[0].strip() for line in table.splitlines() if line.startswith("| ")][1:]
    assert {row.split(",")[0].strip("`") for row in rows} == {row for row, *_ in ROWS}


BASE64 = Rules(bytes_as="base64")
TWO = {"type": "fixed", "name": "F", "size": 2}


@pytest.mark.parametrize(("kind", "text", "taken"), [
    ("bytes", "", True), ("bytes", "/+8=", True), ("bytes", "QUI=", True), (TWO, "QUI=", True),
    ("bytes", "QUI", False), ("bytes", "_-8=", False), ("bytes", "QU I=", False), ("bytes", "QUJ=", False),
    ("bytes", "QUI=\n", False), ("bytes", "é", False), ("bytes", 1, False), (TWO, "QQ==", False),
])  # fmt: skip
def test_base64_is_strict(kind: Any, text: Any, taken: bool) -> None:
    assert takes(parsed(kind), {"v": text}, BASE64) is taken


def test_defaults_are_never_base64() -> None:
    schema = parsed("bytes", default="\u00ff")
    assert compiler.compile_encoder(schema, BASE64)({}, b"") == b"\x02\xff"


def test_unknown_fields_are_ignored_at_any_depth_if_configured() -> None:
    schema = parsed(["null", TWIN])
    ignore = Rules(unknown_fields="ignore")
    encode = compiler.compile_encoder(schema, ignore)
    assert encode({"v": {"x": 1, "y": 2}, "w": 3}, b"") == b"\x02\x02"
    assert encode({"v": {"T": {"x": 1, "y": 2}}}, b"") == b"\x02\x02"
    assert not takes(schema, {"v": {"x": 1, "y": 2}})
    assert not takes(schema, {"v": {"y": 2}}, ignore)


@pytest.mark.parametrize(("branches", "text", "index"), [
    (["double", "float", "long", "int"], "1", 3), (["double", "float", "long", "int"], "3000000000", 2),
    (["double", "float"], "0.5", 1), (["double", "float"], "0.1", 0), (["float", "double"], "0.1", 1),
    (["float", "double"], "16777217", 1), (["double", MONEY], "0.1", 1), (["double", MONEY], "0.123", 0),
    ([MONEY, "long"], "1", 1), (["string", stamps("")[0]], '"2026-01-31T17:45:00Z"', 0),
    ([stamps("")[0], "string"], '"2026-01-31T17:45:00Z"', 0), (["string", "bytes"], '{"bytes": "a"}', 1),
    ([{"type": "map", "values": "int"}, TWIN], '{"x": 1}', 1), ([{**ENUM, "default": "A"}, "string"], '"C"', 1),
    ([LINE, TWIN], '{"T": {"x": 1}}', 1),
])  # fmt: skip
def test_union_uses_the_documented_branch(branches: list[Any], text: str, index: int) -> None:
    assert compiler.compile_encoder(parsed(branches))({"v": value(text)}, b"")[0] == 2 * index


def test_record_that_uses_most_fields_is_chosen() -> None:
    wide = {"type": "record", "name": "W", "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": "int"}]}
    encode = compiler.compile_encoder(parsed([TWIN, wide]), Rules(unknown_fields="ignore"))
    assert encode({"v": {"x": 1, "y": 2, "z": 3}}, b"") == b"\x02\x02\x04"
    assert encode({"v": {"x": 1, "z": 3}}, b"") == b"\x00\x02"


def test_ambiguous_object_is_rejected_with_the_tagged_form() -> None:
    with pytest.raises(
        Mismatch, match=r"^\$\.v: an object matches several branches of the union \(L, T\): name one, as in"
    ):
        compiler.compile_encoder(parsed([LINE, TWIN]))({"v": {"x": 1}}, b"")


@pytest.mark.parametrize("branches", [["int", "int"], ["bytes", MONEY], ["null", {"type": "null"}], ["int", ["null"]]])
def test_union_with_indistinguishable_branches_is_rejected(branches: list[Any]) -> None:
    with pytest.raises(Mismatch, match="not an Avro schema: a union has"):
        compiler.compile_encoder(parsed(branches))


def test_default_of_an_enum_applies_where_a_union_refers_to_it() -> None:
    schema = {"type": "record", "name": "R", "fields": [
        {"name": "a", "type": ["null", {**ENUM, "default": "B"}]}, {"name": "b", "type": ["null", "E"]},
        {"name": "c", "type": "E"},
    ]}  # fmt: skip
    encode = compiler.compile_encoder(fastavro.parse_schema(schema, named_schemas={}))
    assert encode(orjson.loads('{"a": "?", "b": "?", "c": "?"}'), b"") == b"\x02\x02\x02\x02\x02"


def test_default_that_contains_itself_is_rejected() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "v", "type": "R", "default": {}}]}
    with pytest.raises(Mismatch, match="its default contains itself"):
        convert.mapper(fastavro.parse_schema(schema, named_schemas={}))
