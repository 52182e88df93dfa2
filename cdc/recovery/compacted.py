"""What a recovery sends again in compacted topics, so that each key ends with its newest event.

The rule is that of the stream, see `cdc.delivery.deduplication`: once an event of a key is sent, those behind it are
too, though Kafka has them; and an event counts as sent only if no older one of its key comes behind it in the log. What
the stream knows by positions, a recovery has to find out from rows, which have none.
"""

from collections.abc import Iterable
from typing import NamedTuple

from cdc.lsn import LSN


class StreamFacts(NamedTuple):
    """The events that the lost slot brought, as far as they are known.

    Positions of today's stream from `begun` on are those of this recovery. `confirmed` is the last position that a
    Kafka transaction has written, as stream, LSN and index. `timed` says that commit times order the rows exactly.
    """

    begun: LSN | None = None
    confirmed: tuple[int, int, int] | None = None
    timed: bool = False


class KeyEntry(NamedTuple):
    """One event of a key: a row, or without `nth` a record whose row is gone.

    `nth` is the row's number in the order of the commits. Times are milliseconds since 1970, `committed` has
    microseconds (0: unknown). `position` is that with which the stream sent the event, before this recovery began.
    `offset` is the last one of its records in `partition`; None when it has no record.
    """

    nth: int | None
    committed: int
    age: int | None
    missing: bool
    position: tuple[int, int, int] | None = None
    confirmed: bool = False  # by the position that a Kafka transaction has written
    timestamp: int | None = 0  # of the record: not before the commit; None: it comes from a column
    partition: int = -1
    offset: int | None = None


class Repeats(NamedTuple):
    """What the order of one key demands: `known` rows were published and compacted, `sent` goes in this order."""

    known: list[KeyEntry]
    sent: list[KeyEntry]


def repeats(entries: Iterable[KeyEntry], *, began: bool, timed: bool) -> Repeats:
    """Return what of a key is sent.

    `began` says that the age of a row is a moment before its commit, `timed` that commit times order the rows exactly:
    then a row that was committed before one of its key at a position which a Kafka transaction confirms was published.
    """
    every = list(entries)
    rows = sorted((entry for entry in every if entry.nth is not None), key=lambda row: row.nth or 0)
    until = max((row.nth or 0 for row in rows if timed and row.confirmed), default=-1)
    known = [row for row in rows if row.missing and (row.nth or 0) < until]
    rows = [row for row in rows if row not in known]
    alone = sorted((entry for entry in every if entry.nth is None), key=_age)
    behind: list[list[KeyEntry]] = [[] for _ in range(len(rows) + 1)]
    for record in alone:
        behind[_place(record, rows, began=began)].append(record)
    ordered = list(behind[0])
    for number, row in enumerate(rows, 1):
        ordered += [row, *behind[number]]
    ends: dict[int, int] = {}
    for number, entry in enumerate(ordered):
        overtaken = entry.offset is not None and entry.offset < ends.get(entry.partition, -1)
        if entry.nth is not None and (entry.missing or overtaken):
            return Repeats(known, [one for one in ordered[number:] if one.missing or one.offset is not None])
        if entry.offset is not None:
            ends[entry.partition] = max(entry.offset, ends.get(entry.partition, -1))
    return Repeats(known, [])


def _age(record: KeyEntry) -> tuple[tuple[int, int, int], int, int]:
    return record.position or (0, 0, 0), record.timestamp or 0, record.offset or 0


def _place(record: KeyEntry, rows: list[KeyEntry], *, began: bool) -> int:
    """Return how many of the rows are before a record that has none.

    Compaction removes an event only for a later one of its key. So a row that is not proven to be later is before it.
    """
    place = record.position
    first = 0
    for number, row in enumerate(rows, 1):
        if place and row.position and row.position < place:
            first = number
    for number in range(first, len(rows)):
        if _is_later(rows[number], record, began=began):
            return number
    return len(rows)


def _is_later(row: KeyEntry, record: KeyEntry, *, began: bool) -> bool:
    if row.position and record.position:
        return row.position > record.position
    if record.timestamp is None:
        return False
    if row.committed:
        return row.committed // 1000 > record.timestamp
    return began and row.age is not None and row.age > record.timestamp
