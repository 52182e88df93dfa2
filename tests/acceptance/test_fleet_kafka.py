"""A fleet whose coordinator is frozen, or whose instance no longer reaches Kafka: events go on."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from cdc.local.kafka import KafkaBroker
from cdc.status.fleet import UnitState
from tests.fleets import FleetWorld
from tests.pipeline import eventually
from tests.servers import PrivateStack
from tests.torture.behind import before
from tests.torture.connection import Weather
from tests.torture.proxy import Loop

UNITS = ("orders", "shop")
FREEZE_SECONDS = 60.0
LATE_SECONDS = 20.0
"""An event that waits for the coordinator is as late as that is frozen; one that waits for a processor is not."""


class Bytes:
    """Passes on what arrives as it arrives."""

    def up(self, data: bytearray) -> Iterator[bytes]:
        yield bytes(data)
        data.clear()

    down = up

    def passing(self, frame: bytes) -> None:
        pass


def test_an_instance_that_no_longer_reaches_kafka_leaves_its_units_to_another(
    private_stack: PrivateStack, tmp_path: Path
) -> None:
    stack = private_stack(kafka=None)
    (broker,) = stack.brokers
    with ExitStack() as ends:
        proxy = ends.enter_context(before(ends.enter_context(Loop()), broker, Bytes))
        broker.start()
        world = FleetWorld(stack.postgres.dsn, broker.address, "t-", tmp_path)
        ends.callback(world.close)
        world.settings = '[delivery]\nguarantee = "exactly-once"\n'
        for unit in UNITS:
            world.add(unit)
        world.kafka_settings = f'"bootstrap.servers" = "127.0.0.1:{proxy.port}"'
        first = world.start().becomes_ready()
        eventually(lambda: first.units(UnitState.WORKING) == {*UNITS}, "the only instance has all units")
        for unit in UNITS:
            world.publishes(unit, 1)

        for direction in ("up", "down"):
            proxy.set(direction, Weather(dark=True))
        world.kafka_settings = f'"bootstrap.servers" = "{broker.address}"'
        second = world.start().becomes_ready()
        for unit in UNITS:
            world.publishes(unit, 2, 3)
            assert world.received(unit) == [1, 2, 3]
            (given_up,) = first.events("unit_given_up", unit)
            assert given_up["message"] == "this instance does not reach Kafka, and leaves the unit to another one"
            assert len(first.events("unit_starts", unit)) == 1
        assert second.units(UnitState.WORKING) == {*UNITS}

        proxy.heal()
        eventually(lambda: first.document().joined, "the group has the instance again")
        for unit in UNITS:
            world.publishes(unit, 4)
            assert world.received(unit) == [1, 2, 3, 4]
        assert [second.stop(), first.stop()] == [0, 0]


class Writer:
    """Inserts events one by one into all units, and keeps when it began to insert each."""

    def __init__(self, world: FleetWorld) -> None:
        self.began: dict[tuple[str, int], float] = {}
        self._world = world
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _write(self) -> None:
        with psycopg.connect(self._world.dsn, autocommit=True) as connection:
            seq = 0
            while not self._stopped.wait(0.05):
                seq += 1
                for unit in UNITS:
                    self.began[unit, seq] = time.time()
                    connection.execute(
                        f"insert into {unit} (aggregatetype, aggregateid, type, payload)"
                        " values ('note', 'k', 'Noted', jsonb_build_object('seq', %s::int8))".encode(),
                        [seq],
                    )


@pytest.mark.skipif("CDC_TEST_NIGHTLY" not in os.environ, reason="freezes a broker for a minute: make nightly")
@pytest.mark.timeout(600)
def test_no_event_is_late_by_a_coordinator_that_is_frozen_for_a_minute(
    private_stack: PrivateStack, tmp_path: Path
) -> None:
    stack = private_stack(brokers=3, kafka={"offsets.topic.replication.factor": "1"})  # no other may coordinate
    world = FleetWorld(stack.postgres.dsn, ",".join(each.address for each in stack.brokers), "t-", tmp_path)
    try:
        instances = [world.start().becomes_ready() for _ in range(2)]
        coordinator = coordinator_of(world, stack.brokers)
        others = [broker.node_id for broker in stack.brokers if broker is not coordinator]
        create_topics(world, others)
        for unit in UNITS:
            world.add(unit)
        eventually(
            lambda: set().union(*(each.units(UnitState.WORKING) for each in instances)) == {*UNITS},
            "all units work",
            120,
        )
        with Writer(world) as writer:
            eventually(lambda: len(writer.began) > 50, "events before")
            for unit in UNITS:
                world.settles(unit)
            frozen, before_it = time.time(), len(writer.began)
            coordinator.freeze()
            for instance in instances:
                instance.logs("the group is lost")
            time.sleep(max(0.0, FREEZE_SECONDS - (time.time() - frozen)))
            thawed, during = time.time(), len(writer.began) - before_it
            coordinator.thaw()
            for instance in instances:
                eventually(lambda instance=instance: instance.document().joined, "the group is there again", 120)  # type: ignore[misc]
        for unit in UNITS:
            world.settles(unit)
        late = [
            (record.timestamp[1] / 1000 - began, began)
            for unit in UNITS
            for record in world.records(unit)
            for began in [writer.began[unit, record.value["seq"]]]
        ]
        assert len(late) == len(writer.began)
        worst = max(seconds for seconds, began in late if frozen <= began <= thawed)
        print(f"{during} events while the coordinator was frozen: the slowest took {worst:.3f} s")
        assert worst < LATE_SECONDS
        for instance in instances:
            assert (instance.events("unit_ends"), instance.events("unit_failed")) == ([], [])
        for unit in UNITS:
            assert world.received(unit) == sorted({seq for its, seq in writer.began if its == unit})
    finally:
        world.close()


def coordinator_of(world: FleetWorld, brokers: list[KafkaBroker]) -> KafkaBroker:
    admin = AdminClient({"bootstrap.servers": world.kafka})
    node = admin.describe_consumer_groups([world.topic])[world.topic].result().coordinator.id
    (found,) = [broker for broker in brokers if broker.node_id == node]
    return found


def create_topics(world: FleetWorld, brokers: list[int]) -> None:
    """Create the topics of the units on these brokers only; their records have the time at which they were there."""
    names = [*(f"{world.prefix}{unit}.note" for unit in UNITS), f"{world.prefix}positions", f"{world.prefix}dead"]
    new = [
        NewTopic(name, 1, replica_assignment=[brokers], config={"message.timestamp.type": "LogAppendTime"})
        for name in names
    ]
    admin = AdminClient({"bootstrap.servers": world.kafka})
    for future in admin.create_topics(new).values():
        future.result()
