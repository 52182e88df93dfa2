"""The LSN to confirm, and when: the one place that decides how far PostgreSQL may forget.

The slot may move up to the settled prefix of the transactions that were read (`cdc.replication.settlement`) and, where
positions are kept, no further than the last one that was reported to Kafka (`cdc.delivery.positions`).
"""

from typing import Final

from cdc.delivery.reports import Positions
from cdc.lsn import LSN
from cdc.records.record import Record
from cdc.replication.frames import status_update
from cdc.replication.horizon import Horizon
from cdc.replication.settlement import Ledger

PROMPT_SECONDS: Final = 0.5
"""How soon after deliveries the slot is moved. A crash repeats what was delivered in this time; each move may cost
PostgreSQL a flush of the slot's file, so not at once."""


class Confirmation:
    """Computes the LSN to confirm, and the status updates that confirm it. Times are monotonic seconds.

    `status_seconds` is the longest time between two status updates: a third of `wal_sender_timeout`. Without
    `positions` the slot moves to the settled prefix.
    """

    def __init__(self, ledger: Ledger, status_seconds: float, positions: Positions | None = None) -> None:
        self.ledger = ledger
        self.positions = positions
        self.status_seconds = status_seconds
        self._prompt_seconds = min(PROMPT_SECONDS, status_seconds)
        self._sent_at = float("-inf")
        self._sent = LSN(-1)
        self._reply_requested = False

    @property
    def lsn(self) -> LSN:
        """The LSN that may be confirmed now; it never goes back."""
        settled = self.ledger.settle()
        return min(settled, self.positions.confirmed) if self.positions else settled

    @property
    def complete(self) -> bool:
        """Whether everything that is settled may be confirmed."""
        return self.lsn == self.ledger.settle()

    def reply(self) -> None:
        """Make a status update due at once: PostgreSQL requested one."""
        self._reply_requested = True

    def hasten(self) -> None:
        """From now on confirm at once: commits of the server wait for it."""
        self._prompt_seconds = 0.0
        if self.positions:
            self.positions.hasten()

    def taken(self, horizon: Horizon) -> None:
        """Take note of a new horizon, which the reports to Kafka name once it is confirmed."""
        if self.positions:
            self.positions.taken(horizon)

    def position(self, now: float, unix_time: float) -> Record | None:
        """Make the record that reports the settled prefix to Kafka, when one is due."""
        return self.positions.report(self.ledger.settle(), now, unix_time) if self.positions else None

    def status(self, now: float, unix_time: float) -> bytes | None:
        """Make a status update when one is due: PostgreSQL requested it, the timer ran out, or the LSN moved."""
        waited = now - self._sent_at
        moved = self.lsn > self._sent and waited >= self._prompt_seconds
        if not (self._reply_requested or moved or waited >= self.status_seconds):
            return None
        # Only an update that the timer alone caused asks for a reply (see `cdc.delivery.liveness`): if each did, an
        # idle server and the publisher would exchange messages without end.
        return self._status(now, unix_time, reply=not (self._reply_requested or moved))

    def last_status(self, now: float, unix_time: float) -> bytes:
        """Make a status update regardless of the timer."""
        return self._status(now, unix_time, reply=False)

    def _status(self, now: float, unix_time: float, *, reply: bool) -> bytes:
        self._reply_requested = False
        self._sent_at, self._sent = now, self.lsn
        return status_update(self._sent, unix_time, reply_requested=reply)

    def due(self) -> float:
        """Return when `status` or `position` will have something to send, if nothing happens until then.

        A position that waits for Kafka's report is not due at any time: the report itself ends the wait.
        """
        timer = self._sent_at + (self._prompt_seconds if self.lsn > self._sent else self.status_seconds)
        return min(timer, self.positions.due(self.ledger.settle())) if self.positions else timer
