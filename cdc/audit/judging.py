"""Judges an audit: compares everything that was read by id, by position, by key and by sequence number."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from cdc.audit import verdicts
from cdc.audit.books import DUPLICATE_MARK, PHANTOM_MARK, UNMATCHED_MARK, AuditFinding, Books
from cdc.audit.compaction import stale
from cdc.audit.range import Range
from cdc.audit.verdicts import REPAIRED, Kept, TableRow, TopicRecord
from cdc.audit.wording import Wording
from cdc.lsn import LSN

_PORTION: Final = 5000

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class AuditFacts:
    """The facts about the servers after everything was read."""

    stream: int  # the current one
    horizon: LSN  # the rows of the snapshot were committed before it
    wal_end: LSN  # after the topics were read
    confirmed: LSN | None  # by the slot; None: there is none
    wanted: Range
    position: verdicts.Position
    present: Callable[[list[str]], Collection[str]]  # which of these ids the table holds now
    kept: Mapping[str, Kept] = field(default_factory=dict)  # by topic
    trimmed: frozenset[tuple[str, int]] = frozenset()  # partitions whose first records were deleted
    begins: frozenset[tuple[str, int]] = frozenset()  # partitions that were read from their first record
    began: bool = True  # ages are moments before the commit of their rows, by the server's clock
    settled: bool = True  # all events in flight are known
    sparse: bool = False  # rows may have been deleted, without any sign of it
    deleted: Callable[[], bool] = bool  # whether the table counts rows that were deleted
    gone: Callable[[], str] = str  # why many rows at once may have gone, which nothing counts
    every_topic: bool = True  # all topics that positions may be in were read
    commit_times: bool = True  # records have the times of their commits
    passed_by: str = "the slot"  # what shows that a row was published


class Note(NamedTuple):
    """A reason why rows or records could not be judged, and how many."""

    what: str
    number: int
    why: str


class Judgement:
    """Adds findings to the books, and counts everything else."""

    def __init__(self, books: Books, facts: AuditFacts) -> None:
        self.counts: Counter[str] = Counter()
        self.notes: list[Note] = []
        self._books = books
        self._facts = facts
        self._words = Wording(facts.position, facts.stream, facts.wal_end, facts.passed_by)
        self._oldest: tuple[int, int, int] | None = None  # position of a row that is in the table

    def run(self) -> Iterator[str]:
        """Judge; yield the name of each step before it."""
        yield "ids"
        self._by_id()
        if self._facts.wanted.by_lsn:
            self._place_missing()
        yield "positions"
        self._twice()
        yield "rows"
        self._by_row()
        self._holes()
        yield "order"
        self._books.find(self._words.out_of_order(*pair) for pair in verdicts.disorder(self._books.by_key()))
        yield "sequences"
        self._gaps()
        yield "ends of keys"
        self._ends_of_keys()

    def _by_id(self) -> None:
        books, wanted = self._books, self._facts.wanted
        for groups in _portions(books.groups()):
            marks: list[tuple[int, int]] = []
            findings: list[AuditFinding] = []
            missing: list[TableRow] = []
            removed: list[TableRow] = []
            firsts: list[tuple[int, int, int]] = []
            for group in groups:
                verdict = verdicts.judge(group)
                for row, record in verdict.matched:
                    judged = not wanted.by_lsn or record.judged
                    self.counts["newer" if row is None else "delivered"] += judged
                    if row is not None:
                        if record.kind != REPAIRED:
                            self._oldest = min(self._oldest or record.position, record.position)
                            firsts.append((row.committed, row.xid, record.lsn))
                        if judged and not verdicts.fits(record, row):
                            findings.append(self._words.misplaced(record, row))
                for record, first in verdict.duplicates:
                    marks.append((record.number, DUPLICATE_MARK))
                    if record.judged:
                        findings.append(self._words.duplicate(record, first))
                for row, record in verdict.elsewhere:
                    self._elsewhere(row, record)
                self.counts["also"] += verdict.also
                marks += ((record.number, UNMATCHED_MARK) for record in verdict.unmatched)
                self.counts["in_flight"] += verdict.in_flight
                self.counts["dead_lettered"] += verdict.dead
                for row in verdict.missing:
                    if self._is_missing(row):
                        missing.append(row)
                    elif row.published and self._facts.settled and self._facts.kept[row.topic].compacted:
                        removed.append(row)
            books.mark(marks)
            books.find(findings)
            books.add_missing(missing)
            books.add_removed(removed)
            if wanted.by_lsn:
                books.add_first(firsts)
        if not wanted.by_lsn:
            books.find(map(self._words.missing, books.missing()))
        self._note("rows", "expired", "their topic has deleted or compacted old records, and may have had theirs")
        self._note("rows", "filtered", "the row filter of the publication excludes them")
        self._note("rows", "elsewhere", "their only records are of another program or stream: found by id alone")
        self._note("rows", "undecided", "undecided: another program's record has their id, and another topic or key")
        self._note("records", "also", "another program or stream sent these events too, which is no finding")
        if not self._facts.settled:
            why = "the rows that the slot has not confirmed are unknown: these may be in flight, or missing"
            self._note("rows", "in_flight", why)

    def _elsewhere(self, row: TableRow, record: TopicRecord) -> None:
        """Count a row that only a foreign record shows. An id that is a number may be that of another outbox's row."""
        if self._facts.wanted.numeric and not verdicts.fits(record, row):
            self.counts["undecided"] += 1
        elif not self._facts.wanted.by_lsn:
            self.counts["delivered"] += 1
            self.counts["elsewhere"] += 1

    def _is_missing(self, row: TableRow) -> bool:
        kept = self._facts.kept.get(row.topic)
        if not row.published:
            self.counts["filtered"] += 1
        elif not self._facts.settled:
            self.counts["in_flight"] += 1
        elif kept is not None and kept.may_have_lost(row.age):
            self.counts["expired"] += 1
        else:
            return True
        return False

    def _place_missing(self) -> None:
        """Keep the missing events that are certainly within the range of LSNs: a row does not show the LSN it has."""
        wanted, edges, outside, undecided = self._facts.wanted, self._books.edges(self._facts.wanted), [], 0
        for row in self._books.missing():
            found = verdicts.within(wanted, edges, row, began=self._facts.began) if self._facts.commit_times else None
            if not found:
                outside.append(row.id)
                undecided += found is None
        self._books.found(outside)
        self._books.find(map(self._words.missing, self._books.missing()))
        self.counts["undecided"] += undecided
        if undecided:
            why = "undecided: they are in no topic, and may have been committed outside of the range of LSNs"
            if not self._facts.began or wanted.to_lsn is not None:
                why += "; track_commit_timestamp = on shows when later rows are committed"
            self.notes.append(Note("rows", undecided, why))

    def _by_row(self) -> None:
        """Distinguish phantoms from records whose rows were deleted.

        Any row may have been deleted once a single one was: a row's age is the start of its transaction, and deletes
        come in batches and skip locked rows.
        """
        facts = self._facts
        beyond: list[TopicRecord] = []
        gone = ""
        deleted = facts.sparse or bool(facts.trimmed) or self._oldest is None
        for records in _portions(self._books.unmatched()):
            absent: list[TopicRecord] = []
            for record in records:
                of_today = record.stream == facts.stream
                if of_today and record.lsn >= facts.wal_end:
                    beyond.append(record)
                elif of_today and record.lsn >= facts.horizon:
                    self.counts["newer"] += record.judged
                elif record.judged:
                    absent.append(record)
            if absent and not deleted:
                present = facts.present([record.id for record in absent])
                absent = [record for record in absent if record.id not in present]
                deleted = any(map(self._precedes, absent)) or (bool(absent) and facts.deleted())
                if absent and not deleted:
                    gone = facts.gone()
                    deleted = bool(gone)
            if deleted:
                self.counts["purged"] += len(absent)
            else:
                self._phantoms(absent)
        self._phantoms(beyond)
        why = f"their rows are not in the table any more{f' ({gone})' if gone else ''}: judged by their positions only"
        self._note("records", "purged", why)

    def _precedes(self, record: TopicRecord) -> bool:
        """Return whether a record shows that rows were deleted: it is older than all rows, or was made from one."""
        return record.kind == REPAIRED or (self._oldest is not None and record.position < self._oldest)

    def _phantoms(self, records: Iterable[TopicRecord]) -> None:
        for phantoms in _portions(iter(records)):
            self._books.mark((record.number, PHANTOM_MARK) for record in phantoms)
            self._books.find(self._words.phantom(record) for record in phantoms if record.judged)

    def _twice(self) -> None:
        for found in _portions(verdicts.twice(self._books.places())):
            for place, first in found:
                # The position belongs to a row, so that no other record ever had it.
                phantom = first.covered and not place.covered
                self._books.mark([(place.number, PHANTOM_MARK if phantom else DUPLICATE_MARK)])
                if place.judged:
                    finding = self._words.phantom if phantom else partial(self._words.same_position, first=first)
                    self._books.find(map(finding, self._books.record(place.number)))

    def _holes(self) -> None:
        facts = self._facts
        why = ""
        if not self.counts["purged"]:
            return
        if not facts.every_topic or facts.wanted.by_id:
            why = "not all topics and ids were read"
        elif any(kept.compacted for kept in facts.kept.values()):
            why = "a topic is compacted"
        elif facts.confirmed is None:
            why = "there is no slot that shows which events were delivered"
            if facts.passed_by != "the slot":
                why = "events that are sent again get other positions"
        if why:
            self.notes.append(Note("transactions", 0, f"{why}, so holes in them are not searched for"))
            return
        from_lsn = self._whole_from()
        for hole in verdicts.holes(self._books.places()):
            if hole.stream == facts.stream and facts.confirmed and from_lsn < hole.lsn < facts.confirmed:
                self._books.find([self._words.hole(hole)])

    def _whole_from(self) -> int:
        """Return the LSN behind which no topic has deleted records, as far as the remaining ones show."""
        left = self._books.first_left()
        lsns = [left.get((*place, self._facts.stream)) for place in self._facts.trimmed]
        if None in lsns:
            why = "a partition has deleted all of its records, which looks like holes in transactions"
            self.notes.append(Note("transactions", 0, why))
        return max((1 << 63 if lsn is None else lsn for lsn in lsns), default=0)

    def _gaps(self) -> None:
        if any(kept.compacted for kept in self._facts.kept.values()):
            self.notes.append(Note("sequence numbers", 0, "a topic is compacted"))
            return
        begins = set(self._facts.begins) if self._facts.wanted.whole else set()
        self._books.find(map(self._words.gap, verdicts.gaps(self._books.by_sequence(), begins)))

    def _ends_of_keys(self) -> None:
        """Events that are not confirmed are sent again, so that a key may end with one of them for a moment."""
        compacted = [name for name, kept in self._facts.kept.items() if kept.compacted]
        if compacted and not self._facts.wanted.by_lsn:
            found = stale(self._books.by_end(compacted), began=self._facts.began, timed=self._facts.commit_times)
            settled = (one for one in found if not self._books.is_in_flight(one.last.id, one.newest))
            self._books.find(self._words.stale(one) for one in settled if one.judged)

    def _note(self, what: str, count: str, why: str) -> None:
        if self.counts[count]:
            self.notes.append(Note(what, self.counts[count], why))


def _portions(items: Iterator[T]) -> Iterator[list[T]]:
    while portion := list(islice(items, _PORTION)):
        yield portion
