"""`[topics] map`: topics of single aggregate types, on real servers."""

import json

import pytest

from tests.pipeline import Pipeline

ACCELERATORS = [("at-least-once", "native"), ("exactly-once", "python")]


def insert(pipeline: Pipeline, aggregate: str, *payloads: str) -> None:
    for payload in payloads:
        pipeline.sql(
            "insert into outbox (aggregatetype, aggregateid, type, payload) values (%s, 'k', 'Noted', %s)",
            *(aggregate, payload),
        )


@pytest.mark.parametrize(("guarantee", "accelerator"), ACCELERATORS)
def test_events_of_a_mapped_aggregate_type_go_to_its_topic(
    pipeline: Pipeline, guarantee: str, accelerator: str
) -> None:
    if accelerator == "native":
        pytest.importorskip("cdc_native", reason="there is no Rust toolchain")
    notes, memos = f"{pipeline.prefix}all.notes", f"{pipeline.prefix}memo"
    pipeline.settings["topics"]["map"] = {"note": notes}
    pipeline.settings["delivery"] = {"guarantee": guarantee, "accelerator": accelerator, "on_poison": "dead-letter"}
    for topic in (notes, memos):
        pipeline.create_topic(topic)
    running = pipeline.start().streams()
    for number in range(3):
        insert(pipeline, "note", *['{"seq": 1}'] * 3, '{"seq": "x"}')
        insert(pipeline, "memo", f'{{"seq": {number}}}')
    pipeline.settles()
    assert running.stop() == 0
    running = pipeline.start().streams()
    insert(pipeline, "note", '{"seq": 7}')
    pipeline.settles()
    assert running.stop() == 0
    topics = sorted(record.topic for record in pipeline.records() if record.topic != f"{pipeline.prefix}dead")
    assert topics == [notes] * 10 + [memos] * 3
    letters = [json.loads(line) for line in pipeline.run("dlq", "list", "--json").stdout.splitlines()]
    assert {letter["topic"] for letter in letters} == {notes}
    assert pipeline.run("audit").returncode == 0
    pipeline.sql("delete from outbox where payload->>'seq' = 'x'")

    pipeline.settings["topics"]["map"] = {"note": memos}
    refused = pipeline.start()
    assert refused.wait() == 1
    assert f'[topics] map is \'{{"note": "{memos}"}}\', and was \'{{"note": "{notes}"}}\'' in refused.messages()[-1]
    running = pipeline.start("--accept-changes").streams()
    insert(pipeline, "note", '{"seq": 8}')
    pipeline.settles()
    assert running.stop() == 0
    assert sum(record.topic == memos for record in pipeline.records()) == 4
