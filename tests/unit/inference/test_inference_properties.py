"""Any JSON objects: the inferred contract holds them, and reads what a known contract wrote."""

import itertools
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cdc.avro import compatibility
from cdc.avro.decode import Reading
from cdc.inference.schema import Wishes, record
from cdc.inference.update import update
from tests.examples import examples
from tests.unit.contract import contract
from tests.unit.inference.inferring import holds, inferred, observed

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
NAMES = ["id", "lines", "total", "Lines", "note", "_x", "a1"]
names = st.sampled_from(NAMES)
keys = names | st.sampled_from(["", "foo-bar", "1st", "é", *(f"k{number}" for number in range(40))])
dates = st.dates().map(str)
timestamps = st.datetimes().map(lambda moment: f"{moment.isoformat()}Z")
fractions = st.decimals(allow_nan=False, allow_infinity=False, places=5, min_value=-(10**9), max_value=10**9)
numbers = st.integers(-(1 << 70), 1 << 70) | fractions | st.sampled_from([Decimal("1E+30"), Decimal("1E-9")])
scalars = st.none() | st.booleans() | st.integers(-5, 5) | numbers | texts | dates | timestamps | st.uuids().map(str)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(names, values, max_size=5)
columns = st.lists(st.one_of(*(st.lists(each, min_size=25, max_size=30) for each in (dates, timestamps, scalars))))


def text(value: Any) -> str:
    """JSON text with exact numbers."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text, value)) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


@given(st.lists(objects.map(text), min_size=1, max_size=8), st.booleans(), st.booleans())
@examples(500)
def test_inferred_contract_holds_the_values_it_was_inferred_from(
    payloads: list[str], enums: bool, doubles: bool
) -> None:
    schema, _ = inferred(*payloads, enums=enums, doubles=doubles)
    holds(schema, payloads)


@given(columns, st.booleans())
@examples(200)
def test_columns_of_one_notation_are_held(drawn: list[list[Any]], enums: bool) -> None:
    rows = itertools.zip_longest(*drawn)
    payloads = [text({NAMES[at]: value for at, value in enumerate(row[: len(NAMES)])}) for row in rows]
    schema, _ = inferred(*payloads, enums=enums)
    holds(schema, payloads)


@given(st.lists(objects.map(text), min_size=2, max_size=8), st.data())
@examples(500)
def test_merged_summaries_hold_the_values_of_both(payloads: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(payloads)))
    one, other = observed(payloads[:at]), observed(payloads[at:])
    one.merge(other)
    schema, _ = record(one, "T", "", Wishes(), {"T"})
    holds(schema, payloads)


Known = tuple[Any, st.SearchStrategy[Any]]  # a type, and values of it

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "long": st.integers(-(1 << 63), (1 << 63) - 1),
    "int": st.integers(-(1 << 31), (1 << 31) - 1),
    "boolean": st.booleans(),
    "string": texts,
}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 2}


@st.composite
def known(draw: st.DrawFn, name: str, depth: int) -> Known:
    """A type that can be inferred from any of its values, with the names of records that their paths give."""
    kind = draw(st.sampled_from([*SCALARS, "decimal", *(["array", "record"] if depth else [])]))
    if kind == "decimal":
        return DECIMAL, st.decimals(places=2, min_value=-(10**9), max_value=10**9)
    if kind == "array":
        items, item = draw(known(f"{name}_Item", depth - 1))
        return {"type": "array", "items": items}, st.lists(item, min_size=1, max_size=2)
    if kind == "record":
        return draw(known_record(name, depth))
    return kind, SCALARS[kind]


@st.composite
def known_record(draw: st.DrawFn, name: str, depth: int) -> Known:
    chosen = draw(st.lists(st.sampled_from(["id", "lines", "total"]), unique=True, min_size=1))
    parts = {each: draw(known(f"{name}_{each.capitalize()}", depth - 1)) for each in chosen}
    made = []
    for each, (kind, _) in parts.items():
        optional = draw(st.booleans())
        made.append(
            {"name": each, "type": ["null", kind], "default": None} if optional else {"name": each, "type": kind}
        )
    return (
        {"type": "record", "name": name, "fields": made},
        st.fixed_dictionaries({each: value for each, (_, value) in parts.items()}),
    )


@given(known_record("T", 3), st.data())
@examples(500)
def test_inferred_contract_reads_what_the_known_one_wrote(drawn: Known, data: st.DataObject) -> None:
    schema, strategy = drawn
    rows = data.draw(st.lists(strategy, min_size=1, max_size=5))
    reader = contract(inferred(*map(text, rows))[0])
    assert compatibility.problems(reader.schema, schema) == []
    writer = contract(schema)
    both, own = Reading(writer.schema, reader.schema), Reading(writer.schema)
    for row in rows:
        body = writer.encode(text(row).encode(), b"")
        assert both.value(body) == own.value(body)


def lacking(drawn: Callable[[int], int], schema: Any) -> Any:
    """The same contract without some of its optional fields."""
    if not isinstance(schema, dict):
        return [lacking(drawn, branch) for branch in schema] if isinstance(schema, list) else schema
    if schema["type"] == "array":
        return {**schema, "items": lacking(drawn, schema["items"])}
    kept = [field for field in schema.get("fields", ()) if "default" not in field or drawn(1)]
    return (
        {**schema, "fields": [{**field, "type": lacking(drawn, field["type"])} for field in kept]}
        if "fields" in schema
        else schema
    )


@given(known_record("T", 3), st.data())
@examples(500)
def test_updated_contract_holds_all_rows_and_is_compatible_both_ways(drawn: Known, data: st.DataObject) -> None:
    schema, strategy = drawn
    payloads = [text(row) for row in data.draw(st.lists(strategy, min_size=1, max_size=5))]
    before = lacking(lambda most: data.draw(st.integers(0, most)), schema)
    after, _ = update(before, observed(payloads), Wishes(), {"T"})
    holds(after, payloads)
    assert compatibility.check("FULL", after, [("before", before)]) == []
    assert update(after, observed(payloads), Wishes(), {"T"})[0] == after
    if before == schema:
        assert after == schema


ROWS = 40  # of which some lack a field: enough for each to have 20 distinct values
Made = Callable[[int], Any]
EXACT: dict[str, tuple[Any, Made]] = {
    "long": ("long", lambda row: row - 20),
    "boolean": ("boolean", lambda row: row % 2 == 0),
    "string": ("string", lambda row: f"{row:05}"),
    "date": ({"type": "int", "logicalType": "date"}, lambda row: f"2026-01-{row % 31 + 1:02}"),
    "timestamp": ({"type": "long", "logicalType": "timestamp-micros"}, lambda row: f"2026-01-31T17:45:{row:02}.5Z"),
    "uuid": ({"type": "string", "logicalType": "uuid"}, lambda row: f"00112233-4455-6677-8899-{row:012x}"),
    "map": ({"type": "map", "values": "long"}, lambda row: {f"k{row}": row}),
}


@st.composite
def exact(draw: st.DrawFn, name: str, depth: int) -> tuple[Any, Made]:
    """A type as inference makes it, and its value in each row."""
    kind = draw(st.sampled_from([*EXACT, "decimal", *(["array", "record"] if depth else [])]))
    if kind == "decimal":
        scale = draw(st.integers(2, 9))
        unit = Decimal(1).scaleb(-scale)
        return {**DECIMAL, "scale": scale}, lambda row: row + unit
    if kind == "array":
        items, item = draw(exact(f"{name}_Item", depth - 1))
        return {"type": "array", "items": items}, lambda row: [item(row)]
    if kind == "record":
        return draw(exact_record(name, depth))
    return EXACT[kind]


@st.composite
def exact_record(draw: st.DrawFn, name: str, depth: int) -> tuple[Any, Made]:
    """A record whose fields are optional, as inference makes them; the first row has all."""
    chosen = draw(st.lists(st.sampled_from(["id", "lines", "total", "at"]), unique=True, min_size=1))
    parts = {each: draw(exact(f"{name}_{each.capitalize()}", depth - 1)) for each in chosen}
    absent = {each: draw(st.sampled_from([0, 7, 9])) for each in parts if depth == 2}
    fields = [{"name": each, "type": ["null", kind], "default": None} for each, (kind, _) in parts.items()]

    def value(row: int) -> dict[str, Any]:
        lacks = {each for each, every in absent.items() if every and row % every == 1}
        return {each: made(row) for each, (_, made) in parts.items() if each not in lacks}

    return {"type": "record", "name": name, "fields": fields}, value


def bare(schema: Any) -> Any:
    """The schema without its docs."""
    if isinstance(schema, list):
        return [bare(each) for each in schema]
    return {key: bare(each) for key, each in schema.items() if key != "doc"} if isinstance(schema, dict) else schema


@given(exact_record("T", 2))
@examples(300)
def test_rows_of_a_contract_that_inference_may_make_give_back_that_contract(drawn: tuple[Any, Made]) -> None:
    schema, value = drawn
    assert bare(inferred(*(text(value(row)) for row in range(ROWS)))[0]) == schema
