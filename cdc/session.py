"""All that can be decided between PostgreSQL and Kafka without touching either: frames in, records and status out."""

import logging
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from cdc.encoding import Encoding, Pending, Record, Topics
from cdc.errors import PoisonEvent, ProtocolError
from cdc.ledger import Ledger
from cdc.lsn import LSN, Position
from cdc.outbox import Event, Outbox
from cdc.pgoutput import decode
from cdc.positions import Positions
from cdc.resume import Resume
from cdc.sequences import Sequences
from cdc.sizes import at_most, batch_size
from cdc.transactions import Row, Transactions
from cdc.wire import KEEPALIVE, XLOG_DATA, XLOG_HEADER_SIZE, keepalive, status_update

log = logging.getLogger(__name__)

PROMPT_SECONDS: Final = 0.5
"""How soon after deliveries the slot is moved. A crash repeats what was delivered in this time; each move may cost
PostgreSQL a flush of the slot's file, so not at once."""


class DeadLetters(Protocol):
    """What becomes of events that cannot be published as they should."""

    def record(self, row: Row, event: Event | None, poison: PoisonEvent) -> Record:
        """The record that keeps a row for later; `event` is what could be read of it."""
        ...


class Session:
    """One replication session, from its first frame to the last status update.

    `status_seconds` is how often PostgreSQL hears from us at the least: a third of `wal_sender_timeout`. Without
    `dead_letters` a poison event ends the session; without `positions` the slot is moved and nobody else is told;
    without `resume` nothing was sent before; without `sequences` records have no numbers.
    """

    def __init__(
        self,
        table: tuple[str, str],
        outbox: Outbox,
        encoding: Encoding,
        topics: Topics,
        ledger: Ledger,
        status_seconds: float,
        dead_letters: DeadLetters | None = None,
        positions: Positions | None = None,
        table_oid: int | None = None,
        resume: Resume | None = None,
        sequences: Sequences | None = None,
    ) -> None:
        self.ledger = ledger
        self.positions = positions
        self.transactions = Transactions(table, ledger, table_oid)
        self._outbox = outbox
        self._encoding = encoding
        self._topics = topics
        self._dead_letters = dead_letters
        self.resumed = resume or Resume()
        self._sequences = sequences
        self.status_seconds = status_seconds
        self._prompt_seconds = min(PROMPT_SECONDS, status_seconds)
        self._sent_at = float("-inf")
        self._sent = LSN(-1)
        self._reply_requested = False
        self.events = 0
        self.dead_lettered = 0
        self.poison: PoisonEvent | None = None
        self.pending: Row | None = None  # waits for its schema, or for its topic
        self._unread: Iterator[bytes] = iter(())
        self._finishing = False
        if positions and not self.resumed.until:
            positions.caught_up()

    def receive(self, frames: Iterable[bytes]) -> list[Record]:
        """Take frames in the order of the stream; returns the records they make.

        A poison event ends the session: it is kept in `poison`, and nothing after it is read. Raises
        ProtocolError for bytes that are not what PostgreSQL documents. While an event is `pending`, only `resume`
        may be called: what is still unread would be lost.
        """
        assert self.pending is None
        self._unread = iter(frames)
        return self.resume()

    def finish(self) -> None:
        """Read no further than to the end of the open transaction; what comes after it will be sent again."""
        self._finishing = True
        if self.positions:
            self.positions.hasten()

    def resume(self) -> list[Record]:
        """Go on where `receive` had to stop for a schema or a topic that was not known yet; see `pending`."""
        records: list[Record] = []
        if self.poison:
            return records
        row, self.pending = self.pending, None
        last = None
        try:
            if row is not None:
                self._take(row, records)
                last = row
            for frame in self._unread:
                kind = frame[:1]
                if kind == XLOG_DATA:
                    row = self.transactions.feed(decode(frame, XLOG_HEADER_SIZE))
                    if row is not None:
                        self._take(row, records)
                        last = row
                    elif self._finishing and self.ledger.open is None:
                        break
                elif kind == KEEPALIVE:
                    message = keepalive(frame)
                    self.ledger.idle_at(message.wal_end)
                    self._reply_requested |= message.reply_requested
                    if self.resumed.until and self.ledger.open is None and message.wal_end >= self.resumed.until:
                        self._caught_up()
                else:
                    raise ProtocolError(f"unknown replication message {kind!r}")
        except PoisonEvent as poison:
            self.poison = poison
        except Pending:
            self.pending = row
        self.events += len(records)
        if last is not None and self.positions:
            self.positions.handed_on(Position(last.transaction.commit_lsn, last.index), records)
        return records

    def _take(self, row: Row, records: list[Record]) -> None:
        """Add the record of a row, unless Kafka has it already."""
        if not self.resumed.until:
            records.append(self._record(row))
        elif row.transaction.commit_lsn >= self.resumed.until:
            self._caught_up()
            records.append(self._record(row))
        elif self.resumed.passed(row) or self._is_there(row):
            row.transaction.report(None, None)
            self.resumed.skipped += 1
        else:
            records.append(self._record(row))
            self.resumed.sent_again += 1

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
        if self.positions:
            self.positions.caught_up()
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
            return self._sendable(self._encoding.record(event), row, event)
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

    def tell(self, now: float, unix_time: float) -> Record | None:
        """The record about our own position to send, if one is due: the slot moves only to where Kafka was told."""
        return self.positions.tell(self.ledger.settle(), now, unix_time) if self.positions else None

    @property
    def confirmable(self) -> LSN:
        """How far the slot may be moved."""
        settled = self.ledger.settle()
        return min(settled, self.positions.confirmed) if self.positions else settled

    def status(self, now: float, unix_time: float) -> bytes | None:
        """The status update to send, if one is due at `now` (monotonic seconds).

        One is due when PostgreSQL asked, when the timer ran out, or soon after the confirmed LSN moved.
        """
        waited = now - self._sent_at
        moved = self.confirmable > self._sent and waited >= self._prompt_seconds
        if not (self._reply_requested or moved or waited >= self.status_seconds):
            return None
        # What only the timer sends must be answered: see `cdc.liveness`. To ask each time would make an idle server
        # and us talk without end.
        return self._status(now, unix_time, reply=not (self._reply_requested or moved))

    def last_status(self, now: float, unix_time: float) -> bytes:
        """A status update regardless of the timer."""
        return self._status(now, unix_time, reply=False)

    def _status(self, now: float, unix_time: float, *, reply: bool) -> bytes:
        self._reply_requested = False
        self._sent_at, self._sent = now, self.confirmable
        return status_update(self._sent, unix_time, reply_requested=reply)

    def next_status(self) -> float:
        """When the next status update is due at the latest (monotonic seconds)."""
        pending = self.ledger.settle() > self._sent
        return self._sent_at + (self._prompt_seconds if pending else self.status_seconds)
