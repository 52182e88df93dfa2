"""Finds the events that are missing in Kafka: the rows of one snapshot, less what topics and dead letters hold by id.

Everything is in temporary files, so that memory stays flat however many rows and records there are.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

from psycopg import sql

from cdc.audit.books import Books
from cdc.audit.range import Range
from cdc.audit.reading import RecordReader
from cdc.audit.records import TopicRecords
from cdc.audit.table import PORTION, OutboxTable
from cdc.audit.topics import TopicReader, choose
from cdc.audit.verdicts import IdGroup, TableRow, TopicRecord, fits, judge
from cdc.config.settings import Settings
from cdc.lsn import LSN
from cdc.postgres.connection import Conn, converting
from cdc.recovery.bound import RowCondition
from cdc.recovery.compacted import KeyEntry, StreamFacts
from cdc.recovery.missing import MissingCount, MissingEvent, MissingList
from cdc.recovery.selection import RowSelection
from cdc.replication.messages import Relation, TupleData

_SKEW_MS: Final = 3_600_000  # rows that were written by another clock may be older than their commit


class Payload(NamedTuple):
    """A whole row, in the format of the stream; times are milliseconds since 1970."""

    relation: Relation
    data: TupleData
    age: int | None
    committed: int | None


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

    def with_ids(self, ids: Iterable[str]) -> tuple[sql.Composed, Mapping[str, object]]:
        """Return the condition for rows with these ids, and its parameters."""
        column = self._columns.id
        condition = sql.SQL("t.{} = any(%(with_ids)s::text[]::{}[])").format(
            sql.Identifier(column), sql.SQL(self._present[column][1])
        )
        return condition, {"with_ids": sorted(ids)}

    def payloads(self, events: Iterable[MissingEvent]) -> dict[tuple[int, str], Payload]:
        """Return whole rows of the same snapshot, by table and ctid."""
        places: dict[int, list[str]] = {}
        for event in (event for event in events if not event.sub):
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
        self._today = len(streams)
        self.missing = MissingList()
        self._read: set[str] = set()  # topics
        self._since: int | None = None  # the time from which topics were read
        self._oldest: int | None = None  # time of the oldest candidate; None while one is of unknown age
        self._rows = 0

    def close(self) -> None:
        """Close the connection to Kafka, and delete the files."""
        self._topics.close()
        self._books.close()
        self.missing.close()

    def last_commit(self, stream: int, confirmed: LSN) -> float | None:
        """Read all topics; return the commit time of the last event of a stream up to an LSN, in unix seconds.

        None if that is unknown: no record is there, or records have times of a column.
        """
        if self._settings.record.time_column is not None:
            return None
        for _ in self.read_topics():
            pass
        # Where Kafka stores its own time, a record may be much later than the commit.
        topics = [name for name in self._read if not self._topics.by_append(name)]
        moment = self._books.last_time(stream, confirmed, topics)
        return None if moment is None else moment / 1000

    def published_since(self, lsn: LSN | None) -> int:
        """Return how many events that were committed behind an LSN have a record, and no row."""
        return 0 if lsn is None else self._books.rowless(self._today, lsn)

    def read_rows(self, selection: RowSelection) -> Iterator[int]:
        """Read the candidates of the connection's snapshot in place of all before; yield how many were read."""
        self._selection = selection
        self._books.forget_rows()
        self.missing.forget_rows()
        self._rows, self._oldest, known = 0, None, True
        with self.missing.filling():
            rows: list[TableRow] = []
            for row, part, place, size in self.table.candidates(selection):
                rows.append(row)
                moment = row.committed // 1000 or row.age
                known &= moment is not None
                self._oldest = moment if self._oldest is None else min(self._oldest, moment or self._oldest)
                self.missing.add_row(row.place, part, place, size)
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

    def judge(self, facts: StreamFacts) -> Iterator[int]:
        """Find out which candidates are missing, and count them; yield how many rows were read again."""
        self._judge(facts)
        # Rows that are no candidates, whose records come behind a missing event: they have their place in the order.
        if ids := self.table.present(self.missing.copied()):
            oldest, rows = self._oldest, self._rows
            yield from self.read_rows(self._selection.including(self.table.with_ids(ids)))
            self._oldest, self._rows = oldest, rows
            self._judge(facts)
        for topic, group in groupby(self.missing.copies(), key=itemgetter(0)):
            for message in self._topics.at(topic, {(partition, offset) for _, partition, offset in group}):
                self.missing.add_copy(message)
        self.count = self.missing.count(self._rows)

    def _judge(self, facts: StreamFacts) -> None:
        now = int(time.time() * 1000)
        kept = {name: self._topics.kept(name, now) for name in self._read}
        compacted = {name for name, one in kept.items() if one.compacted}
        self.missing.forget()
        with self.missing.filling():
            for group in self._books.groups():
                missing = list(self._missing(group))
                for row in missing:
                    moment = row.committed // 1000 or row.age
                    perhaps = row.topic in kept and kept[row.topic].may_have_lost(moment)
                    self.missing.add(row, perhaps=perhaps)
                if compacted:
                    for topic, key, event_id, entry in self._entries(group, missing, compacted, facts):
                        self.missing.add_entry(topic, key, event_id, entry)
            self.missing.repeat(began=self.table.tells_beginning, timed=facts.timed)

    def _entries(
        self, group: IdGroup, missing: list[TableRow], compacted: set[str], facts: StreamFacts
    ) -> Iterator[tuple[str, bytes, str, KeyEntry]]:
        """Yield what compacted topics hold, or lack, of an id: rows, and records that have none."""
        left = [record for record in group.records if record.topic in compacted and record.key is not None]
        for row in group.rows:
            if row.topic in compacted and row.key is not None:
                records = [record for record in left if fits(record, row)]
                left = [record for record in left if not fits(record, row)]
                yield row.topic, row.key, row.id, self._entry(row, row in missing, records, facts)
        left.sort(key=lambda record: (record.topic, record.key))
        for (topic, key), same in groupby(left, key=lambda record: (record.topic, record.key)):
            if key is not None:
                yield topic, key, group.id, self._entry(None, False, list(same), facts)

    def _entry(self, row: TableRow | None, missing: bool, records: list[TopicRecord], facts: StreamFacts) -> KeyEntry:
        streamed = [
            record.position
            for record in records
            if record.stream
            and not (record.stream == self._today and facts.begun is not None and record.lsn >= facts.begun)
        ]
        last = max(records, key=lambda record: record.offset, default=None)
        by_column = self._settings.record.time_column is not None  # such a time proves nothing
        return KeyEntry(
            row.place if row else None,
            row.committed if row else 0,
            row.age if row else None,
            missing,
            min(streamed, default=None),
            facts.confirmed is not None and any(position <= facts.confirmed for position in streamed),
            None if by_column else last.timestamp if last else 0,
            last.partition if last else -1,
            last.offset if last else None,
        )

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
