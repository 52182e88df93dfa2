"""Contracts from files: found by type, read back, and all defects of a folder reported together."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cdc.avro.contracts import load
from cdc.consumer import Decoder
from cdc.errors import ConfigError
from tests import ROOT

SHOP = ROOT / "schemas" / "shop"
ID = "00112233-4455-6677-8899-aabbccddeeff"


def record(name: str, **more: Any) -> str:
    return json.dumps({"type": "record", "name": name, "fields": [{"name": "v", "type": "int"}], **more})


def folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def problems(path: Path, types: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, types)
    assert caught.value.exit_code == 78
    return caught.value.problems


PLACED = {
    "order_id": ID,
    "customer": {"id": 7, "name": "Ada", "email": None},
    "lines": [{"sku": "a", "qty": 2, "unit_price": 10.25}, {"sku": "b", "qty": 1, "unit_price": "0.10"}],
    "total": 20.60,
    "currency": "EUR",
    "placed_at": "2026-01-31T17:45:00.123456+01:00",
}


@pytest.mark.parametrize("event_type", ["OrderPlaced", "shop.OrderPlaced"])
def test_order_of_the_shop_is_read_back_as_written(event_type: str) -> None:
    contracts = load(SHOP)
    order = Decoder(folder=SHOP)(contracts[event_type].encode(json.dumps(PLACED).encode()))
    assert order == {
        **PLACED,
        "order_id": UUID(ID),
        "lines": [
            {"sku": "a", "qty": 2, "unit_price": Decimal("10.25")},
            {"sku": "b", "qty": 1, "unit_price": Decimal("0.10")},
        ],
        "total": Decimal("20.60"),
        "note": None,
        "placed_at": datetime(2026, 1, 31, 16, 45, 0, 123456, tzinfo=UTC),
    }


def test_other_contracts_of_the_shop_encode_their_payloads() -> None:
    contracts = load(SHOP)
    cancelled = {
        "order_id": ID,
        "reason": "CUSTOMER",
        "comment": "changed my mind",
        "cancelled_at": "2026-01-31T17:45Z",
    }
    captured = {
        "payment_id": ID, "order_id": ID, "amount": "1234567.89", "currency": "EUR", "method": "CARD",
        "captured_at": "2026-01-31T17:45:00.5Z",
    }  # fmt: skip
    for event_type, payload in (("OrderCancelled", cancelled), ("PaymentCaptured", captured)):
        decoded = Decoder(folder=SHOP)(contracts[event_type].encode(json.dumps(payload).encode()))
        assert decoded.keys() == payload.keys()
    assert {contract.name for contract in contracts.values()} == {
        "shop.OrderPlaced",
        "shop.OrderCancelled",
        "shop.PaymentCaptured",
    }


def test_mismatch_of_an_order_names_its_path() -> None:
    bad = {**PLACED, "lines": [{"sku": "a", "qty": 3000000000, "unit_price": 1}]}
    with pytest.raises(ValueError, match=r"^\$\.lines\[0\]\.qty: 3000000000 is out of range for int; long accepts it$"):
        load(SHOP)["OrderPlaced"].encode(json.dumps(bad).encode())


def test_contracts_are_found_in_subfolders_and_other_files_are_ignored(tmp_path: Path) -> None:
    contracts = load(folder(tmp_path, {"a.avsc": record("A"), "x/y/b.avsc": record("B"), "README.md": "no"}))
    assert sorted(contracts) == ["A", "B"]
    assert len(contracts) == 2


def test_an_empty_folder_has_no_contracts(tmp_path: Path) -> None:
    assert len(load(tmp_path)) == 0


def test_missing_folder_is_a_problem(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path / "none")
    assert str(tmp_path / "none") in problem
    assert problem.endswith("is not a folder")


BROKEN = {
    "cut.avsc": ('{"type": "rec', "not JSON"),
    "number.avsc": ("5", "neither a contract"),
    "list.avsc": ('["null", "int"]', "neither a contract"),
    "array.avsc": ('{"type": "array", "items": "int"}', "neither a contract"),
    "unknown.avsc": ('{"type": "record", "name": "U", "fields": [{"name": "v", "type": "Nope"}]}', "Nope"),
    "nameless.avsc": ('{"type": "record", "fields": []}', "not an Avro schema"),
    "fieldless.avsc": ('{"type": "record", "name": "F"}', "not an Avro schema"),
    "name.avsc": (record("not a name"), "not a name"),
    "twice.avsc": (
        '{"type": "record", "name": "T", "fields": [{"name": "v", "type": "int"}, {"name": "v", "type": "int"}]}',
        "v",
    ),
    "symbols.avsc": (
        '{"type": "record", "name": "S", "fields": [{"name": "v", "type":'
        ' {"type": "enum", "name": "E", "symbols": ["A", "A"]}}]}',
        "symbol",
    ),
    "default.avsc": (
        '{"type": "record", "name": "D", "fields": [{"name": "v", "type": "int", "default": "x"}]}',
        "efault",
    ),
    "range.avsc": (
        '{"type": "record", "name": "D2", "fields": [{"name": "v", "type": "int", "default": 3000000000}]}',
        "$.v (default): 3000000000 is out of range for int",
    ),
    "scale.avsc": (
        '{"type": "record", "name": "S2", "fields": [{"name": "v", "type":'
        ' {"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3}}]}',
        "scale",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_unusable_file_is_a_problem_with_its_path(tmp_path: Path, name: str) -> None:
    text, reason = BROKEN[name]
    (problem,) = problems(folder(tmp_path, {name: text}))
    assert problem.startswith(f"contract {tmp_path / name}: ")
    assert reason in problem


def test_a_file_that_is_not_utf_8_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "latin.avsc").write_bytes(b'{"type": "\xff"}')
    assert "not JSON" in problems(tmp_path)[0]


def test_all_unusable_files_are_reported_together(tmp_path: Path) -> None:
    files = {"a.avsc": record("A"), "b.avsc": "{", "c.avsc": '"int"', "d.avsc": record("A"), "e.avsc": record("E")}
    found = problems(folder(tmp_path, files))
    assert len(found) == 3
    assert found[2] == f"contract {tmp_path / 'd.avsc'}: A is also defined in {tmp_path / 'a.avsc'}"


def test_a_short_name_of_two_contracts_is_ambiguous_and_full_names_are_not(tmp_path: Path) -> None:
    contracts = load(
        folder(tmp_path, {"1.avsc": record("Placed", namespace="a"), "2.avsc": record("Placed", namespace="b")})
    )
    assert contracts.get("Placed") is None
    reason = contracts.missing("Placed")
    assert "'Placed' matches several contracts (a.Placed, b.Placed)" in reason
    assert contracts["a.Placed"].name == "a.Placed"


def test_contract_without_namespace_is_not_hidden_by_one_with_namespace(tmp_path: Path) -> None:
    contracts = load(folder(tmp_path, {"1.avsc": record("Placed"), "2.avsc": record("Placed", namespace="b")}))
    assert contracts["Placed"].name == "Placed"
    assert contracts["b.Placed"].name == "b.Placed"


def test_types_map_event_types_to_contracts(tmp_path: Path) -> None:
    folder(tmp_path, {"a.avsc": record("Placed", namespace="a"), "b.avsc": record("Other")})
    contracts = load(tmp_path, {"order-placed": "a.Placed", "short": "Placed", "Other": "a.Placed"})
    assert contracts["order-placed"] is contracts["short"] is contracts["Other"] is contracts["a.Placed"]


def test_all_unknown_names_in_types_are_reported_with_the_known_ones(tmp_path: Path) -> None:
    folder(tmp_path, {"a.avsc": record("A")})
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {"x": "X", "y": "Y", "z": "A"})
    assert caught.value.problems == (
        "[avro] types.x: no contract is named 'X'",
        "[avro] types.y: no contract is named 'Y'",
    )
    assert "A" in caught.value.hint


def test_a_missing_contract_names_the_nearest(tmp_path: Path) -> None:
    contracts = load(folder(tmp_path, {"a.avsc": record("OrderPlaced")}))
    assert contracts.missing("OrderPlaecd").endswith("; did you mean 'OrderPlaced'?")
    assert contracts.missing("zzz") == f"no contract for event type 'zzz' in {tmp_path}"
