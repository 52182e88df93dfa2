"""Sample the rows in the outbox table, in a time that does not grow with the table."""

from typing import Final, NamedTuple

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from cdc.config.settings import Settings
from cdc.errors import PostgresUnavailable
from cdc.postgres import rows
from cdc.postgres.connection import described, query
from cdc.postgres.rows import OutboxRow

Conn = Connection[TupleRow]

ROWS: Final = 2000
_PAGES: Final = 400  # at the end of the table, where new rows usually are
_SCAN_SECONDS: Final = 5  # limit for queries that read the whole table


class RowSample(NamedTuple):
    """Rows of the outbox. `topics` and `largest` cover the whole table if `complete`, else only the latest rows."""

    topics: list[tuple[str, str]]  # pairs of topic and event type
    latest: list[OutboxRow]
    largest: OutboxRow | None
    complete: bool


def take(connection: Conn, settings: Settings) -> RowSample:
    """Read the sample; a scan over the time limit is abandoned. Raises PostgresError if the table cannot be read."""
    latest = _latest(connection, settings)
    try:
        with connection.transaction():  # the scope of `set local`
            connection.execute(f"set local statement_timeout = '{_SCAN_SECONDS}s'".encode())
            return RowSample(rows.topics(connection, settings), latest, _largest(connection, settings), complete=True)
    except PostgresUnavailable:
        if connection.closed:
            raise
    topics = sorted({pair for row in latest if (pair := rows.topic(settings, row))})
    largest = max(latest, key=lambda row: len(row.payload or b""), default=None)
    return RowSample(topics, latest, largest, complete=False)


def _latest(connection: Conn, settings: Settings) -> list[OutboxRow]:
    """Read up to ROWS rows from the table's last pages; of a partitioned table, any rows."""
    table = settings.outbox.qualified_name
    ((first,),) = query(
        connection,
        "reading the table's size",
        """
        select case when c.relkind = 'r' then
            greatest(pg_relation_size(c.oid) / current_setting('block_size')::int - %s, 0) end
        from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = %s and c.relname = %s
        """,
        _PAGES,
        *table,
    )
    where = sql.SQL("limit {}").format(ROWS)
    if first is not None:
        where = sql.SQL("where ctid >= {}::tid order by ctid desc limit {}").format(f"({first},0)", ROWS)
    return _rows(connection, settings, where)


def _largest(connection: Conn, settings: Settings) -> OutboxRow | None:
    payload = sql.Identifier(settings.outbox.columns.payload)
    clause = sql.SQL("order by octet_length({}::text) desc nulls last limit 1").format(payload)
    return next(iter(_rows(connection, settings, clause)), None)


def _rows(connection: Conn, settings: Settings, clause: sql.Composed) -> list[OutboxRow]:
    statement, is_avro = rows.selection(connection, settings)
    try:
        found = connection.execute(sql.SQL("{} {}").format(statement, clause)).fetchall()
    except psycopg.Error as error:
        raise described(error, "reading the outbox table") from None
    return [rows.row(values, is_avro) for values in found]
