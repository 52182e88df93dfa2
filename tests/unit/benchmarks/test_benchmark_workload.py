"""The benchmark's payloads, its contract and the program's encoder fit together."""

import io
import json
from dataclasses import replace
from pathlib import Path

import fastavro
import pytest

from benchmarks import workload
from benchmarks.workload import SHAPES, Workload
from cdc.avro import contracts, framing

SIZES = {"200B": 200, "1kB": 1_000, "10kB": 10_000, "one-row": 200, "one-transaction": 200}


@pytest.mark.parametrize("shape", SHAPES)
def test_each_payload_is_encoded_by_its_contract_and_decoded_to_itself(shape: str, tmp_path: Path) -> None:
    workload.write_contracts(tmp_path, SHAPES[shape])
    contract = contracts.load(tmp_path)["OrderPlaced"]
    for number in (1, 10, 11, 999_999):
        payload = workload.payload(SHAPES[shape], number)
        encoded = contract.encode(json.dumps(payload).encode())
        body = io.BytesIO(encoded[len(framing.header(contract.schema)) :])
        assert fastavro.schemaless_reader(body, contract.schema, None) == payload


@pytest.mark.parametrize("shape", SHAPES)
def test_a_payload_is_about_as_long_as_its_shape_says(shape: str) -> None:
    # The text of jsonb has a space behind each comma and colon, as json.dumps writes.
    lengths = [len(json.dumps(workload.payload(SHAPES[shape], number))) for number in range(100_000, 100_100)]
    assert sum(lengths) / len(lengths) == pytest.approx(SIZES[shape], rel=0.1)


def test_some_notes_are_null_and_most_are_not() -> None:
    notes = [workload.payload(SHAPES["200B"], number)["note"] for number in range(100)]
    assert notes.count(None) == 100 // workload.NULL_NOTE_EVERY
    assert {len(note) for note in notes if note} == {SHAPES["200B"].note}


def test_each_event_type_has_a_contract(tmp_path: Path) -> None:
    many = replace(SHAPES["200B"], types=12)
    workload.write_contracts(tmp_path, many)
    found = contracts.load(tmp_path)
    assert all(name in found for name in many.type_names)
    assert len(set(many.type_names)) == 12


def test_ids_are_distinct_and_in_the_order_of_the_events() -> None:
    ids = [workload.event_id(number) for number in range(2_000)]
    assert ids == sorted(set(ids))


def test_columns_that_the_publisher_has_no_use_for_are_in_the_rows() -> None:
    assert workload.extra_columns(Workload(1, columns=2)) == ["extra_0", "extra_1"]
    assert "'extra_1'" in workload.rows_sql(Workload(1, columns=2))
