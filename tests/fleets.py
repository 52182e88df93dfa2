"""A fleet for tests: a folder of units, each with a table, a publication and a slot, and instances that run them."""

import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from cdc.config.loading import load_fleet
from cdc.consumer import Decoder
from cdc.fleet.topic import read_register
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
        self.slots: dict[str, str] = {}  # of units that the program named
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
        text = self._text(unit, more)
        if prepared:
            self._prepare(unit, text, ("outbox", "init"), ("slot", "create"))
        self._put(unit, text)

    def split(self, outbox: str, number: int, dsn: str = "") -> list[str]:
        """Make an outbox in so many parts, each of which is a unit; return the units."""
        self.dsns[outbox] = dsn or self.dsn
        written = self.home / f"{outbox}.parts"
        self._prepare(outbox, self._text(outbox), ("outbox", "init", "--split", str(number), "--write", str(written)))
        files = sorted(written.glob("*.toml"))
        units = [file.stem for file in files]
        for file in files:
            self.dsns[file.stem] = self.dsns[outbox]
            self.slots[file.stem] = file.stem
            self._prepare(file.stem, file.read_text(), ("slot", "create"))
            self._put(file.stem, file.read_text())
        del self.dsns[outbox]  # no unit
        return units

    def _text(self, outbox: str, more: str = "") -> str:
        return f"""
[postgres]
dsn = "{self.dsns[outbox]}"
slot = "{self.slot(outbox)}"
publication = "{outbox}"
[outbox]
table = "public.{outbox}"
[topics]
name = "{self.prefix}{outbox}.{{aggregatetype}}"
{more}
"""

    def _prepare(self, name: str, text: str, *commands: tuple[str, ...]) -> None:
        """Run commands with settings that are not those of a fleet."""
        alone = self.home / f"{name}.alone"
        alone.write_text(text)
        settings = ["--set", f"kafka.bootstrap.servers={self.kafka}"]
        settings += ["--set", f"topics.positions={self.prefix}positions"]
        settings += ["--set", f"topics.dead_letter={self.prefix}dead"]
        for command in commands:
            done = run_here(("--config", str(alone), *settings, *command), {})
            assert done.returncode == 0, done.stderr

    def _put(self, unit: str, text: str) -> None:
        written = self.folder / f"{unit}.new"
        written.write_text(text)
        written.rename(self.folder / f"{unit}.toml")

    def slot(self, unit: str) -> str:
        return self.slots.get(unit, f"{self.name.replace('-', '_')}_{unit}")

    def start(self, folder: Path | None = None) -> Started:
        """Start an instance, of a folder of its own or of the common one; it is killed at the end of the test."""
        log = self.home / f"instance-{len(self.instances)}.log"
        units = str(folder or self.folder)
        arguments = ["--log-format", "json", "--config", str(self.configure()), "fleet", "start", units]
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

    def worked(self) -> set[str]:
        """The units of which the register in Kafka says that they work."""
        register = read_register(load_fleet(self.configure(), (), {})[0], PATIENCE)
        return {unit for unit, last in register.states.items() if last.works} if register else set()

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
            active = "select from pg_replication_slots where active and slot_name = any(%s)"
            slots = [self.slot(unit) for unit in self.dsns]
            eventually(lambda: not connection.execute(active, [slots]).rowcount, "units of killed instances end")
        with contextlib.suppress(KafkaException):  # no instance made it
            self.delete_topic()
