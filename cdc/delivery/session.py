"""One replication session without I/O: frames in, records out. `confirmation` decides how far the slot may move."""

import logging
from typing import Final

from cdc.delivery.confirmation import Confirmation
from cdc.delivery.deduplication import Deduplication, SentBefore
from cdc.delivery.sequence import HEADER_BYTES, Numbering, Sequences
from cdc.errors import PoisonEvent, ProtocolError
from cdc.lsn import EventPosition
from cdc.outbox.events import Outbox
from cdc.records.encoding import DeadLetters, Encoding, Topics
from cdc.records.fastpath.generated import Unrolled
from cdc.records.fastpath.layout import Make
from cdc.records.fastpath.path import FastPath
from cdc.records.path import GeneralPath, Path
from cdc.records.record import Sendable
from cdc.records.router import Pending
from cdc.replication.frames import KEEPALIVE, XLOG_DATA, XLOG_HEADER_SIZE, keepalive
from cdc.replication.prefixes import Prefixes
from cdc.replication.settlement import Transaction
from cdc.replication.transactions import Transactions

log = logging.getLogger(__name__)

_EVENTS: Final = (b"I", b"M")  # rows and logical messages
_KIND: Final = slice(XLOG_HEADER_SIZE, XLOG_HEADER_SIZE + 1)  # of the message within a frame


class Session:
    """One replication session, from its first frame to its end.

    Without `dead_letters` a poison event ends the session; without `sent_before` nothing was sent before; without
    `sequences` records have no numbers. `make` creates what takes runs of plain rows. `prefixes` say which messages
    are events.
    """

    def __init__(
        self,
        table: tuple[str, str],
        outbox: Outbox,
        encoding: Encoding,
        topics: Topics,
        confirmation: Confirmation,
        dead_letters: DeadLetters | None = None,
        table_oid: int | None = None,
        sent_before: SentBefore | None = None,
        sequences: Sequences | None = None,
        make: Make = Unrolled,
        children: frozenset[int] = frozenset(),
        prefixes: Prefixes | None = None,
    ) -> None:
        self.confirmation = confirmation
        self.ledger = confirmation.ledger
        self.transactions = Transactions(table, self.ledger, table_oid, children, prefixes)
        self.sent_before = sent_before or SentBefore()
        self.events = 0
        self.poison: PoisonEvent | None = None
        self.waits_for = ""  # `kafka` or `registry`, while an event waits for its topic or its schema
        reserve = HEADER_BYTES if sequences else 0
        self._general = GeneralPath(self.transactions, outbox, encoding, topics, dead_letters, reserve)
        self._fast = FastPath(self._general, make)
        self._path: Path = self._fast
        if self.sent_before.until:
            self._path = Deduplication(self.sent_before, self._fast, self._general, self._caught_up)
            self._fast.crosses = False
        elif confirmation.positions:
            confirmation.positions.caught_up()
        self._numbering = Numbering(self._path, sequences) if sequences else None
        self._path = self._numbering or self._path
        self._frames: list[bytes] = []
        self._at = 0  # the first of them that is not read
        self._last: Transaction | None = None  # of the events that were taken from them
        self._last_index = 0
        self._finishing = False

    @property
    def pending(self) -> bool:
        """Whether an event waits for its topic or its schema."""
        return bool(self.waits_for)

    @property
    def reached(self) -> int:
        """The first frame of the current ones that is not read."""
        return self._at

    @property
    def dead_lettered(self) -> int:
        """How many events became dead letters."""
        return self._general.dead_lettered

    @property
    def headers_left_out(self) -> int:
        """How many headers records lack because their columns did not exist when the rows were written."""
        return self._fast.headers_left_out

    def receive(self, frames: list[bytes]) -> list[Sendable]:
        """Take frames in the order of the stream; return the records that they make.

        A poison event ends the session: it is kept in `poison`, and nothing after it is read. Raises ProtocolError
        for bytes that PostgreSQL does not document. While an event is `pending`, only `resume` may be called: the
        unread frames would be lost.
        """
        assert not self.pending
        self._frames, self._at = frames, 0
        return self.resume()

    def finish(self) -> None:
        """Read no further than to the end of the open transaction: later ones are redelivered to the next session."""
        self._finishing = True
        self._fast.crosses = False
        if self.confirmation.positions:
            self.confirmation.positions.hasten()

    def resume(self) -> list[Sendable]:
        """Continue where `receive` had to stop for a schema or a topic that was not known yet; see `pending`."""
        records: list[Sendable] = []
        if self.poison:
            return records
        self.waits_for, self._last = "", None
        try:
            self._read(records)
        except PoisonEvent as poison:
            self.poison = poison
            assert self.ledger.open
            self.ledger.open.add_event()  # which is never delivered
        except Pending as pending:
            self.waits_for = pending.waits_for
        self._handed_on(records)
        return records

    def _handed_on(self, records: list[Sendable]) -> None:
        self.events += len(records)
        if self._last and self.confirmation.positions:
            self.confirmation.positions.handed_on(EventPosition(self._last.commit_lsn, self._last_index), records)

    def _read(self, records: list[Sendable]) -> None:
        """Read the frames that are left. Raises Pending, PoisonEvent and ProtocolError."""
        frames, ledger = self._frames, self.ledger
        while self._at < len(frames):
            frame = frames[self._at]
            kind = frame[:1]
            if kind == XLOG_DATA and frame[_KIND] in _EVENTS:
                transaction = ledger.open or self.transactions.outside(frame)
                if transaction is None:
                    self._at += 1
                    continue
                taken = self._path.take(frames, self._at, transaction)
                records += taken.records
                self._at = taken.at
                if taken.transaction is not None:
                    self._last, self._last_index = taken.transaction, taken.transaction.events - 1
                    if taken.transaction.alone:
                        self.transactions.end_outside()
                        if self._finishing:
                            break
                continue
            self._at += 1
            if kind == XLOG_DATA:
                self.transactions.read(frame)
                if self._finishing and ledger.open is None:
                    break
            elif kind == KEEPALIVE:
                self._keepalive(frame)
            else:
                raise ProtocolError(f"unknown replication message {kind!r}")

    def _keepalive(self, frame: bytes) -> None:
        message = keepalive(frame)
        self.ledger.idle_at(message.wal_end)
        if message.reply_requested:
            self.confirmation.reply()
        if self.sent_before.until and self.ledger.open is None and message.wal_end >= self.sent_before.until:
            self._caught_up()

    def _caught_up(self) -> None:
        """End deduplication: nothing that comes from now on was sent before."""
        sent = self.sent_before
        sent.over()
        self._fast.crosses = not self._finishing
        if self._numbering:
            self._numbering.path = self._fast
        else:
            self._path = self._fast
        if self.confirmation.positions:
            self.confirmation.positions.caught_up()
        if sent.skipped or sent.suspicious:
            log.info(
                "resumed after the last event found in Kafka",
                extra={
                    "event": "resumed",
                    "skipped": sent.skipped,
                    "sent_again": sent.sent_again,
                    "suspicious": sent.suspicious,
                },
            )
