"""Topics and brokers that reject, change or lose data: no event is skipped; errors that need an operator end it."""

import json
import shutil
import time
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewPartitions, NewTopic

from cdc.local.stack import Stack
from tests.load import Load
from tests.pipeline import SOURCES, Pipeline, Running, eventually
from tests.secured import named_listener
from tests.torment import Torment

pytestmark = pytest.mark.timeout(240)


def admin(pipeline: Pipeline) -> AdminClient:
    return AdminClient({"bootstrap.servers": pipeline.kafka})


def alter(pipeline: Pipeline, topic: str, **config: str) -> None:
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    client = admin(pipeline)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    client.incremental_alter_configs([resource])[resource].result()


def delete(pipeline: Pipeline, topic: str) -> None:
    client = admin(pipeline)
    client.delete_topics([topic])[topic].result()


def replace(pipeline: Pipeline, topic: str, **config: str) -> None:
    """Re-create the topic with other settings."""
    delete(pipeline, topic)
    client = admin(pipeline)
    new = NewTopic(topic, num_partitions=3, config={name.replace("_", "."): value for name, value in config.items()})

    def created() -> bool:
        return client.create_topics([new])[topic].exception() is None

    eventually(created, f"{topic} can be created again")


def note(pipeline: Pipeline, seq: int, text: str = "", key: str = "k") -> None:
    """Insert one note in its own transaction."""
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload)"
        " values ('note', %s, 'Noted', jsonb_build_object('seq', %s::int, 'text', %s::text))",
        key,
        seq,
        text,
    )


def seqs(pipeline: Pipeline) -> list[int]:
    """The numbers in the topic, for tests with one key."""
    return [record.value["seq"] for record in pipeline.records()]


def last_words(running: Running) -> str:
    assert running.wait() == 1, running.messages()
    return str(running.messages()[-1])


def test_c7_topic_with_a_small_limit_gets_small_batches_in_order(pipeline: Pipeline) -> None:
    replace(pipeline, pipeline.topic, max_message_bytes="1000")
    running = pipeline.start().streams()
    pipeline.insert(*range(3000))
    pipeline.settles()
    assert running.count("at most 1000 bytes at once") == 1
    assert running.count("streaming") == 2
    assert running.stop() == 0
    assert [record.value["seq"] for record in pipeline.judge(duplicates=False)] == list(range(3000))


def test_c6_c7_size_limit_lowered_while_running_stops_at_the_record(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    note(pipeline, 0)
    pipeline.settles()
    alter(pipeline, pipeline.topic, max_message_bytes="1000")
    with pipeline.connect() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "insert into outbox (aggregatetype, aggregateid, type, payload)"
            " values ('note', 'k', 'Noted', jsonb_build_object('seq', %s::int, 'text', %s::text))",
            [(seq, "x" * 2000 if seq == 20 else "") for seq in range(1, 60)],
        )
    told = last_words(running)
    ((event_id,),) = pipeline.sql("select id::text from outbox where payload->>'seq' = '20'")
    assert f"poison event {event_id} at position " in told
    assert "too large for topic" in told
    assert seqs(pipeline)[-1] == 19
    assert 2 <= running.count("streaming") <= 3

    alter(pipeline, pipeline.topic, max_message_bytes="1000000")
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    pipeline.judge(duplicates=True)


def test_c6_unexplained_rejection_stops_at_the_record(
    pipeline: Pipeline,
) -> None:
    replace(pipeline, pipeline.topic, max_message_bytes="1000")
    pipeline.settings["kafka"]["compression.type"] = "gzip"  # only the broker sees how large batches are
    running = pipeline.start().streams()
    note(pipeline, 0, "x" * 5000)
    pipeline.settles()
    note(pipeline, 1, "".join(chr(0x4E00 + n * 37 % 20000) for n in range(3000)))
    note(pipeline, 2)
    told = last_words(running)
    assert "MSG_SIZE_TOO_LARGE" in told
    ((event_id,),) = pipeline.sql("select id::text from outbox where payload->>'seq' = '1'")
    assert f"poison event {event_id} at position " in told
    assert f"to topic '{pipeline.topic}'" in told
    assert "raise max.message.bytes of the topic" in told
    assert running.count("asking for the limit again") == 1
    assert seqs(pipeline) == [0]


def test_c12_c13_deleted_topic_is_waited_for_and_a_recreated_one_ends_the_program(
    pipeline: Pipeline,
) -> None:
    running = pipeline.start().streams()
    note(pipeline, 0)
    pipeline.settles()
    delete(pipeline, pipeline.topic)
    note(pipeline, 1)
    running.logs("does not exist any more")
    confirmed = pipeline.confirmed()
    time.sleep(1)
    assert running.process.poll() is None
    assert pipeline.confirmed() == confirmed
    pipeline.create_topic(pipeline.topic)
    assert "was deleted and re-created: the events in it are lost" in last_words(running)

    running = pipeline.start("--accept-changes").streams()
    note(pipeline, 2)
    pipeline.settles()
    assert running.stop() == 0
    assert sorted(set(seqs(pipeline))) == [1, 2]


def test_c13_recreated_topic_ends_the_program_within_seconds(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    note(pipeline, 0)
    pipeline.settles()
    replace(pipeline, pipeline.topic)
    assert "was deleted and re-created" in last_words(running)


def test_c13_partitions_added_under_load_lose_nothing_and_are_logged(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    with Load(pipeline.dsn) as load:
        load.goes_on()
        client = admin(pipeline)
        client.create_partitions([NewPartitions(pipeline.topic, 6)])[pipeline.topic].result()
        running.logs("partitions were added")
        running.logs("streaming", times=2)
        load.goes_on()
    pipeline.settles()
    assert running.count("has 6 partitions instead of 3: starting a new session") == 1
    assert running.stop() == 0
    records = pipeline.records()
    assert {record.id for record in records} == {str(row) for (row,) in pipeline.sql("select id from outbox")}
    assert len({record.partition for record in records}) > 3
    firsts: dict[str, Any] = {}
    for record in records:
        firsts.setdefault(record.id, record)
    by_place: dict[tuple[str, int], list[int]] = {}
    for record in firsts.values():
        by_place.setdefault((record.key, record.partition), []).append(record.value["seq"])
    assert all(numbers == sorted(numbers) for numbers in by_place.values())


def test_c15_topics_that_may_lose_acknowledged_events_are_logged_or_rejected(pipeline: Pipeline) -> None:
    replace(pipeline, pipeline.topic, min_insync_replicas="1")
    running = pipeline.start().streams()
    for seq in range(3):
        note(pipeline, seq)
    pipeline.settles()
    assert running.stop() == 0
    assert running.count(f"topic '{pipeline.topic}' has replication factor 1 and min.insync.replicas 1") == 1

    note(pipeline, 3)
    pipeline.settings["topics"]["replication"] = "refuse"
    assert "has replication factor 1" in last_words(pipeline.start())
    pipeline.settings["topics"]["replication"] = "any"
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    assert running.count("has replication factor") == 0
    assert seqs(pipeline) == [0, 1, 2, 3]


def test_c20_topic_that_rejects_the_commit_time_ends_the_program_with_advice(pipeline: Pipeline) -> None:
    alter(pipeline, pipeline.topic, message_timestamp_before_max_ms="500")
    note(pipeline, 0)
    time.sleep(1)
    running = pipeline.start()
    note(pipeline, 1)
    told = last_words(running)
    assert "INVALID_TIMESTAMP" in told
    assert "message.timestamp" in told
    assert seqs(pipeline) == []
    alter(pipeline, pipeline.topic, message_timestamp_before_max_ms="86400000")
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    pipeline.judge(duplicates=False)


def test_c3_producer_id_that_expired_while_idle_is_renewed(torment: Torment) -> None:
    forgets = {"producer.id.expiration.ms": "1000", "producer.id.expiration.check.interval.ms": "200"}
    _, pipeline = torment(kafka=forgets)
    running = pipeline.start().streams()
    for turn in range(3):
        pipeline.insert(*range(turn * 10, turn * 10 + 10))
        pipeline.settles()
        (record,) = pipeline.records()[-1:]
        client = admin(pipeline)
        upto = TopicPartition(pipeline.topic, record.partition, record.offset + 1)
        client.delete_records([upto])[upto].result()
        time.sleep(2)
    pipeline.insert(30)
    pipeline.settles()
    assert running.stop() == 0
    assert seqs(pipeline) == [30]


@SOURCES
def test_c3_c16_fatal_producer_error_starts_a_new_session_without_loss(torment: Torment) -> None:
    stack, pipeline = torment()
    (broker,) = stack.brokers
    running = pipeline.start().streams()
    pipeline.insert(*range(10))
    pipeline.settles()
    broker.stop()
    copy = broker.data.with_name("copy")
    shutil.copytree(broker.data, copy)
    broker.start()
    pipeline.insert(*range(10, 20))
    pipeline.settles()
    # The broker comes back as it was after a loss of power: without what it had confirmed but not flushed.
    broker.kill()
    shutil.rmtree(broker.data)
    copy.rename(broker.data)
    pipeline.insert(*range(20, 30))
    broker.start()
    running.logs("OUT_OF_ORDER_SEQUENCE_NUMBER")
    running.logs("streaming", times=2)
    pipeline.insert(*range(30, 40))
    pipeline.settles()
    assert running.stop() == 0
    assert list(dict.fromkeys(seqs(pipeline))) == [*range(10), *range(20, 40)]


def as_app(stack: Stack) -> dict[str, str]:
    """Let the broker have a listener for the user `app`, unless a test before did; returns the client's settings."""
    (broker,) = stack.brokers
    before = dict(broker.settings)
    user = named_listener(broker)
    if broker.settings != before:
        broker.stop()
        broker.start()
    return user


def rights(topic: str, *operations: AclOperation) -> list[tuple[Any, ...]]:
    of_app = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:app", "*")
    return [(*of_app, operation, AclPermissionType.ALLOW) for operation in operations]


def grant(pipeline: Pipeline, *given: tuple[Any, ...]) -> None:
    client = admin(pipeline)
    for future in client.create_acls([AclBinding(*right) for right in given]).values():
        future.result()


def take(pipeline: Pipeline, *given: tuple[Any, ...]) -> None:
    client = admin(pipeline)
    for future in client.delete_acls([AclBindingFilter(*right) for right in given]).values():
        future.result()


def test_c7_c14_least_rights_suffice_and_a_revoked_right_ends_the_program(torment: Torment) -> None:
    stack, pipeline = torment()
    user = as_app(stack)
    positions = str(pipeline.settings["topics"]["positions"])
    writes = rights(pipeline.topic, AclOperation.WRITE)  # implies DESCRIBE, not DESCRIBE_CONFIGS
    grant(pipeline, *writes, *rights(positions, AclOperation.WRITE, AclOperation.READ))
    pipeline.settings["kafka"] |= user
    running = pipeline.start().streams()
    note(pipeline, 0)
    pipeline.settles()
    assert running.count("the settings of topics cannot be read") == 1

    take(pipeline, *writes)
    for seq in range(1, 5):
        note(pipeline, seq)
    told = last_words(running)
    assert "TOPIC_AUTHORIZATION_FAILED" in told
    assert "grant the principal WRITE" in told
    assert seqs(pipeline) == [0]

    grant(pipeline, *writes)
    running = pipeline.start().streams()
    pipeline.settles()
    alter(pipeline, pipeline.topic, max_message_bytes="1000")
    note(pipeline, 5, "x" * 2000)
    told = last_words(running)
    assert "MSG_SIZE_TOO_LARGE" in told
    assert "DESCRIBE_CONFIGS" in told
    assert running.count("asking for the limit again") == 0  # it may not be asked
    assert seqs(pipeline) == [0, 1, 2, 3, 4]


def letters(pipeline: Pipeline) -> dict[int, str]:
    """The dead letters' `seq` and what `dlq list` calls their error."""
    done = pipeline.run("dlq", "list", "--json")
    assert done.returncode == 0, done.stderr
    errors = {letter["id"]: letter["error"] for letter in map(json.loads, done.stdout.splitlines())}
    rows = pipeline.sql("select id::text, payload->>'seq' from outbox")
    return {int(seq): errors[row] for row, seq in rows if row in errors}


def to(pipeline: Pipeline, aggregate: str, seq: int, text: str = "") -> None:
    """Insert one row for the topic of an aggregate."""
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload)"
        " values (%s, 'k', 'Noted', jsonb_build_object('seq', %s::int, 'text', %s::text))",
        aggregate,
        seq,
        text,
    )


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_case_d3_row_whose_topic_kafka_refuses_is_a_dead_letter_and_later_rows_continue(
    pipeline: Pipeline, guarantee: str
) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee, "on_poison": "dead-letter"}
    pipeline.settings["topics"]["create"] = True
    pipeline.create_topic(f"{pipeline.prefix}b_c")
    for seq, aggregate in enumerate(["note", "b.c", "note", "positions", "b.c", "fresh"]):
        to(pipeline, aggregate, seq)
    running = pipeline.start().streams()
    pipeline.settles()
    to(pipeline, "b.c", 6)
    to(pipeline, "note", 7)
    pipeline.settles()
    assert running.stop() == 0
    assert sorted(seqs(pipeline)) == [0, 2, 5, 7]
    assert letters(pipeline) == dict.fromkeys([1, 3, 4, 6], "kafka-refused")
    assert running.count("streaming") == 1


def test_case_d3_row_whose_topic_kafka_refuses_is_named_when_poison_stops(pipeline: Pipeline) -> None:
    pipeline.settings["topics"]["create"] = True
    pipeline.create_topic(f"{pipeline.prefix}b_c")
    note(pipeline, 0)
    to(pipeline, "b.c", 1)
    note(pipeline, 2)
    told = last_words(pipeline.start())
    ((event_id,),) = pipeline.sql("select id::text from outbox where payload->>'seq' = '1'")
    assert f"poison event {event_id} at position " in told
    assert "collides with existing topic" in told
    assert seqs(pipeline) == [0]


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_case_d3_record_that_only_the_broker_can_refuse_is_found_alone_and_becomes_a_dead_letter(
    pipeline: Pipeline, guarantee: str
) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee, "on_poison": "dead-letter"}
    pipeline.settings["kafka"]["compression.type"] = "gzip"  # only the broker sees how large batches are
    replace(pipeline, pipeline.topic, max_message_bytes="2000")
    refused = {0, 1, 3, 6, 7, 8}
    for seq in range(10):
        note(pipeline, seq, "".join(chr(0x4E00 + n * 37 % 20000) for n in range(3000)) if seq in refused else "")
    running = pipeline.start().streams()
    pipeline.settles()
    note(pipeline, 10)
    pipeline.settles()
    assert running.stop() == 0
    assert seqs(pipeline) == [2, 4, 5, 9, 10]
    assert letters(pipeline) == dict.fromkeys(refused, "kafka-refused")
    if guarantee == "at-least-once":  # one session finds all of them
        assert running.count("asking for the limit again") + running.count("sending each record alone") <= 2
        assert running.count("its row becomes a poison event") == 1


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_case_d3_right_missing_on_one_topic_makes_dead_letters_of_its_rows_only(
    torment: Torment, guarantee: str
) -> None:
    stack, pipeline = torment()
    pipeline.settings["delivery"] = {"guarantee": guarantee, "on_poison": "dead-letter"}
    user = as_app(stack)
    for name in ("hidden", "readonly"):
        pipeline.create_topic(f"{pipeline.prefix}{name}")
    for name in (pipeline.topic, f"{pipeline.prefix}dead", f"{pipeline.prefix}positions"):
        grant(pipeline, *rights(name, AclOperation.WRITE, AclOperation.READ))
    grant(pipeline, *rights(f"{pipeline.prefix}readonly", AclOperation.READ))
    slot = (ResourceType.TRANSACTIONAL_ID, "*", ResourcePatternType.LITERAL, "User:app", "*")
    grant(pipeline, (*slot, AclOperation.WRITE, AclPermissionType.ALLOW))
    pipeline.settings["kafka"] |= user
    for seq, aggregate in enumerate(["note", "hidden", "note", "readonly", "readonly", "note"]):
        to(pipeline, aggregate, seq)
    running = pipeline.start().streams()
    pipeline.settles()
    to(pipeline, "readonly", 6)
    note(pipeline, 7)
    pipeline.settles()
    assert running.stop() == 0
    assert seqs(pipeline) == [0, 2, 5, 7]
    assert letters(pipeline) == dict.fromkeys([1, 3, 4, 6], "kafka-refused")
