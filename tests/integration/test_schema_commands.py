"""`schema` on a real outbox table, with a test double of the registry."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc.avro import compatibility
from tests.pipeline import NOTED, Pipeline
from tests.registry import Double

COLOUR = {"type": "enum", "name": "Colour", "namespace": "tests", "symbols": ["RED"]}
PAINTED = {"type": "record", "name": "tests.Painted", "fields": [{"name": "colour", "type": "Colour"}]}


def rule(new: str, olds: list[str], level: str) -> list[str]:
    # The double does not put references together before it asks.
    whole = [text.replace('"type":"Colour"', f'"type":{json.dumps(COLOUR)}') for text in olds]
    return compatibility.check(level, json.loads(new), [("registered", json.loads(old)) for old in whole])


@pytest.fixture
def registry() -> Iterator[Double]:
    with Double(rule) as double:
        yield double


def contract(pipeline: Pipeline, name: str, schema: Any) -> Path:
    file = pipeline.folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(schema))
    return file


def answer(pipeline: Pipeline, *arguments: str, code: int = 0) -> Any:
    done = pipeline.run("schema", *arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_contracts_are_listed_with_subjects_from_the_table(pipeline: Pipeline) -> None:
    (row,) = answer(pipeline, "list")
    assert (row["type"], row["subject"], row["id"], len(row["fingerprint"])) == ("tests.Noted", None, None, 16)
    pipeline.insert(1)
    assert answer(pipeline, "list")[0]["subject"] == f"{pipeline.topic}-tests.Noted"
    assert answer(pipeline, "list", "--topic", "t")[0]["subject"] == "t-tests.Noted"
    pipeline.settings["avro"]["subject"] = "record-name"
    assert answer(pipeline, "list")[0]["subject"] == "tests.Noted"
    shown = pipeline.run("schema", "list").stdout
    assert "Noted.avsc" in shown
    assert row["fingerprint"] in shown


def test_show_prints_the_contract_and_the_compiled_source(pipeline: Pipeline) -> None:
    assert json.loads(pipeline.run("schema", "show", "Noted").stdout) == NOTED
    facts = answer(pipeline, "show", "tests.Noted", "--compiled")
    assert facts["schema"]["name"] == "tests.Noted"
    compile(facts["compiled"], "shown", "exec")
    missing = pipeline.run("schema", "show", "Notd")
    assert (missing.returncode, "did you mean 'Noted'?" in missing.stderr) == (78, True)


def test_check_encodes_every_row_of_the_table(pipeline: Pipeline) -> None:
    pipeline.insert(*range(3000))
    assert answer(pipeline, "check", "--table") == {
        "holds": True,
        "checked": {"contracts": 1, "rows": 3000},
        "problems": [],
    }
    bad = pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values"
        " ('note', 'k', 'Noted', '{\"seq\": \"x\"}'), ('note', 'k', 'Unheard', '{}'), ('note', 'k', 'Noted', null)"
        " returning id::text"
    )
    found = answer(pipeline, "check", "--table", code=1)
    assert found["checked"]["rows"] == 3003
    assert [(each["id"],) for each in found["problems"]] == bad
    assert [each["problem"].partition(" in ")[0] for each in found["problems"]] == [
        '$.seq: "x" is not a long; string accepts it',
        "no contract for event type 'Unheard'",
        "the payload is null",
    ]
    done = pipeline.run("schema", "check", "--table")
    assert f'table {bad[0][0]} Noted: $.seq: "x" is not a long' in done.stderr
    assert done.stdout == "1 contracts, 3003 rows: 3 problems\n"


def test_unfit_rows_after_the_first_hundred_are_counted(pipeline: Pipeline) -> None:
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload)"
        " select 'note', 'k', 'Noted', '{}' from generate_series(1, 250)"
    )
    found = answer(pipeline, "check", "--table", code=1)["problems"]
    assert len(found) == 101
    assert found[-1]["problem"] == "150 more rows do not fit"


def test_broken_files_are_reported_with_exit_code_1(pipeline: Pipeline) -> None:
    (pipeline.folder / "schemas" / "broken.avsc").write_text("{")
    (problem,) = answer(pipeline, "check", code=1)["problems"]
    assert problem["check"] == "files"
    assert "broken.avsc: not JSON" in problem["problem"]


def test_earlier_versions_are_compared_without_a_registry(pipeline: Pipeline) -> None:
    old = {**NOTED, "fields": [{"name": "seq", "type": "int"}]}
    older = {**NOTED, "fields": [{"name": "seq", "type": "string"}]}
    contract(pipeline, "old/v2/Noted.avsc", old)
    contract(pipeline, "old/v1/Noted.avsc", older)
    against = ("check", "--against", str(pipeline.folder / "old"))
    assert answer(pipeline, *against)["holds"]
    (problem,) = answer(pipeline, *against, "--mode", "full", code=1)["problems"]
    assert problem["type"] == "tests.Noted"
    assert problem["problem"].endswith("v2/Noted.avsc: $.seq: long cannot be read as int")
    (problem,) = answer(pipeline, *against, "--mode", "BACKWARD_TRANSITIVE", code=1)["problems"]
    assert "v1/Noted.avsc wrote: $.seq: string cannot be read as long" in problem["problem"]


def test_contracts_are_registered_after_what_they_use(pipeline: Pipeline, registry: Double) -> None:
    contract(pipeline, "schemas/Painted.avsc", PAINTED)
    contract(pipeline, "schemas/Colour.avsc", COLOUR)
    pipeline.settings["schema_registry"] = {"url": registry.url}
    assert answer(pipeline, "register", code=1)["problems"][0]["check"] == "topic"
    assert not registry.store.subjects

    dry = answer(pipeline, "register", "--dry-run", "--topic", "t")
    assert [row["done"] for row in dry["schemas"]] == ["would be registered"] * 2
    assert not registry.store.subjects

    done = answer(pipeline, "register", "--topic", "t")
    assert {row["done"] for row in done["schemas"]} == {"registered"}
    assert set(registry.store.subjects) == {"t-tests.Noted", "t-tests.Painted", "tests.Colour"}
    again = answer(pipeline, "register", "--topic", "t", "Painted")
    assert [row["done"] for row in again["schemas"]] == ["there"]
    assert {row["subject"]: row["id"] for row in done["schemas"]} == {
        row["subject"]: row["id"] for row in answer(pipeline, "list", "--topic", "t")
    }
    assert answer(pipeline, "check", "--topic", "t")["checked"] == {"contracts": 2, "subjects": 2}


def test_nothing_is_registered_if_the_registry_would_refuse_a_contract(pipeline: Pipeline, registry: Double) -> None:
    pipeline.settings["schema_registry"] = {"url": registry.url}
    pipeline.settings["topics"]["name"] = "t"
    assert answer(pipeline, "register")["schemas"][0]["done"] == "registered"
    contract(pipeline, "schemas/Noted.avsc", {**NOTED, "fields": [{"name": "seq", "type": "int"}]})
    (problem,) = answer(pipeline, "check", code=1)["problems"]
    assert (problem["check"], problem["subject"]) == ("registry", "t-tests.Noted")
    assert "long cannot be read as int" in problem["problem"]
    refused = answer(pipeline, "register", code=1)
    assert refused["schemas"][0]["done"] == "refused"
    assert registry.store.subjects == {"t-tests.Noted": [1]}


def test_register_without_a_registry_is_a_configuration_error(pipeline: Pipeline) -> None:
    done = pipeline.run("schema", "register")
    assert (done.returncode, "[schema_registry] url is required" in done.stderr) == (78, True)
