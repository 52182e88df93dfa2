"""Finds the events that are missing in Kafka: the rows of one snapshot, less what topics and dead letters hold by id.

Everything is in temporary files, so that memory stays flat however many rows and records there are.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from psycopg import sql

from cdc.audit.books import Books
from cdc.audit.range import Range
from cdc.audit.reading import RecordReader
from cdc.audit.records import TopicRecords
from cdc.audit.table import PORTION, OutboxTable
from cdc.audit.topics import TopicReader, choose
from cdc.audit.verdicts import IdGroup, TableRow, fits, judge
from cdc.config.settings import Settings
from cdc.lsn import LSN
from cdc.postgres.connection import Conn, converting
from cdc.recovery.bound import RowCondition
from cdc.recovery.state import RowSelection
from cdc.replication.messages import Relation, TupleData
from cdc.scratch import Scratch

_SKEW_MS: Final = 3_600_000  # rows that were written by another clock may be older than their commit
_ROWS: Final = 500  # of a portion
_BYTES: Final = 2_097_152  # of its payloads, as PostgreSQL stores them
_TABLES: Final = """
create table topics (number integer primary key, name text unique);
create table rows (nth integer primary key, part int, place text, size int);
create table missing (nth integer primary key, id text, topic int, key blob, age int, committed int);
create index of_keys on missing (topic, key, nth);
"""


class MissingEvent(NamedTuple):
    """The row of an event that is in no topic; `nth` is its number in the order of the commits."""

    nth: int
    id: str
    topic: str
    key: bytes | None
    part: int  # oid of the table that holds the row
    place: str  # ctid


class Payload(NamedTuple):
    """A whole row, in the format of the stream; times are milliseconds since 1970."""

    relation: Relation
    data: TupleData
    age: int | None
    committed: int | None


class MissingCount(NamedTuple):
    """The number of candidates and of missing events among them; times are milliseconds since 1970."""

    candidates: int = 0
    missing: int = 0
    perhaps_again: int = 0  # of these, those whose topic may have deleted their record by itself
    first: int | None = None  # time of the oldest
    last: int | None = None


class CandidateTable(OutboxTable):
    """The outbox table within the transaction of a snapshot."""

    def candidates(self, selection: RowSelection) -> Iterator[tuple[TableRow, int, str, int]]:
        """Yield the selected rows that are published, in their order; with table, ctid and size."""
        names = [self._columns.resolve(name, list(self._present)) for name in self._template.columns]
        statement = sql.SQL(
            "select {id}, {key}, {age}, {commit}, t.tableoid::int8, t.ctid::text, pg_column_size({payload}){names}"
            " from {table} t where ({condition}) and {published} and {id} is not null order by {order}"
        ).format(
            id=self._text(self._columns.id),
            key=self._text(self._columns.key),
            age=self._milliseconds() or sql.SQL("null"),
            commit=self._committed(),
            payload=sql.SQL("t.{}").format(sql.Identifier(self._columns.payload)),
            names=sql.SQL("").join(sql.SQL(", {}").format(self._text(name)) for name in names),
            table=self._name,
            condition=selection.condition,
            published=sql.SQL(self._published().as_string().replace("%", "%%")),  # the statement has parameters
            order=selection.order.sql,
        )
        known: dict[tuple[str | None, ...], str] = {}
        with converting("reading the outbox table"), self._connection.cursor("cdc_recover") as cursor:
            cursor.itersize = PORTION
            found = cursor.execute(statement, selection.values)
            for nth, (row_id, key, age, committed, part, place, size, *values) in enumerate(found):
                if (topic := known.get(tuple(values))) is None:
                    topic = self._topic(values)
                    if len(known) < PORTION:
                        known[tuple(values)] = topic
                read = self._key(key)
                yield TableRow(row_id, topic, read, age, committed or 0, 0, nth), part, place, size or 0

    def count(self, wanted: RowCondition) -> int:
        """Return how many of the rows that are published fulfil a condition."""
        statement = sql.SQL("select count(*) from {} t where {} and {}").format(
            self._name, wanted.condition, sql.SQL(self._published().as_string().replace("%", "%%"))
        )
        with converting("reading the outbox table"):
            ((count,),) = self._connection.execute(statement, wanted.values).fetchall()
        return int(count)

    def payloads(self, events: Iterable[MissingEvent]) -> dict[tuple[int, str], Payload]:
        """Return whole rows of the same snapshot, by table and ctid."""
        places: dict[int, list[str]] = {}
        for event in events:
            places.setdefault(event.part, []).append(event.place)
        relation = self.relation()
        found: dict[tuple[int, str], Payload] = {}
        for part, ctids in places.items():
            statement = sql.SQL(
                "select t.ctid::text, {}, {}, {} from {} t where t.tableoid = {} and t.ctid = any({}::tid[])"
            ).format(
                self._milliseconds() or sql.SQL("null"),
                self._committed(),
                sql.SQL(", ").join(map(self._text, self.needed)),
                self._name,
                sql.Literal(part),
                sql.Literal(ctids),
            )
            with converting("reading the outbox table"):
                for place, age, committed, *values in self._connection.execute(statement):
                    thousandth = committed // 1000 if committed else None
                    found[part, place] = Payload(relation, self.cells(values), age, thousandth)
        return found


class Candidates:
    """The candidates of one recovery. Raises CdcError without disk space, and the errors of PostgreSQL and Kafka."""

    def __init__(self, settings: Settings, connection: Conn, streams: list[str], age: str | None) -> None:
        self.table = CandidateTable(connection, settings, age)
        self.count = MissingCount()
        self._settings = settings
        self._topics = TopicReader(settings, aged=self.table.tells_times)
        self._books = Books()
        wanted = Range(numeric=self.table.numeric)
        reading = RecordReader(streams, wanted)
        self._records = TopicRecords(self._topics, self._books, reading, settings.topics.dead_letter, wanted)
        self._notes = Scratch("the list of missing events", _TABLES, cache_kilobytes=8192)
        self._numbers: dict[str, int] = {}  # of topics
        self._read: set[str] = set()  # topics
        self._since: int | None = None  # the time from which topics were read
        self._oldest: int | None = None  # time of the oldest candidate; None while one is of unknown age
        self._rows = 0

    def close(self) -> None:
        """Close the connection to Kafka, and delete the files."""
        self._topics.close()
        self._books.close()
        self._notes.close()

    def last_commit(self, stream: int, confirmed: LSN) -> float | None:
        """Read all topics; return the commit time of the last event of a stream up to an LSN, in unix seconds.

        None if that is unknown: no record is there, or records have times of a column.
        """
        if self._settings.record.time_column is not None:
            return None
        for _ in self.read_topics():
            pass
        moment = self._books.last_time(stream, confirmed)
        return None if moment is None else moment / 1000

    def read_rows(self, selection: RowSelection) -> Iterator[int]:
        """Read the candidates of the connection's snapshot in place of all before; yield how many were read."""
        self._books.forget_rows()
        self._notes.run("delete from rows")
        self._rows, self._oldest, known = 0, None, True
        with self._notes.filling():
            rows: list[TableRow] = []
            for row, part, place, size in self.table.candidates(selection):
                rows.append(row)
                moment = row.committed // 1000 or row.age
                known &= moment is not None
                self._oldest = moment if self._oldest is None else min(self._oldest, moment or self._oldest)
                self._notes.run("insert into rows values (?, ?, ?, ?)", row.place, part, place, size)
                if len(rows) == PORTION:
                    yield self._add(rows)
            yield self._add(rows)
        self._oldest = self._oldest if known else None

    def _add(self, rows: list[TableRow]) -> int:
        self._books.add_rows(rows)
        self._rows += len(rows)
        rows.clear()
        return self._rows

    def read_topics(self) -> Iterator[tuple[int, int]]:
        """Read what topics and dead letters hold, and what came since the last call; yield how much, and of how much.

        Topics are read from the time of the oldest candidate on: no event is sent with an earlier time.
        """
        existing = self._topics.existing()
        own = (self._settings.topics.dead_letter, self._settings.topics.positions)
        chosen = choose(existing, self._books.topics(), self._settings.template, own, ())
        names = [name for name, exists in chosen.items() if exists]
        if own[0] in existing:
            self._topics.look([own[0]])
        since = None if self._oldest is None else self._oldest - _SKEW_MS
        if self._read and (self._since is None or (since is not None and since >= self._since)):
            since = self._since  # these records were read
        elif self._read:
            self._books.forget_records()
            self._topics.forget()
            if own[0] in existing:
                self._topics.look([own[0]])
        self._since = since
        total = self._topics.look(names, since)
        self._read |= set(names)
        yield 0, total
        for done, records in self._records.read():
            self._books.add_records(records)
            yield done, total

    def judge(self) -> MissingCount:
        """Find out which candidates are missing, and count them."""
        now = int(time.time() * 1000)
        kept = {name: self._topics.kept(name, now) for name in self._read}
        missing = perhaps = 0
        first: int | None = None
        last: int | None = None
        self._notes.run("delete from missing")
        with self._notes.filling():
            for group in self._books.groups():
                for row in self._missing(group):
                    moment = row.committed // 1000 or row.age
                    missing += 1
                    perhaps += row.topic in kept and kept[row.topic].may_have_lost(moment)
                    if moment is not None:
                        first, last = min(first or moment, moment), max(last or moment, moment)
                    values = (row.place, row.id, self._number(row.topic), row.key, row.age, row.committed)
                    self._notes.run("insert into missing values (?, ?, ?, ?, ?, ?)", *values)
            repeated = self._repeat({name for name, one in kept.items() if one.compacted}) if perhaps else 0
        self.count = MissingCount(self._rows, missing + repeated, perhaps + repeated, first, last)
        return self.count

    def _repeat(self, compacted: set[str]) -> int:
        """Add the events of compacted topics that are later than a missing one of their key; return how many.

        The missing ones come behind all that the topic holds: compaction would keep the newest of them, and delete the
        event that is the newest of the key.
        """
        repeated = 0
        query = "select min(nth) < ? from missing where topic = ? and key = ?"
        for group in self._books.groups() if compacted else ():
            for row in group.rows:
                if row.topic in compacted and row.key is not None:
                    number = self._number(row.topic)
                    ((behind,),) = self._notes.rows(query, row.place, number, row.key)
                    if behind:
                        values = (row.place, row.id, number, row.key, row.age, row.committed)
                        statement = "insert or ignore into missing values (?, ?, ?, ?, ?, ?)"
                        repeated += self._notes.run(statement, *values)
        return repeated

    def _missing(self, group: IdGroup) -> Iterator[TableRow]:
        """Yield the rows of an id that have no record. An id that is a number may be that of another outbox."""
        if not group.rows:
            return
        group.rows.sort(key=lambda row: row.place)
        verdict = judge(group)
        yield from verdict.missing
        for row, record in verdict.elsewhere:
            if self.table.numeric and not fits(record, row):
                yield row

    def topics(self) -> list[str]:
        """Return the topics of missing events."""
        query = "select name from topics where number in (select topic from missing) order by name"
        return [name for (name,) in self._notes.rows(query)]

    def unordered(self) -> int:
        """Return the number of keys with several missing events."""
        ((count,),) = self._notes.rows(
            "select count(*) from (select 1 from missing where key is not null group by topic, key having count(*) > 1)"
        )
        return int(count)

    def portions(self) -> Iterator[list[MissingEvent]]:
        """Yield the missing events in the order of their commits, few enough for their payloads to be in memory."""
        portion: list[MissingEvent] = []
        total = 0
        for *values, size in self._notes.rows(
            "select m.nth, m.id, t.name, m.key, r.part, r.place, r.size from missing m"
            " join topics t on t.number = m.topic join rows r on r.nth = m.nth order by m.nth"
        ):
            if portion and (len(portion) == _ROWS or total + size > _BYTES):
                yield portion
                portion, total = [], 0
            portion.append(MissingEvent(*values))
            total += size
        if portion:
            yield portion

    def _number(self, topic: str) -> int:
        number = self._numbers.get(topic)
        if number is None:
            number = self._numbers[topic] = len(self._numbers)
            self._notes.run("insert into topics values (?, ?)", number, topic)
        return number
