"""Each state of `/readyz` on real servers: 503 only if a restart or an operator is needed."""

import contextlib
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc.local.stack import Stack
from tests.endpoint import Endpoint, listening
from tests.load import Load
from tests.pipeline import Pipeline, eventually, make_pipeline, prepare
from tests.registry import Double
from tests.servers import drop_database

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Servers for these tests only, which may be stopped and frozen."""
    folder = Path(tempfile.mkdtemp(prefix="cdc-test-"))
    folder.chmod(0o755)  # PostgreSQL's account has to enter it
    stack = Stack(folder / "stack")
    stack.postgres.settings["wal_sender_timeout"] = "2s"
    try:
        stack.up()
        yield stack
    finally:
        stack.down(purge=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def outbox(stack: Stack, tmp_path: Path) -> Iterator[Pipeline]:
    """A pipeline on these servers, ready to start; both servers run again after the test."""
    addresses = stack.addresses()
    assert addresses
    name = f"test_{secrets.token_hex(4)}"
    with psycopg.connect(addresses.postgres, autocommit=True) as admin:
        admin.execute(f"create database {name}".encode())
    pipeline = make_pipeline(make_conninfo(addresses.postgres, dbname=name), addresses.kafka, f"{name}-", tmp_path)
    try:
        yield prepare(pipeline)
    finally:
        stack.brokers[0].thaw()
        stack.postgres.start()
        pipeline.close()
        drop_database(addresses.postgres, name)


def slowly(pipeline: Pipeline) -> None:
    """Limit the next start to some thousands of events per second."""
    pipeline.settings["kafka"] |= {"queue.buffering.max.messages": 100, "linger.ms": 40}


def event_of_a_new_type(pipeline: Pipeline) -> None:
    schema = '{"type": "record", "name": "Other", "namespace": "tests", "fields": [{"name": "seq", "type": "long"}]}'
    (pipeline.folder / "schemas" / "Other.avsc").write_text(schema)


def insert(pipeline: Pipeline, event_type: str, payload: str) -> None:
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', %s, %s)",
        event_type,
        payload,
    )


def ends_with_1(endpoint: Endpoint) -> str:
    """Wait until the publisher exits with 1, and return its last line."""
    assert endpoint.running.wait() == 1
    with pytest.raises(ConnectionRefusedError):
        endpoint.ready()
    return str(endpoint.running.messages()[-1])


def test_idle_and_streaming_are_green_and_the_end_is_red(pipeline: Pipeline) -> None:
    endpoint = listening(pipeline)
    idle = endpoint.reaches("idle", 200)
    assert idle["summary"] == "idle: every committed event is delivered"
    with Load(pipeline.dsn, writers=1):
        endpoint.reaches("streaming", 200)
        eventually(lambda: endpoint.ask("/status").json["totals"]["delivered"] > 0, "a delivered event")
    status = endpoint.ask("/status").json
    assert status["topics"][pipeline.topic]["events"] >= status["totals"]["delivered"]
    assert endpoint.ask("/livez").status == 200
    assert endpoint.running.stop() == 0


def test_frozen_kafka_keeps_the_process_alive_and_the_backlog_is_sent_later(stack: Stack, outbox: Pipeline) -> None:
    slowly(outbox)
    endpoint = listening(outbox)
    outbox.insert(0)
    outbox.settles()
    begun = endpoint.ask("/readyz").json["since"]
    stack.brokers[0].freeze()
    outbox.insert(*range(1, 20_000))
    blocked = endpoint.reaches("blocked_by_kafka", 200)
    assert blocked["ready"] is True
    # The state is judged at once; since when is known after the next sample.
    eventually(lambda: endpoint.ask("/readyz").json["since"] > begun, "a later moment")
    assert "blocked by Kafka: no event has been confirmed for " in blocked["summary"]
    assert endpoint.ask("/livez").status == 200
    stack.brokers[0].thaw()
    assert "of WAL behind" in endpoint.reaches("catching_up", 200)["summary"]
    outbox.settles()
    assert endpoint.running.stop() == 0
    outbox.judge(duplicates=True)


def test_stopping_publisher_is_not_ready_while_it_waits_for_kafka(stack: Stack, outbox: Pipeline) -> None:
    endpoint = listening(outbox)
    outbox.insert(1)
    outbox.settles()
    stack.brokers[0].freeze()
    outbox.insert(2)
    eventually(lambda: endpoint.ask("/status").json["totals"]["events"] == 2, "the event is on its way")
    endpoint.running.signal(signal.SIGTERM)
    endpoint.reaches("stopping", 503)
    assert endpoint.ask("/livez").status == 200
    stack.brokers[0].thaw()
    assert endpoint.running.wait() == 0
    assert len(outbox.judge()) == 2


def test_unavailable_postgres_is_waited_for_but_not_ready_before_the_first_session(
    stack: Stack, outbox: Pipeline
) -> None:
    endpoint = listening(outbox)
    endpoint.reaches("idle", 200)
    stack.postgres.stop()
    endpoint.reaches("blocked_by_postgres", 200)
    assert endpoint.ask("/livez").status == 200
    newcomer = listening(outbox)
    newcomer.reaches("blocked_by_postgres", 503)
    newcomer.running.kill()
    stack.postgres.start()
    endpoint.reaches("idle", 200)
    assert endpoint.running.stop() == 0


def test_silent_walsender_is_a_stall(outbox: Pipeline) -> None:
    endpoint = listening(outbox)
    endpoint.reaches("idle", 200)
    ((pid,),) = outbox.sql("select active_pid from pg_replication_slots where slot_name = %s", outbox.slot)
    walsender = psutil.Process(pid)
    walsender.suspend()
    try:
        stalled = endpoint.reaches("stalled", 503)
        assert stalled["ready"] is False
        assert endpoint.ask("/livez").status == 200
        assert endpoint.ask("/metrics").text.count('cdc_state{state="stalled"} 1.0') == 1
    finally:
        walsender.resume()
    endpoint.reaches("idle", 200)
    outbox.insert(1)
    outbox.settles()
    assert endpoint.running.stop() == 0


def test_a_second_instance_is_a_standby_and_takes_over(pipeline: Pipeline) -> None:
    first = listening(pipeline)
    first.reaches("idle", 200)
    second = listening(pipeline)
    standby = second.reaches("standby", 200)
    assert standby["summary"].startswith("standby: another publisher is active")
    assert first.running.stop() == 0
    second.reaches("idle", 200)
    assert second.running.stop() == 0


def test_unavailable_registry_delays_only_a_new_type(pipeline: Pipeline) -> None:
    event_of_a_new_type(pipeline)
    with Double() as registry:
        pipeline.settings["schema_registry"] = {"url": registry.url, "timeout_seconds": 1, "auto_register": True}
        endpoint = listening(pipeline)
        pipeline.insert(1)
        pipeline.settles()
        registry.fault = "refuse"
        insert(pipeline, "Other", '{"seq": 2}')
        blocked = endpoint.reaches("blocked_by_registry", 200)
        assert blocked["summary"].startswith("blocked by the registry: ")
        assert endpoint.ask("/livez").status == 200
        endpoint.running.kill()


def test_dropped_slot_is_reported_until_the_process_ends(pipeline: Pipeline) -> None:
    endpoint = listening(pipeline, linger_seconds=3)
    endpoint.reaches("idle", 200)

    def dropped() -> bool:
        with contextlib.suppress(psycopg.errors.ObjectInUse):
            pipeline.sql(
                "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where slot_name = %s",
                pipeline.slot,
            )
            pipeline.sql("select pg_drop_replication_slot(%s)", pipeline.slot)
            return True
        return False  # the publisher was back before we were

    eventually(dropped, "the slot is dropped")
    lost = endpoint.reaches("slot_lost", 503)
    assert pipeline.slot in lost["summary"]
    assert endpoint.ask("/livez").status == 200
    assert endpoint.ask("/status").json["last_error"]["kind"] == "SlotLost"
    assert pipeline.slot in ends_with_1(endpoint)


def test_poison_is_reported_until_the_process_ends_or_a_signal_arrives(pipeline: Pipeline) -> None:
    endpoint = listening(pipeline, linger_seconds=120)
    endpoint.reaches("idle", 200)
    insert(pipeline, "Noted", '{"seq": "none"}')
    failed = endpoint.reaches("failed", 503)
    assert failed["summary"].startswith("failed: poison event ")
    status = endpoint.ask("/status").json
    assert status["totals"]["poison"] == 1
    assert status["last_error"]["kind"] == "PoisonEvent"
    assert "cdc_poison_events_total 1.0" in endpoint.ask("/metrics").text
    endpoint.running.signal(signal.SIGTERM)
    assert "poison event" in ends_with_1(endpoint)
