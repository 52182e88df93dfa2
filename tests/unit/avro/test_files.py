"""Schema files that use each other's types: inlined, or rejected with the files' names."""

import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from fastavro.schema import to_parsing_canonical_form

from cdc.avro import contracts
from cdc.avro.files import read, versions
from cdc.errors import ConfigError
from tests.unit.avro.test_contracts import folder


def record(name: str, *kinds: Any, **more: Any) -> str:
    fields = [{"name": f"f{number}", "type": kind} for number, kind in enumerate(kinds)]
    return json.dumps({"type": "record", "name": name, "fields": fields, **more})


MONEY = record("shop.Money", "long", "shop.Currency")
CURRENCY = json.dumps({"type": "enum", "name": "Currency", "namespace": "shop", "symbols": ["EUR", "USD"]})
ORDER = record("shop.Order", "Money", ["null", "shop.Money"], {"type": "array", "items": "Currency"})


def problems(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(path)
    return caught.value.problems


@pytest.mark.parametrize("names", [("a", "b", "c"), ("c", "b", "a"), ("x/y/b", "z/a", "c"), ("b", "x/c", "x/a")])
def test_types_of_other_files_are_inlined_in_any_order(tmp_path: Path, names: tuple[str, ...]) -> None:
    texts = (MONEY, CURRENCY, ORDER)
    folder(tmp_path, {f"{name}.avsc": text for name, text in zip(names, texts, strict=True)})
    order = next(each for each in read(tmp_path) if each.name == "shop.Order")
    assert order.references == ("shop.Money", "shop.Currency")
    assert order.text == ORDER
    named: dict[str, Any] = {}
    money = json.loads(MONEY)
    money["fields"][1]["type"] = json.loads(CURRENCY)
    whole = json.loads(ORDER)
    whole["fields"][0]["type"] = money
    assert to_parsing_canonical_form(order.schema) == to_parsing_canonical_form(
        fastavro.parse_schema(whole, named_schemas=named)
    )
    assert to_parsing_canonical_form(json.loads(order.whole)) == to_parsing_canonical_form(order.schema)


def test_records_are_contracts_and_enums_are_not(tmp_path: Path) -> None:
    loaded = contracts.load(folder(tmp_path, {"m.avsc": MONEY, "c.avsc": CURRENCY, "o.avsc": ORDER}))
    assert {contract.name for contract in loaded.values()} == {"shop.Money", "shop.Order"}
    assert set(loaded.definitions) == {"shop.Money", "shop.Order", "shop.Currency"}
    money = {"f0": 5, "f1": "EUR"}
    order = {"f0": money, "f1": None, "f2": ["USD"]}
    assert loaded["Order"].references == ("shop.Money", "shop.Currency")
    assert loaded["Order"].fingerprint == loaded["Order"].header[2:].hex()
    assert fastavro.validate(order, loaded["Order"].schema)


def test_recursion_within_a_file_is_fine(tmp_path: Path) -> None:
    folder(tmp_path, {"n.avsc": record("a.Node", ["null", "Node"]), "u.avsc": record("a.User", "Node", "a.Node")})
    assert [each.references for each in read(tmp_path)] == [(), ("a.Node",)]


def test_type_without_namespace_is_found_by_type_without_namespace(tmp_path: Path) -> None:
    folder(tmp_path, {"a.avsc": record("A", "B", "x.C"), "b.avsc": record("B"), "c.avsc": record("C", namespace="x")})
    assert read(tmp_path)[0].references == ("B", "x.C")


def test_missing_type_is_reported_with_its_file(tmp_path: Path) -> None:
    folder(tmp_path, {"o.avsc": ORDER, "m.avsc": MONEY})
    assert problems(tmp_path) == (
        f"contract {tmp_path / 'm.avsc'}: shop.Currency is not defined and no file defines it",
        f"contract {tmp_path / 'o.avsc'}: shop.Currency is not defined in {tmp_path / 'm.avsc'} and no file defines it",
    )


def test_type_defined_inside_another_file_cannot_be_used(tmp_path: Path) -> None:
    inner = json.loads(record("a.Inner", "int"))
    folder(tmp_path, {"a.avsc": record("a.A", inner), "b.avsc": record("a.B", "a.Inner")})
    assert problems(tmp_path) == (f"contract {tmp_path / 'b.avsc'}: a.Inner is not defined and no file defines it",)


def test_type_used_before_its_definition_is_reported(tmp_path: Path) -> None:
    folder(tmp_path, {"a.avsc": record("a.A", "a.In", json.loads(record("a.In")))})
    assert problems(tmp_path) == (f"contract {tmp_path / 'a.avsc'}: a.In is used before it is defined",)


def test_type_defined_twice_is_reported_with_both_files(tmp_path: Path) -> None:
    folder(tmp_path, {"a.avsc": CURRENCY, "b.avsc": CURRENCY})
    assert problems(tmp_path) == (
        f"contract {tmp_path / 'b.avsc'}: shop.Currency is also defined in {tmp_path / 'a.avsc'}",
    )


def test_inner_type_that_another_file_defines_is_reported_with_both_files(tmp_path: Path) -> None:
    folder(tmp_path, {"a.avsc": CURRENCY, "b.avsc": record("B", json.loads(CURRENCY))})
    assert problems(tmp_path) == (
        f"contract {tmp_path / 'b.avsc'}: shop.Currency is also defined in {tmp_path / 'a.avsc'}",
    )


def test_kubernetes_volume_yields_each_contract_once(tmp_path: Path) -> None:
    version = tmp_path / "..2026_01_31_10_00_00.123456789"
    version.mkdir()
    (version / "A.avsc").write_text(record("shop.A", "int"))
    (tmp_path / "..data").symlink_to(version.name)
    (tmp_path / "A.avsc").symlink_to("..data/A.avsc")
    assert [(d.name, d.path) for d in read(tmp_path)] == [("shop.A", tmp_path / "A.avsc")]


def test_inner_types_of_two_files_conflict_only_if_both_are_used(tmp_path: Path) -> None:
    inner = json.loads(record("In", "int"))
    folder(tmp_path, {"a.avsc": record("A", inner), "b.avsc": record("B", inner)})
    assert len(read(tmp_path)) == 2
    folder(tmp_path, {"c.avsc": record("C", "A", "B")})
    assert problems(tmp_path) == (
        f"contract {tmp_path / 'c.avsc'}: In is defined in {tmp_path / 'b.avsc'} and in {tmp_path / 'a.avsc'}",
    )


def test_circular_references_between_files_are_rejected(tmp_path: Path) -> None:
    folder(tmp_path, {"a.avsc": record("A", "B"), "b.avsc": record("B", ["null", "A"])})
    found = problems(tmp_path)
    assert len(found) == 2
    assert f"{tmp_path / 'a.avsc'} → {tmp_path / 'b.avsc'} → {tmp_path / 'a.avsc'}" in found[0]


def test_versions_are_sorted_by_number_with_their_own_types(tmp_path: Path) -> None:
    money2 = record("shop.Money", "double", "shop.Currency")
    folder(
        tmp_path,
        {"v10/o.avsc": ORDER, "v10/m.avsc": money2, "v9/m.avsc": MONEY, "v9/sub/o.avsc": ORDER, "c.avsc": CURRENCY},
    )
    found = versions(tmp_path)
    assert [each.path.parts[-2] for each in found["shop.Money"]] == ["v9", "v10"]
    kinds = [each.schema["fields"][0]["type"]["fields"][0]["type"] for each in found["shop.Order"]]
    assert kinds == ["long", "double"]


def test_ambiguous_versions_are_rejected(tmp_path: Path) -> None:
    folder(tmp_path, {"m1.avsc": MONEY, "m2.avsc": MONEY, "c.avsc": CURRENCY, "o.avsc": ORDER})
    with pytest.raises(ConfigError, match=r"shop\.Money has several versions"):
        versions(tmp_path)
