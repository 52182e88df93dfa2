"""What compaction by key may remove, and nothing else. Pure; a part of the judge.

A record may be gone where a later one of its key came behind it, and a tombstone that was the last of its key. A reader
saw most records before they were removed. Offsets that it did not see are holes: only where there is one, an event of a
key may be missing between two others, and it is not lost if the proxies saw its acknowledgement. The last record of
each key has to be its newest event; for that, once an event is sent again, the later ones of its key are too.

In exactly-once, offsets also belong to marks of transactions. But there no event is sent again, so nothing is late.
"""

from collections.abc import Container, Iterator
from typing import Final, NamedTuple

from tests.torture.ledger import Row, digest
from tests.torture.order import Place

TOMBSTONE: Final = digest(None)


class Seen(NamedTuple):
    """A record of a key."""

    seq: int = -1
    holes: int = 0  # offsets of its partition up to here that nobody saw
    is_left: bool = False


class _Key:
    """The records of one key in the order of the log, and the newest event that was committed."""

    __slots__ = ("excused", "last", "latest", "newest")

    def __init__(self, row: Row) -> None:
        self.newest = row
        self.last = self.latest = Seen()
        self.excused: set[int] = set()  # numbers that may have been removed before the reader saw them

    def take(self, seen: Seen) -> str:
        """Note the next record; returns what is wrong with it, or nothing."""
        before, latest = self.last, self.latest
        self.last = seen
        if seen.seq > latest.seq:
            if seen.holes > latest.holes:
                self.excused.update(range(latest.seq + 1, seen.seq))
            self.latest = seen
        if before.seq < latest.seq and seen.seq > before.seq + 1 and seen.holes == before.holes:
            return f"number {seen.seq} follows number {before.seq}, which was sent again behind number {latest.seq}"
        return ""


class Keys:
    """All keys of the compacted topics. Other topics are kept whole: their rows are passed over."""

    def __init__(self, topics: Container[str], proven: Container[Place]) -> None:
        self._topics = topics
        self._proven = proven
        self._keys: dict[tuple[str, str], _Key] = {}

    def expect(self, row: Row) -> None:
        """Note a row that was committed."""
        if row.topic in self._topics:
            key = self._keys.setdefault((row.topic, row.key), _Key(row))
            key.newest = max(key.newest, row, key=lambda row: row.seq)

    def take(self, row: Row, holes: int, *, is_left: bool) -> str:
        """Note the next record of a row's key; returns what is wrong with it, or nothing."""
        key = self._keys.get((row.topic, row.key))
        return key.take(Seen(row.seq, holes, is_left)) if key else ""

    def may_be_late(self, row: Row) -> bool:
        """Whether an event that is seen for the first time behind later ones of its key may have been there before."""
        key = self._keys.get((row.topic, row.key))
        return key is not None and row.seq in key.excused

    def may_be_gone(self, row: Row, place: Place) -> bool:
        """Whether an event that nobody saw was removed rather than lost."""
        return self.may_be_late(row) and place in self._proven

    def stale(self) -> Iterator[tuple[Row, str]]:
        """The newest event of each key where it was seen and is not what compaction leaves, and what is there."""
        for key in self._keys.values():
            row, last = key.newest, key.last
            if last.seq not in (-1, row.seq):
                yield row, f"the last record of key {row.key!r} is number {last.seq}, the newest event is {row.seq}"
            elif last.seq == row.seq and not last.is_left and row.digest != TOMBSTONE:
                yield row, f"the newest record of key {row.key!r}, number {row.seq}, was removed"
