"""Deduplication: which of the redelivered rows Kafka has already.

PostgreSQL redelivers everything from where the slot was last moved to, or further back after a crash of its own. What
of it Kafka has is decided event by event: the highest position that was seen says nothing about those below it, of
which a refused one may have left a hole, and compaction removes all but the newest of a key. When in doubt an event is
sent again.

The events of a key keep their order: once one is sent again, those behind it are too, though Kafka has them. So a
topic ends with the newest event of each key, and compaction keeps that one.
"""

import sys
from collections.abc import Callable
from typing import Final

from cdc.delivery.ports import Foreign, Tail, Tails
from cdc.lsn import LSN, EventPosition
from cdc.records.fastpath.path import FastPath
from cdc.records.partitioner import partition
from cdc.records.path import GeneralPath, Taken
from cdc.records.record import Sendable
from cdc.records.router import Pending
from cdc.replication.settlement import Transaction
from cdc.replication.transactions import Row

NOTHING: Final = LSN(0)
NOWHERE: Final = EventPosition(NOTHING, -1)


class SentBefore:
    """The events of one session's stream that were sent before: those of transactions that commit before `until`.

    Kafka has everything up to `position`; `tails` know what it has beyond that, and without them it has nothing more.
    Dead letters count as sent, also where the event would be none today. `foreign` knows by id what another program
    has sent of the transactions that commit before `foreign_until`. With `by_id`, rows may have had other numbers in
    their transaction when they were sent: what counts is that a record of the transaction has the id. With `anywhere`,
    they had other positions altogether: what counts is that a record has the id.
    """

    def __init__(
        self,
        until: LSN = NOTHING,
        position: EventPosition = NOWHERE,
        tails: Tails | None = None,
        dead_letters: str | None = None,
        foreign: Foreign | None = None,
        foreign_until: LSN = NOTHING,
        by_id: bool = False,
        anywhere: bool = False,
    ) -> None:
        self.until = max(until, foreign_until)
        self.skipped = self.sent_again = self.suspicious = 0
        self._position = position
        self._tails = tails
        self._dead_letters = dead_letters
        self._highest = max(position.commit_lsn, foreign_until)  # of the tails that were asked for
        self._by_id = by_id
        self._anywhere = anywhere
        self._last: dict[tuple[str, bytes], int] = {}  # the offset of the last record that was recognised, by its key
        self._recognised: dict[tuple[Tail, int], int] = {}  # which row a record is that of, in one transaction
        self._recognised_in = NOTHING
        self._foreign = foreign
        self._foreign_until = foreign_until
        self._overtaken: set[tuple[str, bytes]] = set()  # keys with an event behind those of the other program
        # How many ids of records no row has had yet, and the last that a row had: by topic, for `foreign` and tails.
        self._left: dict[tuple[str, Foreign | None], tuple[int, str]] = {}

    @property
    def searches(self) -> bool:
        """Whether events beyond the position may be in Kafka."""
        return self._tails is not None

    def passed(self, row: Row) -> bool:
        """Whether a row is not beyond the position."""
        return (row.transaction.commit_lsn, row.index) <= self._position

    def beyond(self, commit_lsn: LSN) -> bool:
        """Whether of a transaction nothing is in Kafka, in so far as the topics that were asked for hold its events.

        No comparison of a position with the highest one: of what is below that, some may be missing. Where positions
        say nothing, each record has to have met its row: a row has an id of its own.
        """
        if self._anywhere:
            return not any(left for left, _ in self._left.values())
        return commit_lsn > self._highest

    def holds(self, row: Row, topic: str, key: bytes | None, event_id: str) -> bool:
        """Whether the event of a row is in its topic, or among the dead letters. Raises Pending, and Kafka's errors.

        In the topic it counts only where no older event of its key comes behind it.
        """
        if self._tails is None:
            return False
        names = [topic] if self._dead_letters in (None, topic) else [topic, self._dead_letters]
        tails = [self._tails.ask(name, row.transaction.since) for name in names]
        if None in tails:
            raise Pending
        return self._is_foreign(row, topic, key, event_id) or any(
            tail is not None and self._holds(tail, row, name, key, event_id, ordered=name != self._dead_letters)
            for name, tail in zip(names, tails, strict=True)
        )

    def _is_foreign(self, row: Row, topic: str, key: bytes | None, event_id: str) -> bool:
        """Whether the program that had the slot before has sent the event, and no older one of its key follows."""
        if self._foreign is None or row.transaction.commit_lsn >= self._foreign_until:
            return False
        found = self._foreign.holds(topic, event_id)
        if found is None:
            raise Pending
        self._met((topic, self._foreign), self._foreign.count, event_id if found else "")
        return found and (key is None or (topic, key) not in self._overtaken)

    def _holds(self, tail: Tail, row: Row, topic: str, key: bytes | None, event_id: str, *, ordered: bool) -> bool:
        self._highest = max(self._highest, tail.highest)
        if self._anywhere:
            return bool(tail.partitions) and self._holds_anywhere(tail, topic, key, event_id, ordered=ordered)
        if not tail.partitions or row.transaction.commit_lsn > tail.highest:
            return False
        place = None if key is None else partition(key, tail.partitions)
        at = row.transaction.commit_lsn, row.index
        if self._by_id:
            index = self._index(tail, place, row, event_id)
            if index is None:
                return False
            at = at[0], index
        found = tail.id_at(place, *at)
        if found == event_id:
            return not ordered or place is None or key is None or not tail.overtaken(place, key, *at)
        if found is not None or (place is not None and tail.elsewhere(place, *at)):
            self.suspicious += 1  # another event, or in a partition that is not the key's: consumers may miss it
        return False

    def _holds_anywhere(self, tail: Tail, topic: str, key: bytes | None, event_id: str, *, ordered: bool) -> bool:
        """Whether a record has the id, and comes behind those of the rows before of its key."""
        offset = tail.last(None if key is None else partition(key, tail.partitions), event_id)
        self._met((topic, None), lambda _: tail.count(), "" if offset is None else event_id)
        if offset is None or not ordered or key is None:
            return offset is not None
        if offset <= self._last.get((topic, key), -1):
            return False
        self._last[topic, key] = offset
        return True

    def _met(self, where: tuple[str, Foreign | None], count: Callable[[str], int], event_id: str) -> None:
        """Take note that a row was looked for among the `count` ids of a topic; "" when it has none of them."""
        left, last = self._left.get(where) or (count(where[0]), "")
        if event_id and event_id != last:  # a row that waited is looked for again
            left, last = left - 1, event_id
        self._left[where] = left, last

    def _index(self, tail: Tail, place: int | None, row: Row, event_id: str) -> int | None:
        """Return the first index that a record with the row's id has, unless it is that of another row of the id."""
        commit_lsn = row.transaction.commit_lsn
        if commit_lsn != self._recognised_in:
            self._recognised_in = commit_lsn
            self._recognised.clear()
        for index in tail.indexes(place, commit_lsn, event_id):
            if self._recognised.setdefault((tail, index), row.index) == row.index:
                return index
        return None

    def sends(self, row: Row, records: list[Sendable]) -> None:
        """Take note of the records that a row becomes: later events of their keys follow."""
        for topic, _, key, *_ in records:
            if self._foreign and key is not None and row.transaction.commit_lsn < self._foreign_until:
                self._overtaken.add((topic, key))
            if self._anywhere and key is not None:
                self._last[topic, key] = sys.maxsize  # it comes behind all that the topic holds
            tail = self._tails.ask(topic, row.transaction.since) if self._tails and key is not None else None
            if tail and key is not None and row.transaction.commit_lsn <= tail.highest:
                tail.repeat(key)

    def over(self) -> None:
        """Take everything from now on as new."""
        self.until = NOTHING
        self._overtaken.clear()
        self._last.clear()
        if self._foreign:
            self._foreign.forget()
        if self._tails:
            self._tails.forget()


class Deduplication:
    """Wraps the paths of records while rows may be redelivered, and passes over those that Kafka has.

    `caught_up` is called at the first row that cannot have been sent before, and ends the wrapping.
    """

    def __init__(self, sent: SentBefore, fast: FastPath, general: GeneralPath, caught_up: Callable[[], None]) -> None:
        self._sent = sent
        self._fast = fast
        self._general = general
        self._caught_up = caught_up

    def take(self, frames: list[bytes], at: int, transaction: Transaction) -> Taken:
        """See `cdc.records.path.Path`."""
        sent = self._sent
        if transaction.commit_lsn >= sent.until:
            self._caught_up()
            return self._fast.take(frames, at, transaction)
        run = self._fast.run(frames, at, transaction) if sent.beyond(transaction.commit_lsn) else None
        taken = run or self._take_row(frames, at)
        sent.sent_again += len(taken.records)
        return taken

    def _take_row(self, frames: list[bytes], at: int) -> Taken:
        row = self._general.transactions.insert(frames[at])
        if row is None:
            return Taken([], at + 1, None)
        if not (self._sent.passed(row) or self._is_there(row)):
            taken = self._fast.take_row(row, at)
            self._sent.sends(row, taken.records)
            return taken
        row.transaction.add_event()
        row.transaction.report(None, None)
        self._sent.skipped += 1
        return Taken([], at + 1, row.transaction)

    def _is_there(self, row: Row) -> bool:
        """Raises Pending while that is not known."""
        return self._sent.searches and self._sent.holds(row, *self._general.destination(row))
