"""The findings of an audit in words: what is wrong with a row or a record, and where it is."""

from cdc.audit import verdicts
from cdc.audit.books import AuditFinding
from cdc.audit.compaction import Stale
from cdc.audit.verdicts import TableRow, TakenPosition, TopicRecord
from cdc.lsn import LSN


class Wording:
    """Makes findings. `position` formats one; `stream` is today's, and the WAL ended at `wal_end`.

    `passed_by` is what shows that a row was published.
    """

    def __init__(self, position: verdicts.Position, stream: int, wal_end: LSN, passed_by: str = "the slot") -> None:
        self._passed_by = passed_by
        self._position = position
        self._stream = stream
        self._wal_end = wal_end

    def missing(self, row: TableRow) -> AuditFinding:
        """Describe a row without a record."""
        meaning = f"committed, and passed by {self._passed_by}, but in no topic"
        if not row.topic:
            meaning += "; its columns make no topic's name"
        return AuditFinding(verdicts.MISSING, row.id, row.key, row.topic or None, None, None, None, meaning)

    def misplaced(self, record: TopicRecord, row: TableRow) -> AuditFinding:
        """Describe a record in another topic or with another key than its row's."""
        wrong = []
        if record.topic != row.topic:
            wrong.append(f"topic {row.topic!r}" if row.topic else "no topic")
        if record.key != row.key:
            wrong.append("a null key" if row.key is None else f"key {row.key.decode(errors='replace')!r}")
        return self._about(verdicts.MISPLACED, record, f"the row is of {' and '.join(wrong)}")

    def duplicate(self, record: TopicRecord, first: TopicRecord) -> AuditFinding:
        """Describe a second record of an event."""
        where = f"{first.topic}, partition {first.partition}, offset {first.offset}"
        return self._about(verdicts.DUPLICATE, record, f"the same event as in {where}")

    def same_position(self, record: TopicRecord, first: TakenPosition) -> AuditFinding:
        """Describe a record at the position of another event."""
        return self._about(verdicts.DUPLICATE, record, f"the same position as of event {first.id}")

    def out_of_order(self, record: TopicRecord, highest: TopicRecord) -> AuditFinding:
        """Describe a record behind a later event of its key."""
        meaning = f"behind {self._position(*highest.position)} of the same key, at offset {highest.offset}"
        return self._about(verdicts.OUT_OF_ORDER, record, meaning)

    def phantom(self, record: TopicRecord) -> AuditFinding:
        """Describe a record without a row."""
        meaning = "no row of this id was committed"
        if record.stream != self._stream:
            meaning += ", or a failover lost it: the record is of an earlier timeline"
        elif record.lsn >= self._wal_end:
            meaning += ": PostgreSQL has not come to this position"
        return self._about(verdicts.PHANTOM, record, meaning)

    def hole(self, hole: verdicts.Hole) -> AuditFinding:
        """Describe missing positions of a transaction."""
        position = self._position(hole.stream, hole.lsn, hole.first)
        count = hole.last - hole.first + 1
        meaning = "nothing has this position, though later ones of its transaction are there"
        if count > 1:
            meaning = f"nothing has this position and the {count - 1} after it, though later ones are there"
        return AuditFinding(verdicts.HOLE, None, None, None, None, None, position, meaning, count)

    def gap(self, gap: verdicts.SequenceGap) -> AuditFinding:
        """Describe missing sequence numbers."""
        numbers = f"{gap.first} to {gap.last} are" if gap.last > gap.first else f"{gap.first} is"
        meaning = f"cdc-sequence {numbers} missing before {gap.behind.sequence}"
        return self._about(verdicts.GAP, gap.behind, meaning, gap.last - gap.first + 1)

    def stale(self, found: Stale) -> AuditFinding:
        """Describe the last record of a key in a compacted topic that is not its newest event."""
        meaning = f"the last record of its key, which compaction keeps, but event {found.newest} is newer"
        return self._about(verdicts.STALE, found.last, f"{meaning}: insert an event with the key's current state")

    def _about(self, kind: str, record: TopicRecord, meaning: str, events: int = 1) -> AuditFinding:
        place = record.key, record.topic, record.partition, record.offset
        return AuditFinding(kind, record.id, *place, self._position(*record.position), meaning, events)
