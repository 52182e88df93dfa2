"""Reads the outbox table for an audit: its rows as of one moment, with the order of their commits as far as known."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from psycopg import sql

from cdc.audit.in_flight import wal_end
from cdc.audit.range import Range
from cdc.audit.verdicts import TableRow
from cdc.config.settings import Settings
from cdc.errors import PostgresError
from cdc.lsn import LSN
from cdc.outbox.keys import TEXT_KEYS, Frame
from cdc.outbox.topic_template import is_topic_name
from cdc.postgres import key_column, publication
from cdc.postgres.catalog import hidden_rows, table_columns
from cdc.postgres.connection import Conn, converting, query, snapshot
from cdc.postgres.horizons import changes
from cdc.replication.messages import Column, Relation, TupleData
from cdc.replication.publication import NONE, ROW_FILTER
from cdc.replication.values import INT2, INT4, INT8

PORTION: Final = 5000
AGE: Final = "created_at"  # the column that `outbox init` makes

_INTEGERS: Final = (INT2, INT4, INT8)
_TIMES: Final = ("timestamp", "date")
_MOMENT: Final = " with time zone"


@contextlib.contextmanager
def snapshot_end(connection: Conn, table: tuple[str, str] | None = None) -> Iterator[LSN]:
    """Open a snapshot, to read rows of `table`; everything that is visible in it was committed before the LSN."""
    with snapshot(connection, "reading the outbox table", table=table):
        connection.execute("select pg_current_snapshot()")  # the moment is that of the first query
        yield wal_end(connection)


class NoTable:
    """What stands for the table where all events are messages: it has no rows."""

    numeric = tells_beginning = False
    keys = TEXT_KEYS

    def __init__(self, connection: Conn, settings: Settings) -> None:
        self._connection = connection
        self.tells_times = settings.record.time_column is None

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[LSN]:
        """See `OutboxTable`."""
        with snapshot_end(self._connection) as end:
            yield end

    def rows(self, wanted: Range, topics: frozenset[str]) -> Iterator[TableRow]:  # noqa: ARG002
        """Yield nothing."""
        yield from ()

    def fetch(self, ids: Sequence[str]) -> Iterator[tuple[str, Relation, TupleData, int | None]]:  # noqa: ARG002
        """Yield nothing."""
        yield from ()

    def present(self, ids: Sequence[str]) -> set[str]:  # noqa: ARG002
        """Return nothing."""
        return set()

    def deleted(self) -> bool:
        """Return True: no record has a row."""
        return True

    def gone(self) -> str:
        """Return nothing."""
        return ""


class OutboxTable:
    """The outbox table. Raises PostgresError when a column is missing, or the column of age is not a time."""

    def __init__(self, connection: Conn, settings: Settings, age: str | None) -> None:
        self._connection = connection
        self._settings = settings
        self._columns = settings.outbox.parts
        self._template = settings.template
        table = settings.outbox.qualified_name
        present = table_columns(connection, table)
        if defect := hidden_rows(connection, table):
            raise defect.error()
        self._filter = NONE
        if not settings.postgres.polls:
            self._filter = publication.read(connection, settings.postgres.publication, table)[ROW_FILTER]
        if present is None:
            raise PostgresError(f"table {settings.outbox.table} does not exist", hint="run: cdc-publisher outbox init")
        self._present = present
        self.needed = settings.needed(list(present))
        missing = [name for name in [*self.needed, *([age] if age else [])] if name not in present]
        if missing:
            raise PostgresError(
                f"table {settings.outbox.table} has no column {', '.join(missing)}",
                hint="map it in [outbox] columns; --age names the column with the age of rows",
            )
        self.age = age or (AGE if self._is_time(AGE) else None)
        if age and not self._is_time(age):
            raise PostgresError(f"column {age!r} is {present[age][1]}, not a time", hint="name another with --age")
        # Of other types a session's time zone decides, or the moment is lost.
        self.tells_beginning = self.age is not None and present[self.age][1].endswith(_MOMENT)
        self.tells_times = settings.record.time_column in (None, self.age)
        """Whether the age of a row is about the time of its record."""
        self.keys = key_column.keys(connection, settings)
        self._key_frame = self.keys.frame(present[self._columns.key][0]) or Frame()
        self.numeric = present[self._columns.id][0] in _INTEGERS
        tracked = query(connection, "reading settings", "select current_setting('track_commit_timestamp')::bool")
        self.knows_commit_times = bool(tracked[0][0])

    def _is_time(self, name: str) -> bool:
        return (
            name in self._present
            and self._present[name][1].startswith(_TIMES)
            and not self._present[name][1].endswith("]")
        )

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[LSN]:
        """Open a snapshot; everything that is visible in it was committed before the LSN."""
        with snapshot_end(self._connection, self._settings.outbox.qualified_name) as end:
            yield end

    def rows(self, wanted: Range, topics: frozenset[str]) -> Iterator[TableRow]:
        """Yield the rows within the range (except for LSNs, which rows do not have) and topics; empty means all."""
        ((following,),) = query(
            self._connection, "reading transaction ids", "select pg_snapshot_xmax(pg_current_snapshot())::text::int8"
        )
        names = [self._columns.resolve(name, list(self._present)) for name in self._template.columns]
        statement = sql.SQL(
            "select {id}, {key}, {age}, {commit}, t.xmin::text::int8, t.ctid::text, {published}{names}"
            " from {table} t where {where}"
        ).format(
            id=self._text(self._columns.id),
            key=self._text(self._columns.key),
            age=self._milliseconds() or sql.SQL("null"),
            commit=self._committed(),
            published=self._published(),
            names=sql.SQL("").join(sql.SQL(", {}").format(self._text(name)) for name in names),
            table=self._name,
            where=self._where(wanted),
        )
        known: dict[tuple[str | None, ...], str] = {}
        with converting("reading the outbox table"), self._connection.cursor("cdc_audit") as cursor:
            cursor.itersize = PORTION
            for row_id, key, age, committed, xmin, ctid, published, *values in cursor.execute(statement):
                if (topic := known.get(tuple(values))) is None:
                    topic = self._topic(values)
                    if len(known) < PORTION:
                        known[tuple(values)] = topic
                if row_id is None or (topics and topic not in topics) or not wanted.holds_id(row_id):
                    continue
                # 32 bits of a number that has 64: the last one that is not in the future.
                xid = following - (following - xmin) % (1 << 32)
                block, _, item = ctid[1:-1].partition(",")
                place = int(block) << 16 | int(item)
                read = self._key(key)
                yield TableRow(row_id, topic, read, age, committed or 0, xid, place, published)

    def _topic(self, values: Sequence[str | None]) -> str:
        topic = self._template.fill(dict(zip(self._template.columns, values, strict=True)).get) or ""
        return topic if is_topic_name(topic) else ""

    def _where(self, wanted: Range) -> sql.Composable:
        parts: list[sql.Composable] = [sql.SQL("true")]
        age = self._milliseconds()
        if age is None and (wanted.since is not None or wanted.until is not None):
            raise PostgresError(
                f"table {self._settings.outbox.table} has no column {AGE!r} with the age of a row",
                hint="name the column with --age, or select rows by --id or --from-lsn",
            )
        if age is not None and wanted.since is not None:
            parts.append(sql.SQL("{} >= {}").format(age, sql.Literal(wanted.since)))
        if age is not None and wanted.until is not None:
            parts.append(sql.SQL("{} <= {}").format(age, sql.Literal(wanted.until)))
        if wanted.ids:
            parts.append(
                sql.SQL("{} = any({}::text[])").format(self._text(self._columns.id), sql.Literal(sorted(wanted.ids)))
            )
        return sql.SQL(" and ").join(parts)

    def _committed(self) -> sql.Composable:
        """The time of the commit in microseconds since 1970; null where it is unknown."""
        known = "(extract(epoch from pg_xact_commit_timestamp(t.xmin)) * 1000000)::int8"
        return sql.SQL(known if self.knows_commit_times else "null")

    def _published(self) -> sql.Composable:
        """Whether the publication's row filter lets a row pass."""
        return sql.SQL("true" if self._filter == NONE else f"({self._filter}) is true")

    def _milliseconds(self) -> sql.Composable | None:
        if self.age is None:
            return None
        # Down to a millisecond, as Kafka keeps times.
        return sql.SQL("floor(extract(epoch from t.{}) * 1000)::int8").format(sql.Identifier(self.age))

    def _key(self, text: str | None) -> bytes | None:
        """Return the key of a record by the text of the column."""
        return None if text is None else self._key_frame.key(text)

    def _text(self, name: str) -> sql.Composable:
        # As `cdc.replication.values` reads the stream, without the padding of char(n).
        return sql.SQL("t.{}::text").format(sql.Identifier(name))

    @property
    def qualified(self) -> str:
        """Its name with the schema."""
        return ".".join(self._settings.outbox.qualified_name)

    @property
    def _name(self) -> sql.Identifier:
        return sql.Identifier(*self._settings.outbox.qualified_name)

    def present(self, ids: Sequence[str]) -> set[str]:
        """Return which of these ids the table holds now."""
        statement = sql.SQL("select {} from {} t where {} = any({}::text[])").format(
            self._text(self._columns.id), self._name, self._text(self._columns.id), sql.Literal(list(ids))
        )
        with converting("reading the outbox table"):
            return {row_id for (row_id,) in self._connection.execute(statement).fetchall()}

    def deleted(self) -> bool:
        """Return whether PostgreSQL counts deleted rows of it: some seconds late, and from zero after a crash."""
        found = changes(self._connection, self._settings.outbox.qualified_name)
        return found is not None and found.deletes > 0

    def gone(self) -> str:
        """Return why many rows may have gone at once without being counted; empty when they cannot have."""
        name = sql.Literal(self._name.as_string(self._connection))
        # TRUNCATE of the whole table shows by itself: the records of its rows precede all rows that are there.
        statement = sql.SQL("select relhassubclass from pg_class where oid = {}::regclass").format(name)
        with converting("reading the outbox table"):
            ((parts,),) = self._connection.execute(statement).fetchall()
        return "a partition, or a table that inherits, may have been dropped, detached or truncated" if parts else ""

    def fetch(self, ids: Sequence[str]) -> Iterator[tuple[str, Relation, TupleData, int | None]]:
        """Yield whole rows by id, in the format of the stream, with their age in milliseconds."""
        statement = sql.SQL("select {}, {}, {} from {} t where {} = any({}::text[]::{}[])").format(
            self._text(self._columns.id),
            self._milliseconds() or sql.SQL("null"),
            sql.SQL(", ").join(map(self._text, self.needed)),
            self._name,
            sql.SQL("t.{}").format(sql.Identifier(self._columns.id)),
            sql.Literal(list(ids)),
            sql.SQL(self._present[self._columns.id][1]),  # so that its index serves
        )
        relation = self.relation()
        with converting("reading the outbox table"):
            for row_id, age, *values in self._connection.execute(statement).fetchall():
                yield row_id, relation, self.cells(values), age

    def relation(self) -> Relation:
        """The description of the needed columns, as in the stream."""
        columns = tuple(Column(0, name, self._present[name][0], -1) for name in self.needed)
        return Relation(0, *self._settings.outbox.qualified_name, "d", columns)

    @staticmethod
    def cells(values: Sequence[str | None]) -> TupleData:
        """One row of the needed columns in the text format of the stream."""
        formats = bytes(ord("n" if value is None else "t") for value in values)
        return TupleData(formats, [(value or "").encode() for value in values])
