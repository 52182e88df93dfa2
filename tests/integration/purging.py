"""An outbox to purge without Kafka: the slot is moved by hand, and another slot knows what had been in it."""

import contextlib
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from cdc.lsn import LSN
from tests.pipeline import PATIENCE, Pipeline, eventually

_ID = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
OLD = "now() - interval '40 days'"


class Yard:
    """The outbox of a pipeline whose settings have no Kafka, its slot, and a copy of the slot that stays behind."""

    def __init__(self, pipeline: Pipeline, definition: str = "") -> None:
        self.pipeline = pipeline
        self.slot = pipeline.slot
        pipeline.settings.pop("kafka", None)
        if definition:
            self.sql(definition)
        for command in (("outbox", "init"), ("slot", "create")):
            done = pipeline.run(*command)
            assert done.returncode == 0, done.stderr
        self.sql("select pg_copy_logical_replication_slot(%s, %s)", self.slot, f"{self.slot}_copy"[:63])

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.pipeline.sql(statement, *values)

    def insert(self, count: int, created_at: str = OLD, kind: str = "k") -> None:
        """Insert rows of a kind in one transaction."""
        with self.pipeline.connect() as connection:
            insert(connection, count, created_at, kind)

    def kinds(self) -> dict[str, int]:
        """How many rows of each kind there are."""
        return dict(self.sql("select aggregateid, count(*)::int from outbox group by 1"))

    def confirm(self, until: LSN | None = None) -> None:
        """Move the slot to the end of the WAL, or to an LSN."""
        # What has an end beyond the last record would not be reached at once.
        self.sql("select pg_logical_emit_message(true, 'test', '')")
        self.sql("select pg_replication_slot_advance(%s, %s::pg_lsn)", self.slot, str(until or self.pipeline.wal_end()))

    def published(self) -> set[str]:
        """The ids of the rows whose commits end at or before the slot's confirmed LSN, as decoding has them."""
        rows = self.sql(
            "select xid::text, data from pg_logical_slot_peek_binary_changes(%s, null, null, 'proto_version', '1',"
            " 'publication_names', 'cdc_publisher')",
            f"{self.slot}_copy"[:63],
        )
        ids: dict[str, set[str]] = {}
        confirmed, found = self.pipeline.confirmed(), set()
        for xid, data in rows:
            if data[:1] == b"I":
                ids.setdefault(xid, set()).update(uuid.decode() for uuid in _ID.findall(data))
            elif data[:1] == b"C" and int.from_bytes(data[10:18], "big") <= confirmed:
                found |= ids.get(xid, set())
        return found

    def ids(self) -> set[str]:
        return {str(row[0]) for row in self.sql("select id::text from outbox")}

    def purge(self, *options: str, code: int = 0) -> dict[str, Any]:
        """Run to the end while the slot follows; returns what was printed. Nothing unpublished may be gone."""
        with Confirming(self):
            done = self.run("--json", "--wait", "60s", *options)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def refused(self, *options: str, code: int = 1) -> str:
        """Run while the slot follows; returns the error. All rows stay."""
        before = self.ids()
        with Confirming(self):
            done = self.run("--wait", "60s", *options)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert self.ids() == before
        assert "Traceback" not in done.stderr
        return done.stderr

    def run(self, *options: str) -> "subprocess.CompletedProcess[str]":
        return self.pipeline.run("outbox", "purge", *options)

    @contextlib.contextmanager
    def begun(self, *options: str) -> "Iterator[subprocess.Popen[str]]":
        """A purge that waits for the slot: it has its horizon."""
        with subprocess.Popen(
            self.pipeline.command("outbox", "purge", "--json", "--wait", "60s", *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                looks = (
                    "select 1 from pg_stat_activity where application_name = 'cdc-publisher purge'"
                    " and datname = current_database() and query ~ 'confirmed_flush_lsn'"
                )

                def waits() -> bool:
                    assert process.poll() is None, process.communicate()
                    return len(self.sql(looks)) == 1

                eventually(waits, "the purge waits for the slot")
                yield process
            finally:
                process.kill()


def insert(connection: "psycopg.Connection[tuple[Any, ...]]", count: int, created_at: str, kind: str) -> None:
    """Insert rows into an outbox within the transaction of the connection, if it has one."""
    statement = sql.SQL(
        "insert into outbox (aggregatetype, aggregateid, type, payload, created_at)"
        " select 'note', {}, 'Noted', '{{}}', {} from generate_series(1, {})"
    )
    connection.execute(statement.format(kind, sql.SQL(created_at), count))


def end(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """What a purge that was begun printed."""
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (process.returncode, output, errors)
    return json.loads(output)  # type: ignore[no-any-return]


class Confirming:
    """Moves the slot all the time, as a publisher does that keeps up."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._yard.pipeline.connect() as connection:
            while not self._stop.wait(0.05):
                connection.execute("select pg_logical_emit_message(true, 'test', '')")
                connection.execute(
                    "select pg_replication_slot_advance(slot_name, pg_current_wal_flush_lsn())"
                    " from pg_replication_slots where slot_name = %s"
                    " and confirmed_flush_lsn < pg_current_wal_flush_lsn()",
                    [self._yard.slot],
                )
