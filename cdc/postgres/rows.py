"""Reads the current rows of the outbox table, for commands that try them before the publisher does.

A cursor on the server returns them in portions, so that memory stays flat however many there are.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from psycopg import sql
from psycopg.rows import TupleRow

from cdc.config.settings import Settings
from cdc.errors import PostgresError
from cdc.outbox.columns import Columns
from cdc.postgres.catalog import hidden_rows, require_table, table_columns, without_table
from cdc.postgres.connection import Conn, converting
from cdc.replication.values import BYTEA

PORTION: Final = 1000
_DOING: Final = "reading the outbox table"


class OutboxRow(NamedTuple):
    """One row; None stands for null."""

    id: str | None
    type: str | None
    payload: bytes | None
    payload_is_avro: bool
    parts: tuple[str | None, ...] = ()  # what decides about the topic, as `TopicTemplate.columns`


def read(connection: Conn, settings: Settings) -> Iterator[OutboxRow]:
    """Yield every row, as of one moment. Raises PostgresError when the table cannot be read."""
    query, is_avro = selection(connection, settings)
    with converting(_DOING), connection.transaction(), connection.cursor("cdc_rows") as cursor:
        cursor.itersize = PORTION
        for values in cursor.execute(query):
            yield row(values, is_avro)


def selection(connection: Conn, settings: Settings) -> tuple[sql.Composed, bool]:
    """Return the query whose results `row` converts, and whether payloads are Avro. Raises PostgresError as `read`."""
    columns, present = _columns(connection, settings)
    is_avro = present[columns.payload][0] == BYTEA
    names = [columns.id, columns.type, *_placeholders(columns, settings, present)]
    query = sql.SQL("select {}{}, {} from {}").format(
        sql.Identifier(columns.payload),
        sql.SQL("" if is_avro else "::text"),
        sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in names),
        sql.Identifier(*settings.outbox.qualified_name),
    )
    return query, is_avro


def row(values: TupleRow, is_avro: bool) -> OutboxRow:
    """Convert one result of the query."""
    payload, row_id, event_type, *parts = values
    value = payload.encode() if isinstance(payload, str) else payload
    return OutboxRow(row_id, event_type, value, is_avro, tuple(parts))


def topic(settings: Settings, found: OutboxRow) -> tuple[str, str] | None:
    """Return the topic of a row, and its event type; None when it has none."""
    template = settings.template
    made = template.fill(dict(zip(template.columns, found.parts, strict=True)).get)
    return None if found.type is None or made is None else (made, found.type)


def topics(connection: Conn, settings: Settings) -> list[tuple[str, str]]:
    """Return each topic that rows of the table go to, with each event type there; none without a table.

    Raises PostgresError as `read`.
    """
    if without_table(connection, settings):
        return []
    columns, present = _columns(connection, settings)
    template = settings.template
    names = _placeholders(columns, settings, present)
    parts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in [*names, columns.type])
    query = sql.SQL("select distinct {} from {}").format(parts, sql.Identifier(*settings.outbox.qualified_name))
    with converting(_DOING):
        rows = connection.execute(query).fetchall()
    return sorted(
        {
            (made, str(event_type))
            for *values, event_type in rows
            if event_type is not None
            and (made := template.fill(dict(zip(template.columns, values, strict=True)).get)) is not None
        }
    )


def _columns(connection: Conn, settings: Settings) -> tuple[Columns, dict[str, tuple[int, str]]]:
    require_table(connection, settings)
    columns = settings.outbox.parts
    present = table_columns(connection, settings.outbox.qualified_name)
    if present is None:
        raise PostgresError(f"table {settings.outbox.table} does not exist", hint="run: cdc-publisher outbox init")
    needed = [columns.id, columns.type, columns.payload]
    needed += _placeholders(columns, settings, present)
    missing = [name for name in dict.fromkeys(needed) if name not in present]
    if missing:
        raise PostgresError(
            f"table {settings.outbox.table} has no column {', '.join(missing)}", hint="map it in [outbox] columns"
        )
    if defect := hidden_rows(connection, settings.outbox.qualified_name):
        raise defect.error()
    return columns, present


def _placeholders(columns: Columns, settings: Settings, present: dict[str, tuple[int, str]]) -> list[str]:
    return [columns.resolve(name, list(present)) for name in settings.template.columns]
