"""All that can be decided between PostgreSQL and Kafka without touching either: frames in, records and status out."""

from collections.abc import Iterable, Iterator

from cdc.encoding import Encoding, Record, SchemaPending
from cdc.errors import PoisonEvent, ProtocolError
from cdc.ledger import Ledger
from cdc.lsn import LSN
from cdc.outbox import Event, Outbox
from cdc.pgoutput import decode
from cdc.transactions import Transactions
from cdc.wire import KEEPALIVE, XLOG_DATA, XLOG_HEADER_SIZE, keepalive, status_update

PROMPT_SECONDS = 0.5
"""How soon after deliveries the slot is moved. A crash repeats what was delivered in this time; each move may cost
PostgreSQL a flush of the slot's file, so not at once."""


class Session:
    """One replication session, from its first frame to the last status update.

    `status_seconds` is how often PostgreSQL hears from us at the least: a third of `wal_sender_timeout`.
    """

    def __init__(
        self,
        table: tuple[str, str],
        outbox: Outbox,
        encoding: Encoding,
        ledger: Ledger,
        status_seconds: float,
    ) -> None:
        self.ledger = ledger
        self.transactions = Transactions(table, ledger)
        self._outbox = outbox
        self._encoding = encoding
        self._status_seconds = status_seconds
        self._prompt_seconds = min(PROMPT_SECONDS, status_seconds)
        self._sent_at = float("-inf")
        self._sent = LSN(-1)
        self._reply_requested = False
        self.events = 0
        self.poison: PoisonEvent | None = None
        self.pending: Event | None = None  # waits for its schema
        self._unread: Iterator[bytes] = iter(())
        self._finishing = False

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

    def resume(self) -> list[Record]:
        """Go on where `receive` had to stop for a schema that was not known yet; see `pending`."""
        records: list[Record] = []
        if self.poison:
            return records
        try:
            if self.pending:
                records.append(self._encoding.record(self.pending))
                self.pending = None
            for frame in self._unread:
                kind = frame[:1]
                if kind == XLOG_DATA:
                    row = self.transactions.feed(decode(frame, XLOG_HEADER_SIZE))
                    if row is not None:
                        records.append(self._encoding.record(self._outbox.event(row)))
                    elif self._finishing and self.ledger.open is None:
                        break
                elif kind == KEEPALIVE:
                    message = keepalive(frame)
                    self.ledger.idle_at(message.wal_end)
                    self._reply_requested |= message.reply_requested
                else:
                    raise ProtocolError(f"unknown replication message {kind!r}")
        except PoisonEvent as poison:
            self.poison = poison
        except SchemaPending as waiting:
            self.pending = waiting.event
        self.events += len(records)
        return records

    def status(self, now: float, unix_time: float) -> bytes | None:
        """The status update to send, if one is due at `now` (monotonic seconds).

        One is due when PostgreSQL asked, when the timer ran out, or soon after the confirmed LSN moved.
        """
        confirmed = self.ledger.settle()
        waited = now - self._sent_at
        moved = confirmed > self._sent and waited >= self._prompt_seconds
        if not (self._reply_requested or moved or waited >= self._status_seconds):
            return None
        return self.last_status(now, unix_time)

    def last_status(self, now: float, unix_time: float) -> bytes:
        """A status update regardless of the timer."""
        self._reply_requested = False
        self._sent_at, self._sent = now, self.ledger.settle()
        return status_update(self._sent, unix_time)

    def next_status(self) -> float:
        """When the next status update is due at the latest (monotonic seconds)."""
        pending = self.ledger.settle() > self._sent
        return self._sent_at + (self._prompt_seconds if pending else self._status_seconds)
