"""What is looked at now and then while a session runs."""

from typing import Final

from cdc.delivery.gauges import Gauges
from cdc.delivery.loop import Clock
from cdc.delivery.observations import Defect, Observation, Stopping, WalEnd
from cdc.delivery.ports import Sentinel
from cdc.delivery.progress import Progress
from cdc.delivery.session import Session
from cdc.errors import PostgresUnavailable

_SHUTDOWN_GRACE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.25


class Watch:
    """Looks now and then at what the sentinel saw, and reports progress."""

    def __init__(self, session: Session, sentinel: Sentinel, clock: Clock, gauges: Gauges | None) -> None:
        self._sentinel = sentinel
        self._gauges = gauges
        self._clock = clock
        self._progress = Progress(session, clock.monotonic())
        self._look_at = 0.0
        self._leave_at: float | None = None

    def look(self) -> None:
        """Raises the sentinel's defect, and PostgresUnavailable when the server wants to stop and has waited for us
        long enough."""
        now = self._clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        for observation in self._sentinel.observe():
            self._take(observation, now)
        if self._leave_at is not None and now >= self._leave_at:
            raise PostgresUnavailable("PostgreSQL is shutting down")
        unix_time = self._clock.unix()
        if self._gauges:
            self._gauges.read(unix_time)
        self._progress.report(now, unix_time)

    def _take(self, observation: Observation, now: float) -> None:
        if isinstance(observation, Defect):
            raise observation.error
        if isinstance(observation, Stopping):
            # A fast shutdown waits until all is confirmed; while Kafka is down that would be for ever.
            self._leave_at = self._leave_at or now + _SHUTDOWN_GRACE_SECONDS
            return
        if isinstance(observation, WalEnd):
            self._progress.wal_end = observation.lsn
        if self._gauges:
            self._gauges.take(observation)
