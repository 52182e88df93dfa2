"""The rules that compare rows with records: missing, duplicate, out of order, and the other kinds of findings.

Each function takes its input sorted by id, position, key or sequence number, and looks at one entry at a time, so that
nothing has to fit in memory.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Final, NamedTuple

from cdc.audit.range import Range

MISSING, DUPLICATE, OUT_OF_ORDER = "missing", "duplicate", "out_of_order"
PHANTOM, MISPLACED, HOLE, GAP, STALE = "phantom", "misplaced", "hole", "sequence_gap", "stale"
FINDINGS: Final = (MISSING, DUPLICATE, OUT_OF_ORDER, PHANTOM, MISPLACED, HOLE, GAP, STALE)

PUBLISHED, REPLAYED, REPAIRED, FOREIGN = range(4)
"""How a record was sent: from the stream, by `dlq replay`, by `audit --repair` (without a position), or by another
program or slot, whose record shows by its id that an event is there, and nothing else."""


Position = Callable[[int, int, int], str | None]
"""Formats stream, LSN and index as in the header; None of a record without a position."""


class TableRow(NamedTuple):
    """One row of the table. `committed` (microseconds, 0 when it is unknown), `xid` and `place` order the commits."""

    id: str
    topic: str  # empty when the row's columns do not make the name of a topic
    key: bytes | None
    age: int | None  # milliseconds since 1970
    committed: int
    xid: int
    place: int
    published: bool = True  # the publication's row filter, if there is one, lets it pass


class TopicRecord(NamedTuple):
    """One record. `stream` counts the timelines from 1; a repaired or foreign record has 0, and no position."""

    number: int  # in the order of reading
    id: str
    stream: int
    lsn: int
    nth: int
    topic: str
    partition: int
    offset: int
    key: bytes | None
    timestamp: int
    sequence: int | None
    kind: int
    judged: bool  # it is within the range

    @property
    def position(self) -> tuple[int, int, int]:
        """The order over all streams."""
        return self.stream, self.lsn, self.nth


class IdGroup(NamedTuple):
    """The rows and records of one id. `letters` counts dead letters that were not replayed."""

    id: str
    rows: list[TableRow]
    records: list[TopicRecord]
    letters: int = 0
    in_flight: int = 0


class IdVerdict(NamedTuple):
    """The result for the events of one id."""

    matched: list[tuple[TableRow | None, TopicRecord]]  # None: committed, but after the table was read
    unmatched: list[TopicRecord]  # without a row, or whose row was deleted
    duplicates: list[tuple[TopicRecord, TopicRecord]]  # with the first
    missing: list[TableRow]
    dead: int
    in_flight: int
    elsewhere: list[tuple[TableRow, TopicRecord]]  # rows that only a foreign record shows to be in a topic
    also: int  # foreign records of events that are in a topic anyway


def judge(group: IdGroup) -> IdVerdict:
    """Pair rows with records. An id that several rows share may have as many records."""
    if len(group.rows) == len(group.records) == 1 and group.records[0].kind != FOREIGN:  # nearly always, and faster
        return IdVerdict([(group.rows[0], group.records[0])], [], [], [], 0, 0, [], 0)
    rows, in_flight, letters = list(group.rows), group.in_flight, group.letters
    expected = max(len(rows), in_flight, 1)
    left = sorted(group.records, key=lambda record: (not _fits_any(record, rows), _age(record)))
    foreign = [record for record in left if record.kind == FOREIGN]
    own = [record for record in left if record.kind != FOREIGN]
    firsts, others = own[:expected], own[expected:]
    duplicates = [(record, firsts[0]) for record in others]
    if not rows and not in_flight:
        return IdVerdict([], firsts, duplicates, [], min(letters, 0 if firsts else letters), 0, [], 0)
    matched: list[tuple[TableRow | None, TopicRecord]] = []
    for record in firsts:
        row = next((row for row in rows if fits(record, row)), rows[0] if rows else None)
        if row is not None:
            rows.remove(row)
        matched.append((row, record))
    dead = min(len(rows), letters)
    waiting = min(len(rows) - dead, in_flight)
    rest = rows[dead + waiting :]
    elsewhere = list(zip(rest, foreign, strict=False))
    also = len(foreign) - len(elsewhere)
    return IdVerdict(matched, [], duplicates, rest[len(elsewhere) :], dead, waiting, elsewhere, also)


def fits(record: TopicRecord, row: TableRow) -> bool:
    """Return whether a record has the topic and the key of its row."""
    return record.topic == row.topic and record.key == row.key


def _fits_any(record: TopicRecord, rows: list[TableRow]) -> bool:
    return any(fits(record, row) for row in rows)


def _age(record: TopicRecord) -> tuple[int, int, str, int, int]:
    return record.kind, record.stream, record.topic, record.partition, record.offset


def disorder(records: Iterable[TopicRecord]) -> Iterator[tuple[TopicRecord, TopicRecord]]:
    """Yield the records behind a higher position of their key, with the highest.

    `records` are sorted by topic, partition, key, stream and offset, each event once. Without a key there is no order.
    """
    place, highest = None, None
    for record in records:
        if (found := (record.topic, record.partition, record.key, record.stream)) != place:
            place, highest = found, record
        elif highest is not None and record.position < highest.position:
            if record.key is not None:
                yield record, highest
        else:
            highest = record


class TakenPosition(NamedTuple):
    """The position of a record or of a dead letter."""

    stream: int
    lsn: int
    nth: int
    id: str
    number: int  # 0: a dead letter
    covered: bool  # the row is in the table
    judged: bool


class Hole(NamedTuple):
    """Positions of one transaction without a record, before others that have one."""

    stream: int
    lsn: int
    first: int
    last: int


def twice(places: Iterable[TakenPosition]) -> Iterator[tuple[TakenPosition, TakenPosition]]:
    """Yield the records that share a position with another id, with that other. `places` are sorted by position."""
    for _, same in groupby(places, key=lambda place: place[:3]):
        taken = [place for place in same if place.number]
        if len(taken) > 1:
            taken.sort(key=lambda place: (not place.covered, place.number))
            yield from ((place, taken[0]) for place in taken[1:] if place.id != taken[0].id)


def holes(places: Iterable[TakenPosition]) -> Iterator[Hole]:
    """Yield the holes of transactions that have no row in the table. `places` are sorted by position."""
    for (stream, lsn), transaction in groupby(places, key=lambda place: place[:2]):
        found: list[Hole] = []
        follows, covered, judged = 0, False, True
        for place in transaction:
            if place.nth > follows:
                found.append(Hole(stream, lsn, follows, place.nth - 1))
            follows = max(follows, place.nth + 1)
            covered |= place.covered
            judged &= place.judged
        if judged and not covered:
            yield from found


class SequenceGap(NamedTuple):
    """Sequence numbers of one partition without a record, and the record behind them."""

    first: int
    last: int
    behind: TopicRecord


def gaps(records: Iterable[TopicRecord], begins: set[tuple[str, int]]) -> Iterator[SequenceGap]:
    """Yield the gaps. `records` are sorted by topic, partition, stream and number; `begins` are whole partitions."""
    place, last, judged = None, 0, False
    for record in records:
        assert record.sequence is not None
        if (found := (record.topic, record.partition, record.stream)) != place:
            place, judged = found, True
            last = 0 if found[:2] in begins else record.sequence
        if record.sequence > last + 1 and judged and record.judged:
            yield SequenceGap(last + 1, record.sequence - 1, record)
        last, judged = record.sequence, record.judged


class Kept(NamedTuple):
    """The retention of a topic, as far as it is known, and whether its first records were deleted."""

    trimmed: bool
    compacted: bool
    keeps_since: int | None  # milliseconds since 1970; None: it deletes nothing by age

    def may_have_lost(self, age: int | None) -> bool:
        """Return whether the topic may have deleted the record of a row of this age."""
        if self.compacted:
            return True
        return self.trimmed and self.keeps_since is not None and (age is None or age < self.keeps_since)


class Edges(NamedTuple):
    """The commit times of events around the ends of a range of LSNs, in milliseconds; None: no event is known there."""

    before: int | None = None  # the last row known to commit before the range; only where commit times are kept
    first: int | None = None  # the first record within it
    last: int | None = None  # the last row known to commit within it; only where commit times are kept
    behind: int | None = None  # the first record behind it
    last_xid: int = -1  # the highest transaction id of a row known to commit within it, or before


def within(wanted: Range, edges: Edges, row: TableRow, *, began: bool = True) -> bool | None:
    """Return whether a missing row committed within a range of LSNs; None where its times cannot prove either.

    `began` says that the age of rows is a time before their commit. Transaction ids prove nothing: of two
    transactions, the one with the lower id may commit last.
    """
    committed = row.committed // 1000 if row.committed else None
    earliest = committed if committed is not None else row.age if began else None
    inside = True
    if wanted.from_lsn is not None:
        if committed is not None and edges.before is not None and committed < edges.before:
            return False
        inside &= earliest is not None and edges.first is not None and earliest > edges.first
    if wanted.to_lsn is not None and edges.behind is None:  # nothing is known to be behind the range
        inside &= row.xid < edges.last_xid
    elif wanted.to_lsn is not None and edges.behind is not None:
        if earliest is not None and earliest > edges.behind:
            return False
        inside &= committed is not None and edges.last is not None and committed < edges.last
    return inside or None
