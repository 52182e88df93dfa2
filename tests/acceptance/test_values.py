"""Records whose values are JSON or text, on real servers, in both guarantees; dead letters and replays."""

import json
from typing import Any

import jsonschema
import pytest

from cdc.consumer import decode
from tests.pipeline import Pipeline
from tests.reader import Received, read_all

pytestmark = pytest.mark.timeout(180)

JSON = ("content-type", "application/json")


def event(pipeline: Pipeline, event_type: str, payload: str | None) -> None:
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', %s, %s)",
        event_type,
        payload,
    )


def published(pipeline: Pipeline) -> list[tuple[str, Any, Any]]:
    """Event type, value, and the content type behind the publisher's first three headers."""
    return [
        (record.header("eventType"), record.raw, record.headers[3:4])
        for record in read_all(pipeline.kafka, pipeline.prefix, decode)
    ]


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
@pytest.mark.parametrize("accelerator", ["auto", "python"])
def test_each_event_type_is_sent_as_the_kind_of_value_that_is_set(
    pipeline: Pipeline, guarantee: str, accelerator: str
) -> None:
    pipeline.settings["record"] = {"value": "text", "values": {"Noted": "json"}}
    pipeline.settings["delivery"] = {"guarantee": guarantee, "accelerator": accelerator}
    schema = pipeline.run("schema", "show", "Noted", "--json-schema")
    running = pipeline.start().streams()
    for seq in range(3):
        event(pipeline, "Noted", f'{{"text": "\u00e9\\n", "seq": {seq}}}')
        event(pipeline, "Other", f'{{"seq":{seq}, "seq":{seq}}}')
    event(pipeline, "Other", None)
    pipeline.settles()
    assert running.stop() == 0
    found = published(pipeline)
    assert found[-1] == ("Other", None, [])
    for seq in range(3):
        assert found[2 * seq] == ("Noted", f'{{"seq":{seq},"text":"\u00e9\\n"}}'.encode(), [JSON])
        assert found[2 * seq + 1] == ("Other", f'{{"seq": {seq}}}'.encode(), [JSON])
    for _, value, _ in found[:-1:2]:
        jsonschema.Draft202012Validator(json.loads(schema.stdout)).validate(decode(value))
    audited = pipeline.run("audit", "--json")
    assert audited.returncode == 0, audited.stdout


def test_a_dead_letter_holds_the_payload_and_is_replayed_by_the_settings_of_that_time(pipeline: Pipeline) -> None:
    pipeline.settings["record"] = {"value": "json"}
    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    assert pipeline.run("outbox", "init").returncode == 0
    running = pipeline.start().streams()
    event(pipeline, "Noted", '{"seq": 1.5}')
    event(pipeline, "Other", '{"a": 1}')
    event(pipeline, "Noted", None)
    pipeline.settles()
    assert running.stop() == 0
    letters: list[Received] = read_all(pipeline.kafka, f"{pipeline.prefix}dead", lambda value: value)
    assert [(letter.header("cdc-payload"), letter.raw) for letter in letters] == [
        ("json", b'{"seq": 1.5}'),
        ("json", b'{"a": 1}'),
        ("null", None),
    ]
    assert pipeline.run("dlq", "replay", "--all", "--yes").returncode == 1
    pipeline.settings["record"] = {"value": "text"}
    replayed = pipeline.run("dlq", "replay", "--all", "--yes")
    assert replayed.returncode == 0, replayed.stderr
    values = sorted((value or b"", kind) for _, value, kind in published(pipeline) if kind != [JSON] or value)
    assert (b'{"a": 1}', [JSON]) in values
    assert (b'{"seq": 1.5}', [JSON]) in values
    assert len(published(pipeline)) == 3


def test_no_contract_is_needed_where_all_records_are_text(pipeline: Pipeline) -> None:
    (pipeline.folder / "schemas" / "Noted.avsc").unlink()
    (pipeline.folder / "schemas").rmdir()
    pipeline.settings["record"] = {"value": "text"}
    checked = pipeline.run("check", "--json")
    lines = {line["name"]: line["status"] for line in json.loads(checked.stdout)["checks"]}
    assert (lines["contracts"], lines["event_types"]) == ("pass", "pass")
    running = pipeline.start().streams()
    event(pipeline, "Noted", '{"seq": 1}')
    pipeline.settles()
    assert running.stop() == 0
    assert published(pipeline) == [("Noted", b'{"seq": 1}', [JSON])]
