"""The rules by which values become types, one by one."""

import datetime
import json
import uuid
from typing import Any

import pytest

from cdc.inference import names
from cdc.inference.schema import Wishes
from cdc.inference.summary import Objects
from cdc.inference.update import update
from tests.unit.inference.inferring import fields, holds, inferred, observed

DAYS = [f"{datetime.date(2026, 1, 1) + datetime.timedelta(days)}" for days in range(20)]


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def column(values: list[Any], **wishes: bool) -> Any:
    """The type of a field with these values."""
    return fields(*(json.dumps({"v": value}) for value in values), **wishes)["v"]


@pytest.mark.parametrize(
    ("payloads", "kind"),
    [
        (['{"v": 1}'], "long"),
        (['{"v": 9223372036854775807}'], "long"),
        (['{"v": 9223372036854775808}'], decimal(38, 2)),
        (['{"v": 1.5}'], decimal(38, 2)),
        (['{"v": 1.0}', '{"v": 2}'], decimal(38, 2)),
        (['{"v": 0.00001}'], decimal(38, 5)),
        ([f'{{"v": {"9" * 40}.125}}'], decimal(43, 3)),
        (['{"v": 1e300}'], "double"),
        (['{"v": "00123"}'], "string"),
        (['{"v": true}'], "boolean"),
        (['{"v": 1}', '{"v": "x"}', '{"v": true}', '{"v": 0.5}'], ["long", "double", "boolean", "string"]),
        # A decimal accepts texts of numbers too, so that strings come first.
        (['{"v": 0.12345678901234567890}', '{"v": "1.5"}'], ["string", decimal(38, 20)]),
        (['{"v": null}'], "string"),
        (["{}", '{"v": null}'], "string"),
        (['{"v": []}'], {"type": "array", "items": ["null", "string"]}),
        (['{"v": {}}'], {"type": "map", "values": ["null", "string"]}),
        (['{"v": [1, null]}'], {"type": "array", "items": ["null", "long"]}),
        (['{"v": [1, "x"]}'], {"type": "array", "items": ["long", "string"]}),
        (['{"v": {"1st": 1, "x": 2}}'], {"type": "map", "values": "long"}),
        (['{"v": {"1st": 1, "x": "y"}}'], {"type": "map", "values": ["long", "string"]}),
    ],
)  # fmt: skip
def test_values_become_the_type_that_holds_them(payloads: list[str], kind: Any) -> None:
    assert fields(*payloads) == {"v": kind}
    holds(inferred(*payloads)[0], payloads)


def test_fractions_are_doubles_only_when_asked_and_if_none_is_rounded() -> None:
    assert column([0.1, 2], doubles=True) == "double"
    assert fields('{"v": 0.12345678901234567890}', doubles=True)["v"] == decimal(38, 20)
    assert column([1, 2], doubles=True) == "long"


@pytest.mark.parametrize(
    ("values", "logical"),
    [
        (DAYS, "date"),
        ([f"{day}T08:00:00.5Z" for day in DAYS], "timestamp-micros"),
        ([f"{day}T08:00:00.000001+00:00" for day in DAYS], "timestamp-micros"),
        ([str(uuid.UUID(int=number)) for number in range(20)], "uuid"),
    ],
)
def test_texts_are_of_a_logical_type_if_twenty_distinct_values_all_are(values: list[str], logical: str) -> None:
    assert column(values)["logicalType"] == logical
    assert column([*values, *values, None])["logicalType"] == logical
    assert column(values[1:] * 2) == "string"
    assert column([*values, "x"]) == "string"
    assert column([*values, 1]) == ["long", "string"]
    schema, remarks = inferred(*(json.dumps({"v": value}) for value in values))
    assert f"each of 20 texts was a {logical.partition('-')[0]}" in schema["fields"][0]["doc"]
    assert [remark.path for remark in remarks] == ["$.v"]


@pytest.mark.parametrize(
    "other",
    [
        "2026-02-30",  # no day
        "2026-01-31T08:00:00",  # no offset
        "2026-01-31T08:00:00+02:00",  # the offset would be lost
        "2026-01-31T08:00:00.1234567Z",
        "2026-01-31 08:00:00Z",
        "00000000-0000-0000-0000-00000000000A",
    ],
)
def test_other_notations_stay_strings(other: str) -> None:
    for values in (DAYS, [f"{day}T08:00:00Z" for day in DAYS], [str(uuid.UUID(int=n)) for n in range(20)]):
        assert column([*values, other]) == "string"


def test_enums_are_made_only_when_asked() -> None:
    assert column(["NEW", "PAID"] * 2) == "string"
    assert column(["NEW", "PAID"] * 2, enums=True) == {"type": "enum", "name": "T_V", "symbols": ["NEW", "PAID"]}
    assert column(["NEW", "PAID"], enums=True) == "string"  # each value once: may be names
    assert column(["in transit", "NEW"] * 2, enums=True) == "string"
    assert column([f"s{number}" for number in range(17)] * 3, enums=True) == "string"


def test_keys_that_vary_make_a_map_and_keys_that_stay_a_record() -> None:
    assert column([{f"k{number}": number} for number in range(20)]) == {"type": "map", "values": "long"}
    assert column([{"en": "x"}, {"de": "y"}, {"fr": "z"}]) == {"type": "map", "values": "string"}
    wide = {f"f{number}": "x" for number in range(80)}
    assert len(column([wide, wide])["fields"]) == 80
    assert len(column([{"a": "x", "b": "y"}, {"a": "x", "c": "y"}])["fields"]) == 3
    assert len(column([{f"k{number}": number, "n": "x"} for number in range(20)])["fields"]) == 21  # of two types


def test_payloads_are_records_even_if_their_keys_vary() -> None:
    rows = [json.dumps({f"k{number}": number}) for number in range(100)]
    assert len(fields(*rows)) == 100


def test_memory_does_not_grow_with_the_keys_of_maps() -> None:
    objects = Objects(is_root=True)
    for number in range(3000):
        objects.observe(
            {"m": {f"k{number}": {f"j{number}": number}}, "mixed": {f"k{number}": "x" if number % 2 else 1}}
        )
    inner = objects.fields["m"].objects
    assert inner
    assert inner.values
    assert inner.values.objects
    assert inner.values.objects.values
    assert not inner.fields
    assert not inner.values.objects.fields
    mixed = objects.fields["mixed"].objects
    assert mixed
    assert mixed.values


def test_records_are_named_by_their_paths_and_uniquely() -> None:
    schema, _ = inferred('{"lines": [{"x": {"y": 1}}], "Lines": {"z": 1}}', name="shop.OrderPlaced")
    assert (schema["name"], schema["namespace"]) == ("OrderPlaced", "shop")
    lines, other = (field["type"][1] for field in schema["fields"])
    assert lines["items"]["name"] == "OrderPlaced_Lines_Item"
    assert lines["items"]["fields"][0]["type"][1]["name"] == "OrderPlaced_Lines_Item_X"
    assert other["name"] == "OrderPlaced_Lines"
    schema, _ = inferred('{"a": {"x": 1}, "A": {"y": 1}}')
    assert [field["type"][1]["name"] for field in schema["fields"]] == ["T_A", "T_A_2"]


@pytest.mark.parametrize(
    ("event_type", "name"),
    [
        ("OrderPlaced", "OrderPlaced"),
        ("shop.OrderPlaced", "shop.OrderPlaced"),
        ("order-placed", "order_placed"),
        ("order placed/v2", "order_placed_v2"),
        ("1st.2nd", "_1st._2nd"),
        ("../../etc/passwd", "_._etc_passwd"),
        ("string", "string_"),
        ("", "_"),
        ("..", "_"),
    ],
)
def test_event_types_become_names_that_avro_accepts(event_type: str, name: str) -> None:
    assert names.valid(event_type) == name


def test_a_taken_name_gets_a_number() -> None:
    taken = {"x.A"}
    assert [names.free("A", taken, "x"), names.free("A", taken, "x"), names.free("A", taken)] == ["A_2", "A_3", "A"]


SHOP = {
    "type": "record",
    "name": "shop.Order",
    "doc": "kept",
    "fields": [
        {"name": "customer", "type": {"type": "record", "name": "Person", "fields": [{"name": "id", "type": "int"}]}},
        {"name": "by", "type": ["null", "Person"], "default": None, "aliases": ["seller"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "tree", "type": ["null", "Order"], "default": None},
    ],
}  # fmt: skip


def test_update_adds_fields_at_the_end_of_each_record_and_nothing_else() -> None:
    payload = '{"customer": {"id": 1}, "seller": {"id": 2, "name": "x"}, "at": 1, "tree": null, "new": {"a": 1}}'
    after, remarks = update(SHOP, observed([payload]), Wishes(), {"shop.Order", "shop.Person", "shop.Order_New"})
    added = {"name": "name", "type": ["null", "string"], "default": None}
    assert after["fields"][0]["type"]["fields"] == [{"name": "id", "type": "int"}, added]
    assert after["fields"][1:4] == SHOP["fields"][1:]
    record = {"type": "record", "name": "Order_New_2", "fields": [{**added, "name": "a", "type": ["null", "long"]}]}
    assert after["fields"][4:] == [{"name": "new", "type": ["null", record], "default": None}]
    assert {**after, "fields": 0} == {**SHOP, "fields": 0}
    assert remarks == []


def test_update_keeps_types_that_the_rows_do_not_fit() -> None:
    payload = '{"customer": 5, "at": "x", "tree": [1], "foo-bar": 1}'
    assert update(SHOP, observed([payload]), Wishes(), set())[0] == SHOP


def test_contracts_are_formatted_with_a_line_for_each_short_part() -> None:
    text = names.pretty(SHOP)
    assert json.loads(text) == SHOP
    assert '    {"name": "tree", "type": ["null", "Order"], "default": null}\n' in text
    assert max(map(len, text.split("\n"))) <= 120
