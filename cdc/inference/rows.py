"""Reads rows for the inference, all or a sample, in one snapshot: it is read twice, and both times must be the same.

A sample is chosen within PostgreSQL by the length of payloads and the place of rows, so that no payload leaves the
server for it. A cursor on the server returns rows in portions.
"""

import contextlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from psycopg import sql

from cdc.config.settings import Settings
from cdc.errors import PostgresError
from cdc.postgres import rows
from cdc.postgres.catalog import table_columns
from cdc.postgres.connection import LONG_SECONDS, Conn, connect, converting, snapshot
from cdc.postgres.renamed import located
from cdc.postgres.rows import PORTION, OutboxRow
from cdc.replication.values import TIMESTAMP, TIMESTAMPTZ

_DOING: Final = "reading the outbox table"
_CREATED_AT: Final = "created_at"


class TypeRows(NamedTuple):
    """The rows of one event type that have a payload, and the oldest one's time in ISO 8601, None if not known."""

    total: int
    since: str | None


class Table:
    """The outbox table within one transaction; use `opened`. Raises PostgresError when it cannot be read."""

    def __init__(self, connection: Conn, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._columns = settings.outbox.parts
        self._query, is_avro = rows.selection(connection, settings)
        if is_avro:
            raise PostgresError(
                f"column {self._columns.payload} of table {settings.outbox.table} is bytea: its payloads are Avro"
                " already, so that no contract can be inferred",
                hint="export the schemas that the producers use to [avro] schemas, or infer from json, jsonb or text",
            )
        self._time = _time_column(table_columns(connection, settings.outbox.qualified_name) or {})

    def types(self, wanted: tuple[str, ...]) -> dict[str, TypeRows]:
        """Count the rows of each event type, or of those that are wanted."""
        since = sql.SQL("""to_char(min({}), 'YYYY-MM-DD"T"HH24:MI:SS"Z"')""").format(self._age)
        query = sql.SQL("select {}, count(*), {} from {} where {} group by 1 order by 1").format(
            self._type, since, self._name, self._where(wanted)
        )
        with converting(_DOING):
            found = self._connection.execute(query, {"types": list(wanted)}).fetchall()
        return {event_type: TypeRows(count, oldest) for event_type, count, oldest in found if event_type is not None}

    def read(self, types: tuple[str, ...], sample: int | None) -> Iterator[OutboxRow]:
        """Yield the rows of these types that have a payload: all, or `sample` of each and its extremes."""
        where = self._where(types)
        if sample is not None:
            where = sql.SQL("(tableoid, ctid) in ({})").format(self._sample(where))
        query = sql.SQL("{} where {}").format(self._query, where)
        with converting(_DOING), self._connection.cursor("cdc_inference") as cursor:
            cursor.itersize = PORTION
            for values in cursor.execute(query, {"types": list(types), "sample": sample}):
                yield rows.row(values, False)

    def _sample(self, where: sql.Composable) -> sql.Composed:
        """Select rows at equal distances over the table, and the longest, shortest and oldest, of each type."""
        return sql.SQL(
            """
            select part, place from (
                select part, place, row_number() over w as number, count(*) over (partition by type) as total,
                    row_number() over (partition by type order by size desc, part, place) as longest,
                    row_number() over (partition by type order by size, part, place) as shortest,
                    row_number() over (partition by type order by age nulls last, part, place) as oldest
                from (
                    select tableoid as part, ctid as place, {type} as type, octet_length({payload}::text) as size,
                        {age} as age
                    from {table} where {where}
                ) found
                window w as (partition by type order by part, place)
            ) numbered
            where number * %(sample)s / total > (number - 1) * %(sample)s / total or 1 in (longest, shortest, oldest)
            """
        ).format(
            type=self._type,
            payload=sql.Identifier(self._columns.payload),
            age=self._age,
            table=self._name,
            where=where,
        )

    def _where(self, types: tuple[str, ...]) -> sql.Composed:
        query = sql.SQL("{} is not null").format(sql.Identifier(self._columns.payload))
        return sql.SQL("{} and {} = any(%(types)s)").format(query, self._type) if types else query

    @property
    def _type(self) -> sql.Composed:
        return sql.SQL("{}::text").format(sql.Identifier(self._columns.type))

    @property
    def _age(self) -> sql.Composable:
        """The row's time as a timestamp in UTC, without infinity."""
        if self._time is None:
            return sql.SQL("null::timestamp")
        age = sql.SQL("{}::timestamp").format(sql.Identifier(self._time))
        return sql.SQL("case when isfinite({}) then {} end").format(age, age)

    @property
    def _name(self) -> sql.Identifier:
        return sql.Identifier(*self._settings.outbox.qualified_name)


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Table]:
    """Open the table for reading in one snapshot."""
    with connect(settings.postgres.dsn, statement_seconds=LONG_SECONDS) as connection, snapshot(connection, _DOING):
        yield Table(connection, located(connection, settings))


def _time_column(present: dict[str, tuple[int, str]]) -> str | None:
    """Return the column with a row's creation time: created_at, or the only one with a time."""
    times = [name for name, (oid, _) in present.items() if oid in (TIMESTAMP, TIMESTAMPTZ)]
    return _CREATED_AT if _CREATED_AT in times else times[0] if len(times) == 1 else None
