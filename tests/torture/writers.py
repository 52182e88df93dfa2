"""Writers: several sessions that insert events as applications do, and keep the ledger of what came of it.

A key has one writer, which numbers its events; a number that was rolled back is given out again.
"""

import contextlib
import random
import threading
import time
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg.types.json import Jsonb

from tests.torture.contract import Contract
from tests.torture.ledger import Ledger, Outcome, Row, Transaction, digest

AGGREGATES: Final = ("order", "payment", "parcel", "balance")
COMPACTED: Final = "balance"  # whose topic is compacted by key, and some of whose events are tombstones
_KEYS: Final = 8  # of each writer in each aggregate
_LOCK: Final = 7_000_000  # the first of the advisory locks that writers hold while they are connected
_INSERT: Final = "insert into outbox (id, aggregatetype, aggregateid, type, payload) values (%s, %s, %s, 'Noted', %s)"


class Writers:
    """Threads that write until they are stopped; a context manager that joins them.

    `rate` is the number of transactions a second of all of them together.
    """

    def __init__(self, dsn: str, ledger: Ledger, prefix: str, seed: int, *, writers: int = 4, rate: float = 25) -> None:
        self._stop = threading.Event()
        self.errors: list[BaseException] = []
        self._threads = [
            threading.Thread(
                target=self._run, args=(_Writer(dsn, ledger, prefix, seed, number, self._stop, writers / rate),)
            )
            for number in range(writers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Finish what is begun, settle what is unknown, and join. PostgreSQL must be up, or come up."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, writer: "_Writer") -> None:
        try:
            writer.run()
        except BaseException as error:  # a thread's end would go unnoticed
            self.errors.append(error)


class _Writer:
    """One writer's session after session."""

    def __init__(
        self, dsn: str, ledger: Ledger, prefix: str, seed: int, number: int, stop: threading.Event, pause: float
    ) -> None:
        self._dsn = dsn
        self._ledger = ledger
        self._prefix = prefix
        self._number = number
        self._stop = stop
        self._pause = pause
        self._chance = random.Random(f"{seed}/{number}")
        self._seqs: dict[tuple[str, str], int] = {}
        self._unknown: tuple[Transaction, dict[tuple[str, str], int]] | None = None
        self._contract = Contract()

    def run(self) -> None:
        while not self._stop.is_set() or self._unknown:
            try:
                with psycopg.connect(self._dsn, autocommit=True, connect_timeout=5) as connection:
                    # The session before this one may not be dead yet, and its COMMIT still to come.
                    connection.execute("select pg_advisory_lock(%s)", [_LOCK + self._number])
                    self._settle(connection)
                    while not self._stop.is_set():
                        self._transaction(connection)
                        self._stop.wait(self._pause * self._chance.uniform(0.2, 1.8))
            except psycopg.OperationalError:
                time.sleep(0.1)

    def _settle(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        if self._unknown is None:
            return
        transaction, seqs = self._unknown
        ids = [uuid.UUID(row.id) for row in transaction.rows]
        found = connection.execute("select count(*) from outbox where id = any(%s)", [ids]).fetchone()
        assert found
        assert found[0] in (0, len(ids)), "half a transaction"
        self._ledger.settle(transaction, committed=bool(found[0]))
        if found[0]:
            self._seqs = seqs
        self._unknown = None

    def _transaction(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        """One transaction of random shape, and its entry in the ledger."""
        chance = self._chance
        seqs = dict(self._seqs)
        kept: list[Row] = []
        dropped: list[Row] = []
        xid = 0
        outcome = Outcome.ROLLED_BACK
        try:
            with contextlib.suppress(psycopg.Rollback), connection.transaction():
                found = connection.execute("select pg_current_xact_id()::text::int8").fetchone()
                assert found
                xid = found[0]
                kept += self._insert(connection, seqs, self._size())
                if chance.random() < 0.15:
                    dropped += self._savepoint(connection, seqs)
                    kept += self._insert(connection, seqs, chance.randint(1, 3))
                if chance.random() < 0.2:
                    time.sleep(chance.uniform(0, 0.05))  # so that transactions interleave
                if chance.random() < 0.1:
                    raise psycopg.Rollback
                outcome = Outcome.UNKNOWN  # if anything goes wrong from here on
            if outcome is Outcome.UNKNOWN:
                outcome = Outcome.COMMITTED
                self._seqs = seqs
        finally:
            if dropped:
                self._ledger.record(xid, dropped, Outcome.ROLLED_BACK)
            if kept:
                transaction = self._ledger.record(xid, kept, outcome)
                if outcome is Outcome.UNKNOWN:
                    self._unknown = transaction, seqs

    def _size(self) -> int:
        chance = self._chance.random()
        if chance < 0.002:
            return self._chance.randint(2000, 5000)
        return 1 if chance < 0.4 else self._chance.randint(2, 20)

    def _savepoint(
        self, connection: "psycopg.Connection[tuple[Any, ...]]", seqs: dict[tuple[str, str], int]
    ) -> list[Row]:
        """Rows that a savepoint takes back: their numbers are free again."""
        with connection.transaction(force_rollback=True):
            return self._insert(connection, dict(seqs), self._chance.randint(1, 4))

    def _insert(
        self, connection: "psycopg.Connection[tuple[Any, ...]]", seqs: dict[tuple[str, str], int], count: int
    ) -> list[Row]:
        rows: list[Row] = []
        values: list[Sequence[Any]] = []
        for _ in range(count):
            aggregate = self._chance.choice(AGGREGATES)
            key = f"{aggregate}-{self._number}-{self._chance.randrange(_KEYS)}"
            seqs[aggregate, key] = seq = seqs.get((aggregate, key), -1) + 1
            event = uuid.uuid4()
            text = "x" * self._chance.choice((0, 20, 200, 200, 900)) + str(seq)
            is_tombstone = aggregate == COMPACTED and self._chance.random() < 0.15
            value = None if is_tombstone else self._contract.value(seq, text)
            rows.append(Row(str(event), f"{self._prefix}{aggregate}", key, seq, digest(value)))
            values.append((event, aggregate, key, None if is_tombstone else Jsonb({"seq": seq, "text": text})))
        with connection.cursor() as cursor:
            cursor.executemany(_INSERT, values)
        return rows
