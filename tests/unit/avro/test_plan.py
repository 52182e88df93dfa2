"""Plans for the accelerator, by schema. test_native_encode.py tests that encoding by them is correct."""

import base64
import json
from typing import Any

import fastavro
import pytest

from cdc.avro.compiled.payloads import has_decimal
from cdc.avro.compiled.plan import plan
from cdc.avro.contracts import Contract
from cdc.avro.mapping.rules import STRICT, Rules

IGNORING = Rules(unknown_fields="ignore", bytes_as="base64")
PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}


def nodes(*fields: Any, how: Rules = STRICT) -> list[dict[str, Any]]:
    """The nodes of a record's plan."""
    schema = fastavro.parse_schema({"type": "record", "name": "R", "fields": list(fields)}, named_schemas={})
    Contract(schema, "test.avsc", rules=how)
    text = plan(schema, how)
    assert text is not None
    found: list[dict[str, Any]] = json.loads(text)["nodes"]
    return found


def node(kind: Any, how: Rules = STRICT) -> dict[str, Any]:
    """The node of the only field."""
    found = nodes({"name": "v", "type": kind}, how=how)
    number: int = found[0]["fields"][0]["node"]
    return found[number]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("long", {"kind": "long"}),
        ({"type": "string", "logicalType": "nothing known"}, {"kind": "string"}),
        ({"type": "string", "logicalType": "uuid"}, {"kind": "uuid", "fixed": False}),
        ({"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"}, {"kind": "uuid", "fixed": True}),
        ({"type": "fixed", "name": "F", "size": 3}, {"kind": "fixed", "form": "avro-json", "size": 3}),
        ({"type": "int", "logicalType": "date"}, {"kind": "date"}),
        ({"type": "int", "logicalType": "time-millis"}, {"kind": "time", "digits": 3}),
        ({"type": "long", "logicalType": "timestamp-nanos"}, {"kind": "timestamp", "digits": 9, "local": False}),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, {"kind": "timestamp", "digits": 6, "local": True}),
        (PRICE, {"kind": "decimal", "precision": 9, "scale": 2, "size": None, "fractions": True}),
        ({**PRICE, "precision": 39}, {"kind": "decline"}),
        ({"type": "fixed", "name": "F", "size": 12, "logicalType": "duration"}, {"kind": "duration"}),
        (
            {"type": "enum", "name": "E", "symbols": ["A", "B"], "default": "B"},
            {"kind": "enum", "symbols": ["A", "B"], "default": 1},
        ),
    ],
    ids=str,
)
def test_each_type_has_its_node(kind: Any, expected: dict[str, Any]) -> None:
    assert node(kind) == expected


def test_plan_contains_the_rules() -> None:
    assert node("bytes", IGNORING) == {"kind": "bytes", "form": "base64"}
    assert nodes(how=IGNORING)[0]["ignore_unknown"]
    assert not nodes()[0]["ignore_unknown"]


def test_plan_contains_encoded_defaults() -> None:
    field = {"name": "v", "type": ["string", "null"], "default": "x"}
    assert nodes(field)[0]["fields"][0]["default"] == base64.b64encode(b"\x00\x02x").decode()


def test_plan_lists_aliases_to_decline() -> None:
    assert nodes({"name": "v", "type": "int", "aliases": ["w"]})[0]["aliases"] == ["w"]


def test_recursive_type_has_one_node() -> None:
    found = nodes({"name": "next", "type": ["null", "R"]})
    assert len([each for each in found if each["kind"] == "record"]) == 1
    assert found[found[0]["fields"][0]["node"]]["object"] == {"index": 1, "node": 0}


def test_value_with_several_candidate_branches_is_declined() -> None:
    union = node(["null", "string", "bytes", "float", "double"])
    assert union["null"] == {"index": 0, "node": union["null"]["node"]}
    assert union["text"] is None
    assert union["float"] is None
    assert union["whole"] == []


def test_int_is_tried_before_long() -> None:
    whole = node(["long", "int"])["whole"]
    assert [(each["bits"], each["branch"]["index"]) for each in whole] == [(32, 1), (64, 0)]
    assert node([{"type": "int", "logicalType": "date"}, "long"])["whole"] == []


def test_fraction_may_be_a_decimal_only_if_numbers_are_read_exactly() -> None:
    assert node(["null", PRICE])["float"]["index"] == 1
    assert node(["double", PRICE])["float"] is None


@pytest.mark.parametrize(
    "kind", [PRICE, ["null", PRICE], {"type": "array", "items": PRICE}, {"type": "map", "values": PRICE}]
)
def test_a_decimal_is_found_wherever_it_is(kind: Any) -> None:
    assert has_decimal({"type": "record", "name": "R", "fields": [{"name": "v", "type": kind}]})
    assert not has_decimal({"type": "record", "name": "R", "fields": [{"name": "decimal", "type": "int"}]})
