"""Reads the publisher's slot in PostgreSQL: its state, its reader, and the WAL that it retains.

<https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-REPLICATION-VIEW>
"""

from psycopg import Connection
from psycopg.rows import TupleRow

from cdc.config.settings import Settings
from cdc.lsn import LSN
from cdc.postgres import catalog, slot_health, slots
from cdc.postgres.connection import query
from cdc.postgres.renamed import located
from cdc.postgres.tables_below import TABLES_BELOW
from cdc.status.from_slot import SlotFacts, Walsender

Conn = Connection[TupleRow]


def look(connection: Conn, settings: Settings) -> SlotFacts:
    """Read the slot once. Raises PostgresUnavailable, and PostgresError for a server that is not supported."""
    catalog.server(connection)
    settings = located(connection, settings)
    name, table = settings.postgres.slot, settings.outbox.qualified_name
    ((time, end),) = query(
        connection,
        "reading the WAL's end",
        f"select {_iso('clock_timestamp()')}, pg_current_wal_lsn()::text",
    )
    found = slot_health.read(connection, name)
    reader, unread_since = _reader(connection, name)
    warning = slot_health.warning(name, found) if found else None
    return SlotFacts(
        slot=name,
        publication=settings.postgres.publication,
        time=time,
        wal_end=LSN.parse(end),
        timeline=slots.timeline(connection),
        exists=found is not None,
        database=None if found is None or found.here else found.database or "none: it is a physical slot",
        confirmed=found.confirmed if found else None,
        retained_bytes=found.retained_bytes if found else None,
        limit_bytes=found.limit_bytes if found else None,
        safe_bytes=found.safe_bytes if found else None,
        wal_status=found.wal_status if found else None,
        problem=slot_health.problem(name, found),
        warning=warning[1] if warning else None,
        reader=reader,
        unread_since=unread_since,
        table="" if catalog.without_table(connection, settings) else ".".join(table),
        rows=estimated_rows(connection, table),
    )


def _reader(connection: Conn, slot: str) -> tuple[Walsender | None, str | None]:
    """Return the slot's reader, or since when it has had none, if the server knows."""
    found = query(
        connection,
        "reading the reader of the slot",
        f"""
        select s.active_pid, coalesce(r.application_name, a.application_name),
               host(coalesce(r.client_addr, a.client_addr)),
               {_iso("coalesce(r.backend_start, a.backend_start)")}, r.state,
               extract(epoch from clock_timestamp() - r.reply_time)::float8,
               {_iso("(to_jsonb(s) ->> 'inactive_since')::timestamptz")}
        from pg_replication_slots s
        left join pg_stat_replication r on r.pid = s.active_pid
        left join pg_stat_activity a on a.pid = s.active_pid
        where s.slot_name = %s
        """,
        slot,
    )
    for pid, application, address, since, state, silent, unread_since in found:
        if pid is None:
            return None, unread_since
        return Walsender(pid, application, address, since, state, None if silent is None else max(0.0, silent)), None
    return None, None


def estimated_rows(connection: Conn, table: tuple[str, str]) -> int | None:
    """Estimate the number of outbox rows from the last vacuum or analyze; None before the first."""
    found = query(
        connection,
        "estimating the outbox table",
        TABLES_BELOW
        + """
        select sum(c.reltuples)::int8 from below b join pg_class c on c.oid = b.relid
        where c.relkind = 'r' and c.reltuples >= 0
        """,
        *table,
    )
    return next((rows for (rows,) in found), None)


def _iso(time: str) -> str:
    """Return SQL that formats a time as in the status document."""
    return f"to_char({time} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
