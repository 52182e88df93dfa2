"""Monitors a running session: progress in the log, gauges for the status document, and the sentinel's observations."""

import logging
from typing import Final

from cdc.delivery.loop import Publisher
from cdc.delivery.ports import Clock, Defect, Observation, Sentinel, SlotHealth, Stopping, WalEnd
from cdc.delivery.session import Session
from cdc.errors import PostgresUnavailable
from cdc.lsn import LSN
from cdc.telemetry.health import judge
from cdc.telemetry.metrics import Sample, Vitals

_SHUTDOWN_GRACE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.25
_SAMPLE_SECONDS: Final = 1.0
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


class Gauges:
    """Reads one session into the vitals of the process, whose counters go on from session to session."""

    def __init__(self, vitals: Vitals, session: Session, publisher: Publisher, stream: str) -> None:
        self._vitals = vitals
        self._session = session
        self._publisher = publisher
        self._before = vitals.read, vitals.dead_letters, vitals.poison, vitals.skipped_replays, vitals.sent_again
        self._delivered = -1
        self._sample_at = float("-inf")
        vitals.stream = stream
        vitals.status_seconds = session.status_seconds

    def read(self, unix_time: float) -> None:
        """Look at everything once. Costs a millisecond when a great many transactions are in flight."""
        vitals, ledger = self._vitals, self._session.ledger
        self._count()
        confirmed = self._session.confirmable
        if confirmed != vitals.confirmed:
            vitals.confirmed, vitals.confirmed_since = confirmed, unix_time
        newest, oldest = ledger.newest, ledger.oldest
        vitals.began = vitals.began or confirmed
        vitals.received = newest.commit_lsn if newest else ledger.confirmed
        vitals.oldest = oldest.timestamp / 1000 if oldest else None
        vitals.in_flight, vitals.in_flight_transactions = ledger.undelivered, ledger.unsettled
        vitals.silent_seconds = self._publisher.silent_seconds
        self._progress(unix_time)
        self._sample(unix_time)
        self._note(unix_time)

    def _note(self, unix_time: float) -> None:
        """Since when the state is what it is: those of a session come and go within one phase."""
        state = judge(self._vitals, unix_time).state
        if state != self._vitals.state:
            self._vitals.state, self._vitals.state_since = state, unix_time

    def _count(self) -> None:
        vitals, session = self._vitals, self._session
        read, dead_letters, poison, skipped, sent_again = self._before
        vitals.read = read + session.events
        vitals.dead_letters = dead_letters + session.dead_lettered
        vitals.poison = poison + session.dead_lettered + (session.poison is not None)
        vitals.skipped_replays = skipped + session.resumed.skipped
        vitals.sent_again = sent_again + session.resumed.sent_again

    def _progress(self, unix_time: float) -> None:
        """Since when nothing was confirmed although something waits, and who has to answer for a row that waits."""
        vitals, session = self._vitals, self._session
        waits_for = session.waits_for if session.pending else ""
        delivered = session.events - vitals.in_flight
        if waits_for != vitals.waits_for or delivered != self._delivered or not (vitals.in_flight or waits_for):
            vitals.waiting_since = None
        elif vitals.waiting_since is None:
            vitals.waiting_since = unix_time
        vitals.waits_for, self._delivered = waits_for, delivered

    def _sample(self, unix_time: float) -> None:
        if unix_time - self._sample_at < _SAMPLE_SECONDS:
            return
        self._sample_at = unix_time
        vitals = self._vitals
        seconds = vitals.latencies[-1] if vitals.latencies else None
        size = sum(vitals.bytes.values())
        sample = Sample(unix_time, vitals.delivered, size, vitals.transactions, vitals.lag_bytes, seconds)
        vitals.history.append(sample)
        vitals.topics_before.append((unix_time, dict(vitals.events)))

    def take(self, seen: SlotHealth | WalEnd) -> None:
        """What the sentinel saw of the server and of the slot."""
        vitals = self._vitals
        if isinstance(seen, WalEnd):
            vitals.wal_end = seen.lsn
        else:
            vitals.retained, vitals.limit, vitals.safe, vitals.wal_status = seen


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
