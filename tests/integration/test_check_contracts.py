"""Each defect of contracts and registry that `check` tells, and how it is mended."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cdc.avro import compatibility
from tests.integration.checking import check, mended, told
from tests.pipeline import NOTED, Pipeline
from tests.registry import Double


def rule(new: str, olds: list[str], level: str) -> list[str]:
    return compatibility.check(level, json.loads(new), [("registered", json.loads(old)) for old in olds])


@pytest.fixture
def registry() -> Iterator[Double]:
    with Double(rule) as double:
        yield double


def contract(pipeline: Pipeline, schema: Any) -> None:
    (pipeline.folder / "schemas" / "Noted.avsc").write_text(json.dumps(schema))


def test_a_type_without_a_contract_and_a_row_that_does_not_fit_are_told(pipeline: Pipeline) -> None:
    pipeline.insert(1)
    found = check(pipeline)
    assert [found[name].status for name in ("contracts", "event_types", "outbox_rows")] == ["pass"] * 3
    pipeline.sql("update outbox set type = 'Noticed'")
    told(pipeline, "event_types", "fail", "no contract for event type 'Noticed'", "did you mean 'Noted'?")
    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    told(pipeline, "event_types", "warn", "no contract for event type 'Noticed'")
    pipeline.settings["avro"]["types"] = {"Noticed": "tests.Noted"}
    assert check(pipeline)["event_types"].status == "pass"

    pipeline.sql("update outbox set payload = '{\"seq\": 3000000000000000000000}'")
    told(pipeline, "outbox_rows", "warn", "1 of the latest 1 rows would be poison", "is not a long")
    pipeline.settings["delivery"] = {"on_poison": "stop"}
    told(pipeline, "outbox_rows", "fail", "$.seq: 3e+21 is not a long")
    contract(pipeline, {**NOTED, "fields": [{"name": "seq", "type": "double"}]})
    assert check(pipeline)["outbox_rows"].status == "pass"


def test_contracts_that_cannot_be_read_are_told(pipeline: Pipeline) -> None:
    (pipeline.folder / "schemas" / "One.avsc").write_text("{")
    told(pipeline, "contracts", "fail", "One.avsc")
    (pipeline.folder / "schemas" / "One.avsc").unlink()
    (pipeline.folder / "schemas" / "Noted.avsc").unlink()
    told(pipeline, "contracts", "warn", "no contracts in")
    pipeline.settings["avro"]["unknown_types"] = "envelope"
    pipeline.insert(1)
    assert "cdc.Envelope" in check(pipeline)["event_types"].found


def test_what_the_registry_lacks_is_registered_by_what_is_printed(pipeline: Pipeline, registry: Double) -> None:
    pipeline.settings["schema_registry"] = {"url": registry.url}
    pipeline.insert(1)
    subject = f"{pipeline.topic}-tests.Noted"
    assert registry.store.subjects == {}
    mended(pipeline, "registry_subjects", "fail", f"not registered: {subject}")
    assert list(registry.store.subjects) == [subject]

    contract(pipeline, {**NOTED, "fields": [{"name": "seq", "type": "string"}]})
    told(pipeline, "registry_subjects", "fail", "the registry would refuse", "long cannot be read as string")
    contract(pipeline, {**NOTED, "doc": "a note"})
    pipeline.settings["schema_registry"]["auto_register"] = True
    assert "which start will do" in check(pipeline)["registry_subjects"].found
    assert registry.store.subjects == {subject: [1]}
    pipeline.settings["avro"]["source"] = "registry"
    assert f"1 contract in registry {registry.url}" in check(pipeline)["contracts"].found


def test_a_registry_that_does_not_answer_or_refuses_is_told_and_the_rest_looked_at(
    pipeline: Pipeline, registry: Double
) -> None:
    pipeline.settings["schema_registry"] = {"url": registry.url, "timeout_seconds": 0.5}
    registry.fault = "401"
    told(pipeline, "registry_reachable", "fail", "Unauthorized")
    registry.fault = None
    assert check(pipeline)["registry_reachable"].status == "pass"
    registry.fault = "503"
    found = check(pipeline)
    assert (found["registry_reachable"].status, found["contracts"].status) == ("fail", "pass")
    pipeline.settings["avro"]["source"] = "registry"
    assert "contracts" not in check(pipeline)


def test_an_accelerator_that_is_not_there_is_told(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cdc_native", None)
    assert "records are made by python" in check(pipeline)["accelerator"].found
    pipeline.settings["delivery"] = {"accelerator": "native"}
    line = told(pipeline, "accelerator", "fail", "the native accelerator cannot be loaded")
    assert "cdc-publisher[native]" in (line.hint or "")
    monkeypatch.undo()
    pipeline.settings["delivery"] = {"accelerator": "python"}
    assert check(pipeline)["accelerator"].status == "pass"
