"""`recover` and what it may find: each bad input gets one clear line, and nothing is half done."""

import json
import subprocess

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from confluent_kafka.cimpl import NewTopic

from tests.acceptance.test_recovery import drop_slot, published, recovers
from tests.acceptance.test_recovery_losses import partitioned, unnumbered
from tests.pipeline import Pipeline, eventually
from tests.registry import Double

__all__ = ["partitioned"]

pytestmark = pytest.mark.timeout(300)
STRICT = {"message.timestamp.before.max.ms": "1000", "retention.ms": "-1"}
GUARANTEES = pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])


def slots(pipeline: Pipeline) -> int:
    return len(pipeline.sql("select 1 from pg_replication_slots where slot_name = %s", pipeline.slot))


def refused(pipeline: Pipeline, *options: str, code: int = 1) -> str:
    """Exits with one line, sends nothing and makes no slot."""
    before = pipeline.records()
    done = pipeline.run("recover", *options)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert done.stderr.count("cdc-publisher: ") == 1, done.stderr
    assert pipeline.records() == before
    assert slots(pipeline) == 0
    return done.stderr


def lose(pipeline: Pipeline, *seqs: int) -> None:
    published(pipeline, 1)
    drop_slot(pipeline)
    pipeline.insert(*seqs)


def streams_on(pipeline: Pipeline, *seqs: int) -> None:
    published(pipeline, *seqs)
    pipeline.judge()


@GUARANTEES
@pytest.mark.parametrize("numbered", [True, False])
def test_a_partitioned_table_is_recovered(partitioned: Pipeline, guarantee: str, numbered: bool) -> None:
    if numbered:
        assert partitioned.run("outbox", "init", "--order").returncode == 0
    partitioned.settings["delivery"] = {"guarantee": guarantee}
    published(partitioned, 1)
    drop_slot(partitioned)
    partitioned.sql("create table third_part (like outbox including defaults)")
    for seq in (2, 3, 4):
        partitioned.insert(seq)
    partitioned.sql("drop table third_part")
    done = recovers(partitioned)
    assert (done["sent"], done["order"]) == (3, "sequence" if numbered else "transaction id")
    streams_on(partitioned, 5)


def test_keys_whose_order_is_not_certain_are_named(pipeline: Pipeline) -> None:
    unnumbered(pipeline)
    published(pipeline, 1)
    drop_slot(pipeline)
    for number in range(7):
        pipeline.insert(2, 3, 4, key=f"key-{number}")
    pipeline.insert(5, 6, 7, 8, key="odd\n")
    pipeline.insert(9, key="alone")
    done = pipeline.run("recover", "--dry-run")
    assert done.returncode == 0
    named = f"odd\\n (4 events, topic {pipeline.topic}), key-0 (3 events, topic {pipeline.topic})"
    assert f"the order of 8 keys with several missing events may not be that of their commits: {named}" in done.stdout
    assert "3 more; a column that numbers rows prevents this" in done.stdout
    found = recovers(pipeline)
    assert found["unordered_keys"] == len(found["unordered"]) == 8
    assert found["unordered"][0] == {"topic": pipeline.topic, "key": "odd\n", "events": 4}


@pytest.mark.parametrize("reason", ["contract", "too large"])
def test_a_row_that_cannot_be_published_stops_a_recovery_before_it_sends(pipeline: Pipeline, reason: str) -> None:
    lose(pipeline, 2)
    payload = {"seq": "no number"} if reason == "contract" else {"seq": 3, "text": "x" * 2_000_000}
    insert = "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Noted', %s)"
    pipeline.sql(insert, json.dumps(payload))
    pipeline.insert(4)
    ((bad,),) = pipeline.sql("select id::text from outbox order by cdc_seq desc offset 1 limit 1")
    error = refused(pipeline)
    assert bad in error
    assert "run the command again" in error
    pipeline.sql("update outbox set payload = '{\"seq\": 3}' where id = %s", bad)
    assert recovers(pipeline)["sent"] == 3
    streams_on(pipeline, 5)


def test_a_row_that_cannot_be_published_becomes_a_dead_letter(pipeline: Pipeline) -> None:
    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    larger = ConfigEntry("max.message.bytes", "4000000", incremental_operation=AlterConfigOpType.SET)
    letters = ConfigResource(ResourceType.TOPIC, f"{pipeline.prefix}dead", incremental_configs=[larger])
    admin.incremental_alter_configs([letters])[letters].result()
    lose(pipeline, 2)
    insert = "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Noted', %s)"
    pipeline.sql(insert, '{"seq": "no number"}')
    pipeline.sql(insert, json.dumps({"seq": 3, "text": "x" * 2_000_000}))
    pipeline.insert(4)
    done = recovers(pipeline)
    assert (done["sent"], done["dead_lettered"]) == (4, 2)
    listed = [json.loads(line) for line in pipeline.run("dlq", "list", "--json").stdout.splitlines()]
    assert len(listed[0] if isinstance(listed[0], list) else listed) == 2
    published(pipeline, 5)
    assert [record.value["seq"] for record in pipeline.records()] == [1, 2, 4, 5]
    assert pipeline.run("audit").returncode == 0


@pytest.mark.parametrize("policy", ["stop", "dead-letter"])
def test_a_record_that_kafka_refuses_is_treated_as_the_policy_says(bare_pipeline: Pipeline, policy: str) -> None:
    pipeline = bare_pipeline
    pipeline.settings["delivery"] = {"on_poison": policy}
    assert pipeline.run("outbox", "init").returncode == 0
    assert pipeline.run("slot", "create").returncode == 0
    pipeline.create_topic(pipeline.topic)
    strict = NewTopic(
        f"{pipeline.prefix}strict", 1, config={"message.timestamp.before.max.ms": "1000", "retention.ms": "-1"}
    )
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    admin.create_topics([strict])[strict.topic].result()
    published(pipeline, 1)
    drop_slot(pipeline)
    insert = (
        "insert into outbox (aggregatetype, aggregateid, type, payload, created_at)"
        " values ('strict', 'k', 'Noted', '{\"seq\": 2}', now() - interval '1 hour')"
    )
    pipeline.sql(insert)
    pipeline.insert(3)
    if policy == "stop":
        done = pipeline.run("recover")
        assert (done.returncode, slots(pipeline)) == (1, 0), done.stderr
        assert "Kafka refuses its record" in done.stderr
        assert done.stderr.count("\n") == 1
        assert "has begun and not ended" in pipeline.run("audit").stdout
    else:
        assert recovers(pipeline)["dead_lettered"] == 1
        streamed = pipeline.start().streams()
        pipeline.settles()
        assert streamed.stop() == 0
        assert [record.value["seq"] for record in pipeline.records()] == [1, 3]


def test_a_topic_that_was_made_anew_needs_a_time(pipeline: Pipeline) -> None:
    published(pipeline, 1)
    drop_slot(pipeline)
    pipeline.insert(2)
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    admin.delete_topics([pipeline.topic])[pipeline.topic].result()
    eventually(lambda: pipeline.topic not in admin.list_topics(timeout=10).topics, "the topic is gone")
    pipeline.create_topic(pipeline.topic)
    error = refused(pipeline)
    assert "was deleted and re-created" in error
    assert "recover --since TIME" in error
    assert recovers(pipeline, "--since", "1h")["sent"] == 2
    streams_on(pipeline, 3)


def test_a_table_without_an_age_column_is_recovered_but_not_since_a_time(pipeline: Pipeline) -> None:
    pipeline.sql("alter table outbox drop column created_at")
    lose(pipeline, 2, 3)
    assert "the age of rows is unknown" in refused(pipeline, "--since", "1h")
    done = recovers(pipeline)
    assert (done["sent"], done["from"]) == (2, None)
    streams_on(pipeline, 4)


def test_a_registry_that_is_down_delays_a_recovery(pipeline: Pipeline) -> None:
    lose(pipeline, 2)
    with Double() as registry:
        pipeline.settings["schema_registry"] = {"url": registry.url, "timeout_seconds": 1, "auto_register": True}
    error = refused(pipeline, code=75)
    assert "registry" in error
    del pipeline.settings["schema_registry"]
    assert recovers(pipeline)["sent"] == 1
    streams_on(pipeline, 3)


def test_another_publisher_at_work_keeps_a_recovery_away(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    done = pipeline.run("recover")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is healthy: there is nothing to recover" in done.stderr
    pipeline.insert(1)
    pipeline.settles()
    assert running.stop() == 0
    pipeline.judge()


def test_two_recoveries_do_not_run_at_once(pipeline: Pipeline) -> None:
    lose(pipeline, 2)
    with pipeline.connect() as writer:
        writer.autocommit = False
        writer.execute("select pg_current_xact_id()")
        first = pipeline.process("recover", "--yes", "--wait", "60")
        eventually(lambda: slots(pipeline) == 1, "the first one makes the slot")
        second = pipeline.run("recover")
        assert (second.returncode, second.stderr.count("\n")) == (75, 1)
        assert "another recovery of replication slot" in second.stderr
        writer.rollback()
    assert first.wait() == 0
    streams_on(pipeline, 3)


@GUARANTEES
def test_called_after_its_end_it_says_what_was_done_also_once_the_slot_has_moved(
    pipeline: Pipeline, guarantee: str
) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    lose(pipeline, 2)
    done = recovers(pipeline)
    wanted = {"finished": True, "sent": 1, "start": done["start"]}
    for seq in (3, 4):
        again = recovers(pipeline)
        assert {name: again[name] for name in wanted} == wanted
        assert pipeline.run("recover").stdout.startswith(f"done before, at {done['at']}: sent 1 event; ")
        published(pipeline, seq)
    pipeline.judge()


def test_a_backfill_has_a_rate(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    assert pipeline.run("outbox", "init").returncode == 0
    pipeline.create_topic(pipeline.topic)
    pipeline.insert(*range(20))
    pipeline.sql("update outbox set created_at = now() - interval '1 day' where payload->>'seq' in ('0', '1')")
    done: subprocess.CompletedProcess[str] = pipeline.run(
        "slot", "create", "--backfill", "--since", "1h", "--rate", "100"
    )
    assert done.returncode == 0, done.stderr
    assert "sent 18 events" in done.stdout
    again = pipeline.run("slot", "create", "--backfill")
    assert again.returncode == 0
    assert "sent 18 events" in again.stdout  # what was done before
