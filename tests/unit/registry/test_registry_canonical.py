"""Two texts of one schema are known as one, and two schemas never are."""

import json
from typing import Any

import pytest
from fastavro.schema import parse_schema, to_parsing_canonical_form
from hypothesis import given
from hypothesis import strategies as st

from cdc.registry.canonical import canonical, same_schema

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "doc": "an order",
    "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}], "default": None},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID"], "default": "NEW"}},
        {"name": "before", "type": "State", "aliases": ["was"]},
        {"name": "digest", "type": {"type": "fixed", "name": "other.Digest", "size": 16}},
        {
            "name": "lines",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Line",
                    "fields": [{"name": "quantity", "type": "int", "default": 1, "doc": "how many"}],
                },
            },
            "default": [],
        },
        {"name": "notes", "type": {"type": "map", "values": "string"}, "default": {"a": "b"}},
        {"name": "rate", "type": "double", "default": 1.0},
        {"name": "gift", "type": "boolean", "default": True},
    ],
}
TEXT = json.dumps(ORDER)


@st.composite
def respelt(draw: st.DrawFn, value: Any) -> Any:
    """The same JSON with its keys in another order."""
    if isinstance(value, dict):
        names = draw(st.permutations(list(value)))
        return {name: draw(respelt(value[name])) for name in names}
    if isinstance(value, list):
        return [draw(respelt(item)) for item in value]
    return value


@given(respelt(ORDER), st.sampled_from([None, 2, "\t"]))
def test_the_order_of_keys_and_white_space_mean_nothing(schema: Any, indent: int | str | None) -> None:
    assert same_schema(TEXT, json.dumps(schema, indent=indent))


def without(schema: Any, names: set[str]) -> Any:
    if isinstance(schema, dict):
        return {name: without(value, names) for name, value in schema.items() if name not in names}
    return [without(item, names) for item in schema] if isinstance(schema, list) else schema


def test_docs_aliases_and_attributes_of_others_mean_nothing() -> None:
    assert same_schema(TEXT, json.dumps(without(ORDER, {"doc", "aliases"})))
    assert same_schema(TEXT, json.dumps(ORDER | {"connect.name": "x", "doc": "another"}))


def edited(path: list[str | int], value: Any) -> str:
    schema: Any = json.loads(TEXT)
    part = schema
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    return json.dumps(schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["name"], "Orders"),
        (["namespace"], "shops"),
        (["fields", 0, "name"], "ids"),
        (["fields", 0, "type"], "string"),
        (["fields", 0, "type", "logicalType"], "other"),
        (["fields", 1, "type", "scale"], 3),
        (["fields", 1, "type", "precision"], 10),
        (["fields", 2, "type", 1, "logicalType"], "timestamp-millis"),
        (["fields", 2, "type", 1], "long"),
        (["fields", 3, "type", "symbols"], ["PAID", "NEW"]),
        (["fields", 3, "type", "default"], "PAID"),
        (["fields", 4, "default"], "NEW"),
        (["fields", 5, "type", "size"], 17),
        (["fields", 6, "type", "items", "fields", 0, "default"], 2),
        (["fields", 6, "type", "items", "fields", 0, "type"], "long"),
        (["fields", 7, "default"], {}),
        (["fields", 8, "default"], 1.5),
        (["fields", 9, "default"], False),
        (["fields", 9, "default"], 1),
    ],
)
def test_what_changes_bytes_or_their_meaning_makes_another_schema(path: list[str | int], value: Any) -> None:
    assert not same_schema(TEXT, edited(path, value))


def test_the_order_of_fields_means_something() -> None:
    assert not same_schema(TEXT, json.dumps(ORDER | {"fields": ORDER["fields"][::-1]}))


def test_a_missing_default_differs_from_null() -> None:
    nullable = '{"type":"record","name":"R","fields":[{"name":"x","type":["null","int"]%s}]}'
    assert not same_schema(nullable % "", nullable % ',"default":null')


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ('{"type":"fixed","name":"a.b.C","size":1}', '{"type":"fixed","name":"C","namespace":"a.b","size":1}'),
        ('{"type":"fixed","name":"a.C","namespace":"z","size":1}', '{"type":"fixed","name":"a.C","size":1}'),
        ('{"type":"fixed","name":"C","namespace":"","size":1}', '{"type":"fixed","name":"C","size":1}'),
        ('"string"', '{"type":"string"}'),
        ('"string"', "string"),
        ('{"type":{"type":"string"}}', '{"type":"string","avro.java.string":"String"}'),
        (
            '{"type":"bytes","logicalType":"decimal","precision":4}',
            '{"type":"bytes","logicalType":"decimal","precision":4,"scale":0}',
        ),
        (
            '{"type":"record","name":"a.R","fields":[{"name":"x","type":["null","R"]}]}',
            '{"type":"record","namespace":"a","name":"R","fields":[{"name":"x","type":["null","a.R"]}]}',
        ),
        (
            '{"type":"record","name":"R","fields":[{"name":"x","type":"double","default":1}]}',
            '{"type":"record","name":"R","fields":[{"name":"x","type":"double","default":1.0}]}',
        ),
    ],
)
def test_one_schema_spelt_in_two_ways(a: str, b: str) -> None:
    assert same_schema(a, b)
    assert canonical(a) == canonical(b)


def test_a_name_that_another_subject_defines_needs_no_definition() -> None:
    text = '{"type":"record","name":"a.R","fields":[{"name":"x","type":"b.Money"}]}'
    assert same_schema(text, text.replace("a.R", "R").replace('"name":"R"', '"name":"R","namespace":"a"'))
    assert not same_schema(text, text.replace("b.Money", "a.Money"))


@pytest.mark.parametrize(
    "text",
    ["", "{", "null and void", "12", "{}", "[1]", '{"type":"record"}', '{"type":"array"}', '{"type":5}',
     '{"type":"fixed","name":"F","size":"many"}', '{"type":"object","properties":{}}', 'syntax = "proto3";'],
)  # fmt: skip
def test_what_is_no_schema_is_not_the_same_as_ours(text: str) -> None:
    assert not same_schema(TEXT, text)


def test_a_schema_of_endless_depth_is_no_schema() -> None:
    assert not same_schema(TEXT, '{"type":"array","items":' * 5000 + '"int"' + "}" * 5000)


names = st.sampled_from(["A", "B", "n.A", "n.B", "m.n.A"])
leaves = st.sampled_from(["null", "boolean", "int", "long", "float", "double", "bytes", "string"])
types = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda values: {"type": "map", "values": values}, inner),
        st.builds(lambda kind: ["null", kind] if isinstance(kind, str) and kind != "null" else [kind], leaves),
    ),
    max_leaves=6,
)
records = st.builds(
    lambda name, fields: {
        "type": "record",
        "name": name,
        "fields": [{"name": f"f{at}", "type": kind} for at, kind in enumerate(fields)],
    },
    names,
    st.lists(types, max_size=4),
)


@given(records, records)
def test_without_logical_types_and_defaults_it_says_what_fastavros_canonical_form_says(a: Any, b: Any) -> None:
    forms = [to_parsing_canonical_form(parse_schema(json.loads(json.dumps(one)), named_schemas={})) for one in (a, b)]
    assert same_schema(json.dumps(a), json.dumps(b)) == (forms[0] == forms[1])
    assert same_schema(json.dumps(a), forms[0])
