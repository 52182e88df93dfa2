"""Bytes that are probably the text of base64 or hex."""

import base64
import json
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.avro.byte_texts import has_bytes, looks_encoded
from cdc.avro.contracts import Contract
from cdc.avro.mapping.rules import Rules
from tests.unit.contract import contract, of

MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
UUID = {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}
PAIR = {"type": "fixed", "name": "P", "size": 2}


@given(st.binary(min_size=1))
def test_case_e3_base64_and_hex_of_any_bytes_look_encoded(data: bytes) -> None:
    assert looks_encoded(base64.b64encode(data))
    assert looks_encoded(base64.urlsafe_b64encode(data))
    assert looks_encoded(base64.encodebytes(data))
    assert looks_encoded(b"\\x" + data.hex().encode())


@pytest.mark.parametrize(
    "data", [b"", b"A", b"abc", b"ab cd efg", b"abc\0", b"\xff\xfe\xfd\xfc", b"=abc", b"\\x0", b"ab===="]
)
def test_case_e3_other_bytes_do_not_look_encoded(data: bytes) -> None:
    assert not looks_encoded(data)


@pytest.mark.parametrize(("kind", "expected"), [
    ("bytes", True), (PAIR, True), (["null", "bytes"], True), ({"type": "array", "items": PAIR}, True),
    ({"type": "map", "values": "bytes"}, True), ("string", False), (MONEY, False),
    (UUID, False), (["null", "int"], False),
])  # fmt: skip
def test_case_e3_contracts_with_bytes_are_known(kind: Any, expected: bool) -> None:
    assert has_bytes(of(kind).schema) is expected
    assert (of(kind).byte_texts is not None) is expected


def seen(target: Contract, *values: dict[str, Any]) -> list[str]:
    assert target.byte_texts
    for value in values:
        target.byte_texts.add(target.encode(json.dumps(value).encode(), b""))
    return target.byte_texts.doubtful


def files() -> Contract:
    fields = [{"name": "a", "type": "bytes"}, {"name": "b", "type": {"type": "array", "items": ["null", "bytes"]}}]
    return contract({"type": "record", "name": "Files", "fields": fields})


def test_case_e3_a_field_is_doubtful_while_each_of_its_values_looks_encoded() -> None:
    assert seen(files(), {"a": "aGVsbG8=", "b": []}) == ["$.a"]
    assert seen(files(), {"a": "aGVsbG8=", "b": ["d29ybGQ=", None]}, {"a": "aGk=", "b": []}) == ["$.a", "$.b[]"]
    assert seen(files(), {"a": "aGVsbG8=", "b": []}, {"a": "hello", "b": []}) == []
    assert seen(files(), {"a": "", "b": []}) == []
    assert seen(files(), {"a": "\\x68656c6c6f", "b": []}) == ["$.a"]


def test_case_e3_base64_that_the_setting_decodes_is_not_doubtful() -> None:
    fields = [{"name": "a", "type": "bytes"}]
    schema: Any = fastavro.parse_schema({"type": "record", "name": "F", "fields": fields}, named_schemas={})
    assert Contract(schema, "test.avsc", rules=Rules(bytes_as="base64")).byte_texts is None
