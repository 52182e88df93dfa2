"""The primary fails and its standby takes over, or another server answers at its address."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cdc.local.postgres import PostgresServer
from tests.load import Load
from tests.pipeline import Pipeline, Running, eventually, make_pipeline, prepare
from tests.servers import PrivatePostgres, Servers
from tests.standby import PHYSICAL_SLOT, Pair, PrivatePair

pytestmark = pytest.mark.timeout(120)

MakePipeline = Callable[[str], Pipeline]


@pytest.fixture
def make(servers: Servers, topic_prefix: str, tmp_path: Path) -> Iterator[MakePipeline]:
    """`make(dsn)` returns a pipeline between a server of the test and Kafka, without a slot."""
    made: list[Pipeline] = []

    def one(dsn: str) -> Pipeline:
        pipeline = make_pipeline(dsn, servers.kafka, topic_prefix, tmp_path)
        made.append(pipeline)
        return pipeline

    yield one
    for pipeline in made:
        pipeline.close()


def streaming(pipeline: Pipeline, pair: Pair) -> Running:
    """A publisher that streams from a failover slot, which is synchronized to the standby."""
    running = prepare(pipeline, "--failover").start().streams()
    pair.synchronised(pipeline.slot)
    return running


def test_failover_without_failover_slot_ends_without_creating_one_b11(
    private_pair: PrivatePair, make: MakePipeline
) -> None:
    pair = private_pair()
    pipeline = prepare(make(pair.dsn))
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    pair.primary.kill()
    pair.promote()
    assert running.wait() == 1
    last = running.messages()[-1]
    assert f"replication slot '{pipeline.slot}' does not exist" in last
    assert "slot create" in last
    assert pipeline.sql("select slot_name from pg_replication_slots") == []


def test_a_failover_with_a_synchronised_slot_loses_and_invents_nothing_b12(
    private_pair: PrivatePair, make: MakePipeline
) -> None:
    pair = private_pair({"synchronized_standby_slots": PHYSICAL_SLOT})
    pipeline = make(pair.dsn)
    running = streaming(pipeline, pair)
    assert running.count("synchronized_standby_slots") == 0
    with Load(pipeline.dsn):
        time.sleep(2)
        pair.primary.kill()
        time.sleep(0.5)
        pair.promote()
        running.logs("streaming", times=2)
        time.sleep(1)
    pipeline.settles()
    assert running.stop() == 0
    # The truth is the new primary's table: what only the old one had was never published.
    records = pipeline.judge(duplicates=True)
    streams = [record.position.split("-")[0] for record in records]
    assert len(set(streams)) == 2  # another timeline, another stream of positions
    times = Counter(record.id for record in records)
    twice = sum(times.values()) - len(times)
    assert 0 <= twice < len(times) / 2
    assert min(Counter(streams).values()) > 10


def test_a_failback_after_pg_rewind_loses_and_invents_nothing_b12(
    private_pair: PrivatePair, make: MakePipeline
) -> None:
    pair = private_pair({"synchronized_standby_slots": PHYSICAL_SLOT})
    pipeline = make(pair.dsn)
    running = streaming(pipeline, pair)
    pipeline.insert(1)
    pipeline.settles()
    pair.primary.kill()
    pair.promote()
    running.logs("streaming", times=2)
    pipeline.insert(2)
    pipeline.settles()
    back = pair.rejoined()
    back.synchronised(pipeline.slot)
    pipeline.insert(3)
    pipeline.settles()
    back.primary.stop()
    back.promote()
    running.logs("streaming", times=3)
    pipeline.insert(4)
    pipeline.settles()
    assert running.stop() == 0
    records = pipeline.judge(duplicates=True)
    assert list(dict.fromkeys(record.value["seq"] for record in records)) == [1, 2, 3, 4]
    assert len({record.position.split("-")[0] for record in records}) == 3  # timelines, and so streams of positions


def test_nothing_is_published_that_the_standby_does_not_have_b12(private_pair: PrivatePair, make: MakePipeline) -> None:
    pair = private_pair({"synchronized_standby_slots": PHYSICAL_SLOT})
    pipeline = make(pair.dsn)
    running = streaming(pipeline, pair)
    pipeline.insert(1)
    pipeline.settles()
    pair.standby.stop()
    pipeline.insert(2)
    time.sleep(2)
    assert [record.value["seq"] for record in pipeline.records()] == [1]
    pair.standby.start()
    pipeline.settles()
    assert running.stop() == 0
    assert [record.value["seq"] for record in pipeline.judge()] == [1, 2]


def test_events_missing_on_the_promoted_standby_are_reported_as_phantoms_b12(
    private_pair: PrivatePair, make: MakePipeline
) -> None:
    pair = private_pair()
    pipeline = make(pair.dsn)
    running = streaming(pipeline, pair)
    assert running.count("synchronized_standby_slots is empty") == 1
    pipeline.insert(1)
    pipeline.settles()
    pair.standby.stop()
    pipeline.insert(2)
    eventually(lambda: len(pipeline.records()) == 2, "both events are published")
    pair.primary.kill()
    pair.standby.start()
    pair.promote()
    running.logs("streaming", times=2)
    pipeline.insert(3)
    eventually(lambda: 3 in [r.value["seq"] for r in pipeline.records()], "the new primary's event is published")
    assert running.stop() == 0
    assert {record.value["seq"] for record in pipeline.records()} == {1, 2, 3}
    assert pipeline.sql("select payload -> 'seq' from outbox order by 1") == [(1,), (3,)]


def test_another_cluster_at_the_same_address_is_rejected_b13(
    private_postgres: PrivatePostgres, make: MakePipeline, folder: Path
) -> None:
    first = private_postgres()
    pipeline = prepare(make(first.dsn))
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    first.stop()
    another = PostgresServer(folder / "another", port=first.port)
    try:
        another.start()
        assert running.wait() == 1
        assert "does not exist" in running.messages()[-1]
        assert pipeline.sql("select slot_name from pg_replication_slots") == []
    finally:
        another.purge()
