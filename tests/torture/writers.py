"""Writers: several sessions that insert events as applications do, and keep the ledger of what came of it.

Writers share their keys: each locks the aggregates of a transaction before it inserts their events, as an application
does that checks a rule first. So the order of a key is that of its commits. Events are numbered in the aggregate's row;
a number that was rolled back is given out again.
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
_KEYS: Final = 32  # of each aggregate
_LOCK: Final = 7_000_000  # the first of the advisory locks that writers hold while they are connected
TABLES: Final = f"""
    create table aggregates (key text primary key, seq int not null);
    insert into aggregates select aggregate || '-' || number, -1
    from unnest(array{list(AGGREGATES)}) aggregate, generate_series(0, {_KEYS - 1}) number;
    create table written (writer int primary key, last uuid)
"""
"""The aggregates, and the last transaction that each writer committed."""
_LOCKED: Final = "select key, seq from aggregates where key = any(%s) order by key for update"
_COUNTED: Final = "update aggregates set seq = %s where key = %s"
_WRITTEN: Final = "insert into written values (%s, %s) on conflict (writer) do update set last = excluded.last"
_INSERT: Final = "insert into outbox (id, aggregatetype, aggregateid, type, payload) values (%s, %s, %s, 'Noted', %s)"
_Chosen = Sequence[tuple[str, str]]  # the aggregate and key of each event


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
        self._unknown: tuple[Transaction, uuid.UUID] | None = None
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
        transaction, name = self._unknown
        found = connection.execute("select last = %s from written where writer = %s", [name, self._number]).fetchone()
        self._ledger.settle(transaction, committed=found == (True,))
        self._unknown = None

    def _transaction(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        """One transaction of random shape, and its entry in the ledger."""
        chance, name = self._chance, uuid.uuid4()
        parts = [self._choose(self._size())]
        if chance.random() < 0.15:
            parts += [self._choose(chance.randint(1, 4)), self._choose(chance.randint(1, 3))]
        kept: list[Row] = []
        dropped: list[Row] = []
        xid = 0
        outcome = Outcome.ROLLED_BACK
        try:
            with contextlib.suppress(psycopg.Rollback), connection.transaction():
                found = connection.execute("select pg_current_xact_id()::text::int8").fetchone()
                assert found
                xid = found[0]
                keys = sorted({key for part in parts for _, key in part})
                seqs = dict(connection.execute(_LOCKED, [keys]).fetchall())
                kept += self._insert(connection, seqs, parts[0])
                if len(parts) > 1:
                    with connection.transaction(force_rollback=True):  # the numbers of these rows are free again
                        dropped += self._insert(connection, dict(seqs), parts[1])
                    kept += self._insert(connection, seqs, parts[2])
                with connection.cursor() as cursor:
                    cursor.executemany(_COUNTED, [(seqs[key], key) for key in keys])
                connection.execute(_WRITTEN, [self._number, name])
                self._linger()
                if chance.random() < 0.1:
                    raise psycopg.Rollback
                outcome = Outcome.UNKNOWN  # if anything goes wrong from here on
            if outcome is Outcome.UNKNOWN:
                outcome = Outcome.COMMITTED
        finally:
            if dropped:
                self._ledger.record(xid, dropped, Outcome.ROLLED_BACK)
            if kept:
                transaction = self._ledger.record(xid, kept, outcome)
                if outcome is Outcome.UNKNOWN:
                    self._unknown = transaction, name

    def _size(self) -> int:
        chance = self._chance.random()
        if chance < 0.002:
            return self._chance.randint(2000, 5000)
        return 1 if chance < 0.4 else self._chance.randint(2, 20)

    def _choose(self, count: int) -> _Chosen:
        aggregates = self._chance.choices(AGGREGATES, k=count)
        return [(aggregate, f"{aggregate}-{self._chance.randrange(_KEYS)}") for aggregate in aggregates]

    def _linger(self) -> None:
        """Stay open now and then, so that transactions interleave, and some are open for long."""
        chance = self._chance.random()
        if chance < 0.2:
            time.sleep(self._chance.uniform(0, 0.05))
        elif chance < 0.205:
            time.sleep(self._chance.uniform(1, 4))

    def _insert(
        self, connection: "psycopg.Connection[tuple[Any, ...]]", seqs: dict[str, int], chosen: _Chosen
    ) -> list[Row]:
        rows: list[Row] = []
        values: list[Sequence[Any]] = []
        for aggregate, key in chosen:
            seqs[key] = seq = seqs[key] + 1
            event = uuid.uuid4()
            text = "x" * self._chance.choice((0, 20, 200, 200, 900)) + str(seq)
            is_tombstone = aggregate == COMPACTED and self._chance.random() < 0.15
            value = None if is_tombstone else self._contract.value(seq, text)
            rows.append(Row(str(event), f"{self._prefix}{aggregate}", key, seq, digest(value)))
            values.append((event, aggregate, key, None if is_tombstone else Jsonb({"seq": seq, "text": text})))
        with connection.cursor() as cursor:
            cursor.executemany(_INSERT, values)
        return rows
