"""Compatibility by the specification's rules, one row each; fastavro can read whatever is reported as readable."""

import copy
import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.avro.compatibility import MODES, check, problems
from tests.examples import examples
from tests.unit.schemas import records


def record(*fields: Any, name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(kind: Any, name: str = "v", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def enum(*symbols: str, name: str = "E", **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": name, "symbols": list(symbols), **more}


def fixed(size: int, name: str = "F", **more: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size, **more}


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def map_(values: Any) -> dict[str, Any]:
    return {"type": "map", "values": values}


NODE = record(field("int"), field(["null", "Node"], "next"), name="Node")
LONG_NODE = record(field("long"), field(["null", "Node"], "next"), name="Node")
TEXT_NODE = record(field("string"), field(["null", "Node"], "next"), name="Node")

READABLE = [  # (writer's type of $.v, reader's)
    *[(kind, kind) for kind in ("null", "boolean", "int", "long", "float", "double", "string", "bytes")],
    ("int", "long"), ("int", "float"), ("int", "double"), ("long", "float"), ("long", "double"), ("float", "double"),
    ("string", "bytes"), ("bytes", "string"),
    (array("int"), array("long")), (map_("int"), map_("double")),
    ("int", ["null", "int"]), ("int", ["null", "long"]), (["int"], "long"), (["null", "int"], ["long", "null"]),
    (["int", "string"], ["string", "long"]), (enum("A"), enum("A", "B")), (enum("A", "B"), enum("A", default="A")),
    (enum("A", name="a.E"), enum("A", name="b.E")), (enum("A", name="Old"), enum("A", name="New", aliases=["Old"])),
    (enum("A", name="a.Old"), enum("A", name="a.New", aliases=["Old"])), (fixed(4), fixed(4)),
    (decimal(8, 2), decimal(8, 2)), (decimal(8, 2), "bytes"), ("bytes", decimal(8, 2)),
    ({"type": "long", "logicalType": "timestamp-micros"}, "long"),
    (NODE, LONG_NODE), (record(field("int"), name="a.X"), record(field("int"), name="b.X")),
]  # fmt: skip

UNREADABLE = [
    ("long", "int", "$.v: long cannot be read as int"),
    ("double", "float", "$.v: double cannot be read as float"),
    ("int", "string", "$.v: int cannot be read as string"),
    ("boolean", "int", "$.v: boolean cannot be read as int"),
    ("int", array("int"), "$.v: int cannot be read as array"),
    (array("long"), array("int"), "$.v[]: long cannot be read as int"),
    (map_("long"), map_("int"), "$.v{}: long cannot be read as int"),
    ("string", ["null", "int"], "$.v: string matches no branch of [null, int]"),
    (["null", "int"], "int", "$.v: null cannot be read as int"),
    (["null", "string", "int"], ["null", "int"], "$.v(string): string matches no branch of [null, int]"),
    (enum("A", "B", "C"), enum("A"), "$.v: E has no default and lacks B, C"),
    (enum("A", name="Old"), enum("A", name="New"), "$.v: Old is neither New nor one of its aliases"),
    (
        enum("A", name="b.Old"),
        enum("A", name="a.New", aliases=["Old"]),
        "$.v: b.Old is neither a.New nor one of its aliases",
    ),
    (enum("A"), fixed(1, name="E"), "$.v: E cannot be read as E"),
    (fixed(4), fixed(5), "$.v: fixed F has 4 bytes, not 5"),
    (decimal(8, 2), decimal(9, 2), "$.v: decimal(8, 2) is not decimal(9, 2)"),
    (decimal(8, 2), decimal(8, 3), "$.v: decimal(8, 2) is not decimal(8, 3)"),
    (
        {"type": "long", "logicalType": "timestamp-millis"},
        {"type": "long", "logicalType": "timestamp-micros"},
        "$.v: timestamp-millis would be read as timestamp-micros, which changes the time",
    ),
    (NODE, TEXT_NODE, "$.v.v: int cannot be read as string"),
    (
        record(field("int", "a"), name="X"),
        record(field("int", "a"), field("int", "b"), name="X"),
        "$.v.b: is not written, and has no default",
    ),
]


@pytest.mark.parametrize(("writer", "reader"), READABLE)
def test_readable(writer: Any, reader: Any) -> None:
    assert problems(record(field(reader)), record(field(writer))) == []


@pytest.mark.parametrize(("writer", "reader", "problem"), UNREADABLE)
def test_not_readable(writer: Any, reader: Any, problem: str) -> None:
    assert problems(record(field(reader)), record(field(writer))) == [problem]


def test_fields_are_added_and_removed_by_name_default_and_alias() -> None:
    old = record(field("int", "a"), field("int", "gone"))
    assert problems(record(field("int", "b", default=1), field("int", "a")), old) == []
    assert problems(record(field("long", "c", aliases=["a"])), old) == []
    assert problems(record(field("int", "c")), old) == ["$.c: is not written, and has no default"]
    assert problems(record(field("int", "c", aliases=["a", "gone"])), old) == [
        "$.c: matches several fields of the writer: a, gone"
    ]
    assert problems(record(field("int", "a"), field("int", "c", aliases=["a"])), old) == [
        "$.a: is not the only field that matches the writer's a",
        "$.c: is not the only field that matches the writer's a",
    ]


def test_every_problem_is_reported() -> None:
    writer = record(field("long", "a"), field(["null", "string"], "b"))
    assert len(problems(record(field("int", "a"), field("int", "b"), field("int", "c")), writer)) == 4


V1, V2, V3 = record(field("int")), record(field("long")), record(field("double"))


@pytest.mark.parametrize(
    ("mode", "new", "olds", "found"),
    [
        ("BACKWARD", V2, [V1], 0),
        ("FORWARD", V2, [V1], 1),
        ("FULL", V2, [V1], 1),
        ("FULL", V1, [V1], 0),
        ("FORWARD", V1, [V2], 0),
        ("BACKWARD", V1, [V2], 1),
        ("BACKWARD", V2, [V3, V1], 0),
        ("BACKWARD_TRANSITIVE", V2, [V3, V1], 1),
        ("FORWARD_TRANSITIVE", V2, [V1, V3], 1),
        ("FORWARD", V2, [V1, V3], 0),
        ("FULL_TRANSITIVE", V2, [V1, V3], 2),
        *[(mode, V1, [], 0) for mode in MODES],
    ],
)
def test_modes(mode: str, new: Any, olds: list[Any], found: int) -> None:
    assert len(check(mode, new, [(f"v{number}", old) for number, old in enumerate(olds, 1)])) == found


def test_modes_say_which_version_and_which_way() -> None:
    assert check("FULL", V2, [("a.avsc", V1)]) == ["cannot be read by a.avsc: $.v: long cannot be read as int"]
    assert check("FULL", V1, [("a.avsc", V2)]) == ["cannot read what a.avsc wrote: $.v: long cannot be read as int"]
    with pytest.raises(ValueError, match="'NONE' is not one of"):
        check("NONE", V1, [])


KINDS = ["null", "boolean", "int", "long", "float", "double", "string"]


@st.composite
def evolutions(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """A writer's schema, a value of it, and a changed schema to read it with."""
    typed = draw(records())
    _, datum = draw(typed.values)
    return typed.schema, datum, _evolved(draw, copy.deepcopy(typed.schema))


def _evolved(draw: st.DrawFn, schema: Any) -> Any:
    if isinstance(schema, list):
        branches = [_evolved(draw, branch) if isinstance(branch, dict) else branch for branch in schema]
        return draw(st.permutations(branches))
    change = draw(st.integers(0, 9))
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind in KINDS:
        new = draw(st.sampled_from(KINDS)) if change < 3 else kind
        return ["null", new] if change == 4 and new != "null" else new
    if kind == "array":
        schema["items"] = _evolved(draw, schema["items"])
    elif kind == "map":
        schema["values"] = _evolved(draw, schema["values"])
    elif kind == "enum":
        if change < 3:
            schema["symbols"] = draw(st.lists(st.sampled_from(["A", "B", "C", "x_1"]), min_size=1, unique=True))
        if change in (1, 4):
            schema["default"] = schema["symbols"][0]
    elif kind == "fixed":
        schema["size"] += change == 0
    elif kind == "record":
        _fields_evolved(draw, schema)
    if isinstance(schema, dict) and "name" in schema and change in (5, 6):
        schema["name"], old = f"{schema['name']}new", schema["name"]
        schema["aliases"] = [old] if change == 5 else []
    return ["null", schema] if change == 7 else schema


def _fields_evolved(draw: st.DrawFn, schema: Any) -> None:
    fields = []
    for each in schema["fields"]:
        change = draw(st.integers(0, 9))
        if change == 0:
            continue
        # Neither defaults, which may not fit any more.
        evolved = {"name": each["name"], "type": _evolved(draw, each["type"])}
        if change == 1:
            evolved |= {"name": f"{each['name']}new", "aliases": [each["name"]]}
        fields.append(evolved)
    if draw(st.booleans()):
        fields.append({"name": "added", "type": "string", **({"default": "x"} if draw(st.booleans()) else {})})
    schema["fields"] = draw(st.permutations(fields))


def _unnamed_top(schema: Any) -> Any:
    return schema[1] if isinstance(schema, list) else schema


@examples(1500)
@given(evolutions())
def test_fastavro_reads_what_is_reported_as_readable(evolution: tuple[Any, Any, Any]) -> None:
    writer, datum, reader = evolution
    reader = _unnamed_top(reader)
    found = problems(reader, writer)
    body = io.BytesIO()
    fastavro.schemaless_writer(body, writer, datum)
    body.seek(0)
    if not found:
        fastavro.schemaless_reader(body, fastavro.parse_schema(writer), fastavro.parse_schema(reader))
        assert body.read() == b"", json.dumps([writer, reader])


@given(records())
def test_every_schema_reads_itself(typed: Any) -> None:
    assert problems(typed.schema, typed.schema) == []
