"""Stores and sorts the rows and records of an audit: in an unnamed temporary file, so that memory stays flat."""

import heapq
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

from cdc.audit.range import Range
from cdc.audit.verdicts import FOREIGN, Edges, IdGroup, TableRow, TakenPosition, TopicRecord
from cdc.scratch import Scratch

DUPLICATE_MARK, UNMATCHED_MARK, PHANTOM_MARK = 1, 2, 3
LARGEST: Final = (1 << 63) - 1
"""The largest LSN that is kept: SQLite has signed numbers, and no WAL reaches larger ones."""

_TABLES: Final = """
create table topics (number integer primary key, name text unique);
create table rows (id text, topic int, key blob, age int, committed int, xid int, place int, published int);
create table records (number integer primary key, id text, stream int, lsn int, idx int, topic int, partition int,
  offset int, key blob, timestamp int, sequence int, kind int, judged int);
create table letters (id text, stream int, lsn int, idx int, judged int, primary key (stream, lsn, idx)) without rowid;
create table markers (stream int, lsn int, idx int, primary key (stream, lsn, idx)) without rowid;
create table flight (id text);
create table marks (number integer primary key, mark int);
create table firsts (committed int, xid int, lsn int);
create table missing (id text primary key, topic int, key blob, age int, committed int, xid int, place int,
  published int) without rowid;
create table removed as select * from rows where false;
create table findings (kind text, id text, key blob, topic text, partition int, offset int, position text, meaning text,
  events int);
"""
_RECORD: Final = (
    "r.number, r.id, stream, lsn, idx, t.name, partition, offset, key, timestamp, sequence, kind, judged"
    " from records r join topics t on t.number = r.topic left join marks m on m.number = r.number"
)
_UNREPLAYED_LETTERS: Final = (
    "from letters l where not exists"
    " (select 1 from markers m where m.stream = l.stream and m.lsn = l.lsn and m.idx = l.idx)"
)


class AuditFinding(NamedTuple):
    """One defect, the place of its record or row as far as it has one, and its meaning."""

    kind: str
    id: str | None
    key: bytes | None
    topic: str | None
    partition: int | None
    offset: int | None
    position: str | None
    meaning: str
    events: int = 1  # the number of events or sequence numbers


class Books:
    """The rows, records and findings of one audit; deleted with this object. Raises CdcError without disk space."""

    def __init__(self) -> None:
        # SQLite sorts rows and records at the same time, each in as much memory as the cache has.
        self._notes = Scratch("the audit's notes", _TABLES, cache_kilobytes=8192)
        self._topics: dict[str, int] = {}
        self._notes.run("begin")

    def close(self) -> None:
        """Delete everything."""
        self._notes.close()

    def add_rows(self, rows: Iterable[TableRow]) -> None:
        """Add rows of the table."""
        self._notes.many(
            "insert into rows values (?, ?, ?, ?, ?, ?, ?, ?)",
            ((row.id, self._topic(row.topic), *row[2:]) for row in rows),
        )

    def add_records(self, records: Iterable[TopicRecord]) -> None:
        """Add records of the publisher's streams."""
        self._notes.many(
            "insert into records values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ((*record[:5], self._topic(record.topic), *record[6:]) for record in records),
        )

    def judge_by_rows(self) -> None:
        """Judge only records and dead letters of the rows that were added."""
        for table in ("records", "letters"):
            self._notes.run(f"update {table} set judged = 0 where id not in (select id from rows)")

    def add_letter(self, event_id: str, position: tuple[int, int, int], *, judged: bool) -> None:
        """Add a dead letter; one that was sent twice counts once."""
        self._notes.run("insert or ignore into letters values (?, ?, ?, ?, ?)", event_id, *position, judged)

    def add_marker(self, position: tuple[int, int, int]) -> None:
        """Add the marker that a dead letter was replayed."""
        self._notes.run("insert or ignore into markers values (?, ?, ?)", *position)

    def add_in_flight(self, ids: Iterable[str]) -> None:
        """Add the ids of events that the slot has not confirmed."""
        self._notes.many("insert into flight values (?)", ((event_id,) for event_id in ids))

    def forget_rows(self) -> None:
        """Drop the rows of the table."""
        self._notes.run("delete from rows")

    def forget_records(self) -> None:
        """Drop the records of the topics, and the dead letters."""
        for table in ("records", "letters", "markers"):
            self._notes.run(f"delete from {table}")

    def is_in_flight(self, *ids: str) -> bool:
        """Return whether the slot has not confirmed one of these events."""
        marks = ", ".join("?" * len(ids))
        return bool(list(self._notes.rows(f"select 1 from flight where id in ({marks})", *ids)))

    def forget_in_flight(self) -> None:
        """Drop the ids of events in flight."""
        self._notes.run("delete from flight")

    def groups(self) -> Iterator[IdGroup]:
        """Yield rows, records, letters and events in flight, grouped by id."""
        sources = (
            map(_row, self._notes.rows("select r.id, t.name, key, age, committed, xid, place, published from rows r"
                                 " join topics t on t.number = r.topic order by r.id")),
            map(_record, self._notes.rows(f"select {_RECORD} order by r.id")),
            self._notes.rows(f"select id, judged {_UNREPLAYED_LETTERS} order by id"),
            self._notes.rows("select id, 2 from flight order by id"),
        )  # fmt: skip
        for event_id, found in groupby(heapq.merge(*sources, key=itemgetter(0)), key=itemgetter(0)):
            group = IdGroup(event_id, [], [])
            others = [0, 0, 0]  # letters out of the range, letters, in flight
            for _, one in found:
                if isinstance(one, TableRow):
                    group.rows.append(one)
                elif isinstance(one, TopicRecord):
                    group.records.append(one)
                else:
                    others[one] += 1
            letters = others[1] + (others[0] if group.rows else 0)
            yield group._replace(letters=letters, in_flight=others[2])

    def mark(self, marks: Iterable[tuple[int, int]]) -> None:
        """Mark records, by number, as duplicates, phantoms or unmatched."""
        self._notes.many("insert or replace into marks values (?, ?)", marks)

    def unmatched(self) -> Iterator[TopicRecord]:
        """Yield the records without a row, by position."""
        return self._records(f"select {_RECORD} where mark = {UNMATCHED_MARK} order by stream, lsn, idx")

    def record(self, number: int) -> Iterator[TopicRecord]:
        """Yield the record with a number."""
        return self._records(f"select {_RECORD} where r.number = {number}")

    def by_key(self) -> Iterator[TopicRecord]:
        """Yield the records whose order counts, each event once."""
        return self._records(
            f"select {_RECORD} where kind = 0 and judged and coalesce(mark, 0) in (0, {UNMATCHED_MARK})"
            " order by t.name, partition, key, stream, offset"
        )

    def by_sequence(self) -> Iterator[TopicRecord]:
        """Yield the records with a sequence number."""
        return self._records(
            f"select {_RECORD} where sequence is not null and kind = 0 and coalesce(mark, 0) <> {PHANTOM_MARK}"
            " order by t.name, partition, stream, sequence, offset"
        )

    def places(self) -> Iterator[TakenPosition]:
        """Yield every position, including those of dead letters, without phantoms and duplicates."""
        records = self._notes.rows(
            f"select stream, lsn, idx, id, r.number, mark is null, judged from records r left join marks m using"
            f" (number) where stream > 0 and coalesce(mark, 0) in (0, {UNMATCHED_MARK}) order by stream, lsn, idx"
        )
        # Also of letters that were replayed: the topic of the replayed event may have been deleted.
        letters = self._notes.rows("select stream, lsn, idx, id, 0, 0, judged from letters order by stream, lsn, idx")
        for one in heapq.merge(records, letters):
            stream, lsn, nth, event_id, number, covered, judged = one
            yield TakenPosition(stream, lsn, nth, event_id, number, bool(covered), bool(judged))

    def first_left(self) -> dict[tuple[str, int, int], int]:
        """Return by topic, partition and stream the first LSN that the topic still holds."""
        rows = self._notes.rows(
            "select t.name, partition, stream, lsn, min(offset) from records r join topics t on t.number = r.topic"
            " where kind = 0 group by 1, 2, 3"
        )
        return {(topic, partition, stream): lsn for topic, partition, stream, lsn, _ in rows}

    def add_missing(self, rows: Iterable[TableRow]) -> None:
        """Add the rows of missing events."""
        self._notes.many(
            "insert or ignore into missing values (?, ?, ?, ?, ?, ?, ?, ?)",
            ((row.id, self._topic(row.topic), *row[2:]) for row in rows),
        )

    def add_removed(self, rows: Iterable[TableRow]) -> None:
        """Add the rows of which a compacted topic has no record any more."""
        self._notes.many(
            "insert into removed values (?, ?, ?, ?, ?, ?, ?, ?)",
            ((row.id, self._topic(row.topic), *row[2:]) for row in rows),
        )

    def by_end(self, topics: Iterable[str]) -> Iterator[TopicRecord | TableRow]:
        """Yield the records of topics, by topic, key, partition and offset, and first of each key its removed rows."""
        chosen = ", ".join(str(self._topic(topic)) for topic in topics)
        rows = self._notes.rows(
            "select r.id, t.name, key, age, committed, xid, place, published from removed r"
            " join topics t on t.number = r.topic where key is not null order by t.name, key"
        )
        records = self._records(
            f"select {_RECORD} where r.topic in ({chosen}) and key is not null and kind <> {FOREIGN}"
            f" and coalesce(mark, 0) <> {PHANTOM_MARK} order by t.name, key, partition, offset"
        )
        return heapq.merge(map(TableRow._make, rows), records, key=lambda entry: (entry.topic, entry.key))

    def found(self, ids: Iterable[str]) -> None:
        """Remove events that are no longer missing."""
        self._notes.many("delete from missing where id = ?", ((event_id,) for event_id in ids))

    def missing(self) -> Iterator[TableRow]:
        """Yield the rows of missing events, in the order of their commits as far as it is known."""
        for values in self._notes.rows(
            "select r.id, t.name, key, age, committed, xid, place, published from missing r"
            " join topics t on t.number = r.topic order by committed, xid, place"
        ):
            yield TableRow(*values)

    def missing_count(self) -> int:
        """Return the number of missing events."""
        ((count,),) = self._notes.rows("select count(*) from missing")
        return int(count)

    def dead(self) -> Iterator[str]:
        """Yield the ids of dead letters that were not replayed."""
        return (event_id for (event_id,) in self._notes.rows(f"select id {_UNREPLAYED_LETTERS}"))

    def add_first(self, rows: Iterable[tuple[int, int, int]]) -> None:
        """Add the commit times, in microseconds (0: unknown), the transaction ids and the LSNs of rows."""
        self._notes.many("insert into firsts values (?, ?, ?)", rows)

    def edges(self, wanted: Range) -> Edges:
        """Return the times around the ends of a range of LSNs."""
        lowest = -1 if wanted.from_lsn is None else min(wanted.from_lsn, LARGEST)
        highest = LARGEST if wanted.to_lsn is None else min(wanted.to_lsn, LARGEST)
        ((before, last, xid),) = self._notes.rows(
            "select max(committed) filter (where lsn < ?1 and committed > 0),"
            " max(committed) filter (where lsn <= ?2 and committed > 0), max(xid) filter (where lsn <= ?2) from firsts",
            lowest,
            highest,
        )
        ((first, behind),) = self._notes.rows(
            "select min(timestamp) filter (where lsn >= ?), min(timestamp) filter (where lsn > ?)"
            " from records where kind = 0",
            lowest,
            highest,
        )
        thousandth = [None if moment is None else moment // 1000 for moment in (before, last)]
        return Edges(thousandth[0], first, thousandth[1], behind, -1 if xid is None else xid)

    def find(self, findings: Iterable[AuditFinding]) -> None:
        """Add findings."""
        self._notes.many("insert into findings values (?, ?, ?, ?, ?, ?, ?, ?, ?)", findings)

    def counts(self) -> dict[str, int]:
        """Return the number of events with findings, by kind."""
        return dict(self._notes.rows("select kind, sum(events) from findings group by kind"))

    def findings(self, kinds: Iterable[str], limit: int) -> Iterator[AuditFinding]:
        """Yield the first `limit` findings, by kind."""
        for kind in kinds:
            for values in self._notes.rows("select * from findings where kind = ? order by rowid limit ?", kind, limit):
                limit -= 1
                yield AuditFinding(*values)

    def last_time(self, stream: int, lsn: int, topics: Iterable[str]) -> int | None:
        """Return the latest time of a stream's records in topics up to a commit LSN, in milliseconds since 1970."""
        chosen = ", ".join(str(self._topic(topic)) for topic in topics)
        query = f"select max(timestamp) from records where stream = ? and lsn <= ? and kind = 0 and topic in ({chosen})"
        ((moment,),) = self._notes.rows(query, stream, lsn)
        return None if moment is None else int(moment)

    def rowless(self, stream: int, lsn: int) -> int:
        """Return how many events of a stream behind a commit LSN have a record, and no row."""
        ((count,),) = self._notes.rows(
            "select count(distinct id) from records where stream = ? and lsn > ? and id not in (select id from rows)",
            stream,
            lsn,
        )
        return int(count)

    def finding_count(self) -> int:
        """Return the number of findings; one may be about several events."""
        ((count,),) = self._notes.rows("select count(*) from findings")
        return int(count)

    def topics(self) -> list[str]:
        """Return the topics that rows go to."""
        rows = self._notes.rows("select name from topics where number in (select topic from rows) and name <> ''")
        return sorted(name for (name,) in rows)

    def _topic(self, name: str) -> int:
        number = self._topics.get(name)
        if number is None:
            number = self._topics[name] = len(self._topics)
            self._notes.run("insert into topics values (?, ?)", number, name)
        return number

    def _records(self, query: str) -> Iterator[TopicRecord]:
        return map(TopicRecord._make, self._notes.rows(query))


def _row(values: Any) -> tuple[str, TableRow]:
    return values[0], TableRow(*values)


def _record(values: Any) -> tuple[str, TopicRecord]:
    return values[1], TopicRecord._make(values)
