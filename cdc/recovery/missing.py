"""The list of missing events of a recovery, in their order: in an unnamed temporary file, so that memory stays flat."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

from confluent_kafka import Message

from cdc.audit.verdicts import TableRow
from cdc.errors import KafkaUnavailable
from cdc.records.headers import headers_of
from cdc.recovery.compacted import KeyEntry, repeats
from cdc.scratch import Scratch

_ROWS: Final = 500  # of a portion
_BYTES: Final = 2_097_152  # of its payloads, as PostgreSQL stores them
_TABLES: Final = """
create table topics (number integer primary key, name text unique);
create table rows (nth integer primary key, part int, place text, size int);
create table missing (nth int, sub int default 0, chain int, id text, topic int, key blob, age int, committed int,
  perhaps int, primary key (nth, sub)) without rowid;
create index of_chains on missing (chain, nth, sub);
create table entries (topic int, key blob, id text, nth int, committed int, age int, missing int, stream int, lsn int,
  idx int, confirmed int, timestamp int, partition int, offset int);
create index of_keys on entries (topic, key);
create table copies (topic int, partition int, offset int, nth int, sub int, value blob, timestamp int, size int,
  primary key (topic, partition, offset)) without rowid;
create table headers (topic int, partition int, offset int, at int, name text, value blob,
  primary key (topic, partition, offset, at)) without rowid;
"""


class MissingEvent(NamedTuple):
    """An event to send: its row or, with `sub`, what Kafka has of one that has no row any more.

    `nth` is the row's number in the order of the commits. An event with `sub` follows the row of its `nth`.
    """

    nth: int
    sub: int
    id: str
    topic: str
    key: bytes | None
    part: int  # oid of the table that holds the row
    place: str  # ctid


class MissingCount(NamedTuple):
    """The number of candidates and of missing events among them; times are milliseconds since 1970."""

    candidates: int = 0
    missing: int = 0
    perhaps_again: int = 0  # of these, those whose topic may have deleted their record by itself
    first: int | None = None  # time of the oldest
    last: int | None = None


class Copy(NamedTuple):
    """A record as Kafka has it; its time is in milliseconds since 1970."""

    value: bytes | None
    timestamp: int
    headers: list[tuple[str, bytes | None]]


class UnorderedKey(NamedTuple):
    """A key with several missing events, and how many."""

    topic: str
    key: bytes
    events: int


class MissingList:
    """The missing events of one snapshot. Raises CdcError without disk space."""

    def __init__(self) -> None:
        self._notes = Scratch("the list of missing events", _TABLES, cache_kilobytes=8192)
        self.filling = self._notes.filling
        self._numbers: dict[str, int] = {}  # of topics

    def close(self) -> None:
        """Delete the file."""
        self._notes.close()

    def forget_rows(self) -> None:
        """Drop the places of rows."""
        self._notes.run("delete from rows")

    def forget(self) -> None:
        """Drop all events."""
        for table in ("missing", "entries", "copies", "headers"):
            self._notes.run(f"delete from {table}")

    def add_row(self, nth: int, part: int, place: str, size: int) -> None:
        """Add the place of a candidate, and the size of its payload."""
        self._notes.run("insert into rows values (?, ?, ?, ?)", nth, part, place, size)

    def add(self, row: TableRow, *, perhaps: bool) -> None:
        """Add a missing event. `perhaps`: its topic may have deleted its record by itself."""
        self._insert(row.place, row.id, self._number(row.topic), row.key, row.age, row.committed, perhaps=perhaps)

    def _insert(self, nth: int, *values: Any, perhaps: bool) -> None:
        statement = "insert or ignore into missing values (?, 0, ?, ?, ?, ?, ?, ?, ?)"
        self._notes.run(statement, nth, nth, *values, perhaps)

    def add_entry(self, topic: str, key: bytes, event_id: str, entry: KeyEntry) -> None:
        """Add what a compacted topic holds, or lacks, of an event."""
        nth, committed, age, missing, position, *rest = entry
        values = (self._number(topic), key, event_id, nth, committed, age, missing, *(position or (0, 0, 0)), *rest)
        self._notes.run(f"insert into entries values ({', '.join('?' * len(values))})", *values)

    def repeat(self, *, began: bool, timed: bool) -> None:
        """Add the events of compacted topics that have to follow missing ones; see `cdc.recovery.compacted`."""
        found = self._notes.rows(
            "select topic, key, id, nth, committed, age, missing, stream, lsn, idx, confirmed, timestamp, partition,"
            " offset from entries e where exists"
            " (select 1 from entries r where r.topic = e.topic and r.key = e.key and r.nth is not null)"
            " order by topic, key"
        )
        for (topic, key), same in groupby(found, key=itemgetter(0, 1)):
            ids: dict[KeyEntry, str] = {}
            for _, _, event_id, nth, committed, age, missing, stream, lsn, idx, confirmed, *rest in same:
                position = (stream, lsn, idx) if stream else None
                ids[KeyEntry(nth, committed, age, bool(missing), position, bool(confirmed), *rest)] = event_id
            known, sent = repeats(ids, began=began, timed=timed)
            for row in known:
                self._notes.run("delete from missing where nth = ?", row.nth)
            self._add_chain(topic, key, [(ids[entry], entry) for entry in sent])

    def _add_chain(self, topic: int, key: bytes, sent: list[tuple[str, KeyEntry]]) -> None:
        """Add events of a key in their order, of which the first has a row.

        What has no row any more is only in Kafka: there a later record replaces it, so that both go in one transaction.
        """
        last = sub = 0
        for event_id, entry in sent:
            if entry.nth is not None:
                last, sub = entry.nth, 0
                self._insert(last, event_id, topic, key, entry.age, entry.committed, perhaps=True)
                continue
            sub += 1
            values = (last, sub, last, event_id, topic, key, entry.timestamp, 0, True)
            self._notes.run("insert into missing values (?, ?, ?, ?, ?, ?, ?, ?, ?)", *values)
            copy = (topic, entry.partition, entry.offset, last, sub)
            self._notes.run("insert into copies values (?, ?, ?, ?, ?, null, null, null)", *copy)
        if any(entry.nth is None for _, entry in sent):
            chain = sent[0][1].nth
            for nth in {entry.nth for _, entry in sent if entry.nth is not None}:
                self._notes.run("update missing set chain = ? where nth = ?", chain, nth)

    def copied(self) -> list[str]:
        """Return the ids of events that are sent as Kafka has them."""
        return [event_id for (event_id,) in self._notes.rows("select id from missing where sub > 0")]

    def copies(self) -> Iterator[tuple[str, int, int]]:
        """Yield topic, partition and offset of records that `add_copy` is to add."""
        return self._notes.rows(
            "select t.name, partition, offset from copies join topics t on t.number = topic order by t.name"
        )

    def add_copy(self, message: Message) -> None:
        """Add the record of an event that has no row any more."""
        value, headers = message.value(), headers_of(message)
        place = self._number(message.topic() or ""), message.partition(), message.offset()
        size = len(value or b"") + sum(len(name) + len(content or b"") for name, content in headers)
        values = (value, message.timestamp()[1], size, *place)
        self._notes.run(
            "update copies set value = ?, timestamp = ?, size = ? where topic = ? and partition = ? and offset = ?",
            *values,
        )
        for at, header in enumerate(headers):
            self._notes.run("insert into headers values (?, ?, ?, ?, ?, ?)", *place, at, *header)

    def copy(self, event: MissingEvent) -> Copy:
        """Return the record of an event that has no row any more. Raises KafkaUnavailable if it is not there either."""
        query = "select topic, partition, offset, value, timestamp from copies where nth = ? and sub = ?"
        ((*place, value, timestamp),) = self._notes.rows(query, event.nth, event.sub)
        if timestamp is None:
            raise KafkaUnavailable(
                f"topic {event.topic!r} was compacted while it was read", hint="run the command again"
            )
        headers = self._notes.rows(
            "select name, value from headers where topic = ? and partition = ? and offset = ? order by at", *place
        )
        return Copy(value, timestamp, list(headers))

    def count(self, candidates: int) -> MissingCount:
        """Return how many events are missing."""
        ((missing, perhaps, first, last),) = self._notes.rows(
            "select count(*), coalesce(sum(perhaps), 0), min(moment), max(moment) from"
            " (select perhaps, coalesce(nullif(committed / 1000, 0), age) moment from missing)"
        )
        return MissingCount(candidates, missing, perhaps, first, last)

    def topics(self) -> list[str]:
        """Return the topics of missing events."""
        query = "select name from topics where number in (select topic from missing) order by name"
        return [name for (name,) in self._notes.rows(query)]

    def unordered(self, limit: int) -> tuple[int, list[UnorderedKey]]:
        """Return how many keys have several missing events, and those with the most of them."""
        same = "from missing where key is not null group by topic, key having count(*) > 1"
        ((count,),) = self._notes.rows(f"select count(*) from (select 1 {same})")
        found = self._notes.rows(
            f"select t.name, key, events from (select topic, key, count(*) events {same}) join topics t"
            " on t.number = topic order by events desc, t.name, key limit ?",
            limit,
        )
        return count, [UnorderedKey(*one) for one in found]

    def portions(self) -> Iterator[list[MissingEvent]]:
        """Yield the missing events in the order of their commits, few enough for their payloads to be in memory.

        A chain is not divided: see `repeat`.
        """
        portion: list[MissingEvent] = []
        total, before = 0, None
        for chain, size, *values in self._notes.rows(
            "select m.chain, coalesce(c.size, r.size), m.nth, m.sub, m.id, t.name, m.key, r.part, r.place"
            " from missing m join topics t on t.number = m.topic join rows r on r.nth = m.nth"
            " left join copies c on m.sub > 0 and c.nth = m.nth and c.sub = m.sub order by m.chain, m.nth, m.sub"
        ):
            if portion and chain != before and (len(portion) >= _ROWS or total + size > _BYTES):
                yield portion
                portion, total = [], 0
            portion.append(MissingEvent(*values))
            total, before = total + size, chain
        if portion:
            yield portion

    def _number(self, topic: str) -> int:
        number = self._numbers.get(topic)
        if number is None:
            number = self._numbers[topic] = len(self._numbers)
            self._notes.run("insert into topics values (?, ?)", number, topic)
        return number
