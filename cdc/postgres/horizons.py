"""Takes horizons; see `cdc.replication.horizon` for their meaning."""

from dataclasses import replace
from typing import NamedTuple

from cdc.lsn import LSN
from cdc.postgres import numbers
from cdc.postgres.connection import Conn, query
from cdc.postgres.tables_below import TABLES_BELOW
from cdc.replication.horizon import Horizon


def take(connection: Conn, table: tuple[str, str] | None = None) -> Horizon:
    """Take a horizon of a primary: the snapshot is taken before the functions read the end of the WAL.

    With `table`, it knows how many rows of it were changed so far. Within a transaction that has an older snapshot,
    the horizon is that snapshot's.
    """
    ((xid, lsn, taken, timeline, counted),) = query(
        connection,
        "taking a horizon",
        """
        select pg_snapshot_xmin(pg_current_snapshot())::text::int8, pg_current_wal_insert_lsn()::text,
               extract(epoch from clock_timestamp())::float8, pg_walfile_name(pg_current_wal_insert_lsn()),
               extract(epoch from pg_stat_get_bgwriter_stat_reset_time())::float8
        """,
    )
    # Changes that are counted later were made later, or are taken for such.
    seen = changes(connection, table) if table else None
    horizon = Horizon(xid, LSN.parse(lsn), taken, int(timeline[:8], 16))
    if seen is None or table is None:
        return horizon
    number = numbers.last(connection, table)
    return replace(
        horizon, counted=counted, updates=seen.updates, deletes=seen.deletes, tables=seen.tables, number=number
    )


class RowChanges(NamedTuple):
    """How many rows of a table were inserted, updated and deleted since its statistics began."""

    inserts: int
    updates: int
    deletes: int
    tables: str = ""  # with rows: oids, with a colon and the filenode where that differs


def changes(connection: Conn, table: tuple[str, str]) -> RowChanges | None:
    """Return how many rows of a table, its partitions and inheriting tables were changed; None without the table.

    Statistics follow a change within about a second, and restart from 0 when the server crashes.
    """
    ((inserts, updates, deletes, tables),) = query(
        connection,
        "reading the statistics of the outbox",
        TABLES_BELOW
        + """
        select sum(pg_stat_get_tuples_inserted(relid))::int8, sum(pg_stat_get_tuples_updated(relid))::int8,
               sum(pg_stat_get_tuples_deleted(relid))::int8,
               string_agg(relid || case when c.relfilenode <> relid then ':' || c.relfilenode else '' end,
                          ' ' order by relid) filter (where c.relkind = 'r')
        from below join pg_class c on c.oid = relid
        """,
        *table,
    )
    return None if inserts is None else RowChanges(inserts, updates, deletes, tables or "")
