"""What writers really committed: the truth that topics are judged by.

It knows neither the outbox table nor the publisher. A writer records each transaction after COMMIT returned; one
whose COMMIT got no answer is recorded as unknown and settled by a query once the server is back.
"""

import enum
import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Outcome(enum.Enum):
    """How a transaction ended."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    UNKNOWN = "unknown"


class Row(NamedTuple):
    """One row that a writer inserted, and the record it must become."""

    id: str
    topic: str
    key: str
    seq: int  # counts up within the key, in the order of commits
    digest: int  # of the record's value


class Transaction:
    """The rows of one transaction in the order of their inserts, without those a savepoint took back."""

    __slots__ = ("outcome", "rows", "xid")

    def __init__(self, xid: int, rows: Sequence[Row], outcome: Outcome) -> None:
        self.xid = xid
        self.rows = tuple(rows)
        self.outcome = outcome


def digest(value: bytes | None) -> int:
    """64 bits that stand for a record's value."""
    return int.from_bytes(hashlib.blake2b(value or b"", digest_size=8).digest(), "big")


class Ledger:
    """Every transaction of every writer; writers of many threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._transactions: list[Transaction] = []
        self._commit_lsns: dict[int, int] = {}
        self.events = 0  # rows that are known to be committed

    def record(self, xid: int, rows: Iterable[Row], outcome: Outcome) -> Transaction:
        """Note a transaction that has ended; `xid` as pg_current_xact_id() gives it."""
        transaction = Transaction(xid, list(rows), outcome)
        with self._lock:
            self._transactions.append(transaction)
            if outcome is Outcome.COMMITTED:
                self.events += len(transaction.rows)
        return transaction

    def settle(self, transaction: Transaction, *, committed: bool) -> None:
        """Say how a transaction of unknown outcome has ended."""
        assert transaction.outcome is Outcome.UNKNOWN
        transaction.outcome = Outcome.COMMITTED if committed else Outcome.ROLLED_BACK
        with self._lock:
            self.events += len(transaction.rows) if committed else 0

    def place(self, xid: int, commit_lsn: int) -> None:
        """Note where in the WAL a transaction committed; `xid` of 32 bits, as the stream has it."""
        self._commit_lsns[xid] = commit_lsn

    def commit_lsn(self, transaction: Transaction) -> int | None:
        """Where it committed, when that is known."""
        return self._commit_lsns.get(transaction.xid & 0xFFFFFFFF)

    def __iter__(self) -> Iterator[Transaction]:
        with self._lock:
            return iter(list(self._transactions))

    def count(self, outcome: Outcome) -> int:
        """How many transactions ended so."""
        return sum(transaction.outcome is outcome for transaction in self)
