"""A fleet for tests: a folder of units, each with a table, a publication and a slot, and instances that run them."""

import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from cdc.consumer import Decoder
from cdc.status import client
from cdc.status.fleet import FleetDocument, UnitState
from tests import forking
from tests.endpoint import LOOPBACK
from tests.pipeline import NOTED, PATIENCE, Running, eventually
from tests.program import run_here
from tests.reader import Received, read_all

SESSION = 6  # the least that brokers allow


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


class FleetWorld:
    """A fleet, whose units are in the database of `dsn` unless they are added with another."""

    def __init__(self, dsn: str, kafka: str, prefix: str, home: Path) -> None:
        self.dsn, self.kafka, self.prefix, self.home = dsn, kafka, prefix, home
        self.folder = home / "units"
        self.instances: list[Started] = []
        self.dsns: dict[str, str] = {}
        self.settings = self.fleet_settings = ""
        self.session = SESSION
        self.kafka_settings = f'"bootstrap.servers" = "{kafka}"'
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
session_seconds = {self.session}
{self.fleet_settings}
[http]
listen = "{LOOPBACK}"
[kafka]
{self.kafka_settings}
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
        self.dsns[unit] = dsn or self.dsn
        text = f"""
[postgres]
dsn = "{self.dsns[unit]}"
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
        with psycopg.connect(self.dsns[unit], autocommit=True) as connection:
            connection.execute(
                f"insert into {unit} (aggregatetype, aggregateid, type, payload)"
                " select 'note', 'k', 'Noted', jsonb_build_object('seq', s) from unnest(%s::int8[]) s".encode(),
                [list(seqs)],
            )

    def received(self, unit: str) -> list[int]:
        return [record.value["seq"] for record in self.records(unit)]

    def records(self, unit: str) -> list[Received]:
        return read_all(self.kafka, f"{self.prefix}{unit}.", Decoder(folder=self.home / "schemas"))

    def publishes(self, unit: str, *seqs: int) -> None:
        """Insert events, and wait until their slot has passed them."""
        self.insert(unit, *seqs)
        self.settles(unit)

    def settles(self, unit: str, seconds: float = PATIENCE) -> None:
        """Wait until the slot of a unit has passed all that is in the WAL now."""
        with psycopg.connect(self.dsns[unit], autocommit=True) as connection:
            row = connection.execute("select pg_current_wal_flush_lsn()").fetchone()
            assert row
            passed = "select from pg_replication_slots where slot_name = %s and confirmed_flush_lsn >= %s"
            eventually(
                lambda: connection.execute(passed, [self.slot(unit), row[0]]).rowcount == 1,
                f"{unit} published: {[one.messages()[-5:] for one in self.instances]}",
                seconds,
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
