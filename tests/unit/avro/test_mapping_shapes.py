"""Nested, recursive and named schemas: paths of mismatches, references, unions of records."""

import json
from typing import Any

import pytest

from cdc.avro.mapping.mismatch import Mismatch
from tests.unit.contract import contract, of, read_back

LINE = {"type": "record", "name": "Line", "fields": [{"name": "sku", "type": "string"}, {"name": "qty", "type": "int"}]}
ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "lines", "type": {"type": "array", "items": LINE}},
        {"name": "extra", "type": {"type": "map", "values": ["null", LINE["name"]]}, "default": {}},
        {"name": "first", "type": ["null", "Line"], "default": None},
    ],
}
TREE = {
    "type": "record",
    "name": "Tree",
    "fields": [
        {"name": "n", "type": "int"},
        {"name": "left", "type": ["null", "Tree"], "default": None},
        {"name": "more", "type": {"type": "array", "items": "Tree"}, "default": []},
    ],
}


def line(qty: Any = 1) -> dict[str, Any]:
    return {"sku": "a", "qty": qty}


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (
            {"lines": [line(), line(), line(3000000000)]},
            "$.lines[2].qty: 3000000000 is out of range for int; long accepts it",
        ),
        ({"lines": [line(), {"sku": "a"}]}, "$.lines[1].qty: is missing and has no default"),
        ({"lines": [{**line(), "price": 1}]}, "$.lines[0].price: is not a field of shop.Line"),
        ({"lines": [], "extra": {"a b": line("x")}}, "$.extra['a b'].qty: \"x\" is not an int; string accepts it"),
        ({"lines": [], "first": line(1.5)}, "$.first.qty: 1.5 is not an int; double and decimal accept it"),
        ({"lines": [], "first": {"shop.Line": line(True)}}, "$.first.shop.Line.qty: true is not an int"),
        ({"lines": line()}, "$.lines: an object is not an array"),
        ({"lines": [None]}, "$.lines[0]: null is not an object (shop.Line)"),
    ],
)
def test_a_mismatch_names_the_place_in_the_payload(payload: Any, message: str) -> None:
    with pytest.raises(Mismatch) as caught:
        contract(ORDER).encode(json.dumps(payload).encode())
    assert str(caught.value) == message


def test_references_to_named_types_are_the_named_types() -> None:
    payload = {"lines": [line()], "extra": {"x": line(2), "y": None}, "first": line(3)}
    assert read_back(contract(ORDER), json.dumps(payload)) == payload


def test_one_payload_after_another_shares_no_default() -> None:
    target = contract(ORDER)
    first = read_back(target, json.dumps({"lines": []}))
    first["extra"]["changed"] = None
    assert read_back(target, json.dumps({"lines": []})) == {"lines": [], "extra": {}, "first": None}


def test_a_recursive_record_is_mapped_to_any_depth() -> None:
    payload: dict[str, Any] = {"n": 0, "left": None, "more": []}
    for depth in range(1, 30):
        payload = {"n": depth, "left": payload, "more": [{"n": -1, "left": None, "more": []}]}
    assert read_back(contract(TREE), json.dumps(payload)) == payload


def test_a_mismatch_deep_in_a_recursive_record_has_the_whole_path() -> None:
    payload = {"n": 0, "left": {"n": 1, "more": [{"n": 2, "left": {"n": "x"}}]}}
    with pytest.raises(Mismatch) as caught:
        contract(TREE).encode(json.dumps(payload).encode())
    assert str(caught.value) == '$.left.more[0].left.n: "x" is not an int; string accepts it'


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_endlessly_nested_payload_is_rejected_without_a_crash(depth: int) -> None:
    payload = '{"n": 1, "left": ' * depth + "null" + "}" * depth
    with pytest.raises(ValueError, match=r"nested too deeply|not JSON"):
        contract(TREE).encode(payload.encode())


@pytest.mark.parametrize("depth", [400, 2_000, 100_000])
def test_endless_nesting_is_rejected_if_numbers_are_parsed_exactly(depth: int) -> None:
    money = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
    with pytest.raises(ValueError, match=r"nested too deeply|not JSON|an array"):
        of({"type": "array", "items": money}).encode(b'{"v": ' + b"[" * depth + b"]" * depth + b"}")


A = {"type": "record", "name": "A", "fields": [{"name": "x", "type": "int"}]}
B = {"type": "record", "name": "B", "fields": [{"name": "y", "type": "int", "default": 0}]}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"x": 1}, {"x": 1}),
        ({"y": 1}, {"y": 1}),
        ({}, {"y": 0}),
        ({"A": {"x": 1}}, {"x": 1}),
        ({"B": {}}, {"y": 0}),
    ],
)
def test_union_of_records_uses_the_matching_or_the_named_record(payload: Any, expected: Any) -> None:
    assert read_back(of(["null", A, B]), json.dumps({"v": payload})) == {"v": expected}


def test_mismatch_of_a_tagged_value_names_its_branch() -> None:
    with pytest.raises(Mismatch) as caught:
        of(["null", A, B]).encode(b'{"v": {"A": {"x": "?"}}}')
    assert str(caught.value) == '$.v.A.x: "?" is not an int; string accepts it'


@pytest.mark.parametrize("kind", [
    {"type": "array", "items": "int"},
    {"type": "map", "values": "int"},
    {"type": "enum", "name": "E", "symbols": ["x"]},
    {"type": "fixed", "name": "F", "size": 1},
    {"type": "string"},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 0},
    {"type": "string", "logicalType": "uuid"},
    {"type": "int", "logicalType": "date"},
])  # fmt: skip
def test_every_kind_of_branch_is_written_as_itself(kind: Any) -> None:
    value = {"array": [1], "map": {"a": 1}, "enum": "x", "fixed": "x", "string": "x"}.get(kind["type"], 5)
    value = "00112233-4455-6677-8899-aabbccddeeff" if kind.get("logicalType") == "uuid" else value
    plain = read_back(of(kind), json.dumps({"v": value}))
    assert read_back(of(["null", kind]), json.dumps({"v": value})) == plain
    assert read_back(of(["boolean", kind, "null"]), json.dumps({"v": value})) == plain
