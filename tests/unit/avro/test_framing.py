"""Fingerprints and headers, compared with the algorithm in the Avro specification."""

import json
from typing import Any

import fastavro
import pytest

from cdc.avro import framing
from tests.unit.contract import contract, of

EMPTY = 0xC15D213AA4D7A795


def _table() -> list[int]:
    table = []
    for number in range(256):
        fingerprint = number
        for _ in range(8):
            fingerprint = (fingerprint >> 1) ^ (EMPTY & -(fingerprint & 1))
        table.append(fingerprint)
    return table


def rabin(canonical: str, table: list[int] = _table()) -> int:  # noqa: B008 - made once
    """CRC-64-AVRO of a canonical form, as in the specification's Java."""
    fingerprint = EMPTY
    for byte in canonical.encode():
        fingerprint = (fingerprint >> 8) ^ table[(fingerprint ^ byte) & 0xFF]
    return fingerprint


# The specification's own test cases (share/test/data/schema-tests.txt).
@pytest.mark.parametrize(
    ("schema", "fingerprint"),
    [("null", "63dd24e7cc258f8a"), ("int", "7275d51a3f395c8f"), ("string", "8f014872634503c7")],
)
def test_the_header_of_a_primitive_is_its_fingerprint_little_endian(schema: str, fingerprint: str) -> None:
    assert f"{rabin(json.dumps(schema)):016x}" == fingerprint
    assert framing.header(schema) == b"\xc3\x01" + bytes.fromhex(fingerprint)[::-1]


RECORDS: list[tuple[Any, str]] = [
    (
        {"type": "record", "name": "R", "namespace": "a.b", "doc": "d", "aliases": ["Q"], "fields": [
            {"name": "v", "type": {"type": "int"}, "doc": "d", "default": 1, "order": "ignore"},
        ]},
        '{"name":"a.b.R","type":"record","fields":[{"name":"v","type":"int"}]}',
    ),
    (
        {"fields": [
            {"type": {"type": "enum", "symbols": ["A"], "name": "E", "default": "A"}, "name": "e"},
            {"type": ["null", {"size": 12, "type": "fixed", "name": "x.F", "logicalType": "duration"}], "name": "f"},
            {"type": {"items": {"values": "E", "type": "map"}, "type": "array"}, "name": "a"},
            {"type": {"type": "long", "logicalType": "timestamp-micros"}, "name": "t"},
        ], "name": "n.R", "type": "record"},
        '{"name":"n.R","type":"record","fields":['
        '{"name":"e","type":{"name":"n.E","type":"enum","symbols":["A"]}},'
        '{"name":"f","type":["null",{"name":"x.F","type":"fixed","size":12}]},'
        '{"name":"a","type":{"type":"array","items":{"type":"map","values":"n.E"}}},'
        '{"name":"t","type":"long"}]}',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "canonical"), RECORDS, ids=["attributes", "named types"])
def test_the_fingerprint_is_of_the_parsing_canonical_form(schema: Any, canonical: str) -> None:
    expected = b"\xc3\x01" + rabin(canonical).to_bytes(8, "little")
    assert framing.header(fastavro.parse_schema(schema, named_schemas={})) == expected
    assert contract(schema).header == expected


def test_documentation_and_defaults_do_not_change_the_header_and_types_do() -> None:
    plain = of("int")
    assert of("int", doc="more", default=5).header == plain.header
    assert of("long").header != plain.header


def test_a_value_is_marker_fingerprint_and_body() -> None:
    value = of("int").encode(b'{"v": -2}')
    assert (value[:2], value[2:10], value[10:]) == (framing.MARKER, of("int").header[2:], b"\x03")
    assert len(of("int").header) == framing.HEADER_SIZE
