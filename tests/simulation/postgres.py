"""PostgreSQL: its WAL, its one slot, and what operators and accidents do to them.

As measured: output in commit order, `skip iff commit_lsn < start`, a start beyond the end of WAL is accepted in
silence, and what was confirmed is in memory only until a checkpoint.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cdc.errors import CdcError, PostgresError, PostgresUnavailable
from cdc.lsn import LSN
from cdc.replication import publication, values
from tests.simulation.oracle import Oracle
from tests.simulation.rows import POISON, TOMBSTONE, Kind, Operation, Row, Tx
from tests.simulation.table import CHILD_OID, Table
from tests.simulation.world import Violation, World
from tests.unit.shop import COMMIT_TIME, OID

if TYPE_CHECKING:
    from tests.simulation.walsender import Stream

SHUTDOWN_AT_MOST: Final = 20.0  # seconds that a fast shutdown may be held up by us


class Slot:
    """A logical replication slot."""

    def __init__(self, lsn: int) -> None:
        self.confirmed = lsn
        self.saved = lsn  # what a crash of the server leaves of it
        self.synced = lsn  # what a standby knows of it
        self.lost = False  # its WAL was removed
        self.broken = False  # 15: its decoding meets a publication that did not exist then
        self.stream: Stream | None = None
        self.used = False  # a session has read from it


class SimPg:
    """One primary."""

    def __init__(
        self, world: World, oracle: Oracle, *, version: int = 18, timeout: float = 3.0, tenant: bool = False
    ) -> None:
        self.world = world
        self.oracle = oracle
        self.version = version
        self.wal_sender_timeout = timeout
        self.random = world.random("postgres")
        self.timeline = 1
        self.ends: dict[int, LSN] = {}  # of earlier timelines
        self.lsn = 0x1000  # where the next record of WAL goes
        self.flushed = self.lsn
        self.committed: list[Tx] = []
        self.flushed_count = 0
        self.running: list[Tx] = []
        self.slot: Slot | None = Slot(self.lsn)
        self.up = True
        self.stopping_since: float | None = None
        self.refusing: CdcError | None = None  # what connections meet
        self.clock_offset = 0.0
        self.flush_delay = 0.0
        self.save_rate = 0.3  # how often a confirmation reaches the disk at once
        # The catalog
        self.published = True
        self.publication = True
        self.table = Table(tenant=tenant)
        self.publication_oid = self.membership = 100
        self.child = self.child_published = False  # a table inherits from the outbox
        self._numbers = 0
        self._transactions = 0

    # Writers

    def write(self, size: int = 8) -> int:
        """Some other record of WAL."""
        at, self.lsn = self.lsn, self.lsn + size
        if not self.flush_delay:
            self.flushed = self.lsn
        return at

    def begin(self) -> Tx:
        self._transactions += 1
        tx = Tx(self._transactions, self.timeline)
        self.running.append(tx)
        return tx

    def change(
        self, tx: Tx, kind: Kind, count: int = 1, key: str = "", aggregate: str = "order", payload: str = ""
    ) -> None:
        """Write rows; a COPY of several shares one LSN."""
        if tx.aborted or not self.up:
            return
        at = self.write(8 * count)
        for _ in range(count):
            row = None
            if kind in ("insert", "undone", "emitted"):
                self._numbers += 1
                row = self._row(tx, key or "k", aggregate, payload)
            if row and kind == "emitted":  # JSON, whatever type the table's column has
                row.payload = f'"{payload}"' if payload == POISON else row.payload
                row.poison = payload == POISON
            if kind == "undone":  # written in a savepoint that was rolled back
                continue
            published = self.published or kind not in ("insert", "update", "delete", "truncate")
            relation = self.table.relation
            if row and kind != "emitted" and self.child and self.random.random() < 0.5:
                row.in_child, relation = True, self.table.child
                published &= self.child_published
            tx.operations.append(Operation(kind, at, relation, row, published))

    def _row(self, tx: Tx, key: str, aggregate: str, payload: str) -> Row:
        number, table = self._numbers, self.table
        text = payload or f'{{"n":{number}}}'
        row = Row(
            number,
            table.id(number),
            table.aggregate(aggregate),
            table.key(key),
            None if payload == TOMBSTONE else text,
            table.tenant(number),
            tx,
        )
        # Contracts have no say in what is bytea.
        row.poison = POISON in text and table.type_of("payload") != values.BYTEA
        return row

    def commit(self, tx: Tx) -> None:
        """The commit record is written; it counts when it is flushed."""
        if tx.aborted or not self.up:
            return
        self.running.remove(tx)
        tx.commit_lsn = self.write(8 * self.random.randint(1, 3))
        tx.end_lsn = self.lsn
        tx.time = COMMIT_TIME + int((self.world.now + self.clock_offset) * 1000) * 1000
        self.committed.append(tx)
        if self.flush_delay:
            self.world.at(self.flush_delay, self.flush)
        else:
            self.flush()

    def flush(self) -> None:
        """Everything written is on disk."""
        if not self.up:
            return
        self.flushed = self.lsn
        for tx in self.committed[self.flushed_count :]:
            skipped = 0
            for operation in tx.operations:
                if operation.row is None:
                    continue
                operation.row.index = len(tx.rows) - skipped
                tx.rows.append(operation.row)
                operation.row.skipped = not operation.published
                skipped += operation.row.skipped
            self.oracle.committed(tx)
            self.world.note("commit", tx.number, tx.commit_lsn, tx.end_lsn, len(tx.rows))
        self.flushed_count = len(self.committed)

    def rollback(self, tx: Tx) -> None:
        if tx in self.running:
            self.running.remove(tx)
        tx.aborted = True

    def abort(self) -> None:
        """Abort the open transactions, which their writers must start again."""
        for tx in self.running:
            tx.aborted = True
        self.running.clear()

    # The server

    def available(self) -> None:
        """Raises what a new connection meets."""
        if self.refusing:
            raise self.refusing
        if not self.up or self.stopping_since is not None:
            raise PostgresUnavailable("the database system is shutting down, or starting up")

    def checkpoint(self) -> None:
        if self.slot and self.up:
            self.slot.saved = self.slot.confirmed

    def sync(self) -> None:
        """A standby copies the slot."""
        if self.slot and self.up:
            self.slot.synced = self.slot.confirmed

    def confirm(self, lsn: int) -> None:
        """A status update arrived: never back, and without question how far."""
        if self.slot and lsn > self.slot.confirmed:
            self.slot.confirmed = lsn
            if self.random.random() < self.save_rate:
                self.slot.saved = lsn

    def crash(self, seconds: float) -> None:
        """As by an immediate stop: what was not flushed never was, and confirmations are forgotten."""
        if not self.up:
            return
        self.world.note("postgres crashes")
        self.abort()
        del self.committed[self.flushed_count :]
        self.lsn = self.flushed
        if self.slot:
            self.slot.confirmed = self.slot.saved
        self._go_down("terminating connection because of crash", seconds)

    def _go_down(self, why: str, seconds: float) -> None:
        self.up, self.stopping_since = False, None
        if self.slot and self.slot.stream:
            self.slot.stream.end(why)
        self.world.at(seconds, self.start)

    def start(self) -> None:
        self.up = True

    def shut_down(self, seconds: float) -> None:
        """A fast shutdown: it waits until the client has confirmed everything, or goes."""
        if not self.up or self.stopping_since is not None:
            return
        self.world.note("postgres shuts down")
        self.abort()
        self.flush()
        self.stopping_since = self.world.now
        self._try_to_stop(seconds)

    def _try_to_stop(self, seconds: float) -> None:
        if self.stopping_since is None:
            return
        stream = self.slot.stream if self.slot else None
        if stream is None or (self.slot and self.slot.confirmed >= self.flushed and not stream.frozen):
            self.checkpoint()
            self._go_down("the database system is shutting down", seconds)
        elif self.world.now - self.stopping_since > SHUTDOWN_AT_MOST and stream.attended:
            raise Violation("B17: a fast shutdown waits for us without end")
        else:
            self.world.at(0.2, self._try_to_stop, seconds)

    def fail_over(self, *, sync: bool) -> None:
        """A standby is promoted. Without `sync` it may lack the last transactions; its LSNs are used again."""
        if not self.up:
            return
        self.flush()
        lose = 0 if sync else self.random.randint(0, min(3, len(self.committed)))
        self.world.note("failover", lose)
        self.abort()
        if lose:
            gone = self.committed[-lose:]
            del self.committed[-lose:]
            self.flushed_count = len(self.committed)
            self.lsn = self.flushed = self.committed[-1].end_lsn if self.committed else 0x1000
            self.oracle.gone(gone)
        if self.slot:
            synced = min(self.slot.synced, self.lsn)
            self._go_down("the primary is gone", 1.0)
            self.slot = Slot(synced)
        else:
            self._go_down("the primary is gone", 1.0)
        self.ends[self.timeline] = LSN(self.lsn)
        self.timeline += 1
        self.oracle.timeline(self.timeline)

    # Operators

    def publish(self) -> None:
        """Restore the publication; a re-created one has another oid."""
        if not self.publication:
            self.publication_oid += 1
        if not self.published:
            self.membership += 1
        self.publication = self.published = True

    def catalog(self) -> dict[str, str]:
        """What the stream depends on, as the publisher's catalog has it."""
        there = self.table.name == "outbox"
        return {
            publication.TABLE: "public.outbox",
            publication.TABLE_OID: str(OID) if there else publication.NONE,
            publication.PUBLICATION: "cdc_publisher",
            publication.PUBLICATION_OID: str(self.publication_oid) if self.publication else publication.NONE,
            publication.CHILDREN: "public.outbox_child" if self.child else publication.NONE,
            publication.CHILD_OIDS: str(CHILD_OID) if self.child else publication.NONE,
            publication.PUBLISHED_BY: f"name (oid {self.membership})" if self.published and there else publication.NONE,
        }

    def changed(self) -> CdcError:
        """What the stream depends on is not what it was."""
        return PostgresError("the publication or the table was changed")

    def when_idle(self, act: Callable[[], None]) -> None:
        """Run an action once the server is up and the slot inactive: an active slot cannot be dropped."""
        if self.up and (self.slot is None or self.slot.stream is None):
            act()
        else:
            self.world.at(0.05, self.when_idle, act)

    def defect(self) -> CdcError | None:
        """Return the defects of table, publication or slot."""
        if self.slot is None:
            return PostgresError("the slot does not exist")
        if self.slot.lost:
            return PostgresError("the slot is lost")
        if not self.publication:
            return PostgresError("the publication does not exist")
        if not self.published:
            return PostgresError("the publication does not hold the table")
        if self.child and not self.child_published:
            return PostgresError("a table that inherits from the outbox is not published")
        if self.table.name != "outbox":
            return PostgresError("the table does not exist")
        return None
