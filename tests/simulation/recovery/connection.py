"""Connections to the simulated PostgreSQL: real statements, of which those that read the table run in SQLite."""

import contextlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final

import psycopg

from cdc.lsn import LSN
from cdc.recovery.new_slot import SlotStart
from tests.simulation.recovery.server import SimServer, Snapshot

SYSTEM: Final = "7000000000000000001"
DEFINITION: Final = {"table": "public.outbox", "table oid": "1", "publication": "cdc_publisher"}
COLUMNS: Final = {
    "id": (25, "text"),
    "aggregatetype": (25, "text"),
    "aggregateid": (25, "text"),
    "type": (25, "text"),
    "payload": (25, "text"),
    "created_at": (1184, "timestamp with time zone"),
    "cdc_seq": (20, "bigint"),
}
_TABLE: Final = "create table outbox (tableoid, ctid, xmin, cmin, " + ", ".join(COLUMNS) + ")"
_NEXT: Final = "(select pg_snapshot_xmax(pg_current_snapshot())::text::int8)"
_XMIN: Final = "(select pg_snapshot_xmin(pg_current_snapshot())::text::int8)"
_PLACES: Final = re.compile(r"t\.ctid = any\((.*?)::tid\[\]\)")
_CAST: Final = re.compile(r"::[a-z0-9]+(\[\])?")
_WRITTEN: Final = re.compile(r"= any\('\{(.*?)\}'\)")
_LISTED: Final = re.compile(r"= any\(%\((\w+)\)s\)")
_SAME: Final = (
    ('"public"."outbox"', "outbox"),
    ("extract(epoch from ", "("),
    ("to_timestamp(", "("),
    ("bool_or(", "max("),
)

Call = Callable[[], contextlib.AbstractContextManager[None]]
"""What each statement runs in: the process may die before it, and after it took effect."""


class Result(list[tuple[Any, ...]]):
    """The rows of a statement."""

    def fetchall(self) -> "Result":
        return self


class SimConnection:
    """One connection; it ends when the server fails."""

    info = SimpleNamespace(server_version=180000)
    closed = False

    def __init__(self, server: SimServer, call: Call) -> None:
        self._server = server
        self._call = call
        self._generation = server.generation
        self._snapshot: Snapshot | None = None
        self._in_transaction = False
        self._read = sqlite3.connect(":memory:")
        self._read.execute(_TABLE)
        self._filled: Snapshot | None = None
        self._read.create_function("pg_xact_commit_timestamp", 1, server.times.get)
        self._read.create_function("pg_column_size", 1, len)

    def __enter__(self) -> "SimConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self._read.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self._in_transaction, self._snapshot = True, None
        try:
            yield
        finally:
            self._in_transaction, self._snapshot = False, None

    @contextlib.contextmanager
    def cursor(self, _: str) -> Iterator["SimConnection"]:
        yield self

    def execute(self, statement: Any, values: Any = ()) -> Result:
        text = statement if isinstance(statement, str) else statement.as_string(None)
        with self._call():
            if self._generation != self._server.generation:
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            return Result(self._run(text, values))

    def _run(self, text: str, values: Any) -> Sequence[tuple[Any, ...]]:
        for part, answer in _ANSWERS:
            if part in text:
                return answer(self, text, values)
        raise AssertionError(f"a statement that the simulated server does not know: {text}")

    def seen(self) -> Snapshot:
        """Return the snapshot of the transaction, or one of now."""
        if self._snapshot is None or not self._in_transaction:
            self._snapshot = self._server.snapshot()
        return self._snapshot

    def _import(self, *_: Any) -> list[tuple[Any, ...]]:
        if self._server.exported is None:
            raise psycopg.errors.UndefinedObject("snapshot does not exist")
        self._snapshot = self._server.exported
        return []

    def _lock(self, *_: Any) -> list[tuple[Any, ...]]:
        self.seen()
        return []

    def _table(self, text: str, values: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        seen = self.seen()
        if self._filled is not seen:
            self._filled = seen
            self._read.execute("delete from outbox")
            self._read.executemany(
                f"insert into outbox values ({', '.join('?' * (4 + len(COLUMNS)))})",
                [
                    (1, row.place, row.xmin, row.statement, row.id, "order", row.key, "Placed", row.id, row.created,
                     row.number)
                    for row in seen.rows
                ],
            )  # fmt: skip
        given = {name: json.dumps(one) if isinstance(one, list) else one for name, one in dict(values or {}).items()}
        found = self._read.execute(_translated(text, seen), given).fetchall()
        return [tuple(int(cell + 0.5) if isinstance(cell, float) else cell for cell in row) for row in found]

    def _horizon(self, *_: Any) -> list[tuple[Any, ...]]:
        server, seen = self._server, self.seen()
        xid = seen.xmin if "pg_snapshot_xmin" in _[0] else seen.next_xid
        timeline = f"{server.timeline:08X}{0:016X}"
        return [(xid, str(LSN(server.lsn)), server.now(), timeline, float(server.generation))]

    def _message(self, *_: Any) -> list[tuple[Any, ...]]:
        return [(str(LSN(self._server.message())),)]

    def _ids(self, *_: Any) -> list[tuple[Any, ...]]:
        return [(self.seen().next_xid, str(LSN(self._server.lsn)))]

    def _bounds(self, *_: Any) -> list[tuple[Any, ...]]:
        seen = self.seen()
        return [(str(seen.xmin), str(seen.next_xid))]

    def _health(self, *_: Any) -> list[tuple[Any, ...]]:
        slot = self._server.slot
        if slot is None:
            return []
        status = "lost" if slot.lost else "reserved"
        pid = 1 if slot.active else None
        confirmed = str(LSN(slot.confirmed))
        return [("pgoutput", "db", True, confirmed, status, None, 0, None, None, False, False, False, pid, None, None)]

    def _find(self, *_: Any) -> list[tuple[Any, ...]]:
        slot = self._server.slot
        if slot is None:
            return []
        pid = 1 if slot.active else None
        return [("cdc_publisher", "pgoutput", "db", pid, str(LSN(slot.confirmed)), 0, 0, "reserved", False, False)]

    def _drop(self, *_: Any) -> list[tuple[Any, ...]]:
        self._server.slot = None
        return [("",)]

    def _changes(self, *_: Any) -> list[tuple[Any, ...]]:
        return [(0, self._server.updates, self._server.deletes, "1")]

    def _end(self, *_: Any) -> list[tuple[Any, ...]]:
        return [(str(LSN(self._server.lsn)),)]

    def _timeline(self, *_: Any) -> list[tuple[Any, ...]]:
        return [(f"{self._server.timeline:08X}{0:016X}",)]

    def _timed(self, *_: Any) -> list[tuple[Any, ...]]:
        return [(self._server.timed,)]


_ANSWERS: Final[tuple[tuple[str, Callable[..., Sequence[tuple[Any, ...]]]], ...]] = (
    ("set transaction snapshot", SimConnection._import),
    ("set transaction isolation", lambda *_: []),
    ("set local", lambda *_: []),
    ('"public"."outbox" limit 0', SimConnection._lock),
    ("pg_relation_filenode", lambda *_: []),
    ('"public"."outbox"', SimConnection._table),
    ("pg_walfile_name(pg_current_wal_insert_lsn", SimConnection._horizon),
    ("pg_walfile_name(pg_current_wal_lsn", SimConnection._timeline),
    ("pg_logical_emit_message", SimConnection._message),
    ("pg_try_advisory_lock", lambda *_: [(True,)]),
    ("track_commit_timestamp", SimConnection._timed),
    ("catalog_xmin", lambda *_: [(None,)]),
    ("from pg_current_snapshot() s", SimConnection._bounds),
    ("pg_snapshot_xmax", SimConnection._ids),
    ("s.safe_wal_size", SimConnection._health),
    ("pg_drop_replication_slot", SimConnection._drop),
    ("pg_wal_lsn_diff(wal.ends", SimConnection._find),
    ("pg_stat_get_tuples", SimConnection._changes),
    ("pg_control_system", lambda *_: [(SYSTEM,)]),
    ("pg_current_wal_lsn", SimConnection._end),
)


def _translated(text: str, seen: Snapshot) -> str:
    text = text.replace(_NEXT, str(seen.next_xid)).replace(_XMIN, str(seen.xmin))
    text = _PLACES.sub(lambda found: "t.ctid " + _tuple(re.findall(r"\(\d+,\d+\)", found[1])), text)
    for theirs, ours in _SAME:
        text = text.replace(theirs, ours)
    text = _WRITTEN.sub(lambda found: _tuple(re.findall(r"\w+", found[1])), _CAST.sub("", text))
    text = _LISTED.sub(r"in (select value from json_each(%(\1)s))", text)
    return re.sub(r"%\((\w+)\)s", r":\1", text).replace("%%", "%")


class SimNewSlot:
    """The replication connection that makes the slot; its snapshot is there until it is told to hold the slot."""

    def __init__(self, server: SimServer, call: Call, wait: Callable[[], None]) -> None:
        self._server = server
        self._call = call
        self._wait = wait
        self._generation = server.generation

    def create(self, _: str, *, failover: bool, seconds: float | None = None) -> SlotStart:  # noqa: ARG002
        with self._call():
            start, _snapshot = self._server.create_slot(self._wait)
            return SlotStart(LSN(start), "exported")

    def hold(self, slot: str, publication: str) -> None:  # noqa: ARG002
        with self._call():
            self._server.exported = None

    def close(self) -> None:
        """Release the slot."""
        if self._server.slot and self._generation == self._server.generation:
            self._server.slot.active = False


class SimSource:
    """A replication connection that is asked about timelines."""

    def __init__(self, server: SimServer) -> None:
        self._server = server

    def identify(self) -> tuple[str, int]:
        return SYSTEM, self._server.timeline

    def timelines(self, _: int) -> dict[int, LSN]:
        return {number: LSN(end) for number, end in self._server.ends.items()}

    def close(self) -> None:
        """Nothing to close."""


def _tuple(texts: list[str]) -> str:
    return f"in ({', '.join(map(repr, texts))})"
