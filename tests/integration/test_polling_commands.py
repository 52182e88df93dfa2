"""`status`, `outbox purge` and `audit` of a relay, whose progress these tests write by hand as a publisher does."""

import json
from typing import Any

import pytest

from cdc.audit.verdicts import FINDINGS
from cdc.records.headers import stream_id
from tests.pipeline import Pipeline
from tests.producing import in_order

EPOCH = 1 << 42
CONFIRM = "update cdc_relay set confirmed_snapshot = pg_current_snapshot(), confirmed_batch = %s, epoch = 1"


@pytest.fixture
def polled(bare_pipeline: Pipeline) -> Pipeline:
    """A pipeline whose outbox is prepared for polling, and whose rows stay."""
    bare_pipeline.settings["postgres"]["source"] = "polling"
    bare_pipeline.settings["outbox"] = {"published": "mark"}
    done = bare_pipeline.run("outbox", "init", "--polling")
    assert done.returncode == 0, done.stderr
    bare_pipeline.create_topic(bare_pipeline.topic)
    return bare_pipeline


def unstamped(pipeline: Pipeline, seq: int) -> None:
    """Insert a row without the trigger."""
    with pipeline.connect() as connection:
        connection.execute("alter table outbox disable trigger zz_cdc_stamp")
        connection.execute(
            "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Noted', %s)",
            [json.dumps({"seq": seq})],
        )
        connection.execute("alter table outbox enable always trigger zz_cdc_stamp")


def status(pipeline: Pipeline, code: int) -> dict[str, Any]:
    done = pipeline.run("status", "--json")
    assert done.returncode == code, (done.stdout, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_status_reads_the_relay_where_no_publisher_answers(polled: Pipeline) -> None:
    polled.insert(1, 2)
    found = status(polled, 1)
    assert (found["state"], found["running"]) == ("stopped", False)
    assert found["summary"] == "no process runs the relay; 2 rows not confirmed"
    assert (found["polling"]["unbatched_rows"], found["polling"]["strays"]) == (2, 0)
    polled.sql(CONFIRM, EPOCH + 1)
    polled.sql("update cdc_relay set holder = 'host:7', heartbeat_at = clock_timestamp(), rows_in_batches = 2")
    unstamped(polled, 3)
    found = status(polled, 0)
    assert (found["state"], found["summary"]) == ("streaming", "host:7 runs the relay")
    assert found["polling"]["strays"] == 1
    assert (found["polling"]["numbers"], found["polling"]["batched_rows"]) == (2, 2)
    assert "1 row of the outbox will be in no batch" in found["notes"][-1]
    polled.sql("update cdc_relay set heartbeat_at = clock_timestamp() - interval '1 hour'")
    assert "host:7 has not reported for 3,600 s" in status(polled, 1)["summary"]
    shown = polled.run("status").stdout
    assert "run by host:7" in shown
    assert "1 stray" in shown
    polled.sql("delete from cdc_relay")
    assert "there is no relay" in status(polled, 1)["summary"]


def test_purge_deletes_what_the_confirmed_snapshot_sees_and_no_stray(polled: Pipeline) -> None:
    polled.insert(1, 2)
    unstamped(polled, 3)
    polled.sql(CONFIRM, EPOCH + 1)
    polled.insert(4)
    polled.sql("update outbox set created_at = now() - interval '40 days' where payload->>'seq' <> '2'")
    dry = json.loads(polled.run("outbox", "purge", "--dry-run", "--json").stdout)
    assert dry["deleted"] == 1
    done = polled.run("outbox", "purge", "--grace", "1d")
    assert (done.returncode, done.stderr) == (0, "")
    assert polled.sql("select payload->>'seq' from outbox order by 1") == [("2",), ("3",), ("4",)]
    assert polled.run("outbox", "purge", "--grace", "0").returncode == 0
    assert polled.sql("select payload->>'seq' from outbox order by 1") == [("3",), ("4",)]
    polled.sql("alter table outbox enable trigger zz_cdc_stamp")
    refused = polled.run("outbox", "purge", "--grace", "0")
    assert (refused.returncode, "has no trigger" in refused.stderr) == (1, True)


def publish(pipeline: Pipeline, *seqs: int, first: int = 0, number: int = EPOCH) -> None:
    """Send records of rows to Kafka, as a publisher does; no value is needed."""
    (relay,) = pipeline.sql("select id::text from cdc_relay")
    stream, producer = stream_id(relay[0], 1, pipeline.slot), in_order(pipeline.kafka)
    for index, seq in enumerate(seqs, start=first):
        ((row,),) = pipeline.sql("select id::text from outbox where payload->>'seq' = %s", str(seq))
        headers: dict[str, str | bytes | None] = {
            "id": row,
            "eventType": "Noted",
            "cdc-position": f"{stream}-{number:016X}-{index:08X}",
        }
        producer.produce(pipeline.topic, b"", b"k", headers=headers)
    assert producer.flush(30) == 0


def audited(pipeline: Pipeline, *options: str, code: int = 0) -> dict[str, Any]:
    done = pipeline.run("audit", "--json", *options)
    assert done.returncode == code, (done.stdout, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_audit_finds_what_the_relay_confirmed_and_no_topic_has(polled: Pipeline) -> None:
    polled.insert(1, 2, 3)
    publish(polled, 1, 2)
    polled.sql(CONFIRM, EPOCH + 1)
    polled.insert(4)
    unstamped(polled, 5)
    found = audited(polled, code=1)
    assert [one["finding"] for one in found["findings"]] == ["missing"]
    assert "passed by the relay" in found["findings"][0]["meaning"]
    assert (found["counts"]["delivered"], found["counts"]["in_flight"]) == (2, 2)
    assert {"what": "rows", "count": 1, "why": "they are in no batch: see check"} in found["not_judged"]
    publish(polled, 3, first=2)
    publish(polled, 4, number=EPOCH + 1)  # sent, and not confirmed
    found = audited(polled)
    assert {kind: found["counts"][kind] for kind in FINDINGS} == dict.fromkeys(FINDINGS, 0)
    publish(polled, 1, number=EPOCH + 2)
    found = audited(polled, code=1)
    assert {one["finding"] for one in found["findings"]} == {"duplicate"}


def test_audit_finds_records_of_no_row_where_rows_stay(polled: Pipeline) -> None:
    polled.insert(1, 2)
    publish(polled, 1, 2)
    polled.sql("create table gone as select * from outbox where payload->>'seq' = '2'")
    polled.sql("delete from outbox where payload->>'seq' = '2'")
    polled.sql("select pg_stat_reset()")
    polled.sql(CONFIRM, EPOCH + 1)
    producer, stream = (
        in_order(polled.kafka),
        stream_id(polled.sql("select id::text from cdc_relay")[0][0], 1, polled.slot),
    )
    headers: dict[str, str | bytes | None] = {
        "id": "nobody",
        "eventType": "Noted",
        "cdc-position": f"{stream}-{5 * EPOCH:016X}-00000000",
    }
    producer.produce(polled.topic, b"", b"k", headers=headers)
    producer.flush(30)
    kinds = {one["finding"] for one in audited(polled, code=1)["findings"]}
    assert "phantom" in kinds, "the relay has not come to this position"


def test_audit_says_what_it_cannot_judge_where_rows_are_deleted(polled: Pipeline) -> None:
    polled.settings["outbox"]["published"] = "delete"
    polled.insert(1, 2)
    publish(polled, 1, 2)
    polled.sql("delete from outbox")
    polled.sql(CONFIRM, EPOCH + 1)
    found = audited(polled)
    assert found["counts"]["purged"] == 2
    assert any("a missing event is not found" in note["why"] for note in found["not_judged"])
    refused = polled.run("audit", "--from-lsn", "0/1")
    assert (refused.returncode, "needs a replication slot" in refused.stderr) == (78, True)
