"""`check` reports each problem of contracts and registry; the fix that it prints solves the problem."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cdc.avro import compatibility
from tests.integration.checking import check, fixed, reported
from tests.pipeline import NOTED, Pipeline
from tests.produced import produces
from tests.registry import Double


def rule(new: str, olds: list[str], level: str) -> list[str]:
    return compatibility.check(level, json.loads(new), [("registered", json.loads(old)) for old in olds])


@pytest.fixture
def registry() -> Iterator[Double]:
    with Double(rule) as double:
        yield double


def contract(pipeline: Pipeline, schema: Any) -> None:
    (pipeline.folder / "schemas" / "Noted.avsc").write_text(json.dumps(schema))


@produces("event_types:fail", "event_types:warn", "outbox_rows:warn", "outbox_rows:fail")
def test_missing_contract_and_mismatching_row_are_reported(pipeline: Pipeline) -> None:
    pipeline.insert(1)
    found = check(pipeline)
    assert [found[name].status for name in ("contracts", "event_types", "outbox_rows")] == ["pass"] * 3
    pipeline.sql("update outbox set type = 'Noticed'")
    reported(pipeline, "event_types", "fail", "no contract for event type 'Noticed'", "did you mean 'Noted'?")
    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    reported(pipeline, "event_types", "warn", "no contract for event type 'Noticed'")
    pipeline.settings["avro"]["types"] = {"Noticed": "tests.Noted"}
    assert check(pipeline)["event_types"].status == "pass"

    pipeline.sql("update outbox set payload = '{\"seq\": 3000000000000000000000}'")
    reported(pipeline, "outbox_rows", "warn", "1 of the latest 1 rows would be poison", "is out of range for long")
    pipeline.settings["delivery"] = {"on_poison": "stop"}
    reported(pipeline, "outbox_rows", "fail", "$.seq: 3000000000000000000000 is out of range for long")
    contract(pipeline, {**NOTED, "fields": [{"name": "seq", "type": "double"}]})
    assert check(pipeline)["outbox_rows"].status == "pass"


@produces("contracts:fail", "contracts:warn")
def test_unreadable_and_absent_contracts_are_reported(pipeline: Pipeline) -> None:
    (pipeline.folder / "schemas" / "One.avsc").write_text("{")
    reported(pipeline, "contracts", "fail", "One.avsc")
    (pipeline.folder / "schemas" / "One.avsc").unlink()
    (pipeline.folder / "schemas" / "Noted.avsc").unlink()
    reported(pipeline, "contracts", "warn", "no contracts in")
    pipeline.settings["avro"]["unknown_types"] = "envelope"
    pipeline.insert(1)
    assert "cdc.Envelope" in check(pipeline)["event_types"].found


@produces("registry_subjects:fail")
def test_printed_fix_registers_missing_contract(pipeline: Pipeline, registry: Double) -> None:
    pipeline.settings["schema_registry"] = {"url": registry.url}
    pipeline.insert(1)
    subject = f"{pipeline.topic}-tests.Noted"
    assert registry.store.subjects == {}
    fixed(pipeline, "registry_subjects", "fail", f"not registered: {subject}")
    assert list(registry.store.subjects) == [subject]

    contract(pipeline, {**NOTED, "fields": [{"name": "seq", "type": "string"}]})
    reported(pipeline, "registry_subjects", "fail", "the registry would reject", "long cannot be read as string")
    contract(pipeline, {**NOTED, "doc": "a note"})
    pipeline.settings["schema_registry"]["auto_register"] = True
    assert "start registers them" in check(pipeline)["registry_subjects"].found
    assert registry.store.subjects == {subject: [1]}
    pipeline.settings["avro"]["source"] = "registry"
    assert f"1 contract in registry {registry.url}" in check(pipeline)["contracts"].found


@produces("registry_reachable:fail")
def test_unreachable_registry_is_reported_and_other_checks_continue(pipeline: Pipeline, registry: Double) -> None:
    pipeline.settings["schema_registry"] = {"url": registry.url, "timeout_seconds": 0.5}
    registry.fault = "401"
    reported(pipeline, "registry_reachable", "fail", "Unauthorized")
    registry.fault = None
    assert check(pipeline)["registry_reachable"].status == "pass"
    registry.fault = "503"
    found = check(pipeline)
    assert (found["registry_reachable"].status, found["contracts"].status) == ("fail", "pass")
    pipeline.settings["avro"]["source"] = "registry"
    assert "contracts" not in check(pipeline)


@produces("accelerator:fail")
def test_missing_accelerator_is_reported_with_the_command_that_installs_it(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cdc_native", None)
    line = check(pipeline)["accelerator"]
    assert line.status == "pass"
    assert "records are encoded by python; to raise throughput, install the native accelerator: " in line.found
    assert "pip install ./native" in line.found
    pipeline.settings["delivery"] = {"accelerator": "native"}
    line = reported(pipeline, "accelerator", "fail", "the native accelerator cannot be loaded")
    assert "cdc-publisher[native]" in (line.hint or "")
    monkeypatch.undo()
    pipeline.settings["delivery"] = {"accelerator": "python"}
    assert check(pipeline)["accelerator"].found == "records are encoded by python"
