"""Servers stop, crash, freeze and disconnect: nothing is lost, and the publisher recovers by itself."""

import random
import signal
import time
from collections.abc import Iterator

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.local import processes
from tests.load import Load
from tests.pipeline import SOURCES, Pipeline, eventually
from tests.proxy import CuttingProxy
from tests.reader import end_offset
from tests.torment import Torment

pytestmark = pytest.mark.timeout(240)


def test_a12_kafka_frozen_for_longer_than_wal_sender_timeout_causes_no_reconnect(torment: Torment) -> None:
    stack, pipeline = torment(wal_sender_timeout="1s")
    pipeline.settings["kafka"]["queue.buffering.max.messages"] = 500
    running = pipeline.start().streams()
    pipeline.insert(0)
    pipeline.settles()
    stack.brokers[0].freeze()
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) select 'note', 'k', 'Noted',"
        " jsonb_build_object('seq', n) from generate_series(1, 50000) n"
    )
    time.sleep(6)
    held = pipeline.confirmed()
    stack.brokers[0].thaw()
    pipeline.settles()
    assert running.count("streaming") == 1
    assert running.stop() == 0
    records = pipeline.judge(duplicates=False)
    assert len(records) == 50_001
    # Keepalives moved it while the rows were being written; at their commit it had to stop.
    assert held <= int(max(r.position for r in records).split("-")[1], 16)


def test_a13_without_wal_sender_timeout_the_slot_still_advances(torment: Torment) -> None:
    _, pipeline = torment(wal_sender_timeout="0")
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    pipeline.sql("create table elsewhere (n int)")
    pipeline.sql("insert into elsewhere select generate_series(1, 1000)")
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.judge()) == 1


@SOURCES
def test_a17_postgres_restarts_and_crashes_under_load_lose_nothing(torment: Torment) -> None:
    stack, pipeline = torment()
    running = pipeline.start().streams()
    with Load(pipeline.dsn) as load:
        for turn, end in enumerate(
            (stack.postgres.stop, lambda: stack.postgres.stop("immediate"), stack.postgres.kill)
        ):
            load.goes_on()
            end()
            stack.postgres.start()
            running.logs("streaming", times=turn + 2)
        load.goes_on()
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.judge(duplicates=True)) > 200


def test_c2_broker_restart_or_kill_under_load_loses_and_repeats_nothing(torment: Torment) -> None:
    stack, pipeline = torment()
    running = pipeline.start().streams()
    (broker,) = stack.brokers
    with Load(pipeline.dsn) as load:
        for end in (broker.stop, broker.kill):
            load.goes_on()
            end()
            load.goes_on()
            broker.start()
        load.goes_on()
    pipeline.settles()
    assert running.count("streaming") == 1
    assert running.stop() == 0
    assert len(pipeline.judge(duplicates=False)) > 200


def test_a2_deliveries_out_of_order_over_brokers_hold_the_slot_at_the_oldest(torment: Torment) -> None:
    stack, pipeline = torment(brokers=3)
    names = [f"a{number}" for number in range(9)]
    leaders = {name: number % 3 + 1 for number, name in enumerate(names)}
    for name, leader in leaders.items():
        pipeline.create_topic(f"{pipeline.prefix}{name}", leaders=[leader])
    running = pipeline.start().streams()
    for name in names:
        _insert(pipeline, name, 0)
    pipeline.settles()
    frozen = stack.brokers[2]
    stuck = {name for name, leader in leaders.items() if leader == frozen.node_id}

    frozen.freeze()
    for name in names:
        _insert(pipeline, name, 1)
    kafka = stack.brokers[0].address
    eventually(
        lambda: all(end_offset(kafka, f"{pipeline.prefix}{name}") == 2 for name in names if name not in stuck),
        "the others are there",
    )
    held = pipeline.confirmed()
    frozen.thaw()
    pipeline.settles()

    records = [r for r in pipeline.judge(duplicates=False) if r.value["seq"] == 1]
    oldest_stuck = min(r.position for r in records if r.key in stuck)
    passed_it = [r for r in records if r.key not in stuck and r.position > oldest_stuck]
    assert passed_it, "no event after the oldest stuck one went to another broker: the test shows nothing"
    assert held <= int(oldest_stuck.split("-")[1], 16)
    assert running.stop() == 0


@SOURCES
def test_a15_connections_cut_at_any_byte_are_reopened(torment: Torment) -> None:
    _, pipeline = torment()
    address = conninfo_to_dict(pipeline.dsn)
    pipeline.settings["delivery"] = {"startup_seconds": 60}
    with CuttingProxy(str(address["host"]), int(str(address["port"])), _budgets(12)) as proxy:
        pipeline.settings["postgres"]["dsn"] = make_conninfo(pipeline.dsn, port=proxy.port)
        running = pipeline.start()
        with Load(pipeline.dsn):
            eventually(lambda: proxy.cuts >= 10, "cuts")
        pipeline.settles()
        assert running.process.poll() is None
        assert running.stop() == 0
    pipeline.judge(duplicates=True)


def test_a15_publisher_reconnects_after_its_walsender_is_terminated(torment: Torment) -> None:
    _, pipeline = torment()
    running = pipeline.start().streams()
    with Load(pipeline.dsn) as load:
        for turn in range(3):
            load.goes_on()
            pipeline.sql("select pg_terminate_backend(active_pid) from pg_replication_slots where active")
            running.logs("streaming", times=turn + 2)
    pipeline.settles()
    assert running.stop() == 0
    pipeline.judge(duplicates=True)


def test_b17_fast_shutdown_of_postgres_is_not_delayed_by_frozen_kafka(torment: Torment) -> None:
    stack, pipeline = torment()
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    stack.brokers[0].freeze()
    pipeline.insert(2)
    time.sleep(0.5)
    processes.finish(stack.postgres.stopping(((signal.SIGINT, 8.0),)))  # nothing harsher than the fast shutdown
    stack.postgres.start()
    stack.brokers[0].thaw()
    running.logs("streaming", times=2)
    pipeline.settles()
    assert running.stop() == 0
    pipeline.judge(duplicates=True)


def test_d4_stop_while_kafka_is_down_ends_at_its_deadline_or_second_signal(torment: Torment) -> None:
    stack, pipeline = torment()
    pipeline.settings["delivery"] = {"drain_seconds": 1}
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    stack.brokers[0].freeze()
    pipeline.insert(2)
    time.sleep(0.5)
    assert running.stop() == 75
    assert running.count("stopped before Kafka confirmed everything") == 1

    stack.brokers[0].thaw()
    pipeline.settings["delivery"] = {"drain_seconds": 60}
    running = pipeline.start().streams()
    pipeline.settles()
    stack.brokers[0].freeze()
    pipeline.insert(3)
    time.sleep(0.5)
    running.signal(signal.SIGTERM)
    running.logs("stopping")
    assert running.stop() == 128 + signal.SIGTERM

    stack.brokers[0].thaw()
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    pipeline.judge(duplicates=True)


def _budgets(cuts: int) -> Iterator[int]:
    """A third of the connections are cut in the handshake or the preflight, the others within the stream.

    Cutting begins after the response to WIDEN has passed.
    """
    chance = random.Random(15)
    for _ in range(3 * cuts):  # of the three connections of a session one is cut
        yield chance.randrange(*((1, 4_000) if chance.random() < 0.33 else (104_000, 140_000)))


def _insert(pipeline: Pipeline, aggregate: str, seq: int) -> None:
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload)"
        " values (%s, %s, 'Noted', jsonb_build_object('seq', %s::int))",
        aggregate,
        aggregate,
        seq,
    )
