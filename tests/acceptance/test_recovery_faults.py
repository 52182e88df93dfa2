"""`recover` after each way of losing a slot, under load, and killed at every stage."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tests.load import Load
from tests.pipeline import Pipeline, Running, Shop, eventually
from tests.versions import OLD_POSTGRES

pytestmark = pytest.mark.timeout(900)

GUARANTEES = pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
VERSIONS = pytest.mark.parametrize("binaries", [None, *OLD_POSTGRES], ids=str)
SMALL = {"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}


def recovers(pipeline: Pipeline, *options: str, code: int = 0) -> dict[str, Any]:
    done = pipeline.run("recover", "--json", *options)
    assert done.returncode == code, (done.stdout, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def healed(pipeline: Pipeline, running: Running | None = None) -> None:
    """Stream all that is committed, and find every event once, in order."""
    running = running or pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    pipeline.judge()
    audited = pipeline.run("audit", "--json")
    assert audited.returncode == 0, audited.stdout


def fill(pipeline: Pipeline) -> None:
    """Write so much WAL that a slot which nothing reads is lost."""
    for _ in range(5):
        pipeline.sql("create table if not exists filler (text text)")
        pipeline.sql("insert into filler select repeat('x', 1000) from generate_series(1, 20000)")
        pipeline.sql("select pg_switch_wal()")
        pipeline.sql("checkpoint")


@VERSIONS
def test_a_slot_lost_under_load_is_recovered_while_writers_continue(shop: Shop, binaries: Path | None) -> None:
    _, pipeline = shop(binaries, **SMALL)
    running = pipeline.start().streams()
    with Load(pipeline.dsn, pause=0.02) as load:
        load.goes_on(100)
        running.kill()
        fill(pipeline)
        assert pipeline.sql("select wal_status from pg_replication_slots") == [("lost",)]
        load.goes_on(50)
        recovers(pipeline)
        running = pipeline.start().streams()
        load.goes_on(50)
    healed(pipeline, running)


@VERSIONS
def test_a_slot_lost_under_load_is_recovered_by_the_publisher_and_not_again_when_it_is_lost_at_once(
    shop: Shop, binaries: Path | None
) -> None:
    _, pipeline = shop(binaries, **SMALL)
    pipeline.settings["delivery"] = {"on_slot_lost": "recover"}
    running = pipeline.start().streams()
    with Load(pipeline.dsn, pause=0.02) as load:
        load.goes_on(100)
        running.kill()
        fill(pipeline)
        load.goes_on(50)
        running = pipeline.start().logs("recovered the slot").streams()
        load.goes_on(50)
        running.kill()
        fill(pipeline)
        again = pipeline.start()
        assert again.process.wait(240) == 1
        assert again.count("recovering:") == 0
        assert "is lost again" in again.messages()[-1]
        recovers(pipeline)
        running = pipeline.start().streams()
        load.goes_on(50)
    healed(pipeline, running)


@GUARANTEES
def test_a_slot_invalidated_by_its_idle_timeout_is_recovered_by_the_publisher(shop: Shop, guarantee: str) -> None:
    _, pipeline = shop(idle_replication_slot_timeout="2s")
    pipeline.settings["delivery"] = {"guarantee": guarantee, "on_slot_lost": "recover"}
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    assert running.stop() == 0
    pipeline.insert(2, 3)
    time.sleep(2.5)
    pipeline.sql("checkpoint")
    running = pipeline.start().logs("recovered the slot").streams()
    pipeline.insert(4)
    healed(pipeline, running)


class Topic:
    """Counts the offsets of the topic of events, committed or not."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._admin = AdminClient({"bootstrap.servers": pipeline.kafka})
        self._asked = {TopicPartition(pipeline.topic, number): OffsetSpec.latest() for number in range(3)}

    def ends(self) -> int:
        return sum(int(answer.result().offset) for answer in self._admin.list_offsets(self._asked).values())


def reaches(attempt: Running, stage: Callable[[], bool]) -> None:
    eventually(lambda: stage() or attempt.process.poll() is not None, "the recovery comes so far", 240)


@GUARANTEES
def test_a_recovery_that_is_killed_at_any_stage_is_continued(pipeline: Pipeline, guarantee: str) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    running = pipeline.start().streams()
    pipeline.insert(*range(10))
    pipeline.settles()
    assert running.stop() == 0
    pipeline.sql("select pg_drop_replication_slot(%s)", pipeline.slot)
    for first in range(10, 16_010, 400):  # a round without a slot, and the last one
        pipeline.insert(*range(first, first + 400), key=f"k{first % 7}")

    topic = Topic(pipeline)

    def grown(by: int) -> Callable[[], bool]:
        before = topic.ends()
        return lambda: topic.ends() >= before + by

    def slot_exists() -> bool:
        return bool(pipeline.sql("select from pg_replication_slots where slot_name = %s", pipeline.slot))

    chance = random.Random(17)
    stages = (lambda: True, grown(1), grown(15_000), slot_exists)
    for number, stage in enumerate(stages):
        attempt = pipeline.process("recover", "--yes")
        reaches(attempt, stage)
        time.sleep(chance.random() * 0.3)
        attempt.kill()
        pipeline.insert(100_000 + number, key=f"k{number}")
    recovers(pipeline)
    pipeline.insert(200_000)
    healed(pipeline)
