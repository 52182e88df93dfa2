"""The judgement of an audit, on histories that are made here: what was done to them is found, and nothing else."""

import contextlib
import random
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.audit.books import AuditFinding, Books
from cdc.audit.judging import AuditFacts, Judgement
from cdc.audit.range import Range
from cdc.audit.reading import RecordReader
from cdc.audit.topics import choose
from cdc.audit.verdicts import (
    DUPLICATE,
    FINDINGS,
    FOREIGN,
    GAP,
    HOLE,
    MISPLACED,
    MISSING,
    OUT_OF_ORDER,
    PHANTOM,
    REPAIRED,
    REPLAYED,
    Edges,
    Kept,
    TableRow,
    TopicRecord,
    within,
)
from cdc.lsn import LSN
from cdc.outbox.topic_template import TopicTemplate

PARTITIONS = 3
STREAMS = ("aaaaaaaa", "bbbbbbbb")
NOW = 10_000_000


def lsn(number: int) -> int:
    """Where transaction `number` commits."""
    return 1000 + number * 100


@dataclass
class History:
    """Transactions as a publisher that makes no mistake puts them into topics. Time is a second a transaction."""

    rows: list[TableRow] = field(default_factory=list)
    log: list[TopicRecord] = field(default_factory=list)
    letters: list[tuple[str, tuple[int, int, int]]] = field(default_factory=list)
    in_flight: list[str] = field(default_factory=list)
    transactions: int = 0
    appended: int = 0

    @classmethod
    def of(cls, sizes: Iterable[int], keys: Iterable[int]) -> "History":
        made, picked = cls(), iter(keys)
        for size in sizes:
            for nth in range(size):
                made.publish(nth, f"k{next(picked)}")
            made.transactions += 1
        return made

    def publish(self, nth: int, key: str) -> None:
        number = self.transactions
        event_id, topic = f"e{len(self.rows):04}", f"t{int(key[1:]) % 2}"
        partition = int(key[1:]) % PARTITIONS
        self.rows.append(TableRow(event_id, topic, key.encode(), number * 1000, 0, number, nth))
        sequence = 1 + sum((r.topic, r.partition) == (topic, partition) for r in self.log)
        self.append(
            TopicRecord(
                0,
                event_id,
                1,
                lsn(number),
                nth,
                topic,
                partition,
                0,
                key.encode(),
                number * 1000 + 5,
                sequence,
                0,
                True,
            )
        )

    def append(self, record: TopicRecord) -> TopicRecord:
        """At the end of its partition."""
        place = record.topic, record.partition
        self.appended += 1
        offset = 1 + max((r.offset for r in self.log if (r.topic, r.partition) == place), default=-1)
        self.log.append(record._replace(offset=offset, number=self.appended))
        return self.log[-1]

    def audit(self, wanted: Range | None = None, **facts: Any) -> "Audited":
        wanted = wanted or Range()
        with contextlib.closing(Books()) as books:
            books.add_rows(row for row in self.rows if _row_within(row, wanted))
            books.add_records(r._replace(judged=wanted.holds(r.id, r.lsn, r.timestamp)) for r in self.log)
            for event_id, position in self.letters:
                books.add_letter(event_id, position, judged=True)
            books.add_in_flight(self.in_flight)
            reading = RecordReader(STREAMS, wanted)
            known = {
                "stream": 1,
                "horizon": LSN(lsn(self.transactions)),
                "wal_end": LSN(lsn(self.transactions + 50)),
                "confirmed": LSN(lsn(self.transactions)),
                "begins": frozenset((r.topic, r.partition) for r in self.log),
                "present": self._present,
                "position": reading.position,
            }
            judgement = Judgement(books, AuditFacts(**{**known, **facts}, wanted=wanted))
            assert list(judgement.run()) == ["ids", "positions", "rows", "order", "sequences", "ends of keys"]
            found = list(books.findings(FINDINGS, 1_000_000))
            return Audited(found, judgement.counts, [note.why for note in judgement.notes], list(books.missing()))

    def _present(self, ids: list[str]) -> Collection[str]:
        return {row.id for row in self.rows} & set(ids)


def _row_within(row: TableRow, wanted: Range) -> bool:
    since, until = wanted.since or 0, NOW if wanted.until is None else wanted.until
    return since <= (row.age or 0) <= until and wanted.holds_id(row.id)


@dataclass
class Audited:
    found: list[AuditFinding]
    counts: Counter[str]
    notes: list[str]
    missing: list[TableRow]

    def ids(self, kind: str) -> list[str | None]:
        return sorted(one.id for one in self.found if one.kind == kind)  # type: ignore[type-var]

    def kinds(self) -> Counter[str]:
        return Counter(one.kind for one in self.found)


def simple(transactions: int = 6, keys: int = 2) -> History:
    return History.of([2] * transactions, [n % keys for n in range(2 * transactions)])


sizes = st.lists(st.integers(1, 5), min_size=1, max_size=25)


@st.composite
def histories(draw: st.DrawFn) -> History:
    chosen = draw(sizes)
    return History.of(chosen, draw(st.lists(st.integers(0, 5), min_size=sum(chosen), max_size=sum(chosen))))


@given(histories())
def test_a_history_without_a_fault_has_no_findings(history: History) -> None:
    audited = history.audit()
    assert audited.found == []
    assert audited.notes == []
    assert audited.counts == Counter(delivered=len(history.rows))


@given(histories(), st.randoms(use_true_random=False))
def test_what_was_done_to_a_history_is_found_exactly(history: History, chance: random.Random) -> None:
    ids = [record.id for record in history.log]
    deletes = chance.random() < 0.5
    chance.shuffle(ids)
    lost, doubled, buried, flying, copied, moved = (
        [ids.pop() for _ in range(min(len(ids), chance.randint(0, 2)))] for _ in range(6)
    )
    by_id = {record.id: record for record in history.log}
    history.log = [record for record in history.log if record.id not in {*lost, *buried, *flying}]
    history.letters = [(one, by_id[one].position) for one in buried]
    history.in_flight = flying
    for one in moved:
        place = next(place for place, record in enumerate(history.log) if record.id == one)
        history.log[place] = history.log[place]._replace(key=b"another")
    for one in doubled:
        history.append(by_id[one])
    for one in copied:
        history.append(by_id[one]._replace(id=f"phantom of {one}"))

    # The position of a phantom is another's: that tells it even where rows are deleted.
    audited = history.audit(deleted=lambda: deletes)
    assert audited.ids(MISSING) == sorted(lost)
    assert audited.ids(DUPLICATE) == sorted(doubled)
    assert audited.ids(PHANTOM) == sorted(f"phantom of {one}" for one in copied)
    assert audited.ids(MISPLACED) == sorted(moved)
    assert audited.ids(OUT_OF_ORDER) == []
    assert (audited.counts["in_flight"], audited.counts["dead_lettered"]) == (len(flying), len(buried))
    assert [row.id for row in audited.missing] == [row.id for row in history.rows if row.id in lost]


@given(histories(), st.randoms(use_true_random=False))
def test_two_neighbours_of_a_key_that_change_places_are_one_finding(history: History, chance: random.Random) -> None:
    partitions: dict[tuple[str, int, bytes | None], list[int]] = {}
    for place, record in enumerate(history.log):
        partitions.setdefault((record.topic, record.partition, record.key), []).append(place)
    swaps = [pair for places in partitions.values() for pair in list(pairwise(places))[::2]]
    chosen = [pair for pair in swaps if chance.random() < 0.3]
    for first, second in chosen:
        one, other = history.log[first], history.log[second]
        history.log[first] = other._replace(offset=one.offset)
        history.log[second] = one._replace(offset=other.offset)
    audited = history.audit()
    assert audited.ids(OUT_OF_ORDER) == sorted(history.log[second].id for _, second in chosen)
    assert set(audited.kinds()) <= {OUT_OF_ORDER}


@given(histories(), st.randoms(use_true_random=False))
def test_ranges_invent_nothing_at_their_edges(history: History, chance: random.Random) -> None:
    first, last = sorted(chance.randint(0, history.transactions) for _ in range(2))
    ids = frozenset(chance.sample([row.id for row in history.rows], chance.randint(1, min(5, len(history.rows)))))
    for wanted in (
        Range(since=first * 1000, until=last * 1000),
        Range(since=first * 1000 + 3, until=last * 1000 + 3),  # between a row and its record
        Range(from_lsn=LSN(lsn(first)), to_lsn=LSN(lsn(last))),
        Range(ids=ids),
        Range(from_id="e0003", to_id="e0010"),
    ):
        assert history.audit(wanted).found == []


@given(histories(), st.randoms(use_true_random=False))
def test_within_a_range_of_lsns_what_is_missing_is_really_missing(history: History, chance: random.Random) -> None:
    lost = {record.id for record in history.log if chance.random() < 0.3}
    history.log = [record for record in history.log if record.id not in lost]
    found = history.audit(Range(from_lsn=LSN(lsn(3)), to_lsn=LSN(lsn(10)))).ids(MISSING)
    assert set(found) <= lost
    number = {row.id: row.xid for row in history.rows}
    assert all(3 <= number[str(one)] <= 10 for one in found)  # here commits are in the order of transaction ids


@given(histories(), st.integers(0, 25))
def test_purged_rows_are_no_phantoms_and_their_holes_are_found(history: History, purged: int) -> None:
    gone = {row.id for row in history.rows if row.xid < purged}
    history.rows = [row for row in history.rows if row.id not in gone]
    audited = history.audit()
    assert audited.found == []
    assert audited.counts["purged"] == len(gone)
    inner = [record for record in history.log if record.id in gone and _has_later(record, history.log)]
    lost = {record.id for record in inner[::2]}
    history.log = [record for record in history.log if record.id not in lost]
    assert sum(one.events for one in history.audit().found if one.kind == HOLE) == sum(
        any((later.lsn, later.nth > r.nth) == (r.lsn, True) for later in history.log) for r in inner[::2]
    )


def _has_later(record: TopicRecord, log: list[TopicRecord]) -> bool:
    return any(other.lsn == record.lsn and other.nth > record.nth for other in log)


def test_a_slow_transaction_whose_row_is_deleted_by_its_age_is_no_phantom() -> None:
    history = simple()
    # Transaction 1 began before 2, and committed long after it; rows older than 2 are deleted. The others were quick.
    late = [r._replace(lsn=lsn(5) + 50, timestamp=5900) for r in history.log if r.lsn == lsn(1)]
    history.log = [*(r for r in history.log if r.lsn != lsn(1)), *late]
    history.rows = [row for row in history.rows if row.xid >= 2]
    audited = history.audit()
    assert audited.ids(PHANTOM) == []
    assert audited.counts["purged"] == 4


@given(histories(), st.randoms(use_true_random=False))
def test_whichever_rows_are_deleted_no_record_of_them_is_a_phantom(history: History, chance: random.Random) -> None:
    gone = {row.id for row in history.rows if chance.random() < 0.4}
    history.rows = [row for row in history.rows if row.id not in gone]
    asked: list[bool] = []
    audited = history.audit(deleted=lambda: not asked.append(True))  # type: ignore[func-returns-value]
    assert (audited.found, audited.counts["purged"]) == ([], len(gone))
    assert len(asked) <= 1
    # Also where nothing counts deletes: a topic whose beginning is gone may have had what shows them.
    assert history.audit(trimmed=frozenset({("t0", 0)})).ids(PHANTOM) == []


def test_a_row_deleted_while_an_older_one_is_kept_shows_by_nothing_but_the_count_of_deletes() -> None:
    history = simple()
    (deleted,) = [history.rows.pop(5).id]
    assert history.audit().ids(PHANTOM) == [deleted]
    assert history.audit(deleted=lambda: True).found == []
    history.rows = history.rows[1:]  # older than all that are left
    assert history.audit().found == []


def test_case_b4_records_of_a_partition_that_is_gone_are_no_phantoms_and_the_note_says_why() -> None:
    history = simple()
    history.rows.pop(5)
    audited = history.audit(gone=lambda: "a partition may have been dropped")
    assert (audited.found, audited.counts["purged"]) == ([], 1)
    assert any("a partition may have been dropped" in note for note in audited.notes)


def test_a_record_that_has_the_position_of_a_row_is_a_phantom_though_rows_are_deleted() -> None:
    history = simple()
    history.rows = history.rows[4:]
    history.append(history.log[6]._replace(id="forged", sequence=None))
    audited = history.audit()
    assert [(one.kind, one.id) for one in audited.found] == [(PHANTOM, "forged")]
    assert audited.counts["purged"] == 4


def test_gaps_in_the_sequence_are_found_and_what_retention_took_is_none() -> None:
    history = History.of([1] * 9, [0] * 9)
    history.rows = []
    history.log = [record for record in history.log if record.sequence not in (1, 4, 5)]
    found = {one.meaning: one.events for one in history.audit().found}
    assert found == {
        "cdc-sequence 1 is missing before 2": 1,
        "cdc-sequence 4 to 5 are missing before 6": 2,
    }
    trimmed = history.audit(begins=frozenset(), trimmed=frozenset({("t0", 0)}))
    assert [one.meaning for one in trimmed.found] == ["cdc-sequence 4 to 5 are missing before 6"]
    assert [one.kind for one in trimmed.found] == [GAP]


def test_a_row_whose_slot_state_is_not_known_is_in_flight_and_no_finding() -> None:
    history = simple()
    del history.log[-1]
    audited = history.audit(settled=False)
    assert (audited.found, audited.counts["in_flight"]) == ([], 1)
    assert "the rows that the slot has not confirmed are unknown: these may be in flight, or missing" in audited.notes


def test_a_replayed_or_repaired_event_is_there_and_may_stand_anywhere() -> None:
    history = simple()
    first, second = history.log[0], history.log[1]
    history.log = history.log[2:]
    history.append(first._replace(kind=REPLAYED))
    history.append(second._replace(kind=REPAIRED, stream=0, lsn=0, nth=0, sequence=None))
    assert [one for one in history.audit().found if one.kind != GAP] == []


def test_a_replayed_letter_whose_event_is_in_no_topic_is_missing() -> None:
    history = simple()
    lost = history.log.pop(3)
    history.letters = [(lost.id, lost.position)]
    assert history.audit().ids(MISSING) == []
    with contextlib.closing(Books()) as books:
        books.add_rows(history.rows)
        books.add_records(history.log)
        books.add_letter(lost.id, lost.position, judged=True)
        books.add_marker(lost.position)
        (group,) = [group for group in books.groups() if group.id == lost.id]
        assert (group.letters, len(group.rows)) == (0, 1)


@pytest.mark.parametrize(
    ("kept", "expired"),
    [
        (Kept(trimmed=True, compacted=False, keeps_since=2500), ["e0002", "e0004"]),
        (Kept(trimmed=False, compacted=False, keeps_since=2500), []),
        (Kept(trimmed=True, compacted=False, keeps_since=None), []),
        (Kept(trimmed=False, compacted=True, keeps_since=None), ["e0002", "e0004", "e0010"]),
    ],
)
def test_what_the_topic_may_have_deleted_by_itself_is_not_missing(kept: Kept, expired: list[str]) -> None:
    history = simple()
    lost = ["e0002", "e0004", "e0010"]  # of transactions 1, 2 and 5
    history.log = [record for record in history.log if record.id not in lost]
    audited = history.audit(kept={"t0": kept})
    assert audited.ids(MISSING) == sorted(set(lost) - set(expired))
    assert audited.counts["expired"] == len(expired)


def test_positions_that_cannot_be_are_phantoms_though_every_row_is_purged() -> None:
    history = simple()
    history.rows = []
    history.append(history.log[0]._replace(id="forged", lsn=lsn(1000), sequence=None))
    assert history.audit().ids(PHANTOM) == ["forged"]


def test_what_was_committed_after_the_snapshot_is_not_judged() -> None:
    history = simple()
    history.append(history.log[0]._replace(id="newer", lsn=lsn(history.transactions + 1), sequence=None))
    audited = history.audit()
    assert (audited.found, audited.counts["newer"]) == ([], 1)


def test_a_row_that_became_visible_late_is_no_phantom() -> None:
    history = simple()
    history.append(history.log[0]._replace(id="late", lsn=lsn(3) + 1, nth=0, sequence=None))
    assert set(history.audit().kinds()) == {PHANTOM, OUT_OF_ORDER} - {OUT_OF_ORDER}
    assert history.audit(present=lambda ids: set(ids)).ids(PHANTOM) == []
    assert history.audit(sparse=True).ids(PHANTOM) == []


def test_records_of_an_earlier_timeline_that_no_row_has_tell_of_a_failover() -> None:
    history = simple()
    history.rows = history.rows[:-1]
    history.log = [replace_stream(record, 1 if record.lsn < lsn(4) else 2) for record in history.log]
    lost = history.append(history.log[0]._replace(id="lost", lsn=lsn(4), nth=0, stream=1, sequence=None))
    history.rows.append(TableRow("e0011", "t1", b"k1", 5000, 0, 5, 1))
    (found,) = history.audit(stream=2).found
    assert (found.kind, found.id, found.position) == (PHANTOM, lost.id, f"aaaaaaaa-{lsn(4):016X}-00000000")
    assert "earlier timeline" in found.meaning


def replace_stream(record: TopicRecord, stream: int) -> TopicRecord:
    return record._replace(stream=stream, sequence=None)


def test_two_events_of_one_position_are_told_even_when_both_are_purged() -> None:
    history = simple()
    history.rows = history.rows[6:]
    history.append(history.log[0]._replace(id="other", sequence=None))
    (found,) = history.audit().found
    assert (found.kind, found.id, found.meaning) == (DUPLICATE, "other", "the same position as of event e0000")


def test_an_id_that_two_rows_share_may_come_twice_and_once_is_missing() -> None:
    history = simple()
    history.rows[2] = history.rows[2]._replace(id="e0000")
    history.log[2] = history.log[2]._replace(id="e0000")
    assert history.audit().found == []
    del history.log[2]
    assert [one.id for one in history.audit().found if one.kind == MISSING] == ["e0000"]


def test_a_reading_tells_ours_from_strangers() -> None:
    reading = RecordReader(STREAMS, Range(from_id="5", numeric=True))
    place = ("t", 0, 7)

    def read(*headers: tuple[str, bytes | None]) -> TopicRecord | None:
        return reading.record(1, place, b"k", 5, headers)

    position = ("cdc-position", b"bbbbbbbb-00000000000000FF-00000001")
    ours = read(("id", b"10"), position, ("id", b"a column"), ("cdc-sequence", b"3"))
    assert ours == TopicRecord(1, "10", 2, 255, 1, "t", 0, 7, b"k", 5, 3, 0, True)
    assert reading.position(2, 255, 1) == "bbbbbbbb-00000000000000FF-00000001"
    repaired = read(("id", b"4"), ("cdc-repaired", b"2026-01-01T00:00:00.000Z"))
    assert repaired is not None
    assert (repaired.id, repaired.kind, repaired.stream, repaired.judged) == ("4", REPAIRED, 0, False)
    replayed = read(("id", b"x"), position, ("cdc-replayed", b"now"))
    assert replayed is not None
    assert (replayed.kind, replayed.judged) == (REPLAYED, False)  # "x" is no number, as ids here are
    foreign = read(("id", b"7"))
    assert foreign is not None
    assert (foreign.id, foreign.kind, foreign.stream, foreign.judged) == ("7", FOREIGN, 0, True)
    assert read() is None
    assert read(("cdc-position", b"cccccccc-0000000000000001-00000000")) is None
    assert read(("cdc-position", b"nonsense")) is None
    assert read(("cdc-position", None)) is None
    assert reading.others == {"": 4, "cccccccc": 1}
    far = read(("cdc-position", b"aaaaaaaa-FFFFFFFFFFFFFFFF-00000000"))
    assert far is not None
    assert (far.id, far.lsn) == ("aaaaaaaa-FFFFFFFFFFFFFFFF-00000000", (1 << 63) - 1)


def test_case_g1_times_decide_whether_a_missing_row_is_in_a_range_and_what_they_cannot_is_undecided() -> None:
    def row(age: int | None, committed: int | None) -> TableRow:
        return TableRow("e", "t", b"k", age, (committed or 0) * 1000, 5, 0)

    wanted, edges = Range(from_lsn=LSN(10), to_lsn=LSN(20)), Edges(before=90, first=100, last=200, behind=210)
    assert within(wanted, edges, row(None, 150)) is True
    assert within(wanted, edges, row(1, 80)) is False
    assert within(wanted, edges, row(1, 215)) is False
    assert within(wanted, edges, row(1, 95)) is None
    assert within(wanted, edges, row(1, 100)) is None
    assert within(wanted, edges, row(1, 205)) is None
    assert within(wanted, edges, row(None, None)) is None
    # Without its commit time only a lower bound is known: it began behind the first of the range, or behind its end.
    assert within(wanted, edges, row(150, None)) is None
    assert within(wanted, edges, row(215, None)) is False
    assert within(wanted, edges, row(1, None)) is None
    from_here = replace(wanted, to_lsn=None)
    assert within(from_here, edges, row(150, None)) is True
    assert within(from_here, edges, row(100, None)) is None
    assert within(from_here, Edges(), row(150, None)) is None
    assert within(replace(wanted, from_lsn=None), Edges(last_xid=6), row(None, None)) is True
    assert (
        within(replace(wanted, from_lsn=None), Edges(last_xid=5), row(None, None)) is None
    )  # later than all that is known


def test_case_g1_a_record_of_another_program_shows_by_its_id_that_an_event_is_there() -> None:
    history = simple()
    theirs = history.log.pop(3)
    history.append(foreign(theirs))
    history.append(foreign(theirs))
    history.append(foreign(history.log[0]))
    history.append(foreign(theirs)._replace(id="of no row"))
    audited = history.audit()
    assert [one for one in audited.found if one.kind != GAP] == []
    assert (audited.counts["delivered"], audited.counts["undecided"]) == (12, 0)
    assert "their only records are of another program or stream: found by id alone" in audited.notes
    assert "another program or stream sent these events too, which is no finding" in audited.notes


def test_case_g1_a_number_as_id_may_be_of_another_outbox_where_topic_or_key_differ() -> None:
    history = simple()
    theirs = history.log.pop(3)
    history.append(foreign(theirs)._replace(key=b"another"))
    audited = history.audit(Range(numeric=True))
    assert audited.ids(MISSING) == []
    assert audited.counts["undecided"] == 1
    history.log[-1] = history.log[-1]._replace(key=theirs.key)
    assert history.audit(Range(numeric=True)).counts["undecided"] == 0


def test_case_g1_a_duplicate_of_ours_stays_one_beside_the_record_of_another_program() -> None:
    history = simple()
    history.append(history.log[2])
    history.append(foreign(history.log[2]))
    assert history.audit().ids(DUPLICATE) == [history.log[2].id]


def test_case_g1_a_row_that_began_before_the_range_and_has_a_higher_transaction_id_is_undecided() -> None:
    # Transaction 2 began first and committed last; 3 committed before the range, and another program sent it.
    history = History.of([1] * 6, [0, 0, 1, 0, 0, 0])
    slow = history.log[2]
    history.log = [r for r in history.log if r.lsn > slow.lsn + 100]
    history.append(slow._replace(lsn=lsn(3) + 50, timestamp=3055, sequence=None))
    audited = history.audit(Range(from_lsn=LSN(lsn(3) + 20)))
    assert audited.found == []
    assert audited.counts["undecided"] == 3  # also the rows before: nothing shows when they were committed
    assert [note for note in audited.notes if note.startswith("undecided: they are in no topic")]
    lost = history.log.pop(0)
    assert lost.lsn == lsn(4)
    audited = history.audit(Range(from_lsn=LSN(lsn(3) + 20)))
    assert audited.ids(MISSING) == [lost.id]
    assert history.audit(Range(from_lsn=LSN(lsn(3) + 20)), began=False).ids(MISSING) == []


def foreign(record: TopicRecord) -> TopicRecord:
    return record._replace(kind=FOREIGN, stream=0, lsn=0, nth=0, sequence=None)


def test_the_topics_are_those_of_rows_and_those_that_the_template_makes() -> None:
    existing = {"outbox.event.order", "outbox.event.old", "other", "cdc.dead-letter", "outbox.eventXorder"}
    template = TopicTemplate("outbox.event.{aggregatetype}")
    chosen = choose(existing, ["outbox.event.new"], template, ["cdc.dead-letter"], [])
    assert chosen == {"outbox.event.new": False, "outbox.event.old": True, "outbox.event.order": True}
    assert choose(existing, ["outbox.event.new"], template, [], ["other"]) == {"other": True}
    anything = TopicTemplate("{aggregatetype}", {"order": "outbox.event.order", "note": "notes"})
    assert choose(existing, ["other"], anything, [], []) == {"other": True, "outbox.event.order": True}
