"""One backlog: its own database, the outbox as created by `outbox init`, and a slot that is copied for each run."""

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from benchmarks import processes, workload
from benchmarks.servers import Servers
from benchmarks.workload import Workload
from cdc.lsn import LSN

CHUNK = 50_000  # rows between two steps of the progress bar
PUBLICATION = "cdc_publisher"  # the default

Progress = Callable[[float], None]


class Backlog:
    """Waiting rows, from LSN `start` to `end`. `folder` contains the contracts.

    `units` are the settings files of an outbox in several parts, as `outbox init --split` writes them. With one part
    the outbox is not split, and has no such file.
    """

    def __init__(self, servers: Servers, given: Workload, folder: Path, parts: int = 1) -> None:
        self.servers = servers
        self.workload = given
        self.folder = folder
        self.token = secrets.token_hex(4)
        self.dsn = make_conninfo(servers.dsn, dbname=f"bench_{self.token}")
        self.base = f"bench_{self.token}_base"
        self.connection: psycopg.Connection[tuple[Any, ...]]
        self.start = self.end = LSN(0)
        self.parts = parts
        self.units: list[Path | None] = [None]

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def prepare(self) -> None:
        """Create the database, the table, the publication and the slot."""
        self.servers.query(f"create database bench_{self.token}")
        self.connection = psycopg.connect(self.dsn, autocommit=True)
        workload.write_contracts(self.folder / "schemas", self.workload)
        settings = self.settings("init.toml", slot=self.base, prefix="unused")
        command, units = ["outbox", "init"], self.folder / "units"
        if self.parts > 1:
            command += ["--split", str(self.parts), "--write", str(units)]
        processes.run(processes.python("-m", "cdc", "--config", str(settings), *command), self.folder)
        if self.parts > 1:
            self.units = [*sorted(units.glob("*.toml"))]
        for name in workload.extra_columns(self.workload):
            self.query(f"alter table outbox add {name} text")
        # A vacuum would take one of the cores in the middle of a run.
        for table in [unit.stem if unit else "outbox" for unit in self.units]:
            self.query(f"alter table {table} set (autovacuum_enabled = off, toast.autovacuum_enabled = off)")
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
        """Insert the rows, in a session that does not wait for the disk."""
        self.start = self.position()
        self.query("set synchronous_commit = off")
        for first in range(1, self.workload.events + 1, CHUNK if self.workload.rows else self.workload.events):
            last = min(first + CHUNK - 1, self.workload.events) if self.workload.rows else self.workload.events
            self.query(insertion(self.workload, first, last))
            progress(last / self.workload.events)
        self.query("reset synchronous_commit")
        self.end = self.position()
        self.query("checkpoint")  # now rather than in the middle of a run; and so all of it is on the disk
        self._check()

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
        """Create a slot before the backlog, or if `empty` after it; drop it afterwards."""
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


def insertion(given: Workload, first: int, last: int) -> str:
    """Return the statement that commits rows by their numbers."""
    rows = f"insert into outbox {workload.rows_sql(given)} from generate_series"
    if not given.rows:
        return f"{rows}({first}::bigint, {last}::bigint) n"
    return (
        f"do $$ declare at bigint := {first}; begin while at <= {last} loop"
        f" {rows}(at, least(at + {given.rows} - 1, {last})) n; commit; at := at + {given.rows}; end loop; end $$"
    )


@contextlib.contextmanager
def backlog(
    servers: Servers, given: Workload, progress: Progress = lambda _: None, *, parts: int = 1
) -> Iterator[Backlog]:
    """Build a backlog, and drop it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="cdc-bench-"))
    made = Backlog(servers, given, folder, parts)
    try:
        made.prepare()
        made.build(progress)
        yield made
    finally:
        made.drop()
        shutil.rmtree(folder, ignore_errors=True)
