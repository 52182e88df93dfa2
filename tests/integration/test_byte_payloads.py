"""Bytes in payloads: base64 that nothing decodes, and bytea that needs no contract."""

import json
from typing import Any

import pytest

from tests.integration.checking import check, reported
from tests.pipeline import Pipeline
from tests.produced import produces

FILED = {
    "type": "record",
    "name": "Filed",
    "namespace": "tests",
    "fields": [{"name": "data", "type": ["null", "bytes"], "default": None}],
}


def contract(pipeline: Pipeline, schema: Any) -> None:
    (pipeline.folder / "schemas" / f"{schema['name']}.avsc").write_text(json.dumps(schema))


def insert(pipeline: Pipeline, *payloads: dict[str, Any]) -> None:
    for payload in payloads:
        pipeline.sql(
            "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Filed', %s)",
            json.dumps(payload),
        )


@pytest.mark.parametrize("accelerator", ["python", "native"])
def test_case_e3_the_first_event_whose_bytes_are_base64_is_logged_once(pipeline: Pipeline, accelerator: str) -> None:
    if accelerator == "native":
        pytest.importorskip("cdc_native", reason="there is no Rust toolchain")
    contract(pipeline, FILED)
    pipeline.settings["delivery"] = {"accelerator": accelerator}
    running = pipeline.start().streams()
    insert(pipeline, {}, {"data": None}, {"data": "aGVsbG8="}, {"data": "d29ybGQ="}, {"data": "aGVsbG8="})
    pipeline.settles()
    assert running.stop() == 0
    warnings = [line for line in running.log if line.get("event") == "bytes_look_encoded"]
    assert [(line["level"], line["type"], line["fields"]) for line in warnings] == [("warning", "Filed", "$.data")]
    assert '[avro] bytes = "base64"' in warnings[0]["message"]
    assert [record.value["data"] for record in pipeline.records()][2:4] == [b"aGVsbG8=", b"d29ybGQ="]


@produces("outbox_rows:warn")
def test_case_e3_check_and_schema_check_warn_while_every_value_looks_like_base64(pipeline: Pipeline) -> None:
    contract(pipeline, FILED)
    insert(pipeline, {}, {"data": "aGVsbG8="}, {"data": "d29ybGQ="})
    done = pipeline.run("schema", "check", "--table")
    assert done.returncode == 0, done.stderr
    assert "warning: bytes tests.Filed: every value of $.data looks like base64 or hex" in done.stderr
    (warning,) = json.loads(pipeline.run("schema", "check", "--table", "--json").stdout)["warnings"]
    assert (warning["check"], warning["type"]) == ("bytes", "tests.Filed")
    reported(pipeline, "outbox_rows", "warn", "every value of $.data looks like base64 or hex")

    insert(pipeline, {"data": "plain text"})
    assert "warnings" not in json.loads(pipeline.run("schema", "check", "--table", "--json").stdout)
    assert check(pipeline)["outbox_rows"].status == "pass"


def test_case_e3_base64_is_decoded_by_the_setting_without_a_warning(pipeline: Pipeline) -> None:
    contract(pipeline, FILED)
    pipeline.settings["avro"]["bytes"] = "base64"
    insert(pipeline, {"data": "aGVsbG8="})
    running = pipeline.start().streams()
    insert(pipeline, {"data": "d29ybGQ="})
    pipeline.settles()
    assert running.stop() == 0
    assert [line for line in running.log if line.get("event") == "bytes_look_encoded"] == []
    assert pipeline.records()[-1].value["data"] == b"world"
    assert check(pipeline)["outbox_rows"].status == "pass"


def test_case_g2_bytea_payloads_pass_check_without_contracts(pipeline: Pipeline) -> None:
    for file in (pipeline.folder / "schemas").glob("*.avsc"):
        file.unlink()
    pipeline.sql("alter table outbox alter column payload type bytea using '\\x00'")
    assert {name: check(pipeline)[name].status for name in ("event_types", "outbox_rows")} == {
        "event_types": "pass",
        "outbox_rows": "pass",
    }
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Anything', '\\x0102')"
    )
    found = check(pipeline)
    assert {found[name].status for name in ("contracts", "event_types", "outbox_rows")} == {"pass"}

    pipeline.settings["avro"]["bytea"] = "body"  # bodies are framed by their contract, which must exist
    reported(pipeline, "event_types", "fail", "no contract for event type 'Anything'")
