"""What a session tells: one line every ten seconds, the lag behind it, and a warning when Kafka is stuck."""

import logging
from typing import Final

from cdc.delivery.session import Session
from cdc.lsn import LSN

log = logging.getLogger(__name__)

REPORT_SECONDS: Final = 10.0
_STUCK_SECONDS: Final = 30.0


class Progress:
    """Counts a session. Times are seconds, `monotonic` for spans and `unix_time` against commit times."""

    def __init__(self, session: Session, started: float) -> None:
        self._session = session
        self._reported_at = started
        self._reported_events = 0
        self._waiting_for: LSN | None = None  # the oldest transaction in flight
        self._waiting_since = started
        self.wal_end: LSN | None = None  # how far the server's WAL has come, when the sentinel knows

    def lag_bytes(self) -> int | None:
        """WAL between the confirmed LSN and the server's end."""
        return None if self.wal_end is None else max(0, self.wal_end - self._session.ledger.confirmed)

    def lag_seconds(self, unix_time: float) -> float:
        """Age of the oldest transaction that was read and is not settled; 0 when there is none."""
        oldest = self._session.ledger.oldest
        return 0.0 if oldest is None else max(0.0, unix_time - oldest.timestamp / 1000)

    def report(self, now: float, unix_time: float) -> None:
        """Log one line when ten seconds have passed since the last."""
        elapsed = now - self._reported_at
        if elapsed < REPORT_SECONDS:
            return
        events, transactions = self._session.events, self._session.transactions
        log.info(
            "progress",
            extra={
                "events": events,
                "events_per_second": round((events - self._reported_events) / elapsed, 1),
                "lag_bytes": self.lag_bytes(),
                "lag_seconds": round(self.lag_seconds(unix_time), 3),
                "confirmed": str(self._session.confirmable),
                **{
                    name: count
                    for name, count in (
                        ("dead_lettered", self._session.dead_lettered),
                        ("updates_ignored", transactions.updates),
                        ("truncates_ignored", transactions.truncates),
                    )
                    if count
                },
            },
        )
        self._warn(now)
        self._reported_at, self._reported_events = now, events

    def _warn(self, now: float) -> None:
        oldest = self._session.ledger.oldest
        commit_lsn = oldest.commit_lsn if oldest else None
        if commit_lsn != self._waiting_for:
            self._waiting_for, self._waiting_since = commit_lsn, now
        elif commit_lsn is not None and now - self._waiting_since >= _STUCK_SECONDS:
            log.warning(
                "Kafka has not confirmed the oldest transaction; reading goes on when it does",
                extra={"commit_lsn": str(commit_lsn), "waiting_seconds": round(now - self._waiting_since)},
            )
