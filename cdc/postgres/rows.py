"""The rows that are in the outbox table now, for people who want to know before the publisher does.

A cursor on the server hands them out in portions, so that memory stays flat whatever the table holds.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import Connection, sql

from cdc import cells
from cdc.config.settings import Settings
from cdc.errors import PostgresError
from cdc.outbox import Columns
from cdc.postgres.catalog import table_columns
from cdc.postgres.connection import described
from cdc.topics import TopicTemplate

PORTION: Final = 1000

Conn = Connection[tuple[Any, ...]]


class OutboxRow(NamedTuple):
    """One row; what is null in the table is None."""

    id: str | None
    type: str | None
    payload: bytes | None
    payload_is_avro: bool


def read(connection: Conn, settings: Settings) -> Iterator[OutboxRow]:
    """Every row, as of one moment. Raises PostgresError when the table cannot be read."""
    columns, present = _columns(connection, settings)
    is_avro = present[columns.payload][0] == cells.BYTEA
    query = sql.SQL("select {}::text, {}::text, {}{} from {}").format(
        sql.Identifier(columns.id),
        sql.Identifier(columns.type),
        sql.Identifier(columns.payload),
        sql.SQL("" if is_avro else "::text"),
        sql.Identifier(*settings.outbox.qualified_name),
    )
    try:
        with connection.transaction(), connection.cursor("cdc_rows") as cursor:
            cursor.itersize = PORTION
            for row_id, event_type, payload in cursor.execute(query):
                value = payload.encode() if isinstance(payload, str) else payload
                yield OutboxRow(row_id, event_type, value, is_avro)
    except psycopg.Error as error:
        raise described(error, "reading the outbox table") from None


def topics(connection: Conn, settings: Settings) -> list[tuple[str, str]]:
    """Each topic that rows of the table go to, with each event type there. Raises PostgresError as `read`."""
    columns, present = _columns(connection, settings)
    template = TopicTemplate(settings.topics.name)
    names = [columns.resolve(name, list(present)) for name in template.columns]
    parts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in [*names, columns.type])
    query = sql.SQL("select distinct {} from {}").format(parts, sql.Identifier(*settings.outbox.qualified_name))
    try:
        rows = connection.execute(query).fetchall()
    except psycopg.Error as error:
        raise described(error, "reading the outbox table") from None
    return sorted(
        (template.fill(dict(zip(template.columns, map(str, values), strict=True))), str(event_type))
        for *values, event_type in rows
        if event_type is not None and None not in values
    )


def _columns(connection: Conn, settings: Settings) -> tuple[Columns, dict[str, tuple[int, str]]]:
    columns = settings.outbox.parts
    present = table_columns(connection, settings.outbox.qualified_name)
    if present is None:
        raise PostgresError(f"table {settings.outbox.table} does not exist", hint="run: cdc-publisher outbox init")
    needed = [columns.id, columns.type, columns.payload]
    needed += [columns.resolve(name, list(present)) for name in TopicTemplate(settings.topics.name).columns]
    missing = [name for name in dict.fromkeys(needed) if name not in present]
    if missing:
        raise PostgresError(
            f"table {settings.outbox.table} has no column {', '.join(missing)}", hint="map it in [outbox] columns"
        )
    return columns, present
