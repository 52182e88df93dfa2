"""All that can be decided between PostgreSQL and Kafka without touching either: frames in, records and status out."""

import logging
from typing import Final

from cdc.delivery.confirmation import Confirmation
from cdc.delivery.deduplication import Resume
from cdc.delivery.sequence import Sequences
from cdc.errors import PoisonEvent, ProtocolError
from cdc.lsn import Position
from cdc.outbox.events import Event, Outbox
from cdc.records.encoding import DeadLetters, Encoding, Pending, Topics
from cdc.records.fastpath.generated import Unrolled
from cdc.records.fastpath.layout import Express, Make
from cdc.records.record import Record, Sendable, at_most, batch_size
from cdc.replication.frames import KEEPALIVE, XLOG_DATA, XLOG_HEADER_SIZE, keepalive
from cdc.replication.settlement import Transaction
from cdc.replication.transactions import Row, Transactions

log = logging.getLogger(__name__)

_INSERT: Final = b"I"
_KIND: Final = slice(XLOG_HEADER_SIZE, XLOG_HEADER_SIZE + 1)  # of the message within a frame


class Session:
    """One replication session, from its first frame to the last status update.

    Without `dead_letters` a poison event ends the session; without `resume` nothing was sent before; without
    `sequences` records have no numbers. `make` says what takes runs of plain rows.
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
        resume: Resume | None = None,
        sequences: Sequences | None = None,
        make: Make = Unrolled,
    ) -> None:
        self.confirmation = confirmation
        self.ledger = confirmation.ledger
        self._positions = confirmation.positions
        self.transactions = Transactions(table, self.ledger, table_oid)
        self._outbox = outbox
        self._encoding = encoding
        self._topics = topics
        self._dead_letters = dead_letters
        self.resumed = resume or Resume()
        self._sequences = sequences
        self._express = Express(self.transactions, outbox, encoding, topics, make)
        self.events = 0
        self.dead_lettered = 0
        self.poison: PoisonEvent | None = None
        self.pending: Row | None = None  # waits for its schema, or for its topic
        self.waits_for = ""  # who has to answer for that: `kafka` or `registry`
        self._frames: list[bytes] = []
        self._at = 0  # the first of them that is not read
        self._last: Transaction | None = None  # of what was taken from them
        self._last_index = 0
        self._finishing = False
        if self._positions and not self.resumed.until:
            self._positions.caught_up()

    def receive(self, frames: list[bytes]) -> list[Sendable]:
        """Take frames in the order of the stream; returns the records they make.

        A poison event ends the session: it is kept in `poison`, and nothing after it is read. Raises
        ProtocolError for bytes that are not what PostgreSQL documents. While an event is `pending`, only `resume`
        may be called: what is still unread would be lost.
        """
        assert self.pending is None
        self._frames, self._at = frames, 0
        return self.resume()

    def finish(self) -> None:
        """Read no further than to the end of the open transaction; what comes after it will be sent again."""
        self._finishing = True
        if self._positions:
            self._positions.hasten()

    def resume(self) -> list[Sendable]:
        """Go on where `receive` had to stop for a schema or a topic that was not known yet; see `pending`."""
        records: list[Sendable] = []
        if self.poison:
            return records
        row, self.pending, self._last = self.pending, None, None
        try:
            if row is not None:
                self._take(row, records)
            self._read(records)
        except PoisonEvent as poison:
            self.poison = poison
        except Pending as pending:  # the row is kept
            self.waits_for = pending.waits_for
        self._handed_on(records)
        return records

    def _handed_on(self, records: list[Sendable]) -> None:
        self.events += len(records)
        if self._last and self._positions:
            self._positions.handed_on(Position(self._last.commit_lsn, self._last_index), records)

    def _read(self, records: list[Sendable]) -> None:
        """Read what there is of frames. Raises Pending, PoisonEvent and ProtocolError."""
        frames = self._frames
        while self._at < len(frames):
            frame, transaction = frames[self._at], self.ledger.open
            if transaction and frame[_KIND] == _INSERT and self._run(transaction, records):
                continue
            self._at += 1
            kind = frame[:1]
            if kind == XLOG_DATA:
                row = self.transactions.read(frame)
                if row is not None:
                    self._take(row, records)
                elif self._finishing and self.ledger.open is None:
                    break
            elif kind == KEEPALIVE:
                self._keepalive(frame)
            else:
                raise ProtocolError(f"unknown replication message {kind!r}")

    def _run(self, transaction: Transaction, records: list[Sendable]) -> bool:
        """Add the records of a run of plain rows that cannot be in Kafka; False when here is none."""
        coming_again = self.resumed.until > transaction.commit_lsn
        if self._sequences or (coming_again and not self.resumed.beyond(transaction.commit_lsn)):
            return False
        across = not (self.resumed.until or self._finishing)  # else something is to be decided between transactions
        run = self._express.take(self._frames, self._at, transaction, across=across)
        if run is None:
            return False
        if coming_again:
            self.resumed.sent_again += len(run.records)
        elif self.resumed.until:
            self._caught_up()
        records += run.records
        self._at = run.at
        self._last, self._last_index = run.transaction, run.transaction.events - 1
        return True

    def _keepalive(self, frame: bytes) -> None:
        message = keepalive(frame)
        self.ledger.idle_at(message.wal_end)
        if message.reply_requested:
            self.confirmation.reply()
        if self.resumed.until and self.ledger.open is None and message.wal_end >= self.resumed.until:
            self._caught_up()

    def _take(self, row: Row, records: list[Sendable]) -> None:
        """Add the record of a row, unless Kafka has it already. Raises Pending when that has to wait."""
        if self.resumed.until and row.transaction.commit_lsn >= self.resumed.until:
            self._caught_up()
        try:
            if self.resumed.until and (self.resumed.passed(row) or self._is_there(row)):
                row.transaction.report(None, None)
                self.resumed.skipped += 1
            else:
                records.append(self._record(row))
                self.resumed.sent_again += bool(self.resumed.until)
        except Pending:
            self.pending = row
            raise
        self._last, self._last_index = row.transaction, row.index

    def _is_there(self, row: Row) -> bool:
        """Raises Pending while that is not known."""
        if not self.resumed.searches:
            return False
        try:
            event = self._outbox.event(row)
        except PoisonEvent as poison:
            if self._dead_letters is None:
                raise
            record = self._dead_letters.record(row, None, poison)
            return self.resumed.holds(row, record.topic, record.key, poison.event_id)
        return self.resumed.holds(row, event.topic, event.key, event.id)

    def _caught_up(self) -> None:
        resumed = self.resumed
        resumed.over()
        if self._positions:
            self._positions.caught_up()
        if resumed.skipped or resumed.suspicious:
            log.info(
                "went on behind what Kafka has",
                extra={
                    "skipped": resumed.skipped,
                    "sent_again": resumed.sent_again,
                    "suspicious": resumed.suspicious,
                },
            )

    def _record(self, row: Row) -> Record:
        event = None
        try:
            event = self._outbox.event(row)
            record = self._sendable(self._encoding.record(event), row, event)
            self._express.learn(row, event)
            return record
        except PoisonEvent as poison:
            if self._dead_letters is None:
                raise
            record = self._sendable(self._dead_letters.record(row, event, poison), row, event)
            self.dead_lettered += 1
            return record

    def _sendable(self, record: Record, row: Row, event: Event | None) -> Record:
        """The same record. Raises Pending while its topic is not known, PoisonEvent when it is too large for it."""
        largest = self._topics.largest(record.topic)
        if largest is None:
            raise Pending
        if self._sequences:
            record = self._sequences.numbered(record)
        if at_most(record) > largest and (size := batch_size(record)) > largest:
            raise PoisonEvent(
                f"a record of {size} bytes is too large for topic {record.topic!r}, which takes {largest}"
                " (max.message.bytes of the topic; message.max.bytes or queue.buffering.max.kbytes in [kafka])",
                position=self._outbox.position(row),
                event_id=event.id if event else "",
                kind="too-large",
            )
        if self._sequences:
            self._sequences.taken(record)
        return record
