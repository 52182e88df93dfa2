"""Settlement: the longest prefix of the transactions read so far that Kafka has, never the maximum.

Deliveries are reported in any order over the partitions of Kafka. A transaction is settled when its commit
has been read and every event of it was delivered; the slot may pass it only when all before it are settled too.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from cdc.errors import ProtocolError
from cdc.lsn import LSN


def delivered(error: object, message: Any) -> bool:
    """Whether a delivery report says that Kafka has the record; without a message, a committed transaction says so.

    A success without an offset proves nothing: librdkafka reports a record so when the broker has taken a later one,
    which a broker also does for a producer that it has forgotten, or did not know.
    """
    return error is None and (message is None or message.offset() is not None)


class Failure(NamedTuple):
    """The first record that Kafka refused or, without an error, reported without an offset: see `delivered`."""

    error: object
    message: object
    commit_lsn: LSN


class Transaction:
    """One transaction of the stream, from its Begin until all of its events are delivered."""

    __slots__ = ("_ledger", "commit_lsn", "end_lsn", "events", "timestamp", "undelivered")

    alone = False
    """Whether it is a message that came outside of a transaction."""

    def __init__(self, ledger: "Ledger", commit_lsn: LSN, timestamp: int) -> None:
        self._ledger = ledger
        self.commit_lsn = commit_lsn
        self.timestamp = timestamp  # commit time, milliseconds since 1970
        self.end_lsn: LSN | None = None  # None until its commit is read
        self.events = 0
        self.undelivered = 0

    @property
    def since(self) -> int:
        """The time, as `timestamp`, before which none of its records was sent; 0 when that is not known."""
        return self.timestamp

    def add_event(self) -> int:
        """Count one more event that must be delivered; returns its index within the transaction, from 0."""
        index = self.events
        self.events = index + 1
        self.undelivered += 1
        return index

    def add_events(self, count: int) -> None:
        """Count some more events at once."""
        self.events += count
        self.undelivered += count

    def report(self, error: object, message: Any) -> None:
        """Take the delivery report of one event: see `delivered`."""
        if delivered(error, message):
            self.undelivered -= 1
        else:
            self._ledger.fail(Failure(error, message, self.commit_lsn))


class MessageAlone(Transaction):
    """What stands for a transaction where a message came outside of one: it has no commit, and one event."""

    __slots__ = ()

    alone = True
    since = 0


class Ledger:
    """Transactions in commit order, and the LSN up to which the slot may be moved.

    `settled` is called with each transaction that becomes so.
    """

    def __init__(self, confirmed: int = 0, settled: Callable[[Transaction], None] | None = None) -> None:
        self.confirmed = LSN(confirmed)
        self._settled = settled
        self.failure: Failure | None = None
        self.open: Transaction | None = None
        self._transactions: deque[Transaction] = deque()
        self._last_commit_lsn = LSN(0)

    def begin(self, commit_lsn: LSN, timestamp: int, kind: type[Transaction] = Transaction) -> Transaction:
        """Open the next transaction. Raises ProtocolError when one is open or commits do not ascend."""
        if self.open is not None:
            raise ProtocolError(f"transaction {commit_lsn} begins inside transaction {self.open.commit_lsn}")
        if commit_lsn <= self._last_commit_lsn:
            raise ProtocolError(f"commit {commit_lsn} comes after commit {self._last_commit_lsn}")
        self._last_commit_lsn = commit_lsn
        self.open = kind(self, commit_lsn, timestamp)
        self._transactions.append(self.open)
        return self.open

    def commit(self, commit_lsn: int, end_lsn: LSN) -> None:
        """Close the open transaction. Raises ProtocolError when it is not the one that was begun."""
        if self.open is None or self.open.commit_lsn != commit_lsn or end_lsn <= commit_lsn:
            raise ProtocolError(f"commit {LSN(commit_lsn)} (end {end_lsn}) does not match the open transaction")
        self.open.end_lsn = end_lsn
        self.open = None

    def idle_at(self, wal_end: LSN) -> None:
        """Everything before `wal_end` has been read: it may be confirmed once all before it is settled.

        A keepalive inside an open transaction does not say so, and is ignored.
        """
        if self.open is not None:
            return
        if self._transactions:
            last = self._transactions[-1]
            last.end_lsn = max(wal_end, last.end_lsn or wal_end)
        else:
            self.confirmed = max(wal_end, self.confirmed)

    def settle(self) -> LSN:
        """Drop the settled prefix and return the LSN to confirm; it never goes back."""
        transactions = self._transactions
        while transactions and transactions[0].end_lsn is not None and not transactions[0].undelivered:
            transaction = transactions.popleft()
            self.confirmed = max(transaction.end_lsn or self.confirmed, self.confirmed)
            if self._settled:
                self._settled(transaction)
        return self.confirmed

    @property
    def oldest(self) -> Transaction | None:
        """The oldest transaction that is not settled, after `settle`."""
        return self._transactions[0] if self._transactions else None

    @property
    def newest(self) -> Transaction | None:
        """The transaction that was read last, if it is not settled."""
        return self._transactions[-1] if self._transactions else None

    @property
    def unsettled(self) -> int:
        """How many transactions are not settled."""
        return len(self._transactions)

    @property
    def undelivered(self) -> int:
        """How many events were read and are not delivered. Counts them: not for the hot path."""
        return sum(transaction.undelivered for transaction in self._transactions)

    def fail(self, failure: Failure) -> None:
        """Remember the first failed delivery; from then on the ledger is useless."""
        self.failure = self.failure or failure
