"""The end of each key in a compacted topic: the last record has to be the newest event, because only that stays."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from cdc.audit.verdicts import TableRow, TopicRecord


class Stale(NamedTuple):
    """The last record of a key, and the id of an event of the key that is newer."""

    last: TopicRecord
    newest: str
    judged: bool = True  # one of them is within the range


def stale(entries: Iterable[TopicRecord | TableRow], *, began: bool, timed: bool = True) -> Iterator[Stale]:
    """Yield the keys that end with an older event.

    `entries` are the records of compacted topics, by topic, key, partition and offset, and among them, first of their
    key, the rows without a record, which compaction removed. Such a row is newer where times prove it: it was committed
    after the last record, or, if `began` says that ages are moments before the commit, is younger than that. Unless the
    records are `timed`, their times say nothing of the kind.
    """
    for _, found in groupby(entries, key=lambda entry: (entry.topic, entry.key)):
        rows: list[TableRow] = []
        ends: list[tuple[TopicRecord, TopicRecord]] = []  # of each partition the last record, and the newest
        for entry in found:
            if isinstance(entry, TableRow):
                if not timed:
                    continue
                rows = [max([entry, *rows], key=_youth)]
            elif ends and ends[-1][0].partition == entry.partition:
                ends[-1] = entry, max(ends[-1][1], entry, key=lambda record: record.position)
            else:
                ends.append((entry, entry))
        yield from _of_key(rows, ends, began=began)


def _of_key(rows: list[TableRow], ends: list[tuple[TopicRecord, TopicRecord]], *, began: bool) -> Iterator[Stale]:
    for last, newest in ends:
        if last.stream and last.position < newest.position:
            yield Stale(last, newest.id, last.judged or newest.judged)
    for row in rows:
        if ends and all(_is_newer(row, last, began=began) for last, _ in ends):
            yield Stale(max((last for last, _ in ends), key=lambda record: record.timestamp), row.id)


def _youth(row: TableRow) -> tuple[int, int]:
    return row.committed, row.age or 0


def _is_newer(row: TableRow, record: TopicRecord, *, began: bool) -> bool:
    """A record's timestamp is the time of its commit, in milliseconds."""
    if row.committed:
        return row.committed // 1000 > record.timestamp
    return began and row.age is not None and row.age >= record.timestamp
