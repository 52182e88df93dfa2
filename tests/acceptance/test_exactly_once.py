"""Exactly-once delivery through crashes and takeovers; and no duplicates after a crash without transactions either."""

import random
import signal
import time
from collections import defaultdict
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from tests.load import Load
from tests.pipeline import SOURCES, Pipeline, eventually
from tests.reader import Received, end_offset
from tests.torment import Torment

pytestmark = pytest.mark.timeout(240)

_SYSTEM = "select system_identifier::text from pg_control_system()"
GUARANTEES = ("exactly-once", "at-least-once")


def configure(pipeline: Pipeline, guarantee: str, **delivery: Any) -> Pipeline:
    pipeline.settings["delivery"] = {"guarantee": guarantee, "sequence": True, **delivery}
    return pipeline


def counted(records: list[Received]) -> list[Received]:
    """Return the records after checking that their numbers start at 1 in each partition without gaps."""
    numbers = defaultdict(list)
    for record in records:
        numbers[record.topic, record.partition, record.position[:8]].append(int(record.header("cdc-sequence")))
    for place, found in numbers.items():
        assert found == list(range(1, len(found) + 1)), place
    return records


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_publisher_kills_and_postgres_crashes_lose_and_repeat_nothing_d5_a17(torment: Torment, guarantee: str) -> None:
    stack, pipeline = torment()
    configure(pipeline, guarantee)
    chance = random.Random(guarantee)
    running = pipeline.start()
    with Load(pipeline.dsn):
        for turn in range(6):
            running.streams()
            time.sleep(chance.random())
            if turn % 3 == 1:
                sessions = running.count("streaming")
                stack.postgres.kill()
                stack.postgres.start()
                running.logs("streaming", times=sessions + 1)
            running.kill()
            running = pipeline.start()
        running.streams()
    pipeline.settles()
    assert running.stop() == 0
    assert len(counted(pipeline.judge())) > 200


def test_an_instance_that_was_frozen_while_another_took_over_adds_no_record_b16_d6(torment: Torment) -> None:
    _, pipeline = torment(wal_sender_timeout="1s")
    configure(pipeline, "exactly-once")
    first = pipeline.start().streams()
    with Load(pipeline.dsn) as load:
        load.goes_on()
        first.signal(signal.SIGSTOP)
        second = pipeline.start().streams()
        load.goes_on()
        first.signal(signal.SIGCONT)
        first.logs("standby")
        load.goes_on()
        second.kill()
        first.logs("streaming", times=2)
    end = pipeline.wal_end()
    eventually(lambda: pipeline.confirmed() >= end, "the slot moves")
    assert first.stop() == 0
    counted(pipeline.judge())


@SOURCES
def test_a_successor_does_not_wait_for_the_transaction_that_a_killed_publisher_left_open(pipeline: Pipeline) -> None:
    running = configure(pipeline, "exactly-once").start().streams()
    pipeline.insert(1)
    pipeline.settles()
    running.kill()
    identity = "select id::text from cdc_relay" if pipeline.polls else _SYSTEM
    ((name,),) = pipeline.sql(identity)
    killed = Producer(
        {
            "bootstrap.servers": pipeline.kafka,
            "transactional.id": f"cdc-publisher-{name}/{pipeline.slot}",
            "transaction.timeout.ms": 600_000,
        }
    )
    killed.init_transactions()
    killed.begin_transaction()
    killed.produce(pipeline.settings["topics"]["positions"], b"{}", f"{name}/{pipeline.slot}".encode())
    assert killed.flush(10) == 0
    running = pipeline.start().streams()
    pipeline.insert(2)
    pipeline.settles()
    assert running.stop() == 0
    assert [record.value["seq"] for record in counted(pipeline.judge())] == [1, 2]


def test_huge_transaction_spans_kafka_transactions_and_resumes_inside_a6(pipeline: Pipeline) -> None:
    configure(pipeline, "exactly-once", transaction_ms=20)
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) select 'note', 'k' || n % 50, 'Noted',"
        " jsonb_build_object('seq', n) from generate_series(1, 60000) n"
    )
    before = pipeline.confirmed()
    running = pipeline.start()
    eventually(lambda: end_offset(pipeline.kafka, pipeline.topic) > 5000, "a part of it is there")
    running.kill()
    assert pipeline.confirmed() == before
    part = len(pipeline.records())
    assert 2000 < part < 60_000
    running = pipeline.start()
    pipeline.settles(120)
    assert running.peak_memory() < 150_000_000
    assert running.stop() == 0
    assert len(counted(pipeline.judge())) == 60_000
    assert running.log[-1]["events"] == 60_000 - part


@SOURCES
def test_the_guarantee_may_be_changed_in_both_directions_also_after_a_kill(pipeline: Pipeline) -> None:
    with Load(pipeline.dsn) as load:
        for guarantee in ("at-least-once", "exactly-once", "at-least-once", "exactly-once", "exactly-once"):
            running = configure(pipeline, guarantee).start().streams()
            load.goes_on()
            running.kill()
        running = pipeline.start().streams()
        assert running.stop() == 0
        running = configure(pipeline, "at-least-once").start().streams()
    pipeline.settles()
    assert running.stop() == 0
    counted(pipeline.judge())


@SOURCES
@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_dead_letters_are_sent_once_too_c8(pipeline: Pipeline, guarantee: str) -> None:
    configure(pipeline, guarantee, on_poison="dead-letter")
    running = pipeline.start().streams()
    for turn in range(3):
        pipeline.insert(10 * turn + 1)
        pipeline.sql(
            "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Noted', '{}')"
        )
        pipeline.insert(10 * turn + 2)
        eventually(lambda: len(pipeline.records()) == 2 * turn + 2, "its events")  # noqa: B023
        running.kill()
        running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    assert [record.value["seq"] for record in counted(pipeline.records())] == [1, 2, 11, 12, 21, 22]
    done = pipeline.run("dlq", "list", "--json")
    assert done.stdout.count("payload-mismatch") == 3


def test_missing_corrupt_or_foreign_position_stops_before_sending_c19(
    pipeline: Pipeline,
) -> None:
    running = configure(pipeline, "exactly-once").start().streams()
    pipeline.insert(1)
    pipeline.settles()
    assert running.stop() == 0
    pipeline.insert(2)
    topic = pipeline.settings["topics"]["positions"]
    ((system_identifier,),) = pipeline.sql(_SYSTEM)
    key = f"{system_identifier}/{pipeline.slot}"

    producer = Producer({"bootstrap.servers": pipeline.kafka})
    producer.produce(topic, b"something else", key.encode())
    assert producer.flush(30) == 0
    corrupt = pipeline.start()
    assert corrupt.wait() == 1
    assert corrupt.count(f"topic '{topic}' holds something else about slot '{key}'") == 1

    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    admin.delete_topics([topic])[topic].result()
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics, "the topic is gone")
    gone = pipeline.start()
    assert gone.wait() == 1
    assert gone.count(f"topic '{topic}' holds no position of replication slot '{pipeline.slot}'") == 1
    assert len(pipeline.records()) == 1

    running = pipeline.start("--accept-changes").streams()
    pipeline.settles()
    assert running.stop() == 0
    assert [record.value["seq"] for record in counted(pipeline.judge())] == [1, 2]


def test_another_publisher_of_the_same_transactional_id_is_noticed_b16(pipeline: Pipeline) -> None:
    running = configure(pipeline, "exactly-once").start().streams()
    ((system_identifier,),) = pipeline.sql(_SYSTEM)
    intruder = Producer(
        {
            "bootstrap.servers": pipeline.kafka,
            "transactional.id": f"cdc-publisher-{system_identifier}/{pipeline.slot}",
        }
    )
    with Load(pipeline.dsn, writers=1):
        intruder.init_transactions(30)
        running.logs("another producer uses the same transactional id").logs("streaming", times=2)
    pipeline.settles()
    assert running.stop() == 0
    counted(pipeline.judge())
