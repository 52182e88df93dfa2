"""The stage: PostgreSQL, three brokers, a proxy before each of them, and the publisher behind the proxies."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

import psycopg
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from cdc.errors import LocalStackError
from cdc.local import packages, processes
from cdc.local.kafka import KafkaBroker
from cdc.local.postgres import PostgresServer
from tests.torture import contract, disk
from tests.torture.behind import before
from tests.torture.crew import Crew, quiet_environment
from tests.torture.kafka_frames import KafkaFrames
from tests.torture.ledger import Ledger
from tests.torture.postgres_frames import PostgresFrames, Tape
from tests.torture.proxy import Loop, Proxy
from tests.torture.reader import Reader
from tests.torture.sources import SLOT, SOURCES
from tests.torture.watch import Watch
from tests.torture.writers import AGGREGATES, COMPACTED, TABLES

PREFIX: Final = "torture."
BROKERS: Final = 3
PARTITIONS: Final = 4
DEBIAN_15: Final = Path("/usr/lib/postgresql/15/bin")
POSTGRES: Final = {
    "max_wal_size": "128MB",
    "min_wal_size": "32MB",
    "checkpoint_timeout": "60s",
}
START_TRIES: Final = 5
# A topic that is compacted all the time. The reader has five seconds to see a record before it may be removed.
COMPACTION: Final = {
    "cleanup.policy": "compact",
    "segment.ms": "2000",
    "min.cleanable.dirty.ratio": "0.0001",
    "min.compaction.lag.ms": "5000",
    "delete.retention.ms": "1000",
    "retention.ms": "-1",
}


class History:
    """What happened when, as JSON lines."""

    def __init__(self, file: Path) -> None:
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._out: TextIO = file.open("w")

    def __call__(self, what: str, **details: Any) -> None:
        with self._lock:
            if not self._out.closed:
                line = {"at": round(time.monotonic() - self._begun, 3), "what": what, **details}
                self._out.write(json.dumps(line) + "\n")
                self._out.flush()

    def close(self) -> None:
        with self._lock:
            self._out.close()


class Stage:
    """Everything that runs, in the folder `home`; a context manager that ends all of it."""

    def __init__(
        self,
        home: Path,
        *,
        postgres: int = 18,
        source: str = "slot",
        settings: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o755)  # PostgreSQL's own account has to enter
        binaries = DEBIAN_15 if postgres == 15 else None
        self.ledger = Ledger()
        self.watch = Watch()
        self.source = SOURCES[source](self.sql, self.ledger, self.watch)
        self.postgres = PostgresServer(
            home / "postgres", settings={**POSTGRES, **self.source.server}, binaries=binaries
        )
        self.brokers = [KafkaBroker(home / "kafka", number, BROKERS) for number in range(1, BROKERS + 1)]
        self.tell = History(home / "history.jsonl")
        self.tape = Tape(self.watch, self.ledger.place, lambda unsafe: self.tell("I6", finding=str(unsafe)))
        self.sessions: dict[tuple[str, int], list[tuple[int, int]]] = {}
        self.causes: defaultdict[int, Counter[str]] = defaultdict(Counter)  # of sessions: what went before them
        self.compactions = 0  # while no publisher ran, until one record was left of each key
        self.full_disks: dict[str, disk.SmallDisk] = {}
        self._given = settings or {}
        self._ends = contextlib.ExitStack()

    @property
    def kafka(self) -> str:
        """Bootstrap servers past the proxies."""
        return ",".join(broker.address for broker in self.brokers)

    @property
    def topics(self) -> list[str]:
        return [f"{PREFIX}{aggregate}" for aggregate in AGGREGATES]

    @property
    def compacted(self) -> str:
        """The topic that is compacted by key."""
        return f"{PREFIX}{COMPACTED}"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as ends:
            self._set_up(ends)
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ends.close()

    def _set_up(self, ends: contextlib.ExitStack) -> None:
        ends.callback(self.tell.close)
        packages.require()
        loop = ends.enter_context(Loop())
        ends.callback(self._purge)
        self.pg_proxy = ends.enter_context(
            Proxy(loop, ("127.0.0.1", self.postgres.port), lambda: PostgresFrames(self.tape))
        )
        self.kafka_proxies = [
            ends.enter_context(before(loop, broker, lambda: KafkaFrames(self.tape, self.sessions)))
            for broker in self.brokers
        ]
        for broker in self.brokers:
            broker.settings |= {"log.cleaner.backoff.ms": "2000"}  # instead of 15 seconds
        self._disks(ends)
        classpath = packages.kafka(None)
        starting = [broker.starting(classpath) for broker in self.brokers]
        processes.finish(self.postgres.starting(), *starting)
        if "wal" in self.full_disks:
            self._move_wal()
        self._prepare()
        self.reader = ends.enter_context(Reader(self.kafka, self.compacted, PARTITIONS))
        self.crew = ends.enter_context(Crew(self._settings_file, self.tell))

    def _disks(self, ends: contextlib.ExitStack) -> None:
        """Small file systems for the WAL and for the last broker, where we may mount any."""
        if not disk.can_mount():
            return
        places = {"wal": (self.home / "wal", 1024), "kafka": (self.brokers[-1].folder, 512)}
        for name, (folder, megabytes) in places.items():
            self.full_disks[name] = ends.enter_context(disk.SmallDisk(folder, megabytes))
        ends.callback(self._stop_servers)  # before their disks go

    def _move_wal(self) -> None:
        self.postgres.stop()
        wal = self.postgres.data / "pg_wal"
        place = self.home / "wal" / "pg_wal"
        subprocess.run(["cp", "-a", str(wal), str(place)], check=True)
        processes.remove(wal)
        wal.symlink_to(place)
        self.postgres.start()

    def _prepare(self) -> None:
        """Settings, contract, table, publication, slot and topics."""
        publisher = self.home / "publisher"
        contract.write(publisher / "schemas")
        dsn = f"postgresql://postgres@127.0.0.1:{self.pg_proxy.port}/postgres"
        sections: dict[str, dict[str, Any]] = {
            "postgres": {"dsn": dsn, "slot": SLOT},
            "topics": {
                "name": f"{PREFIX}{{aggregatetype}}",
                "dead_letter": f"{PREFIX}dead-letter",
                "positions": f"{PREFIX}positions",
            },
            "kafka": {
                "bootstrap.servers": ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.kafka_proxies),
                "compression.type": "none",  # the proxies read the positions off the wire
            },
            "avro": {"schemas": "schemas"},
            "outbox": {"tombstones": True},
            "delivery": {"startup_seconds": 60, "drain_seconds": 15},
        }
        for given in (self.source.settings, self._given):
            for name, values in given.items():
                sections.setdefault(name, {}).update(values)
        lines = []
        for section, values in sections.items():
            lines += [f"[{section}]", *(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in values.items())]
        self._settings_file = publisher / "cdc-publisher.toml"
        self._settings_file.write_text("\n".join(lines) + "\n")
        for command in self.source.commands:
            self.command(*command)
        self.sql(TABLES)
        # See faults.RETYPES; a tombstone has no payload.
        nullable = "alter aggregateid drop not null, alter payload drop not null"
        self.sql(f"alter table outbox add spare varchar(255), {nullable}")
        admin = AdminClient({"bootstrap.servers": self.kafka})
        new = [
            NewTopic(topic, PARTITIONS, BROKERS, config=COMPACTION if topic == self.compacted else {})
            for topic in self.topics
        ]
        for future in admin.create_topics(new).values():
            future.result()

    def command(self, *arguments: str) -> str:
        """Run another command of the program to its end; returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "cdc", "--config", str(self._settings_file), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self._settings_file.parent,
            env=quiet_environment(),
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement past the proxy. Raises psycopg.OperationalError while PostgreSQL is down."""
        with psycopg.connect(self.postgres.dsn, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def before(self, what: str) -> None:
        """Something is about to end the session, and may make the next one repeat what was delivered."""
        self.causes[self.tape.sessions + 1][what] += 1

    def start(self, server: PostgresServer | KafkaBroker) -> None:
        """Start a server, again if need be: on a busy machine one may die of the faults around it."""
        for left in reversed(range(START_TRIES)):
            try:
                server.start()
                return
            except LocalStackError as error:
                self.tell("a server did not start", why=str(error))
                if not left:
                    raise
                time.sleep(1)

    @property
    def proxies(self) -> list[Proxy]:
        return [self.pg_proxy, *self.kafka_proxies]

    def heal(self) -> None:
        """Whether all servers run and all connections are open."""
        for proxy in self.proxies:
            proxy.heal()
        for full in self.full_disks.values():
            full.drain()
        servers: list[PostgresServer | KafkaBroker] = [self.postgres, *self.brokers]
        for server in servers:
            if process := server.process:
                process.resume()
            self.start(server)
        for publisher in self.crew.publishers:
            publisher.thaw()

    def _stop_servers(self) -> None:
        processes.finish(
            self.postgres.stopping(processes.KILL), *(broker.stopping(processes.KILL) for broker in self.brokers)
        )
        for log in (self.postgres.log, *(broker.log for broker in self.brokers)):
            if log.exists():
                (self.home / f"{log.parent.name}.log").write_bytes(log.read_bytes())

    def _purge(self) -> None:
        """End the servers; their data goes with them, copies of their logs stay."""
        self._stop_servers()
        self.postgres.purge()
        for folder in (self.brokers[0].home, self.home / "wal"):
            processes.remove(folder)


def wait_until(holds: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    """Whether `holds()` within so many seconds; a server that is down does not hold."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(psycopg.OperationalError):
            if holds():
                return True
        time.sleep(pause)
    return False
