"""The judge: a ledger and the records of the topics in, a verdict out. Pure; it reads no server.

I1 lost: committed, and in no topic. I2 reordered: first occurrences of a key not in the order it was written.
I3 gap: a partition's log went forward over an event of another key that came only later. I4 duplicate: a second record
of an event in exactly-once; in at-least-once they are counted, and only more of them than readings are one too many.
I5 phantom: a record that is no committed row, or not the same as the row, or at a position that is not the row's.
Without a slot, rows have no positions of their own. There, in exactly-once, the records of a partition must be in the
order of their positions (I3). Position: two events have the same.
In a compacted topic, `compacted` says what may be missing. Stale: the last record of a key is not its newest event.
Number: where records are numbered, one without, and in exactly-once one that does not follow the number before it.
"""

import enum
from bisect import bisect_right
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from tests.torture.compacted import Keys
from tests.torture.ledger import Ledger, Outcome, Row
from tests.torture.order import Latest, Log, Place

Partition = tuple[str, int]
FILLER: Final = "filler"  # the key of records that only make the cleaner of a compacted topic run


class Kind(enum.Enum):
    """The rule that was broken."""

    LOST = "I1 lost"
    REORDERED = "I2 reordered"
    GAP = "I3 forward gap"
    DUPLICATE = "I4 duplicate"
    PHANTOM = "I5 phantom"
    STALE = "I2 stale end of a key"
    NUMBER = "number"
    POSITION = "position"


class Record(NamedTuple):
    """One record as a read_committed consumer sees it."""

    topic: str
    partition: int
    offset: int
    key: str
    id: str
    position: str  # the header cdc-position
    digest: int
    number: str = ""  # the header cdc-sequence
    is_left: bool = True  # compaction may have removed it since it was seen


class Finding(NamedTuple):
    """One thing that must not be."""

    kind: Kind
    id: str
    where: str  # topic/partition@offset; empty for what is nowhere
    why: str

    def __str__(self) -> str:
        return f"{self.kind.value}: event {self.id} {self.where}: {self.why}"


class Verdict(NamedTuple):
    """What the judge found."""

    transactions: int  # committed ones
    events: int
    records: int
    findings: list[Finding]
    duplicates: int
    duplicates_by_session: dict[int, int]
    numbers_missing: int = 0
    numbers_repeated: int = 0
    removed: int = 0  # events of which compaction left no record
    unseen: int = 0  # of them, those that were removed before the reader saw them

    def count(self, kind: Kind) -> int:
        return sum(finding.kind is kind for finding in self.findings)

    @property
    def is_clean(self) -> bool:
        """No violation; what is only counted is none."""
        return not self.findings


class Undecided(ValueError):
    """The evidence is not complete: a transaction without an outcome, or a log that was not read in order."""


Sessions = Mapping[Partition, Sequence[tuple[int, int]]]


class Rules(NamedTuple):
    """The guarantee that the log is judged by."""

    exactly_once: bool = False
    numbered: bool = False
    compacted: frozenset[str] = frozenset()  # topics
    polling: bool = False


def judge(
    ledger: Ledger,
    records: Iterable[Record],
    sessions: Sessions | None = None,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    reads: Mapping[int, int] | None = None,
    proven: Container[Place] = frozenset(),
) -> Verdict:
    """Compare the records, each partition's in the order of its offsets, with the ledger.

    `sessions` says for each partition from which offset on which replication session wrote it, ascending; `reads` how
    often PostgreSQL sent the transaction of a commit LSN; `proven` where events were committed that Kafka acknowledged.
    Raises Undecided.
    """
    return _Trial(ledger, sessions or {}, rules, reads, proven).decide(records)


class _Trial:
    """One judgement in progress."""

    def __init__(
        self,
        ledger: Ledger,
        sessions: Sessions,
        rules: Rules,
        reads: Mapping[int, int] | None,
        proven: Container[Place],
    ) -> None:
        self._rules = rules
        self._compacted = Keys(rules.compacted, proven)
        self._holes: Counter[Partition] = Counter()  # offsets that nobody saw
        self._left: set[str] = set()  # events of which a record is there at the end
        self._reads = reads
        self._rows: dict[str, tuple[Row, Place]] = {}
        self._rolled_back: set[str] = set()
        self._sessions = sessions
        self._seen: Counter[str] = Counter()
        self._findings: list[Finding] = []
        self._logs: dict[Partition, Log] = {}
        self._keys: dict[tuple[str, str], tuple[int, Latest]] = {}
        self._offsets: dict[Partition, int] = {}
        self._duplicates: Counter[int] = Counter()
        self._positions: dict[str, str] = {}
        self._numbers: dict[tuple[str, Partition], int] = {}
        self._missing = self._repeated = 0
        self._transactions = 0
        for transaction in ledger:
            if transaction.outcome is Outcome.UNKNOWN:
                raise Undecided(f"transaction {transaction.xid} has no outcome yet")
            if transaction.outcome is Outcome.ROLLED_BACK:
                self._rolled_back.update(row.id for row in transaction.rows)
                continue
            self._transactions += 1
            commit_lsn = ledger.commit_lsn(transaction) or 0
            for index, row in enumerate(transaction.rows):
                self._rows[row.id] = (row, (commit_lsn, index))
                self._compacted.expect(row)

    def decide(self, records: Iterable[Record]) -> Verdict:
        count = 0
        for record in records:
            count += 1
            self._in_order(record)
            if record.topic in self._rules.compacted and (record.key, record.id) == (FILLER, ""):
                continue
            if self._rules.numbered:
                self._number(record)
            known = self._rows.get(record.id)
            if known is None:
                what = "its transaction was rolled back" if record.id in self._rolled_back else "nobody wrote it"
                self._find(Kind.PHANTOM, record, what)
            elif self._is_the_row(record, *known):
                self._take(record, *known)
        removed = unseen = 0
        for row, place in self._rows.values():
            if row.id in self._seen:
                removed += row.id not in self._left
            elif self._may_be_gone(row, place):
                unseen += 1
            else:
                why = f"committed as number {row.seq} of key {row.key!r}, not in topic {row.topic!r}"
                self._findings.append(Finding(Kind.LOST, row.id, "", why))
        for row, why in self._compacted.stale():
            self._findings.append(Finding(Kind.STALE, row.id, "", why))
        return Verdict(
            self._transactions,
            len(self._rows),
            count,
            self._findings,
            self._duplicates.total(),
            dict(self._duplicates),
            self._missing,
            self._repeated,
            removed + unseen,
            unseen,
        )

    def _may_be_gone(self, row: Row, place: Place) -> bool:
        if self._rules.polling:  # nobody knows whose acknowledgements the proxies saw; the campaign counts them
            return self._compacted.may_be_late(row)
        return self._compacted.may_be_gone(row, place)

    def _in_order(self, record: Record) -> None:
        partition = record.topic, record.partition
        last = self._offsets.get(partition, -1)
        if record.offset <= last:
            raise Undecided(f"{_where(record)} was read after offset {last}")
        self._holes[partition] += record.offset - last - 1
        self._offsets[partition] = record.offset

    def _number(self, record: Record) -> None:
        """Numbers belong to a stream and a partition, and begin at 1."""
        if not record.number.isdecimal():
            self._find(Kind.NUMBER, record, f"its number is {record.number!r}")
            return
        place = record.position.partition("-")[0], (record.topic, record.partition)
        last, number = self._numbers.get(place, 0), int(record.number)
        self._numbers[place] = max(last, number)
        if number == last + 1 or (number > last and record.topic in self._rules.compacted):
            return
        self._missing += max(0, number - last - 1)
        self._repeated += number <= last
        if self._rules.exactly_once:
            self._find(Kind.NUMBER, record, f"number {number} follows {last}")

    def _is_the_row(self, record: Record, row: Row, place: Place) -> bool:
        if (record.topic, record.key) != (row.topic, row.key):
            self._find(Kind.PHANTOM, record, f"written to topic {row.topic!r} with key {row.key!r}")
        elif record.digest != row.digest:
            self._find(Kind.PHANTOM, record, "its value is another than was committed")
        elif place[0] and record.position.partition("-")[2] != f"{place[0]:016X}-{place[1]:08X}":
            self._find(Kind.PHANTOM, record, f"position {record.position}, committed at {place[0]:016X}-{place[1]:08X}")
        else:
            return True
        self._seen[row.id] += 1  # it is not lost as well
        return False

    def _take(self, record: Record, row: Row, place: Place) -> None:
        self._seen[row.id] += 1
        if (other := self._positions.setdefault(record.position, row.id)) != row.id:
            self._find(Kind.POSITION, record, f"event {other} has position {record.position} too")
        if record.is_left:
            self._left.add(row.id)
        holes = self._holes[record.topic, record.partition]
        may_be_late = not self._rules.exactly_once and self._compacted.may_be_late(row)
        if wrong := self._compacted.take(row, holes, is_left=record.is_left):
            self._find(Kind.REORDERED, record, wrong)
        if (times := self._seen[row.id]) > 1:
            self._duplicates[self._session(record)] += 1
            read = self._reads.get(place[0], 0) if self._reads is not None and place[0] else times
            if self._rules.exactly_once:
                self._find(Kind.DUPLICATE, record, f"it is there {times} times")
            elif times > read:
                self._find(Kind.DUPLICATE, record, f"it is there {times} times, and was read {read} times")
            return
        home, latest = self._keys.setdefault((row.topic, row.key), (record.partition, Latest()))
        if home != record.partition:
            self._find(Kind.REORDERED, record, f"key {row.key!r} began in partition {home}")
            return
        if may_be_late:
            return
        if passed := latest.passed_by(row.seq, row.id):
            self._find(Kind.REORDERED, record, f"number {row.seq} of key {row.key!r} comes after event {passed}")
        hides_gaps = holes and not self._rules.exactly_once and row.topic in self._rules.compacted
        if self._rules.polling and self._rules.exactly_once:
            place = _place(record)
        if place[0] and not hides_gaps:
            log = self._logs.setdefault((record.topic, record.partition), Log())
            if overtaker := log.passed_by(place, row):
                self._find(Kind.GAP, record, f"the log had gone on to event {overtaker}, which comes later")

    def _session(self, record: Record) -> int:
        """Who wrote it: the last session that began at or before this offset; 0 when none is known."""
        begun = self._sessions.get((record.topic, record.partition), ())
        at = bisect_right(begun, record.offset, key=lambda session: session[0])
        return begun[at - 1][1] if at else 0

    def _find(self, kind: Kind, record: Record, why: str) -> None:
        self._findings.append(Finding(kind, record.id, _where(record), why))


def _place(record: Record) -> Place:
    _, number, index = record.position.split("-")
    return int(number, 16), int(index, 16)


def _where(record: Record) -> str:
    return f"{record.topic}/{record.partition}@{record.offset}"
