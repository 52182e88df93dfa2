"""What a session tells: one line every ten seconds, and the lag behind it."""

import logging
from typing import Final

from cdc.lsn import LSN
from cdc.session import Session

log = logging.getLogger(__name__)

REPORT_SECONDS: Final = 10.0


class Progress:
    """Counts a session. Times are seconds, `monotonic` for spans and `unix_time` against commit times."""

    def __init__(self, session: Session, started: float) -> None:
        self._session = session
        self._reported_at = started
        self._reported_events = 0
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
        events = self._session.events
        log.info(
            "progress",
            extra={
                "events": events,
                "events_per_second": round((events - self._reported_events) / elapsed, 1),
                "lag_bytes": self.lag_bytes(),
                "lag_seconds": round(self.lag_seconds(unix_time), 3),
                "confirmed": str(self._session.ledger.settle()),
            },
        )
        self._reported_at, self._reported_events = now, events
