"""Monitors a session: samples it into the metrics, logs progress, and takes what the sentinel observed."""

import logging
from typing import Final

from cdc.delivery.loop import Publisher
from cdc.delivery.ports import Batches, Clock, Observation, Sentinel, Stopping, StreamDefect, Synchronous, WalEnd
from cdc.delivery.session import Session
from cdc.errors import PostgresUnavailable
from cdc.replication.horizon import Horizon
from cdc.telemetry.health import judge
from cdc.telemetry.metrics import Metrics, RelayHealth, Sample

log = logging.getLogger(__name__)

PROGRESS_SECONDS: Final = 10.0
STUCK_SECONDS: Final = 30.0
SHOWN_SECONDS: Final = 0.25
"""Interval of samples that the HTTP endpoint shows."""
LOGGED_SECONDS: Final = 1.0
"""Interval of samples for the log alone: a sample takes a millisecond per ten thousand transactions in flight."""
_SHUTDOWN_GRACE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.25
_HISTORY_SECONDS: Final = 1.0


class Monitor:
    """Monitors one session; the counters of the metrics continue from session to session."""

    def __init__(
        self,
        *,
        session: Session,
        publisher: Publisher,
        sentinel: Sentinel,
        clock: Clock,
        metrics: Metrics,
        stream: str,
        interval: float = LOGGED_SECONDS,
    ) -> None:
        self._session = session
        self._publisher = publisher
        self._sentinel = sentinel
        self._clock = clock
        self._metrics = metrics
        self._before = metrics.read, metrics.dead_letters, metrics.poison, metrics.skipped_replays, metrics.sent_again
        self._delivered = -1
        self._interval = interval
        self._look_at = self._sample_at = 0.0
        self._appended_at = float("-inf")
        self._reported_at = clock.monotonic()
        self._reported_events = 0
        self._leave_at: float | None = None
        metrics.stream = stream
        metrics.status_seconds = session.confirmation.status_seconds

    def look(self) -> None:
        """Sample and report when it is time to.

        Raises the sentinel's defect, and PostgresUnavailable when the server wants to stop and has waited long enough.
        """
        now = self._clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        for observation in self._sentinel.observe():
            self._take(observation, now)
        if self._leave_at is not None and now >= self._leave_at:
            raise PostgresUnavailable("PostgreSQL is shutting down")
        if now >= self._sample_at:
            self._sample_at = now + self._interval
            self.sample()
        if now - self._reported_at >= PROGRESS_SECONDS:
            self._report(now - self._reported_at)
            self._reported_at = now

    def sample(self) -> None:
        """Read the session into the metrics."""
        unix_time, metrics, ledger = self._clock.unix(), self._metrics, self._session.ledger
        self._count(unix_time)
        confirmed = self._session.confirmation.lsn
        if confirmed != metrics.confirmed:
            metrics.confirmed, metrics.confirmed_since = confirmed, unix_time
        newest, oldest = ledger.newest, ledger.oldest
        metrics.began = metrics.began or confirmed
        metrics.received = newest.commit_lsn if newest else ledger.confirmed
        metrics.oldest = oldest.timestamp / 1000 if oldest else None
        metrics.in_flight, metrics.in_flight_transactions = ledger.undelivered, ledger.unsettled
        metrics.silent_seconds = self._publisher.silent_seconds
        self._note_waiting(unix_time)
        self._append_sample(unix_time)
        self._note_state(unix_time)

    def _count(self, unix_time: float) -> None:
        metrics, session = self._metrics, self._session
        read, dead_letters, poison, skipped, sent_again = self._before
        metrics.read = read + session.events
        dead_letters += session.dead_lettered
        if dead_letters > metrics.dead_letters:
            metrics.dead_letters, metrics.last_dead_letter = dead_letters, unix_time
        metrics.poison = poison + session.dead_lettered + (session.poison is not None)
        metrics.skipped_replays = skipped + session.sent_before.skipped
        metrics.sent_again = sent_again + session.sent_before.sent_again

    def _note_waiting(self, unix_time: float) -> None:
        """Note since when nothing was delivered although something waits, and which server a waiting row waits for."""
        metrics, session = self._metrics, self._session
        waits_for = session.waits_for
        delivered = session.events - metrics.in_flight
        if waits_for != metrics.waits_for or delivered != self._delivered or not (metrics.in_flight or waits_for):
            metrics.waiting_since = None
        elif metrics.waiting_since is None:
            metrics.waiting_since = unix_time
        metrics.waits_for, self._delivered = waits_for, delivered

    def _append_sample(self, unix_time: float) -> None:
        if unix_time - self._appended_at < _HISTORY_SECONDS:
            return
        self._appended_at = unix_time
        metrics = self._metrics
        seconds = metrics.latencies[-1] if metrics.latencies else None
        size = sum(metrics.bytes.values())
        sample = Sample(unix_time, metrics.delivered, size, metrics.transactions, metrics.lag_bytes, seconds)
        metrics.history.append(sample)
        metrics.topics_before.append((unix_time, dict(metrics.events)))

    def _note_state(self, unix_time: float) -> None:
        """Note when the state changes: the states of a session come and go within one phase."""
        state = judge(self._metrics, unix_time).state
        if state != self._metrics.state:
            self._metrics.state, self._metrics.state_since = state, unix_time

    def _report(self, elapsed: float) -> None:
        session, metrics, unix_time = self._session, self._metrics, self._clock.unix()
        rare = {
            "dead_lettered": session.dead_lettered,
            "updates_ignored": session.transactions.updates,
            "truncates_ignored": session.transactions.truncates,
            "headers_left_out": session.headers_left_out,
            "other_messages": sum(metrics.other_messages.values()),
        }
        log.info(
            "progress",
            extra={
                "event": "progress",
                "events": session.events,
                "events_per_second": round((session.events - self._reported_events) / elapsed, 1),
                "lag_bytes": metrics.lag_bytes,
                "lag_seconds": round(metrics.lag_seconds(unix_time), 3),
                "confirmed": str(session.confirmation.lsn),
                **{name: count for name, count in rare.items() if count},
            },
        )
        self._reported_events = session.events
        oldest, waiting = session.ledger.oldest, metrics.waiting_seconds(unix_time)
        if oldest and waiting >= STUCK_SECONDS:
            log.warning(
                "Kafka has not confirmed the oldest transaction; reading continues when it does",
                extra={
                    "event": "kafka_not_confirming",
                    "commit_lsn": str(oldest.commit_lsn),
                    "waiting_seconds": round(waiting),
                },
            )

    def _take(self, observation: Observation, now: float) -> None:
        if isinstance(observation, StreamDefect):
            raise observation.error
        if isinstance(observation, Stopping):
            # A fast shutdown waits until all is confirmed, which takes indefinitely while Kafka is down.
            self._leave_at = self._leave_at or now + _SHUTDOWN_GRACE_SECONDS
        elif isinstance(observation, Synchronous):
            self._session.confirmation.hasten()
        elif isinstance(observation, Horizon):
            self._session.confirmation.taken(observation)
        elif isinstance(observation, WalEnd):
            self._metrics.wal_end = observation.lsn
        elif isinstance(observation, RelayHealth):
            self._metrics.relay = observation
        elif isinstance(observation, Batches):
            self._metrics.ticks, self._metrics.batch_rows, self._metrics.batch_seconds = observation
        else:
            metrics = self._metrics
            metrics.retained, metrics.limit, metrics.safe, metrics.wal_status = observation
