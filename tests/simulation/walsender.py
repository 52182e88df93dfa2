"""One replication connection: PostgreSQL's walsender on one side, the publisher's source on the other."""

from collections import deque
from typing import TYPE_CHECKING, Final

from cdc.errors import PostgresError, PostgresUnavailable
from tests.simulation.rows import OTHER_RELATION, Operation, Row, Tx, frame
from tests.simulation.table import described
from tests.simulation.world import Violation
from tests.unit import frames

if TYPE_CHECKING:
    from tests.simulation.postgres import SimPg, Slot
    from tests.simulation.process import Process

TCP_SECONDS: Final = 20.0
"""How soon a server without `wal_sender_timeout` finds out about a dead client."""

_DESCRIBED_AGAIN: Final = 0.02
"""How often a table is described again as it was: also ANALYZE does that."""


class Stream:
    """Frames out by `read`, status updates in by `write`; the shape of `cdc.postgres.source.Source`."""

    def __init__(
        self, pg: "SimPg", slot: "Slot", process: "Process", *, burst: int, keepalives: float, binary: bool
    ) -> None:
        self.pg = pg
        self.world = pg.world
        self.process = process
        self.random = pg.random
        self.frozen = False  # the walsender was stopped: it neither reads nor writes
        self.deaf = False  # the network swallows everything, in both directions
        self._slot = slot
        self._burst = burst
        self._binary = binary
        self._child = pg.child  # was there when the session began
        self._keepalives = keepalives  # how often one comes where it is not awaited
        self._start = slot.confirmed
        self._next = 0  # of pg.committed
        self._queue: deque[tuple[bytes, Row | None]] = deque()
        self._open: Tx | None = None
        self._begun = False  # the client has its Begin
        self._known: dict[int, object] = {}
        self._sent = slot.confirmed  # decoded and sent up to here
        self._kept = -1  # what the last keepalive said
        self._confirmed = slot.confirmed
        self._writes: list[bytes] = []
        self._ended: str | None = None  # as the server sees it
        self._cut: str | None = None  # as the client sees it
        self._reply_at = pg.world.now
        self._pinged = False
        self._answer = False
        self._warned = False
        self._spoke = False  # the client sent a status update, ever
        self._leaving = False  # it has nothing more to say
        slot.stream = self
        self.world.at((pg.wal_sender_timeout or TCP_SECONDS) / 2, self._tick)

    @property
    def attended(self) -> bool:
        """Whether the client can hear us and can act."""
        return not (self.deaf or self.frozen or self.process.hindered)

    # The server's side

    def _tick(self) -> None:
        if self._ended is not None:
            return
        timeout, silence = self.pg.wal_sender_timeout, self.world.now - self._reply_at
        if not timeout:
            timeout = TCP_SECONDS
            if self.deaf and silence > TCP_SECONDS:
                self.end("could not receive data from client: connection timed out")
                return
        elif not self.frozen:
            if silence > timeout:
                if (
                    self._spoke
                    and not self._leaving
                    and self.attended
                    and self.world.now - self.process.hindered_at > 2 * timeout
                ):
                    raise Violation(f"A12: the client did not speak for {silence:.2f} s, although nothing hindered it")
                self.end("terminating walsender process due to replication timeout")
                return
            self._pinged |= silence > timeout / 2
        self.world.at(timeout / 2, self._tick)

    def end(self, why: str) -> None:
        """The server ends the connection; a deaf client does not hear of it."""
        if self._ended is None:
            self.world.note("stream ends", why)
        self._ended = self._ended or why
        if self._slot.stream is self:
            self._slot.stream = None
        if not self.deaf:
            self._cut = self._cut or why

    def cut(self, *, heard: bool) -> None:
        """The connection is reset: for the client at once; the server may find out later."""
        self._cut = "connection reset"
        if heard:
            self.end("connection reset")
        else:
            self.deaf = True

    def thaw(self) -> None:
        """Let the walsender continue, with the messages that arrived meanwhile."""
        self.frozen = False
        writes, self._writes = self._writes, []
        for write in writes:
            self._take(write)
        if self._cut is not None:
            self.end(self._cut)

    def _take(self, write: bytes) -> None:
        if self._ended is not None or self.deaf:
            return
        if self.frozen:
            self._writes.append(write)
            return
        self._reply_at = self.world.now
        self._spoke = True
        self._confirmed = max(self._confirmed, int.from_bytes(write[9:17], "big"))
        self.pg.confirm(int.from_bytes(write[9:17], "big"))
        self._answer |= bool(write[33])

    def ready(self) -> bool:
        """Whether the client has something to read."""
        if self._cut is not None:
            return True
        if self.deaf or self.frozen:
            return False
        return bool(self._queue) or self._next < self.pg.flushed_count or self._keepalive_due() or self._slot.broken

    def _keepalive_due(self) -> bool:
        behind = self.pg.flushed > self._confirmed and self.pg.flushed != self._kept
        return self._answer or self._pinged or behind

    def _decode(self) -> None:
        """Fill the queue with the next transaction, or with a keepalive when there is none."""
        pg = self.pg
        while self._next < pg.flushed_count:
            tx = pg.committed[self._next]
            self._next += 1
            if tx.commit_lsn < self._start:  # the only rule; no row's LSN matters
                continue
            self._queue.append((tx.begin(), None))
            for operation in tx.operations:
                if operation.published:
                    self._describe(operation)
                    self._queue.append((frame(operation, binary=self._binary), operation.row))
                else:
                    self._warned |= pg.version >= 18 and not pg.publication
            self._queue.append((tx.commit(), None))
            self._open = tx
            return
        self._sent = pg.flushed
        if self._keepalive_due():
            self._queue.append((self._keepalive(self._sent), None))

    def _describe(self, operation: Operation) -> None:
        relation = OTHER_RELATION if operation.kind == "other" else operation.relation
        if operation.kind in ("message", "origin", "emitted") or (
            self._known.get(relation.oid) == relation and self.random.random() > _DESCRIBED_AGAIN
        ):
            return
        self._known[relation.oid] = relation
        for kind in filter(None, (described(column.type_oid) for column in relation.columns)):
            self._queue.append((frames.xlog(kind), None))
        self._queue.append((frames.xlog(relation), None))

    def _keepalive(self, lsn: int) -> bytes:
        reply, self._pinged, self._answer, self._kept = self._pinged, False, False, lsn
        return frames.keepalive(lsn, reply=reply)

    # The client's side

    def read(self) -> list[bytes]:
        self.world.enter()
        self._fail()
        burst: list[bytes] = []
        if not (self.deaf or self.frozen):
            if self._slot.broken:
                raise PostgresError('publication "cdc_publisher" does not exist (SQLSTATE 42704)')
            self.process.reads()
            size = self.random.randint(1, self._burst)
            while len(burst) < size and (self._queue or self._next < self.pg.flushed_count or self._keepalive_due()):
                if not self._queue:
                    self._decode()
                if self._queue:
                    self._hand(burst)
            if self._warned:
                raise PostgresError("PostgreSQL warns: skipped loading publication")
        if burst:
            self.world.note("read", len(burst), self._sent)
        self.world.leave()
        return burst

    def _hand(self, burst: list[bytes]) -> None:
        open_tx = self._open
        if open_tx is not None and self._begun and self._keepalives and self.random.random() < self._keepalives:
            # Within a transaction, with an arbitrary LSN: it must never count.
            burst.append(frames.keepalive(open_tx.end_lsn, reply=self.random.random() < 0.3))
        payload, row = self._queue.popleft()
        burst.append(payload)
        self._begun = open_tx is not None
        if open_tx is not None and not self._queue:
            self._sent = max(self._sent, open_tx.end_lsn)
            self._open, self._begun = None, False
        if row is not None:
            # A session that began before the child was there takes it for another table.
            row.skipped |= row.in_child and not self._child
            row.handed += 1
            if not row.skipped:
                self.process.in_hand[row.id] = row

    def _fail(self) -> None:
        if self._cut is not None:
            raise PostgresUnavailable(f"the replication connection ended: {self._cut}")

    def wait(self, seconds: float) -> None:
        self.world.enter()
        self.world.advance(seconds, self.ready, lazy=0.1)
        self.world.leave()

    def write(self, status: bytes) -> None:
        self.world.enter()
        lsn = int.from_bytes(status[9:17], "big")
        self.world.note("status", lsn)
        if self._ended is None:
            # What a dead server or another history would hear confirms nothing.
            self.pg.oracle.confirms(lsn, max(self._sent, self._start), self.process.confirmed)
        self.process.confirmed = lsn
        self._fail()
        self._take(status)
        self.world.leave()

    def stop(self) -> None:
        self.world.enter()
        self._fail()
        self._leaving = True
        if self.deaf or self.frozen:
            self.world.advance(5.0)
            raise PostgresUnavailable("PostgreSQL did not end the stream within 5 s")
        self.process.stopped_at = self.process.sent_to
        self.end("the client ended the stream")
        self.world.leave()

    def close(self) -> None:
        """The client closes the connection, or its kernel does."""
        self._cut = self._cut or "closed"
        if not (self.deaf or self.frozen):
            self.end("closed")
