"""One outbox, its topics and the real program between them: what acceptance tests drive and judge.

The truth about what was committed is the table itself, of which tests delete nothing unless they say so, and the
order per key is the number `seq` that each key's only writer counts up.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.consumer import Decoder
from cdc.local.postgres import PostgresServer
from cdc.lsn import LSN
from tests import forking
from tests.program import run_here
from tests.reader import Received, read_all, uncollected
from tests.servers import PostgresOf, PrivatePostgres, Servers, a_database

PATIENCE = 60.0

NOTED = {
    "type": "record",
    "name": "Noted",
    "namespace": "tests",
    "fields": [{"name": "seq", "type": "long"}, {"name": "text", "type": ["null", "string"], "default": None}],
}


def eventually(holds: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait until `holds()`; fails the test when it takes too long."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


class Running:
    """A `cdc-publisher start` that was started, and its log."""

    def __init__(self, process: "forking.Forked | subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it logged so far."""
        lines = self._log.read_text().split("\n")[:-1]
        return [json.loads(line) if line.startswith("{") else {"message": line} for line in lines]

    def messages(self) -> list[str]:
        return [line["message"] for line in self.log]

    def count(self, message: str) -> int:
        return sum(message in line for line in self.messages())

    def streams(self) -> "Running":
        """Wait until it streams."""
        return self.logs("streaming")

    def logs(self, message: str, times: int = 1) -> "Running":
        """Wait until it has logged a message that contains `message`."""

        def logged() -> bool:
            assert self.process.poll() is None or self.count(message), f"exit {self.process.poll()}: {self.messages()}"
            return self.count(message) >= times

        eventually(logged, f"{message!r} in {self.messages()}")
        return self

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.wait()

    def peak_memory(self) -> int:
        """Largest resident size so far, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024


@dataclass
class Pipeline:
    """Settings, database and topics of one test."""

    dsn: str
    kafka: str
    prefix: str
    folder: Path
    settings: dict[str, dict[str, Any]]

    def __post_init__(self) -> None:
        self._running: list[Running] = []
        schemas = self.folder / "schemas"
        schemas.mkdir()
        (schemas / "Noted.avsc").write_text(json.dumps(NOTED))

    @property
    def slot(self) -> str:
        return str(self.settings["postgres"]["slot"])

    @property
    def polls(self) -> bool:
        """Whether a relay takes the place of the slot."""
        return self.settings["postgres"].get("source") == "polling"

    @property
    def topic(self) -> str:
        return f"{self.prefix}note"

    def configure(self) -> Path:
        """Write the settings file."""
        file = self.folder / "cdc-publisher.toml"
        lines = []
        for section, table in self.settings.items():
            lines += [f"[{section}]", *(f"{json.dumps(name)} = {_toml(value)}" for name, value in table.items())]
        file.write_text("\n".join(lines))
        return file

    def command(self, *arguments: str) -> list[str]:
        """How to run the program with these settings."""
        return [sys.executable, "-m", "cdc", *self.options(*arguments)]

    def options(self, *arguments: str) -> list[str]:
        """The arguments of the program, with these settings."""
        return ["--config", str(self.configure()), *arguments]

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run another command of the program to its end, away from any terminal, in this process."""
        return run_here(tuple(self.options(*arguments)), environment)

    def run_process(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """The same in a process of its own: for `start`, and for what libraries write to standard error."""
        if not environment:  # which imports may depend on
            return forking.run(self.options(*arguments), PATIENCE)
        return subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={**os.environ, **environment},
        )

    def start(self, *options: str) -> Running:
        """Start the publisher; it is killed at the end of the test if it still runs then."""
        return self.process("start", *options)

    def process(self, *arguments: str, imports: bool = False) -> Running:
        """Start a command in the background; it is killed likewise. With `imports` it is a new interpreter's."""
        log = self.folder / f"publisher-{len(self._running)}.log"
        arguments = ("--log-format", "json", *arguments)
        process: forking.Forked | subprocess.Popen[bytes]
        with log.open("wb") as output:
            if imports:
                process = subprocess.Popen(self.command(*arguments), stdout=output, stderr=output)
            else:
                process = forking.start(self.options(*arguments), output.fileno(), output.fileno())
        running = Running(process, log)
        self._running.append(running)
        return running

    def create_topic(self, topic: str, partitions: int = 3, leaders: Sequence[int] = ()) -> None:
        """Create a topic: so many partitions, or one without a copy on each of these brokers."""
        admin = AdminClient({"bootstrap.servers": self.kafka})
        # Many tests send records with commit times of long ago: the broker would delete them when it next looks.
        kept = {"retention.ms": "-1"}
        if leaders:
            new = NewTopic(topic, len(leaders), replica_assignment=[[leader] for leader in leaders], config=kept)
        else:
            new = NewTopic(topic, partitions, config=kept)
        admin.create_topics([new])[topic].result()

    def connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        return psycopg.connect(self.dsn, autocommit=True)

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement in a connection of its own; returns its rows."""
        with self.connect() as connection:
            cursor = connection.execute(statement.encode(), values or None)
            if cursor.description or not (cursor.statusmessage or "").startswith("SELECT"):
                return cursor.fetchall() if cursor.description else []
            return [()] * cursor.rowcount  # of no columns, which psycopg takes for no result

    def insert(self, *seqs: int, key: str = "k") -> None:
        """Insert notes in one transaction."""
        self.sql(
            "insert into outbox (aggregatetype, aggregateid, type, payload)"
            " select 'note', %s, 'Noted', jsonb_build_object('seq', s) from unnest(%s::int8[]) s",
            key,
            list(seqs),
        )

    def confirmed(self) -> LSN:
        """The slot's confirmed_flush_lsn, or the number up to which the relay is confirmed."""
        if self.polls:
            ((number,),) = self.sql("select confirmed_batch from cdc_relay where relay = %s", self.slot)
            return LSN(number)
        ((lsn,),) = self.sql(
            "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = %s", self.slot
        )
        return LSN.parse(lsn)

    def wal_end(self) -> LSN:
        ((lsn,),) = self.sql("select pg_current_wal_flush_lsn()::text")
        return LSN.parse(lsn)

    def settles(self, seconds: float = PATIENCE) -> None:
        """Wait until the slot has passed all that is in the WAL now, or the relay all rows that are visible now."""
        if self.polls:
            self._settles_polling(seconds)
            return
        with self.connect() as connection:  # one: for each, PostgreSQL forks a process
            row = connection.execute("select pg_current_wal_flush_lsn()").fetchone()
            assert row

            def passed() -> bool:
                last = self._running[-1]
                assert last.process.poll() is None, f"exit {last.process.poll()}: {last.messages()}"
                slots = "select from pg_replication_slots where slot_name = %s and confirmed_flush_lsn >= %s"
                return connection.execute(slots, [self.slot, row[0]]).rowcount == 1

            eventually(passed, f"slot at {self.confirmed()}, wanted {row[0]}", seconds)

    def _settles_polling(self, seconds: float) -> None:
        left = (
            "select from outbox t, cdc_relay r where r.relay = %s and not (pg_visible_in_snapshot(t.cdc_tx,"
            " r.confirmed_snapshot) or coalesce(pg_visible_in_snapshot(t.cdc_tx, r.partly_snapshot)"
            " and t.cdc_seq <= r.partly_until, false)) and t.cdc_tx < %s::text::xid8 limit 1"
        )
        with self.connect() as connection:
            row = connection.execute("select pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()
            assert row

            def passed() -> bool:
                last = self._running[-1]
                assert last.process.poll() is None, f"exit {last.process.poll()}: {last.messages()}"
                return connection.execute(left, [self.slot, row[0]]).rowcount == 0

            eventually(passed, f"all rows are confirmed: {self.sql('select * from cdc_relay')}", seconds)

    def records(self) -> list[Received]:
        """Everything in the topics of this test, each partition in its order."""
        return read_all(self.kafka, self.prefix, Decoder(folder=self.folder / "schemas"))

    @uncollected()
    def judge(
        self, *, duplicates: bool = False, phantoms: bool = False, table: str = "outbox", returns: bool = False
    ) -> list[Received]:
        """Compare topics and table; returns the records of rows. `duplicates` says whether replays are allowed,
        `phantoms` whether events without a row are, `returns` whether a stream continues behind another one."""
        records = self.records()
        committed = {
            str(row_id): (key, payload)
            for row_id, key, payload in self.sql(f"select id, aggregateid, payload from {table}")
        }
        if phantoms:
            records = [record for record in records if record.id in committed]
        times = Counter(record.id for record in records)
        assert not committed.keys() - times.keys(), "lost events"
        assert not times.keys() - committed.keys(), "phantom events"
        if not duplicates:
            assert set(times.values()) <= {1}, f"duplicates: {len(records) - len(times)}"
        for record in records:
            key, payload = committed[record.id]
            assert (record.key, record.value["seq"]) == (key, payload["seq"])
        firsts: dict[str, Received] = {}
        by_key: dict[str, list[Received]] = {}
        for record in records:
            if firsts.setdefault(record.id, record) is record:
                by_key.setdefault(record.key, []).append(record)
        for key, first in by_key.items():
            assert [r.value["seq"] for r in first] == sorted(r.value["seq"] for r in first), f"order of key {key}"
            # Positions are ordered within the stream that issued them; a failover begins another.
            positions = [r.position for r in first]
            streams = list(dict.fromkeys(position.split("-")[0] for position in positions))
            in_order = sorted(positions, key=lambda position: (streams.index(position.split("-")[0]), position))
            assert positions == in_order or returns, f"positions of key {key}"
            assert len({r.partition for r in first}) == 1
        return records

    def close(self) -> None:
        for running in self._running:
            if running.process.poll() is None:
                running.signal(signal.SIGCONT)
                running.kill()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml(item)}" for name, item in value.items()) + "}"
    return json.dumps(value)


SOURCES = pytest.mark.parametrize("source", ["slot", "polling"], indirect=True)
"""Runs a test with a replication slot, and with a relay of the outbox table."""


@pytest.fixture
def source(request: pytest.FixtureRequest) -> str:
    """Where the rows of a pipeline come from."""
    return str(getattr(request, "param", "slot"))


def make_pipeline(dsn: str, kafka: str, prefix: str, folder: Path, source: str = "slot") -> Pipeline:
    """A pipeline whose database, table, publication, slot and topic are still to be made."""
    slot = f"slot_{conninfo_to_dict(dsn)['dbname']}"
    settings: dict[str, dict[str, Any]] = {
        "postgres": {"dsn": dsn, "slot": slot},
        "topics": {
            "name": f"{prefix}{{aggregatetype}}",
            "dead_letter": f"{prefix}dead",
            "positions": f"{prefix}positions",
        },
        "kafka": {"bootstrap.servers": kafka},
        "avro": {"schemas": "schemas"},
    }
    if source == "polling":
        settings["postgres"]["source"] = source
        settings["outbox"] = {"published": "mark"}  # the table is the truth
    return Pipeline(dsn, kafka, prefix, folder, settings)


def prepare(pipeline: Pipeline, *slot_options: str, topic: bool = True) -> Pipeline:
    """Make table, publication and slot, or relay, by the program's own commands, and the topic."""
    slot = (("outbox", "init"), ("slot", "create", *slot_options))
    for command in (("outbox", "init", "--polling"),) if pipeline.polls else slot:
        done = pipeline.run(*command)
        assert done.returncode == 0, done.stderr
    if topic:
        pipeline.create_topic(pipeline.topic)
    return pipeline


@pytest.fixture
def bare_pipeline(
    database: str, servers: Servers, topic_prefix: str, tmp_path: Path, source: str
) -> Iterator[Pipeline]:
    """A pipeline in an empty database."""
    pipeline = make_pipeline(database, servers.kafka, topic_prefix, tmp_path, source)
    yield pipeline
    pipeline.close()


@pytest.fixture
def pipeline(bare_pipeline: Pipeline) -> Pipeline:
    """A pipeline that is ready to start."""
    return prepare(bare_pipeline)


Shop = Callable[..., tuple[PostgresServer, Pipeline]]


@pytest.fixture
def shop(
    private_postgres: PrivatePostgres,
    module_postgres: PostgresOf,
    servers: Servers,
    topic_prefix: str,
    tmp_path: Path,
) -> Iterator[Shop]:
    """`shop(binaries, **settings)` makes a pipeline from a PostgreSQL server of these binaries to Kafka.

    The server is the module's, or one of this test alone where there are settings.
    """
    with contextlib.ExitStack() as ends:

        def make(binaries: Path | None = None, **settings: str) -> tuple[PostgresServer, Pipeline]:
            server = private_postgres(settings, binaries) if settings else module_postgres(binaries)
            dsn = make_conninfo(server.dsn) if settings else ends.enter_context(a_database(server.dsn))
            pipeline = make_pipeline(dsn, servers.kafka, topic_prefix, tmp_path)
            ends.callback(pipeline.close)
            return server, prepare(pipeline)

        yield make
