"""Consumers killed between the inbox's steps, and rebalancing groups with duplicates apply each event once."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.consumer import Inbox
from tests.applying import Crashes, start
from tests.consuming import APPLIED, Sent, applied, committed, make_topic, send
from tests.forking import Forked
from tests.pipeline import PATIENCE, eventually
from tests.producing import in_order
from tests.servers import PrivateStack, Servers


class Crew:
    """Consumer processes of one group; processes that still run at the end are killed."""

    def __init__(self, options: dict[str, Any], log: Path) -> None:
        self.options = options
        self.log = log
        self.running: dict[str, Forked] = {}

    def start(self, worker: str, **kafka: Any) -> Forked:
        options = {**self.options, "worker": worker, "kafka": {**self.options["kafka"], **kafka}}
        self.running[worker] = start(options, self.log)
        return self.running[worker]

    def stop(self, worker: str) -> None:
        process = self.running[worker]
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, self.log.read_text()

    def close(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def crashes(tmp_path: Path) -> Crashes:
    folder = tmp_path / "crashes"
    folder.mkdir()
    return Crashes(folder)


@pytest.fixture
def crew(servers: Servers, topic_prefix: str, database: str, crashes: Crashes, tmp_path: Path) -> Iterator[Crew]:
    with psycopg.connect(database) as connection:
        Inbox("tests").create(connection)
        connection.execute(APPLIED)
    options = {
        "kafka": {
            "bootstrap.servers": servers.kafka,
            "group.id": f"{topic_prefix}group",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 300,
        },
        "topic": f"{topic_prefix}events",
        "dsn": database,
        "crashes": str(crashes.folder),
    }
    made = Crew(options, tmp_path / "consumers.log")
    yield made
    made.close()


def test_each_event_is_applied_once_whichever_step_of_the_inbox_a_consumer_dies_at(
    servers: Servers, crew: Crew, crashes: Crashes, database: str
) -> None:
    group, topic = crew.options["kafka"]["group.id"], make_topic(servers.kafka, crew.options["topic"])
    records = [Sent(lsn, f"key {lsn % 3}") for lsn in range(1, 61)]
    # Some events are repeated, as after a crash of the publisher.
    log = [*records[:40], *records[30:40], *records[40:]]
    send(servers.kafka, topic, log)
    for lsn in (7, 21, 41):
        crashes.plan("written", records[lsn].id)
        crashes.plan("committed", records[lsn + 4].id)
    crashes.plan("written", records[55].id)
    crashes.plan("committed", records[55].id)

    deaths = 0
    while True:
        # A static member takes its place in the group again at once.
        process = crew.start("only", **{"group.instance.id": "only"})
        eventually(
            lambda running=process: (
                running.poll() is not None  # type: ignore[misc]
                or committed(servers.kafka, group, topic) == [len(log)]
            ),
            "a death, or all is done",
        )
        if process.poll() is None:
            break
        assert process.returncode == -signal.SIGKILL, crew.log.read_text()
        deaths += 1
    crew.stop("only")
    assert (deaths, crashes.left()) == (8, [])
    assert [(event_id, seq) for event_id, _, seq in applied(database)] == [(r.id, r.lsn) for r in records]


def test_two_restarting_processes_apply_duplicates_once_and_in_order_per_key(
    servers: Servers, crew: Crew, database: str
) -> None:
    partitions, keys = 4, 12
    group, topic = crew.options["kafka"]["group.id"], make_topic(servers.kafka, crew.options["topic"], partitions)
    chance = random.Random(6)
    lsn, sent = 0, list[Sent]()

    producer = in_order(servers.kafka)

    def more(count: int = 10) -> None:
        nonlocal lsn
        batch = []
        for _ in range(count):
            lsn += 1
            key = chance.randrange(keys)
            record = Sent(lsn, f"key {key}", partition=key % partitions)
            sent.append(record)
            batch.append(record)
            if chance.random() < 0.2:  # earlier events of the same partition once more
                batch += [r for r in sent[-30:] if r.partition == record.partition][:3]
        send(servers.kafka, topic, batch, producer)

    def works(worker: str) -> bool:
        more()
        assert crew.running[worker].poll() is None, crew.log.read_text()
        with psycopg.connect(database) as connection:
            row = connection.execute("select count(*) from applied where worker = %s", [worker]).fetchone()
        assert row
        return bool(row[0] >= 30)

    more(300)
    crew.start("a")
    eventually(lambda: works("a"), "the first works")
    crew.start("b")
    eventually(lambda: works("b"), "the second has got partitions")
    crew.running["a"].kill()  # its partitions go to the other once its session is over
    crew.start("c")
    eventually(lambda: works("c"), "the third has got partitions")
    crew.stop("b")
    more(100)
    eventually(lambda: len(applied(database)) >= lsn, "all is applied")
    crew.stop("c")

    rows = applied(database)
    assert sorted(seq for _, _, seq in rows) == list(range(1, lsn + 1))
    by_key: dict[str, list[int]] = {}
    for _, key, seq in rows:
        by_key.setdefault(key, []).append(seq)
    assert len(by_key) == keys
    for key, seqs in by_key.items():
        assert seqs == sorted(seqs), f"order of {key}"
    assert min(committed(servers.kafka, group, topic, partitions)) > 0


def test_consumer_survives_crashes_of_both_servers(
    private_stack: PrivateStack, crashes: Crashes, tmp_path: Path
) -> None:
    stack = private_stack()
    addresses = stack.addresses()
    assert addresses
    kafka, dsn = addresses.kafka, addresses.postgres
    with psycopg.connect(dsn) as connection:
        Inbox("tests").create(connection)
        connection.execute(APPLIED)
    topic, lsn = make_topic(kafka, "events", 2), 0
    properties = {"bootstrap.servers": kafka, "group.id": "group"}
    crew = Crew(
        {"kafka": properties, "topic": topic, "dsn": dsn, "crashes": str(crashes.folder)}, tmp_path / "consumer.log"
    )

    def more() -> None:
        nonlocal lsn
        send(kafka, topic, [Sent(lsn + at, f"key {at % 5}") for at in range(1, 31)])
        lsn += 30

    def all_applied() -> bool:
        assert crew.running["only"].poll() is None, crew.log.read_text()
        return len(applied(dsn)) >= lsn

    try:
        crew.start("only")
        more()
        eventually(all_applied, "it works")
        stack.brokers[0].kill()
        stack.brokers[0].start()
        more()
        eventually(all_applied, "it continues after a crash of Kafka")
        stack.postgres.kill()
        more()
        eventually(lambda: "the inbox cannot connect" in crew.log.read_text(), "it waits for PostgreSQL")
        stack.postgres.start()
        eventually(all_applied, "it continues after a crash of PostgreSQL")
        crew.stop("only")
    finally:
        crew.close()
    assert sorted(seq for _, _, seq in applied(dsn)) == list(range(1, lsn + 1))
    assert sum(committed(kafka, "group", topic, 2)) == lsn
