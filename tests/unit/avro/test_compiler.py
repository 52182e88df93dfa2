"""Compiled encoders: their source, values that do not need the mapping, and names that must be safe in source."""

from pathlib import Path
from typing import Any

import fastavro
import orjson
import pytest

from cdc.avro.compiled import binary, compiler
from cdc.avro.mapping import convert
from cdc.avro.mapping.mismatch import Mismatch
from tests import ROOT

SHOP = ROOT / "schemas" / "shop"


def parsed(*fields: dict[str, Any]) -> Any:
    return fastavro.parse_schema({"type": "record", "name": "a.R", "fields": list(fields)}, named_schemas={})


@pytest.mark.parametrize("path", sorted(SHOP.glob("*.avsc")), ids=lambda path: path.stem)
def test_the_source_has_a_line_with_a_comment_for_each_field(path: Path) -> None:
    schema: Any = fastavro.parse_schema(orjson.loads(path.read_bytes()), named_schemas={})
    text = compiler.source(schema)
    for definition in schema["__named_schemas"].values():
        if definition["type"] == "record":
            for field in definition["fields"]:
                assert f"['{field['name']}']  # " in text or f".get('{field['name']}', ABSENT)  # " in text


def nested(depth: int) -> dict[str, Any]:
    inner: Any = nested(depth - 1) if depth else "int"
    return {"type": "record", "name": f"R{depth}", "fields": [{"name": "v", "type": {"type": "array", "items": inner}}]}


def test_record_becomes_a_function_if_used_twice_recursive_or_deeply_nested() -> None:
    point = {"type": "record", "name": "P", "fields": [{"name": "x", "type": "int"}]}
    tree = {"type": "record", "name": "T", "fields": [{"name": "down", "type": ["null", "T"]}]}
    source = compiler.source(
        parsed({"name": "a", "type": point}, {"name": "b", "type": "P"}, {"name": "t", "type": tree})
    )
    assert [line for line in source.splitlines() if line.startswith("def ")] == [
        "def encode(value, header):",
        "def record_a_P(v, out):  # a.P",
        "def record_a_T(v, out):  # a.T",
    ]
    deep: Any = fastavro.parse_schema(nested(40), named_schemas={})
    assert compiler.source(deep).count("def record_") == 40 // 6
    value: Any = [1]
    for _ in range(40):
        value = [{"v": value}]
    assert compiler.compile_encoder(deep)({"v": value}, b"")[-42:] == b"\2" + bytes(41)


def test_the_header_stands_before_the_body() -> None:
    encode = compiler.compile_encoder(parsed({"name": "v", "type": "int"}))
    assert encode({"v": 1}, b"\0\0\0\0\7") == b"\0\0\0\0\7\2"
    assert encode({"v": 1}, b"") == b"\2"


def test_matching_values_do_not_use_the_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    line = {"type": "record", "name": "Line", "fields": [{"name": "q", "type": "int", "aliases": ["qty"]}]}
    schema = parsed(
        {"name": "lines", "type": {"type": "array", "items": line}},
        {"name": "first", "type": ["null", "Line"], "default": None},
        {"name": "any", "type": ["null", "int", "long", "string", "boolean", "Line"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    )
    values = [
        {"lines": [{"q": 1}, {"qty": 2}], "any": value, "at": "2026-01-31T17:45:00Z"}
        for value in (None, 5, 1 << 40, "x", True, {"q": 1})
    ]
    expected = [compiler.compile_encoder(schema)(value, b"") for value in values]

    def never(*_: Any) -> None:
        raise AssertionError("the writer was called")

    encode = compiler.compile_encoder(schema)
    monkeypatch.setattr(fastavro, "schemaless_writer", never)
    assert [encode(value, b"") for value in values] == expected


def test_mismatch_comes_from_the_mapping_without_a_chained_error() -> None:
    with pytest.raises(Mismatch, match=r"^\$\.v: true is not an int$") as caught:
        compiler.compile_encoder(parsed({"name": "v", "type": "int"}))({"v": True}, b"")
    assert caught.value.__context__ is None


@pytest.mark.parametrize("number", [0, 1, 63, 64, 8191, 8192, *(1 << bits for bits in range(14, 63)), (1 << 63) - 1])
def test_whole_numbers_of_every_length_are_zigzag_encoded(number: int) -> None:
    for signed in (number, -number, -number - 1):
        zigzag, expected = signed << 1 ^ signed >> 63, bytearray()
        while zigzag > 127:
            expected.append(zigzag & 127 | 128)
            zigzag >>= 7
        assert binary.long(signed) == bytes(expected) + bytes([zigzag])


@pytest.mark.parametrize("size", [8190, 8191, 8192, 8193, 1 << 20])
def test_long_texts_and_arrays_have_a_length_prefix(size: int) -> None:
    schema = parsed({"name": "s", "type": "string"}, {"name": "a", "type": {"type": "array", "items": "null"}})
    body = compiler.compile_encoder(schema)({"s": "x" * size, "a": [None] * size}, b"")
    assert body == binary.long(size) + b"x" * size + binary.long(size) + b"\0"


def test_names_that_are_not_identifiers_are_safe_in_source() -> None:
    """fastavro accepts them; contracts do not."""
    names = ["out", "value", "absent", "class", "é", "e9", "a b", "x\nimport os"]
    schema = {"type": "record", "name": "R\nraise", "fields": [{"name": name, "type": "string"} for name in names]}
    encode = compiler.compile_encoder({**schema, "__fastavro_parsed": True, "__named_schemas": {}})
    assert encode(dict(zip(names, "12345678", strict=True)), b"") == b"".join(b"\2%d" % n for n in range(1, 9))


def test_records_with_similar_names_are_distinguished() -> None:
    one = {"type": "record", "name": "a.b_c", "fields": [{"name": "x", "type": "int"}]}
    two = {"type": "record", "name": "a_b.c", "fields": [{"name": "x", "type": "string"}]}
    schema = parsed({"name": "one", "type": one}, {"name": "two", "type": two})
    assert compiler.compile_encoder(schema)({"one": {"x": 1}, "two": {"x": "a"}}, b"") == b"\2\2a"


def test_compiler_rejects_schemas_that_the_mapping_rejects() -> None:
    schema = parsed({"name": "v", "type": {"type": "fixed", "name": "F", "size": 2}, "default": "a"})
    with pytest.raises(Mismatch) as by_mapping:
        convert.mapper(schema)
    with pytest.raises(Mismatch) as by_compiler:
        compiler.compile_encoder(schema)
    assert str(by_mapping.value) == str(by_compiler.value)
