"""`[record] key`: keys as Kafka Connect's JsonConverter writes them, on real servers."""

import json
from collections import Counter

import pytest

from cdc.config.loading import load
from cdc.postgres import horizons
from cdc.postgres.connection import connect
from cdc.records.partitioner import partition
from cdc.recovery.bound import BEGINNING
from cdc.recovery.candidates import CandidateTable
from cdc.recovery.selection import select
from tests.integration.checking import check
from tests.pipeline import Pipeline

KEYS = ["o-1", 'a"b\\', "é\u2028\x01", "😀", ""]
ESCAPED = ['"o-1"', '"a\\"b\\\\"', '"é\u2028\\u0001"', '"\\uD83D\\uDE00"', '""']
SCHEMA = '{"schema":{"type":"string","optional":false},"payload":%s}'


def insert(pipeline: Pipeline, *keys: str, payload: str = '{"seq": 1}') -> None:
    for key in keys:
        pipeline.sql(
            "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', %s, 'Noted', %s)",
            *(key, payload),
        )


@pytest.mark.parametrize(
    ("form", "guarantee", "accelerator"),
    [("json", "at-least-once", "native"), ("json-schema", "exactly-once", "python")],
)
def test_keys_are_json_byte_for_byte(pipeline: Pipeline, form: str, guarantee: str, accelerator: str) -> None:
    if accelerator == "native":
        pytest.importorskip("cdc_native", reason="there is no Rust toolchain")
    pipeline.settings["record"] = {"key": form}
    pipeline.settings["delivery"] = {"guarantee": guarantee, "accelerator": accelerator, "on_poison": "dead-letter"}
    expected = [SCHEMA % text if form == "json-schema" else text for text in ESCAPED]
    running = pipeline.start().streams()
    insert(pipeline, *KEYS, *KEYS)
    insert(pipeline, "😀", payload='{"seq": "x"}')
    pipeline.settles()
    assert running.stop() == 0
    running = pipeline.start().streams()
    insert(pipeline, *KEYS)
    pipeline.settles()
    assert running.stop() == 0
    records = [record for record in pipeline.records() if record.topic == pipeline.topic]
    assert Counter(record.key for record in records) == dict.fromkeys(expected, 3)
    assert {record.partition for record in records if record.key == expected[3]} == {partition(expected[3].encode(), 3)}
    (letter,) = pipeline.run("dlq", "list", "--json").stdout.splitlines()
    assert json.loads(letter)["key"] == expected[3]
    assert pipeline.run("audit").returncode == 0
    assert check(pipeline)["outbox_table"].status == "pass"

    pipeline.sql("alter table outbox alter aggregateid drop not null")
    if form == "json-schema":
        refused = pipeline.start()
        assert refused.wait() == 1
        assert "start of keys is" in refused.messages()[-1]
        pipeline.settings["record"]["key_optional"] = False
    pipeline.sql("delete from outbox where payload->>'seq' = 'x'")
    pipeline.settings["record"]["key"] = "text"
    pipeline.settings["record"].pop("key_optional", None)
    refused = pipeline.start()
    assert refused.wait() == 1
    assert f"[record] key is 'text', and was '{form}'" in refused.messages()[-1]


def test_a_key_column_that_makes_no_such_key_is_refused(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    assert pipeline.run("outbox", "init").returncode == 0
    pipeline.settings["record"] = {"key": "json-schema"}
    pipeline.sql("alter table outbox alter aggregateid type numeric using 1")
    found = check(pipeline)["outbox_table"]
    assert (found.status, "is numeric, of which [record] key" in found.found) == ("fail", True)
    pipeline.sql("alter table outbox alter aggregateid type bigint, alter aggregateid set default 7")
    found = check(pipeline)["outbox_table"]
    assert (found.status, "'aggregateid' has a default" in found.found) == ("fail", True)
    for statement in found.fix:
        pipeline.sql(statement)
    assert check(pipeline)["outbox_table"].status == "pass"


def test_a_recovery_knows_rows_by_the_keys_of_their_records(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    pipeline.settings["record"] = {"key": "json-schema", "key_optional": True}
    assert pipeline.run("outbox", "init").returncode == 0
    insert(pipeline, *KEYS)
    settings = load(pipeline.configure(), ())
    with connect(pipeline.dsn) as connection, connection.transaction():
        table = CandidateTable(connection, settings, None)
        rows = list(table.candidates(select(connection, settings, table, BEGINNING, horizons.take(connection))))
    expected = [SCHEMA.replace("false", "true") % text for text in ESCAPED]
    assert [row.key for row, *_ in rows] == [key.encode() for key in expected]
