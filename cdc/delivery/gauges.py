"""What is read off a session now and then, for those who look at the publisher from outside."""

from typing import Final

from cdc.delivery.loop import Publisher
from cdc.delivery.observations import SlotHealth, WalEnd
from cdc.delivery.session import Session
from cdc.telemetry.health import judge
from cdc.telemetry.metrics import Sample, Vitals

_SAMPLE_SECONDS: Final = 1.0


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
