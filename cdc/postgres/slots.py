"""Lists, creates, drops and advances replication slots, for the commands of users."""

import contextlib
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg

from cdc.errors import PostgresError
from cdc.lsn import LSN
from cdc.postgres.connection import Conn, described, query
from cdc.postgres.slot_health import PLUGIN

_FAILOVER_VERSION: Final = 170000


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One logical slot as `pg_replication_slots` shows it."""

    name: str
    plugin: str
    database: str
    active_pid: int | None
    confirmed: LSN | None
    lag_bytes: int | None  # from the confirmed LSN to the end of the WAL
    retained_bytes: int | None  # WAL that PostgreSQL keeps for this slot
    wal_status: str | None  # reserved, extended, unreserved or lost
    failover: bool | None  # it is copied to standbys; None where the server does not know it
    synced: bool | None  # it was copied from a primary


def find(connection: Conn) -> list[Slot]:
    """Return all logical slots, by name."""
    rows = query(
        connection,
        "reading the slots",
        """
        select slot_name, plugin, database, active_pid, confirmed_flush_lsn::text,
               pg_wal_lsn_diff(wal.ends, confirmed_flush_lsn)::int8, pg_wal_lsn_diff(wal.ends, restart_lsn)::int8,
               wal_status, (to_jsonb(s) ->> 'failover')::bool, (to_jsonb(s) ->> 'synced')::bool
        from pg_replication_slots s, (
            select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end as ends
        ) wal
        where slot_type = 'logical' order by slot_name
        """,
    )
    return [
        Slot(
            name=name,
            plugin=plugin,
            database=database,
            active_pid=pid,
            confirmed=None if confirmed is None else LSN.parse(confirmed),
            lag_bytes=lag,
            retained_bytes=retained,
            wal_status=wal_status,
            failover=failover,
            synced=synced,
        )
        for name, plugin, database, pid, confirmed, lag, retained, wal_status, failover, synced in rows
    ]


def get(connection: Conn, name: str) -> Slot:
    """Return one slot. Raises PostgresError when it does not exist."""
    for slot in find(connection):
        if slot.name == name:
            return slot
    raise PostgresError(f"replication slot {name!r} does not exist", hint="run: cdc-publisher slot list")


def inactive(connection: Conn, name: str) -> Slot:
    """Return one slot that is not active. Raises PostgresError with the reader's pid otherwise."""
    slot = get(connection, name)
    if slot.active_pid is not None:
        raise PostgresError(
            f"replication slot {name!r} is active: process {slot.active_pid} of PostgreSQL reads it",
            hint="stop the publisher first",
        )
    return slot


def holder(connection: Conn, name: str) -> tuple[int, float | None] | None:
    """Return the pid of the walsender of a slot, and the seconds since its reader last replied, if known.

    None while the slot is not active. The seconds are those of
    <https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-REPLICATION-VIEW>
    """
    found = query(
        connection,
        "reading who reads the slot",
        """
        select s.active_pid, extract(epoch from clock_timestamp() - coalesce(r.reply_time, r.backend_start))::float8
        from pg_replication_slots s left join pg_stat_replication r on r.pid = s.active_pid
        where s.slot_name = %s and s.active_pid is not null
        """,
        name,
    )
    return (int(found[0][0]), found[0][1]) if found else None


def check_new(connection: Conn, name: str, *, failover: bool) -> None:
    """Raise PostgresError when the slot exists already, or the server has no failover slots."""
    if any(slot.name == name for slot in find(connection)):
        raise PostgresError(f"replication slot {name!r} exists already", hint="run: cdc-publisher slot list")
    if failover and connection.info.server_version < _FAILOVER_VERSION:
        raise PostgresError(
            f"PostgreSQL {connection.info.server_version // 10000} has no failover slots",
            hint="17 is the first that has; create the slot without --failover",
        )


def create(connection: Conn, name: str, *, failover: bool = False, temporary: bool = False) -> LSN:
    """Create a logical slot; return where it starts. Raises PostgresError when it exists.

    A failover slot is synchronized to standbys (`sync_replication_slots`), from PostgreSQL 17 on.
    """
    check_new(connection, name, failover=failover)
    statement: LiteralString = "select lsn::text from pg_create_logical_replication_slot(%s, %s, %s)"
    if failover:
        statement = "select lsn::text from pg_create_logical_replication_slot(%s, %s, %s, failover => true)"
    with contextlib.suppress(psycopg.Error):  # not every operating system of a server can look
        # Else the server would create the slot later, even if this process has been killed.
        connection.execute("set client_connection_check_interval = '1s'")
    ((lsn,),) = query(connection, "creating the slot", statement, name, PLUGIN, temporary)
    return LSN.parse(lsn)


def await_transactions(connection: Conn, name: str) -> None:
    """Wait for the end of the transactions that a new slot of this name would wait for now.

    The server ends this wait when this process is killed, and leaves no slot behind.
    """
    create(connection, name, temporary=True)
    query(connection, "creating the slot", "select pg_drop_replication_slot(%s)", name)


def drop(connection: Conn, name: str) -> None:
    """Drop a slot that is not active."""
    _change(connection, name, "dropping the slot", "select pg_drop_replication_slot(%s)", name)


def advance(connection: Conn, name: str, to: LSN) -> LSN:
    """Advance a slot that is not active; return its confirmed LSN."""
    end = _change(
        connection,
        name,
        "advancing the slot",
        "select end_lsn::text from pg_replication_slot_advance(%s, %s::pg_lsn)",
        name,
        str(to),
    )
    return LSN.parse(end)


def system_identifier(connection: Conn) -> str:
    """Return the identifier of the cluster, which distinguishes its slots from those of other clusters."""
    ((found,),) = query(
        connection, "reading the system identifier", "select system_identifier::text from pg_control_system()"
    )
    return str(found)


def timeline(connection: Conn) -> int:
    """Return the timeline that the server writes on; not for standbys."""
    # pg_control_checkpoint() has the one before a promotion until the next checkpoint has ended.
    ((found,),) = query(connection, "reading the timeline", "select pg_walfile_name(pg_current_wal_lsn())")
    return int(found[:8], 16)


def wal_end(connection: Conn) -> LSN:
    """Return the end of the server's WAL."""
    ((lsn,),) = query(connection, "reading the WAL's end", "select pg_current_wal_lsn()::text")
    return LSN.parse(lsn)


def _change(connection: Conn, name: str, doing: str, statement: LiteralString, *values: object) -> Any:
    inactive(connection, name)
    try:
        ((result,),) = connection.execute(statement, values).fetchall()
    except psycopg.errors.ObjectInUse:
        inactive(connection, name)
        raise
    except psycopg.Error as error:
        raise described(error, doing) from None
    return result
