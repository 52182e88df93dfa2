"""Instances of a fleet on real servers: units are shared out, taken over, and left alone where nothing is wrong."""

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from cdc.consumer import Decoder
from cdc.status import client
from cdc.status.fleet import FleetDocument, UnitState
from tests import forking
from tests.endpoint import LOOPBACK
from tests.pipeline import NOTED, Running, eventually
from tests.program import run_here
from tests.reader import Received, read_all
from tests.servers import Servers, a_database, topics_deleted

SESSION = 6  # the least that brokers allow
UNITS = ("orders", "shop", "zoo")


class Started(Running):
    """An instance, and where its endpoint listens."""

    @property
    def url(self) -> str:
        (line,) = [line for line in self.log if line.get("event") == "listening"]
        return str(line["http"]).rstrip("/")

    def document(self) -> FleetDocument:
        return client.ask_fleet(self.url)

    def units(self, *states: UnitState) -> set[str]:
        """The units in one of these states here."""
        return {name for name, unit in self.document().units.items() if unit.state in states}

    def events(self, event: str, unit: str | None = None) -> list[dict[str, Any]]:
        return [line for line in self.log if line.get("event") == event and unit in (None, line.get("unit"))]

    def becomes_ready(self) -> "Started":
        self.logs("listening")
        eventually(lambda: self.document().ready, f"ready: {self.messages()}")
        return self


class World:
    """A fleet: a folder of units, each with a table, a publication and a slot, and instances that run them."""

    def __init__(self, dsn: str, kafka: str, prefix: str, home: Path) -> None:
        self.dsn, self.kafka, self.prefix, self.home = dsn, kafka, prefix, home
        self.folder = home / "units"
        self.instances: list[Started] = []
        self.settings = ""
        (home / "schemas").mkdir()
        (home / "schemas" / "Noted.avsc").write_text(json.dumps(NOTED))
        self.folder.mkdir()

    @property
    def name(self) -> str:
        return self.prefix.rstrip("-")

    @property
    def topic(self) -> str:
        return f"cdc.fleet.{self.name}"

    def configure(self) -> Path:
        file = self.home / "fleet.toml"
        file.write_text(
            f"""
[fleet]
name = "{self.name}"
session_seconds = {SESSION}
[http]
listen = "{LOOPBACK}"
[kafka]
"bootstrap.servers" = "{self.kafka}"
[topics]
create = true
partitions = 1
dead_letter = "{self.prefix}dead"
positions = "{self.prefix}positions"
[avro]
schemas = "schemas"
{self.settings}
"""
        )
        return file

    def run(self, *arguments: str) -> Any:
        return run_here(("--config", str(self.configure()), *arguments), {})

    def add(self, unit: str, dsn: str = "", more: str = "", *, prepared: bool = True) -> None:
        """Make what a unit needs, and then its file."""
        text = f"""
[postgres]
dsn = "{dsn or self.dsn}"
slot = "{self.slot(unit)}"
publication = "{unit}"
[outbox]
table = "public.{unit}"
[topics]
name = "{self.prefix}{unit}.{{aggregatetype}}"
{more}
"""
        if prepared:
            alone = self.home / f"{unit}.alone"
            alone.write_text(text)
            settings = ["--set", f"kafka.bootstrap.servers={self.kafka}"]
            settings += ["--set", f"topics.positions={self.prefix}positions"]
            settings += ["--set", f"topics.dead_letter={self.prefix}dead"]
            for command in (("outbox", "init"), ("slot", "create")):
                done = run_here(("--config", str(alone), *settings, *command), {})
                assert done.returncode == 0, done.stderr
        written = self.folder / f"{unit}.new"
        written.write_text(text)
        written.rename(self.folder / f"{unit}.toml")

    def slot(self, unit: str) -> str:
        return f"{self.name.replace('-', '_')}_{unit}"

    def start(self) -> Started:
        """Start an instance; it is killed at the end of the test."""
        log = self.home / f"instance-{len(self.instances)}.log"
        arguments = ["--log-format", "json", "--config", str(self.configure()), "fleet", "start", str(self.folder)]
        with log.open("wb") as output:
            started = Started(forking.start(arguments, output.fileno(), output.fileno()), log)
        self.instances.append(started)
        return started

    def insert(self, unit: str, *seqs: int) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(
                f"insert into {unit} (aggregatetype, aggregateid, type, payload)"
                " select 'note', 'k', 'Noted', jsonb_build_object('seq', s) from unnest(%s::int8[]) s".encode(),
                [list(seqs)],
            )

    def received(self, unit: str) -> list[int]:
        records: list[Received] = read_all(self.kafka, f"{self.prefix}{unit}.", Decoder(folder=self.home / "schemas"))
        return [record.value["seq"] for record in records]

    def publishes(self, unit: str, *seqs: int) -> None:
        """Insert events, and wait until their slot has passed them."""
        self.insert(unit, *seqs)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            row = connection.execute("select pg_current_wal_flush_lsn()").fetchone()
            assert row
            passed = "select from pg_replication_slots where slot_name = %s and confirmed_flush_lsn >= %s"
            eventually(
                lambda: connection.execute(passed, [self.slot(unit), row[0]]).rowcount == 1,
                f"{unit} published: {[one.messages()[-5:] for one in self.instances]}",
            )

    def registered(self) -> dict[str, int | None]:
        """The partition of each unit, as the register in Kafka has it."""
        facts = json.loads(self.run("fleet", "status", "--json").stdout)
        return {unit["unit"]: unit["partition"] for unit in facts["units"]}

    def delete_topic(self) -> None:
        """Delete the topic of the fleet."""
        admin = AdminClient({"bootstrap.servers": self.kafka})
        admin.delete_topics([self.topic])[self.topic].result()

    def close(self) -> None:
        for instance in self.instances:
            if instance.process.poll() is None:
                instance.signal(signal.SIGCONT)
                instance.kill()
        # Units drain by themselves: the end of a database would otherwise wait for them.
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            active = "select from pg_replication_slots where active and starts_with(slot_name, %s)"
            prefix = self.name.replace("-", "_")
            eventually(lambda: not connection.execute(active, [prefix]).rowcount, "units of killed instances end")
        with contextlib.suppress(KafkaException):  # no instance made it
            self.delete_topic()


@pytest.fixture
def world(servers: Servers, tmp_path: Path) -> Iterator[World]:
    with a_database(servers.dsn) as dsn, topics_deleted(servers.kafka) as prefix:
        made = World(dsn, servers.kafka, prefix, tmp_path)
        yield made
        made.close()


@pytest.fixture
def units(world: World) -> World:
    """A world with three units."""
    for unit in UNITS:
        world.add(unit)
    return world


def working(instance: Started) -> set[str]:
    return instance.units(UnitState.WORKING)


def shared_out(*instances: Started) -> Callable[[], bool]:
    """Whether each unit works in exactly one of two instances, and each has one: of four partitions one has none."""

    def shared() -> bool:
        parts = [working(each) for each in instances]
        return sum(map(len, parts)) == len(UNITS) and set().union(*parts) == {*UNITS} and all(parts)

    return shared


def test_units_are_shared_out_and_taken_over_when_instances_come_freeze_die_and_leave(units: World) -> None:
    first = units.start().becomes_ready()
    eventually(lambda: working(first) == {*UNITS}, "the only instance has all units")
    for unit in UNITS:
        units.publishes(unit, 1)
    second = units.start().becomes_ready()
    eventually(shared_out(first, second), "each instance has a unit")
    for unit in UNITS:
        units.publishes(unit, 2)

    second.kill()
    eventually(lambda: working(first) == {*UNITS}, "the units of a killed instance are taken over")
    for unit in UNITS:
        units.publishes(unit, 3)

    third = units.start().becomes_ready()
    eventually(shared_out(first, third), "each instance has a unit")
    third.signal(signal.SIGSTOP)
    time.sleep(SESSION + 2)  # its session ends; its units continue, and others stand by for them
    for unit in UNITS:
        units.publishes(unit, 4)
    third.signal(signal.SIGCONT)
    third.logs("the group is lost")
    eventually(shared_out(first, third), "a frozen instance has units again")
    for unit in UNITS:
        units.publishes(unit, 5)

    assert third.stop() == 0
    eventually(lambda: working(first) == {*UNITS}, "the units of an instance that left are taken over")
    for unit in UNITS:
        units.publishes(unit, 6)
        assert units.received(unit) == [1, 2, 3, 4, 5, 6]
    assert first.stop() == 0
    for unit in UNITS:
        assert [line["exit_code"] for line in first.events("unit_ended", unit)][-1] == 0


def test_a_new_file_moves_no_unit_and_a_deleted_topic_stops_none(units: World) -> None:
    instance = units.start().becomes_ready()
    eventually(lambda: working(instance) == {*UNITS}, "all units work")
    before = {name: unit.partition for name, unit in instance.document().units.items()}
    units.add("a_first")
    eventually(lambda: working(instance) == {"a_first", *UNITS}, "the new unit works")
    after = {name: unit.partition for name, unit in instance.document().units.items()}
    assert {name: after[name] for name in before} == before
    assert after["a_first"] == len(UNITS) + 1

    units.delete_topic()
    instance.logs("was re-created")
    eventually(lambda: units.registered() == after, "the register is written again")
    for unit in after:
        units.publishes(unit, 1)
    assert {name: unit.partition for name, unit in instance.document().units.items()} == after
    assert instance.events("unit_ends") == []

    (units.folder / "zoo.toml").unlink()
    eventually(lambda: instance.units(UnitState.NO_FILE) == {"zoo"}, "a unit without a file ends")
    done = units.run("fleet", "forget", "zoo")
    assert (done.returncode, done.stdout) == (0, "unit zoo is forgotten\n")
    eventually(lambda: "zoo" not in instance.document().units, "the unit is forgotten")
    again = units.run("fleet", "forget", "zoo")
    assert again.returncode == 1
    assert "unit 'zoo' is not in the register" in again.stderr


def test_bad_files_and_a_unit_that_needs_an_operator_leave_the_others_alone(units: World) -> None:
    (units.folder / "broken.toml").write_text("[postgres")
    (units.folder / "typo.toml").write_text("[postgres]\ndsn = 'host=x'\nslott = 'x'")
    units.add("twin", prepared=False)
    (units.folder / "twin.toml").write_text((units.folder / "zoo.toml").read_text())
    units.add("away", "postgresql://postgres@127.0.0.1:1/none", prepared=False)
    units.add("no_slot", prepared=False)
    units.settings = "[delivery]\nstartup_seconds = 1"
    instance = units.start().becomes_ready()
    eventually(lambda: working(instance) == {"orders", "shop"}, "two units work")
    for name, problem in (
        ("broken", "unit broken: settings file"),
        ("typo", "unknown setting; did you mean 'slot'?"),
        ("twin", "is also that of unit zoo"),
        ("zoo", "is also that of unit twin"),
    ):
        assert any(f"unit {name}: " in line and problem in line for line in instance.messages()), problem
    eventually(lambda: instance.units(UnitState.FAILED) == {"no_slot"}, "a unit without a slot needs an operator")
    eventually(lambda: bool(instance.events("unit_failed", "away")), "a unit without a database is tried again")
    document = instance.document()
    assert document.ready
    assert any("no_slot" in problem for problem in document.problems)
    for unit in ("orders", "shop"):
        units.publishes(unit, 1)
        assert units.received(unit) == [1]
        assert len(instance.events("unit_starts", unit)) == 1

    status = units.run("fleet", "status", "--url", instance.url)
    assert status.returncode == 1
    lines = {line.split()[0]: line for line in status.stdout.splitlines()}
    assert "working" in lines["shop"]
    assert "failed" in lines["no_slot"]
    facts = json.loads(units.run("fleet", "status", "--json", "--url", instance.url).stdout)
    assert facts["fleet"] == units.name
    assert {unit["unit"]: unit["state"] for unit in facts["units"]}["orders"] == "working"
    assert len(facts["instances"]) == 1

    (units.folder / "twin.toml").unlink()
    eventually(lambda: "zoo" in working(instance), "a unit starts when its file is right")


def test_an_instance_that_fails_at_what_works_elsewhere_is_not_ready(units: World) -> None:
    first = units.start().becomes_ready()
    eventually(lambda: working(first) == {*UNITS}, "all units work")
    time.sleep(1)  # what works is written to the register
    (units.home / "schemas" / "Noted.avsc").rename(units.home / "Noted.avsc")
    (units.home / "schemas" / "Broken.avsc").write_text("{}")
    second = units.start()
    second.logs("listening")
    eventually(lambda: any("fails here and worked elsewhere" in line for line in second.document().problems), "blamed")
    assert not second.document().ready
    assert first.document().ready
    for unit in working(first):
        units.publishes(unit, 1)


def test_metrics_have_the_label_unit_and_each_family_once(units: World) -> None:
    instance = units.start().becomes_ready()
    eventually(lambda: working(instance) == {*UNITS}, "all units work")
    units.publishes("shop", 1, 2, 3)

    def metrics() -> str:
        with urlopen(f"{instance.url}/metrics") as answer:
            return str(answer.read().decode())

    eventually(lambda: 'cdc_delivered_events_total{unit="shop"} 3.0' in metrics(), "counted")
    text = metrics()
    helped = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert len(helped) == len({*helped})
    assert 'cdc_fleet_units{state="working"} 3.0' in text
    assert 'cdc_fleet_unit_assigned{unit="shop"} 1.0' in text


def test_the_program_refuses_what_is_not_a_fleet_in_one_line(world: World) -> None:
    gone = world.run("fleet", "start", str(world.home / "nothing"))
    assert gone.returncode == 78
    assert "name the folder that has one .toml file per unit" in gone.stderr
    world.settings = "[postgres]\nslot = 'x'"
    refused = world.run("fleet", "start", str(world.folder))
    assert refused.returncode == 78
    assert "[postgres] belongs in the files of the units" in refused.stderr
    world.settings = ""
    status = world.run("fleet", "status")
    assert "no instance was ever started" in status.stdout
