"""The judge: a ledger and the records of the topics in, a verdict out. Pure; it reads no server.

I1 lost: committed, and in no topic. I2 reordered: first occurrences of a key not in the order it was written.
I3 gap: a partition's log went forward over an event of another key that came only later. I4 duplicate: a second record
of an event in exactly-once; in at-least-once they are counted, and only more of them than readings are one too many.
I5 phantom: a record that is no committed row, or not the same as the row, or at a position that is not the row's.
Number: where records are numbered, one without, and in exactly-once one that does not follow the number before it.
"""

import enum
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tests.torture.ledger import Ledger, Outcome, Row

Partition = tuple[str, int]


class Kind(enum.Enum):
    """The rule that was broken."""

    LOST = "I1 lost"
    REORDERED = "I2 reordered"
    GAP = "I3 forward gap"
    DUPLICATE = "I4 duplicate"
    PHANTOM = "I5 phantom"
    NUMBER = "number"


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

    def count(self, kind: Kind) -> int:
        return sum(finding.kind is kind for finding in self.findings)

    @property
    def is_clean(self) -> bool:
        """No violation; what is only counted is none."""
        return not self.findings


class Undecided(ValueError):
    """The evidence is not complete: a transaction without an outcome, or a log that was not read in order."""


Place = tuple[int, int]  # commit LSN and index in the transaction; LSN 0 when it is not known
Sessions = Mapping[Partition, Sequence[tuple[int, int]]]


class Rules(NamedTuple):
    """The guarantee that the log is judged by."""

    exactly_once: bool = False
    numbered: bool = False


def judge(
    ledger: Ledger,
    records: Iterable[Record],
    sessions: Sessions | None = None,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    reads: Mapping[int, int] | None = None,
) -> Verdict:
    """Compare the records, each partition's in the order of its offsets, with the ledger.

    `sessions` says for each partition from which offset on which replication session wrote it, ascending; `reads` how
    often PostgreSQL sent the transaction of a commit LSN. Raises Undecided.
    """
    return _Trial(ledger, sessions or {}, rules, reads).decide(records)


class _Trial:
    """One judgement in progress."""

    def __init__(self, ledger: Ledger, sessions: Sessions, rules: Rules, reads: Mapping[int, int] | None) -> None:
        self._rules = rules
        self._reads = reads
        self._rows: dict[str, tuple[Row, Place]] = {}
        self._rolled_back: set[str] = set()
        self._sessions = sessions
        self._seen: Counter[str] = Counter()
        self._findings: list[Finding] = []
        self._logs: dict[Partition, _Log] = {}
        self._keys: dict[tuple[str, str], tuple[int, _Latest]] = {}
        self._offsets: dict[Partition, int] = {}
        self._duplicates: Counter[int] = Counter()
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

    def decide(self, records: Iterable[Record]) -> Verdict:
        count = 0
        for record in records:
            count += 1
            self._in_order(record)
            if self._rules.numbered:
                self._number(record)
            known = self._rows.get(record.id)
            if known is None:
                what = "its transaction was rolled back" if record.id in self._rolled_back else "nobody wrote it"
                self._find(Kind.PHANTOM, record, what)
            elif self._is_the_row(record, *known):
                self._take(record, *known)
        for row, _ in self._rows.values():
            if row.id not in self._seen:
                why = f"committed as number {row.seq} of key {row.key!r}, not in topic {row.topic!r}"
                self._findings.append(Finding(Kind.LOST, row.id, "", why))
        return Verdict(
            self._transactions,
            len(self._rows),
            count,
            self._findings,
            self._duplicates.total(),
            dict(self._duplicates),
            self._missing,
            self._repeated,
        )

    def _in_order(self, record: Record) -> None:
        partition = record.topic, record.partition
        if record.offset <= self._offsets.get(partition, -1):
            raise Undecided(f"{_where(record)} was read after offset {self._offsets[partition]}")
        self._offsets[partition] = record.offset

    def _number(self, record: Record) -> None:
        """Numbers belong to a stream and a partition, and begin at 1."""
        if not record.number.isdecimal():
            self._find(Kind.NUMBER, record, f"its number is {record.number!r}")
            return
        place = record.position.partition("-")[0], (record.topic, record.partition)
        last, number = self._numbers.get(place, 0), int(record.number)
        self._numbers[place] = max(last, number)
        if number == last + 1:
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
        if (times := self._seen[row.id]) > 1:
            self._duplicates[self._session(record)] += 1
            read = self._reads.get(place[0], 0) if self._reads is not None and place[0] else times
            if self._rules.exactly_once:
                self._find(Kind.DUPLICATE, record, f"it is there {times} times")
            elif times > read:
                self._find(Kind.DUPLICATE, record, f"it is there {times} times, and was read {read} times")
            return
        home, latest = self._keys.setdefault((row.topic, row.key), (record.partition, _Latest()))
        if home != record.partition:
            self._find(Kind.REORDERED, record, f"key {row.key!r} began in partition {home}")
            return
        if passed := latest.passed_by(row.seq, row.id):
            self._find(Kind.REORDERED, record, f"number {row.seq} of key {row.key!r} comes after event {passed}")
        if place[0]:
            log = self._logs.setdefault((record.topic, record.partition), _Log())
            if overtaker := log.passed_by(place, row):
                self._find(Kind.GAP, record, f"the log had gone on to event {overtaker}, which committed later")

    def _session(self, record: Record) -> int:
        """Who wrote it: the last session that began at or before this offset; 0 when none is known."""
        begun = self._sessions.get((record.topic, record.partition), ())
        at = bisect_right(begun, record.offset, key=lambda session: session[0])
        return begun[at - 1][1] if at else 0

    def _find(self, kind: Kind, record: Record, why: str) -> None:
        self._findings.append(Finding(kind, record.id, _where(record), why))


class _Latest:
    """The highest number of one key so far."""

    __slots__ = ("_id", "_seq")

    def __init__(self) -> None:
        self._seq, self._id = -1, ""

    def passed_by(self, seq: int, event: str) -> str:
        """Which event with a higher number came before this one; empty when none did."""
        if seq < self._seq:
            return self._id
        self._seq, self._id = seq, event
        return ""


class _Log:
    """The two furthest places of one partition's log that belong to different keys.

    An event of the same key that was passed is reordered, which is reported as such: here only others count.
    """

    __slots__ = ("_first", "_second")

    def __init__(self) -> None:
        self._first: tuple[Place, str, str] = ((-1, -1), "", "")
        self._second: tuple[Place, str, str] = ((-1, -1), "", "")

    def passed_by(self, place: Place, row: Row) -> str:
        """Which event of another key, committed later, came before this one; empty when none did."""
        rival = self._second if self._first[1] == row.key else self._first
        if place > self._first[0]:
            if self._first[1] != row.key:
                self._second = self._first
            self._first = place, row.key, row.id
        elif self._first[1] != row.key and place > self._second[0]:
            self._second = place, row.key, row.id
        return rival[2] if rival[0] > place else ""


def _where(record: Record) -> str:
    return f"{record.topic}/{record.partition}@{record.offset}"
