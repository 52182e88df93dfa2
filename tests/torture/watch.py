"""I6, live: only events committed in Kafka may be confirmed. Pure code; the proxies call it per message.

What PostgreSQL sent is known from the frames themselves, what Kafka has from its responses: see `commits`. A session
reads in commit order from the slot on, so a transaction that is new lies behind all that were ever read. A relay
confirms a number of rows, which Kafka must have as many events of.
"""

from collections import Counter, deque
from typing import NamedTuple


class Unsafe(NamedTuple):
    """A status update that confirmed what Kafka did not have."""

    flush: int
    commit_lsn: int
    missing: int  # events of the transaction without an acknowledgement; -1 when it was not yet read to its end

    def __str__(self) -> str:
        missing = "not read to its end" if self.missing < 0 else f"{self.missing} events unacknowledged"
        return f"I6: {_lsn(self.flush)} was confirmed, transaction {_lsn(self.commit_lsn)} was {missing}"


class TooMany(NamedTuple):
    """A relay that confirmed more rows than Kafka has events."""

    confirmed: int
    acknowledged: int

    def __str__(self) -> str:
        return f"I6: {self.confirmed} rows were confirmed, {self.acknowledged} events were acknowledged"


class _Read:
    """A transaction that was at least begun to be read."""

    __slots__ = ("acknowledged", "commit_lsn", "end_lsn", "is_reported", "rows")

    def __init__(self, commit_lsn: int) -> None:
        self.commit_lsn = commit_lsn
        self.end_lsn = 0  # not read to its end yet
        self.rows = 0
        self.acknowledged: set[int] = set()
        self.is_reported = False

    @property
    def is_settled(self) -> bool:
        return bool(self.end_lsn) and len(self.acknowledged) >= self.rows


class Watch:
    """Transactions that were read and not yet acknowledged, in commit order."""

    def __init__(self) -> None:
        self._reading: deque[_Read] = deque()
        self._by_lsn: dict[int, _Read] = {}
        self._latest = 0  # the highest commit LSN that was ever begun
        self.settled = 0  # everything that ends at or before this LSN is acknowledged
        self.confirmed = 0  # by the last status update; of a relay, how many rows
        self.acknowledgements = 0
        self.statuses = 0
        self.reads: Counter[int] = Counter()  # how often each commit LSN was begun
        self.violations: list[Unsafe | TooMany] = []
        self.proven: set[tuple[int, int]] = set()  # commit LSN and index of every event that Kafka acknowledged

    @property
    def unacknowledged(self) -> int:
        """How many transactions are read and not acknowledged."""
        return len(self._reading)

    @property
    def is_busy(self) -> bool:
        """Whether a publisher that dies now leaves something that will be read again."""
        return bool(self._reading) or self.settled > self.confirmed

    def begin(self, commit_lsn: int) -> None:
        """PostgreSQL has begun to send the transaction that commits at `commit_lsn`."""
        self.reads[commit_lsn] += 1
        if commit_lsn > self._latest:
            self._latest = commit_lsn
            self._by_lsn[commit_lsn] = read = _Read(commit_lsn)
            self._reading.append(read)

    def commit(self, commit_lsn: int, end_lsn: int, rows: int) -> None:
        """PostgreSQL has sent all of a transaction; `rows` of it are events."""
        if read := self._by_lsn.get(commit_lsn):
            read.end_lsn, read.rows = end_lsn, rows
            self._settle()

    def acknowledge(self, commit_lsn: int, index: int) -> None:
        """Kafka has an event, and the publisher is about to hear of it."""
        self.acknowledgements += 1
        self.proven.add((commit_lsn, index))
        if read := self._by_lsn.get(commit_lsn):
            read.acknowledged.add(index)
            self._settle()

    def status(self, flush: int) -> list[Unsafe]:
        """A status update left the publisher; returns what is wrong with it. A transaction is named only once."""
        self.statuses += 1
        self.confirmed = flush
        found = []
        for read in self._reading:
            if read.commit_lsn >= flush:
                break
            if read.is_reported or read.is_settled:
                continue
            # Whether it ends before `flush` or not: PostgreSQL skips what commits before the slot.
            missing = read.rows - len(read.acknowledged) if read.end_lsn else -1
            found.append(Unsafe(flush, read.commit_lsn, missing))
            read.is_reported = True
        self.violations += found
        return found

    def count(self, rows: int) -> list[TooMany]:
        """A relay confirms that so many rows were sent since it was made; returns what is wrong with it.

        An event that was sent again counts again, so that in at-least-once a few too many may remain unseen.
        """
        self.statuses += 1
        found = [TooMany(rows, len(self.proven))] if rows > max(len(self.proven), self.confirmed) else []
        self.confirmed = rows
        self.violations += found
        return found

    def _settle(self) -> None:
        while self._reading and self._reading[0].is_settled:
            read = self._reading.popleft()
            del self._by_lsn[read.commit_lsn]
            self.settled = read.end_lsn


def _lsn(value: int) -> str:
    return f"{value >> 32:X}/{value & 0xFFFFFFFF:X}"
