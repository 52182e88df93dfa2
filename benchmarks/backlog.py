"""One backlog: its own database, the outbox as created by `outbox init`, and a slot that is copied for each run."""

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from benchmarks import processes, workload
from benchmarks.runs import between
from benchmarks.servers import Servers
from benchmarks.workload import Workload
from cdc.lsn import LSN

CHUNK = 50_000  # rows between two steps of the progress bar
PUBLICATION = "cdc_publisher"  # the default

Progress = Callable[[float], None]


_RELAY_DONE: Final = """
select case when rows_in_batches >= coalesce(pg_sequence_last_value(pg_get_serial_sequence('outbox', 'cdc_seq')), 0)
    and partly_until is null and cleared_snapshot::text = confirmed_snapshot::text
    then pg_current_wal_insert_lsn() else '0/0' end::text, null
from cdc_relay where relay = %s
"""
"""The end of the WAL once the relay has confirmed and cleared all rows; no writer may run, or roll back, meanwhile."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where events are: an option of `outbox init`, and settings as environment variables."""

    option: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def polls(self) -> bool:
        return self.option == "--polling"

    @property
    def messages(self) -> bool:
        return self.option == "--messages"


ROWS: Final = Source()
"""Rows, through a slot."""


class Backlog:
    """Waiting events, from LSN `start` to `end`. `folder` contains the contracts.

    `units` are the settings files of an outbox in several parts, as `outbox init --split` writes them. With one part
    the outbox is not split, and has no such file.
    """

    def __init__(self, servers: Servers, given: Workload, folder: Path, source: Source = ROWS, parts: int = 1) -> None:
        self.servers = servers
        self.workload = given
        self.folder = folder
        self.source = source
        self.token = secrets.token_hex(4)
        self.dsn = make_conninfo(servers.dsn, dbname=f"bench_{self.token}")
        self.base = f"bench_{self.token}_base"
        self.connection: psycopg.Connection[tuple[Any, ...]]
        self.start = self.end = LSN(0)
        self.parts = parts
        self.units: list[Path | None] = [None]
        self.written_seconds: float | None = None  # PostgreSQL's CPU time for writing the events

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def prepare(self) -> None:
        """Create the database, the table, the publication, and the slot unless the source needs none."""
        self.servers.query(f"create database bench_{self.token}")
        self.connection = psycopg.connect(self.dsn, autocommit=True)
        workload.write_contracts(self.folder / "schemas", self.workload)
        settings = self.settings("init.toml", slot=self.base, prefix="unused")
        command = processes.python("-m", "cdc", "--config", str(settings), "outbox", "init")
        units = self.folder / "units"
        split = ["--split", str(self.parts), "--write", str(units)] if self.parts > 1 else []
        processes.run([*command, *split], self.folder)
        if split:
            self.units = [*sorted(units.glob("*.toml"))]
        if self.source.option:
            processes.run([*command, self.source.option], self.folder, self.source.settings)
        for name in workload.extra_columns(self.workload):
            self.query(f"alter table outbox add {name} text")
        # A vacuum would take one of the cores in the middle of a run.
        for table in [unit.stem if unit else "outbox" for unit in self.units]:
            self.query(f"alter table {table} set (autovacuum_enabled = off, toast.autovacuum_enabled = off)")
        if not self.source.polls:
            self.query("select pg_create_logical_replication_slot(%s, 'pgoutput')", self.base)

    def settings(self, name: str, *, slot: str, prefix: str) -> Path:
        """Write a settings file with required settings only, so that all others have their defaults."""
        file = self.folder / name
        file.write_text(
            f'[postgres]\ndsn = "{_escaped(self.dsn)}"\nslot = "{slot}"\n'
            f'[topics]\nname = "{prefix}.{{aggregatetype}}"\n'
            f'[kafka]\n"bootstrap.servers" = "{self.servers.kafka}"\n[avro]\nschemas = "{self.folder / "schemas"}"\n'
        )
        return file

    def build(self, progress: Progress) -> None:
        """Write the events, in a session that does not wait for the disk."""
        self.start, before = self.position(), self.postgres_seconds()
        self.query("set synchronous_commit = off")
        for first in range(1, self.workload.events + 1, CHUNK if self.workload.rows else self.workload.events):
            last = min(first + CHUNK - 1, self.workload.events) if self.workload.rows else self.workload.events
            self.query(insertion(self.workload, first, last, self.source))
            progress(last / self.workload.events)
        self.query("reset synchronous_commit")
        self.written_seconds = between(before, self.postgres_seconds())
        self.end = self.position()
        self.query("checkpoint")  # now rather than in the middle of a run; and so all of it is on the disk
        if not self.source.messages:
            self._check()

    def confirmed(self, slot: str) -> tuple[LSN, int | None]:
        """Return the position up to which a slot is confirmed, or for a relay all rows, and the walsender's pid."""
        done = "select confirmed_flush_lsn::text, active_pid from pg_replication_slots where slot_name = %s"
        ((position, walsender),) = self.query(_RELAY_DONE if self.source.polls else done, slot)
        return LSN.parse(position), walsender

    def postgres_seconds(self) -> float | None:
        """Return the CPU seconds of all of PostgreSQL's processes so far; None if they are not on this machine."""
        return processes.total_seconds(processes.postgres(self.connection.info.backend_pid)) or None

    def position(self) -> LSN:
        """Return the end of the WAL."""
        return LSN.parse(self.query("select pg_current_wal_insert_lsn()::text")[0][0])

    def _check(self) -> None:
        """Check that the rows are those that workload.payload returns."""
        numbers = [number for number in (1, 10) if number <= self.workload.events]
        ids = [workload.event_id(number) for number in numbers]
        rows = self.query("select payload from outbox where id = any(%s::uuid[]) order by id", ids)
        expected = [workload.payload(self.workload, number) for number in numbers]
        if [row[0] for row in rows] != expected:
            raise RuntimeError(f"PostgreSQL made other payloads than expected: {rows} instead of {expected}")

    def payload_bytes(self) -> float:
        """Return the average length of a payload as text."""
        return float(
            self.query("select avg(octet_length(payload::text)) from (select payload from outbox limit 1000)")[0][0]
        )

    @contextlib.contextmanager
    def slot(self, *, empty: bool = False) -> Iterator[str]:
        """Create a slot before the backlog, or if `empty` after it; drop it afterwards. A relay has only its name."""
        if self.source.polls:
            yield self.base
            return
        name = f"bench_{self.token}_{secrets.token_hex(4)}"
        if empty:
            self.query("select pg_create_logical_replication_slot(%s, 'pgoutput')", name)
        else:
            self.query("select pg_copy_logical_replication_slot(%s, %s)", self.base, name)
        try:
            yield name
        finally:
            self.query(
                "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where slot_name = %s", name
            )
            self.query("select pg_drop_replication_slot(%s)", name)

    def drop(self) -> None:
        """Drop the database and its slots."""
        if hasattr(self, "connection"):
            self.connection.close()
        with psycopg.connect(self.servers.dsn, autocommit=True) as admin:
            mine = "from pg_replication_slots where database = %s"
            name = f"bench_{self.token}"
            admin.execute(f"select pg_terminate_backend(active_pid, 5000) {mine} and active".encode(), [name])
            admin.execute(f"select pg_drop_replication_slot(slot_name) {mine}".encode(), [name])
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def insertion(given: Workload, first: int, last: int, source: Source = ROWS) -> str:
    """Return the statement that commits events by their numbers."""
    emitted, inserted = f"perform {workload.message_sql(given)}", f"insert into outbox {workload.rows_sql(given)}"
    rows = f"{emitted if source.messages else inserted} from generate_series"
    if not given.rows:
        return f"do $$ begin {rows}({first}::bigint, {last}::bigint) n; end $$"
    return (
        f"do $$ declare at bigint := {first}; begin while at <= {last} loop"
        f" {rows}(at, least(at + {given.rows} - 1, {last})) n; commit; at := at + {given.rows}; end loop; end $$"
    )


@contextlib.contextmanager
def backlog(
    servers: Servers,
    given: Workload,
    progress: Progress = lambda _: None,
    *,
    source: Source = ROWS,
    parts: int = 1,
) -> Iterator[Backlog]:
    """Build a backlog, and drop it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="cdc-bench-"))
    made = Backlog(servers, given, folder, source, parts)
    try:
        made.prepare()
        made.build(progress)
        yield made
    finally:
        made.drop()
        shutil.rmtree(folder, ignore_errors=True)
