"""The publisher's record of its slot: a slot moved, re-created or read by others is never used silently."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc.app import connections
from cdc.config.loading import load
from cdc.local.kafka import KafkaBroker
from tests.integration.checking import check
from tests.pipeline import Pipeline, eventually, make_pipeline, prepare
from tests.servers import PrivatePostgres, Servers


def started_and_stopped(pipeline: Pipeline, *seqs: int) -> None:
    publisher = pipeline.start().streams()
    pipeline.insert(*seqs)
    pipeline.settles()
    assert publisher.stop() == 0


def refused(pipeline: Pipeline) -> str:
    """Start the publisher, which must exit with 1, and return its output."""
    publisher = pipeline.start()
    assert publisher.wait() == 1
    assert publisher.count("streaming") == 0
    return publisher.messages()[-1]


def test_slot_dropped_and_created_again_is_detected_and_not_used_b1(pipeline: Pipeline) -> None:
    started_and_stopped(pipeline, 1, 2)
    left = pipeline.confirmed()
    pipeline.sql("select pg_drop_replication_slot(%s)", pipeline.slot)
    pipeline.insert(3)
    pipeline.sql("select pg_create_logical_replication_slot(%s, 'pgoutput')", pipeline.slot)
    again = pipeline.confirmed()
    told = refused(pipeline)
    assert f"'{pipeline.slot}' stands at {again}, but the publisher moved it only to" in told
    assert "--accept-changes" in told
    assert pipeline.confirmed() == again >= left
    assert [record.value["seq"] for record in pipeline.records()] == [1, 2]
    accepted = pipeline.start("--accept-changes").streams()
    pipeline.insert(4)
    pipeline.settles()
    assert accepted.stop() == 0
    assert [record.value["seq"] for record in pipeline.records()] == [1, 2, 4]
    started_and_stopped(pipeline, 5)


def test_slot_advanced_by_another_client_is_detected_a19(pipeline: Pipeline) -> None:
    started_and_stopped(pipeline, 1)
    pipeline.insert(2)
    pipeline.sql("select pg_replication_slot_advance(%s, pg_current_wal_lsn())", pipeline.slot)
    told = refused(pipeline)
    assert "it was advanced, or dropped and created again" in told


def test_slot_moved_by_own_commands_is_used_a19_b1(pipeline: Pipeline) -> None:
    started_and_stopped(pipeline, 1)
    pipeline.insert(2)
    assert pipeline.run("slot", "advance", "--yes").returncode == 0
    started_and_stopped(pipeline, 3)
    pipeline.insert(4)
    pipeline.sql("delete from outbox")  # else `slot create` would refuse
    assert pipeline.run("slot", "drop", "--yes").returncode == 0
    assert pipeline.run("slot", "create").returncode == 0
    started_and_stopped(pipeline, 5)
    assert [record.value["seq"] for record in pipeline.records()] == [1, 3, 5]


def test_publication_recreated_while_stopped_is_detected_b4(pipeline: Pipeline) -> None:
    started_and_stopped(pipeline, 1)
    pipeline.sql("drop publication cdc_publisher")
    pipeline.insert(2)
    pipeline.sql("create publication cdc_publisher for table outbox with (publish = 'insert')")
    told = refused(pipeline)
    assert "publication cdc_publisher was dropped and created again" in told


def test_table_swapped_while_stopped_is_detected_b6(pipeline: Pipeline) -> None:
    started_and_stopped(pipeline, 1)
    pipeline.sql("alter table outbox rename to outbox_old")
    pipeline.sql("create table outbox (like outbox_old including all)")
    pipeline.sql("alter publication cdc_publisher set table outbox")
    told = refused(pipeline)
    assert "table public.outbox was replaced by another of its name" in told


def test_events_move_to_other_topics_only_on_request_d10(pipeline: Pipeline) -> None:
    started_and_stopped(pipeline, 1)
    pipeline.settings["topics"]["name"] = f"{pipeline.prefix}other.{{aggregatetype}}"
    told = refused(pipeline)
    assert "[topics] name is" in told
    pipeline.create_topic(f"{pipeline.prefix}other.note")
    pipeline.insert(2)
    accepted = pipeline.start("--accept-changes").streams()
    pipeline.settles()
    assert accepted.stop() == 0
    started_and_stopped(pipeline, 3)
    pipeline.judge()


@pytest.fixture(scope="module")
def second_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Another Kafka cluster, which holds nothing of a test that begins."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"), 1)
    with contextlib.ExitStack() as stack:
        stack.callback(broker.stop)
        broker.start()
        yield broker.address


def recreate(pipeline: Pipeline, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    admin.delete_topics([topic])[topic].result()
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics, "the topic is gone")
    pipeline.create_topic(topic)


GUARANTEES = pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])


@GUARANTEES
def test_case_d4_a_topic_recreated_while_stopped_is_detected(pipeline: Pipeline, guarantee: str) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    started_and_stopped(pipeline, 1, 2)
    started_and_stopped(pipeline)  # nothing has changed
    assert check(pipeline)["slot_identity"].status == "pass"
    recreate(pipeline, pipeline.topic)
    pipeline.insert(3)
    line = check(pipeline)["slot_identity"]
    told = refused(pipeline)
    assert f"topic '{pipeline.topic}' was deleted and re-created: the events in it are lost" in told
    assert "audit --repair" in told
    assert (line.status, line.found in told) == ("fail", True)
    assert "--accept-changes" in told
    assert pipeline.records() == []
    accepted = pipeline.start("--accept-changes").streams()
    pipeline.settles()
    assert accepted.stop() == 0
    started_and_stopped(pipeline, 4)
    assert [record.value["seq"] for record in pipeline.records()] == [3, 4]


def test_case_d4_a_topic_of_dead_letters_recreated_while_stopped_is_detected(pipeline: Pipeline) -> None:
    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    pipeline.sql("insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Noted', '[]')")
    started_and_stopped(pipeline)
    dead = pipeline.settings["topics"]["dead_letter"]
    recreate(pipeline, dead)
    assert f"topic '{dead}' was deleted and re-created" in refused(pipeline)


def test_case_d4_a_topic_deleted_while_stopped_is_reported_and_not_created_silently(pipeline: Pipeline) -> None:
    pipeline.settings["topics"]["create"] = True
    started_and_stopped(pipeline, 1)
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    admin.delete_topics([pipeline.topic])[pipeline.topic].result()
    eventually(lambda: pipeline.topic not in admin.list_topics(timeout=10).topics, "the topic is gone")
    idle = pipeline.start().streams()
    idle.logs("1 topics do not exist any more, and the events in them are lost")
    pipeline.insert(2)
    idle.logs("does not exist any more, and the events in it are lost; waiting for it")
    assert idle.process.poll() is None
    idle.kill()
    accepted = pipeline.start("--accept-changes").streams()
    pipeline.settles()
    assert accepted.stop() == 0
    assert [record.value["seq"] for record in pipeline.records()] == [2]


@GUARANTEES
def test_case_d4_another_cluster_is_detected(pipeline: Pipeline, guarantee: str, second_kafka: str) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    started_and_stopped(pipeline, 1, 2)
    first = pipeline.kafka
    pipeline.kafka = pipeline.settings["kafka"]["bootstrap.servers"] = second_kafka
    pipeline.create_topic(pipeline.topic)
    pipeline.insert(3)
    told = refused(pipeline)
    assert (
        "although that was read from before: the topic was deleted, Kafka is another cluster, or another program"
        in told
    )
    assert "--accept-changes" in told
    assert pipeline.records() == []
    copied(first, second_kafka, pipeline.settings["topics"]["positions"])
    assert "Kafka is another cluster, with the id '" in refused(pipeline)
    accepted = pipeline.start("--accept-changes").streams()
    pipeline.settles()
    assert accepted.stop() == 0
    started_and_stopped(pipeline, 4)
    assert [record.value["seq"] for record in pipeline.records()] == [3, 4]


def copied(source: str, target: str, topic: str) -> None:
    """Copy a topic of one partition, as a program that mirrors clusters does."""
    consumer = Consumer({"bootstrap.servers": source, "group.id": "copy", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, 0)])
    producer = Producer({"bootstrap.servers": target})
    while not (message := consumer.consume(1, 30)[0]).error():
        producer.produce(topic, message.value(), message.key())
    consumer.close()
    assert producer.flush(30) == 0


@GUARANTEES
def test_case_d7_a_first_session_that_died_before_its_first_record_is_followed_by_another(
    bare_pipeline: Pipeline, guarantee: str
) -> None:
    pipeline = bare_pipeline
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    assert pipeline.run("outbox", "init").returncode == 0
    pipeline.create_topic(pipeline.topic)
    pipeline.sql("select pg_create_logical_replication_slot(%s, 'pgoutput')", pipeline.slot)
    pipeline.insert(1, 2)
    settings = load(pipeline.configure())
    with contextlib.ExitStack() as died:
        ends = connections.Servers(settings).open(died, text=False)
        eventually(lambda: any(b"Noted" in frame for frame in ends.source.read()), "rows were read")
    started_and_stopped(pipeline, 3)
    assert [record.value["seq"] for record in pipeline.judge()] == [1, 2, 3]


def test_connected_but_silent_server_is_given_up_without_loss_a14(
    private_postgres: PrivatePostgres, servers: Servers, topic_prefix: str, tmp_path: Path
) -> None:
    server = private_postgres({"wal_sender_timeout": "2s"})
    pipeline = prepare(make_pipeline(server.dsn, servers.kafka, topic_prefix, tmp_path))
    try:
        publisher = pipeline.start().streams()
        pipeline.insert(1)
        pipeline.settles()
        ((pid,),) = pipeline.sql("select pid from pg_stat_replication")
        walsender = psutil.Process(pid)
        walsender.suspend()
        try:
            pipeline.insert(2)
            publisher.logs("PostgreSQL has been silent for 5 s").logs("still holds the slot")
        finally:
            walsender.resume()
        publisher.logs("streaming", times=2)
        pipeline.settles()
        assert publisher.stop() == 0
        pipeline.judge(duplicates=True)
    finally:
        pipeline.close()
