"""Counters and measurements of the running publisher: written by its one loop, read from any thread, without a lock.

A reader may see one value that is a moment newer than another. `sent`, `encoded` and `settled` take time for each
record, burst and transaction: the loop calls them only when the HTTP endpoint is on.
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from cdc.errors import CdcError
from cdc.lsn import LSN
from cdc.records.record import Sendable, topics_of, value_bytes
from cdc.replication.settlement import Transaction

STARTING: Final = "starting"  # phases of the service
STREAMING: Final = "streaming"
STANDBY: Final = "standby"
HELD: Final = "held"  # the slot is held by a reader that does not use it
RECOVERING: Final = "recovering"  # events are sent that a lost slot did not bring
WAITING: Final = "waiting"  # after a temporary error
STOPPING: Final = "stopping"
STOPPED: Final = "stopped"
FAILED: Final = "failed"  # by an error that needs an operator

HISTORY: Final = 300
"""Number of samples, one per second: five minutes, the width of a wide screen."""
TOPICS: Final = 11
LATENCIES: Final = 2_000
_ENOUGH_EVENTS: Final = 100  # to know how much WAL an event takes

DELIVERY_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
ENCODE_SECONDS: Final = (1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 1e-2)


class Trouble(NamedTuple):
    """The last error; `kind` is the name of its class."""

    kind: str
    message: str
    unix_time: float


class Sample(NamedTuple):
    """Sample of one second, for charts; `delivery_seconds` is that of the last transaction, None before the first."""

    unix_time: float
    delivered: int
    bytes: int
    transactions: int
    lag_bytes: int | None
    delivery_seconds: float | None


class RelayHealth(NamedTuple):
    """What waits for a relay that queries the table, as its sentinel observed it; see polling.md.

    `oldest_seconds` is the age, then, of the oldest row in no batch, which may be in one by now; `numbers` were given
    to rows, or to none that outlived its transaction; `batched` rows were in confirmed batches.
    """

    unbatched: int
    oldest_seconds: float | None
    strays: int
    numbers: int | None
    batched: int
    open_ticks: int  # batches that are kept in cdc_ticks


class Histogram:
    """Counts by bucket; `bounds` are the upper bounds, and the last bucket has none."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, weight: int = 1) -> None:
        """Count a value `weight` times."""
        self.counts[bisect_left(self.bounds, value)] += weight
        self.sum += value * weight


class Figures(NamedTuple):
    """What `/metrics` shows and the status document has only as a text, or not at all."""

    reconnects: int
    confirmed: LSN | None
    last_dead_letter: float | None
    last_error: float | None
    started: float
    delivery: Histogram
    encode: Histogram


class Metrics:
    """Metrics of one process. Times are Unix seconds, except those named `monotonic`; sizes are bytes.

    `scrub` removes secrets from texts. Records of the topic `positions` are the publisher's own, and no events.
    """

    def __init__(self, started: float = 0.0, scrub: Callable[[str], str] = str, positions: str = "") -> None:
        self._positions = positions
        self.now = 0.0  # as of the last turn of the loop
        self._scrub = scrub
        self.started = started
        self.phase = STARTING
        self.reason = ""  # why the service is in this phase, in a sentence
        self.phase_since = started
        self.trouble: Trouble | None = None
        self.turned_monotonic = 0.0  # last turn of the loop
        self.recovered: tuple[int, int | None] | None = None  # events that a recovery has sent, of how many
        self.state = ""  # as of the last sample
        self.state_since = started

        self.sessions = 0
        self.reconnects = 0
        self.read = 0  # events, handed on to the producer or waiting for it
        self.delivered = 0
        self.transactions = 0  # settled, with events
        self.poison = 0
        self.dead_letters = 0
        self.last_dead_letter: float | None = None  # when the last of them was sent
        self.skipped_replays = 0
        self.sent_again = 0
        self.events: Counter[str] = Counter()  # by topic
        self.bytes: Counter[str] = Counter()
        self.other_messages: Mapping[str, int] = {}  # messages that are no events, by prefix
        self.delivery = Histogram(DELIVERY_SECONDS)
        self.encode = Histogram(ENCODE_SECONDS)

        # Of the session, as of the last sample; four times a second.
        self.stream = ""
        self.confirmed: LSN | None = None
        self.confirmed_since = 0.0  # when it last moved
        self.wal_end: LSN | None = None
        self.began: LSN | None = None  # where the first session began
        self.received: LSN | None = None  # the stream was read up to here
        self.in_flight = 0  # events
        self.in_flight_transactions = 0
        self.oldest: float | None = None  # commit time of the oldest transaction in flight
        self.waiting_since: float | None = None  # when the last event was delivered, if others wait since
        self.waits_for = ""  # what the next row waits for: `topic` or `registry`
        self.silent_seconds = 0.0  # how long the walsender has sent nothing although a reply was requested
        self.status_seconds = 10.0  # longest interval between such requests

        # Of the slot, as the sentinel last observed it.
        self.retained: int | None = None
        self.limit: int | None = None  # max_slot_wal_keep_size
        self.safe: int | None = None  # WAL that can be written before the slot may be lost
        self.wal_status: str | None = None

        # Of a relay that queries the table; None with a slot.
        self.relay: RelayHealth | None = None
        self.ticks: int | None = None  # made by this process
        self.batch_rows: int | None = None  # of the last batch
        self.batch_seconds: float | None = None  # between the snapshots of the last batch

        self.history: deque[Sample] = deque(maxlen=HISTORY)
        self.topics_before: deque[tuple[float, dict[str, int]]] = deque(maxlen=TOPICS)  # `events`, once a second
        self.latencies: deque[float] = deque(maxlen=LATENCIES)  # of the last transactions, seconds

    @property
    def figures(self) -> Figures:
        """Return the present figures."""
        return Figures(
            self.reconnects,
            self.confirmed,
            self.last_dead_letter,
            self.trouble.unix_time if self.trouble else None,
            self.started,
            self.delivery,
            self.encode,
        )

    def sent(self, records: Sequence[Sendable]) -> None:
        """Count records that the producer has accepted."""
        topics = Counter(topics_of(records))
        if len(topics) == 1:
            (topic,) = topics
            self.bytes[topic] += value_bytes(records)
        else:
            for topic, value, *_ in records:
                self.bytes[topic] += len(value or b"")
        self.events.update(topics)
        self.events.pop(self._positions, None)
        self.bytes.pop(self._positions, None)

    def encoded(self, rows: int, seconds: float) -> None:
        """Count rows that were encoded as records in `seconds`."""
        if rows:
            self.encode.observe(seconds / rows, rows)

    def settled(self, transaction: Transaction) -> None:
        """Count a transaction of which Kafka has confirmed all events, and all those before it."""
        if not transaction.events:
            return
        seconds = max(0.0, self.now - transaction.timestamp / 1000)
        self.delivered += transaction.events
        self.transactions += 1
        self.delivery.observe(seconds)
        self.latencies.append(seconds)

    def enter(self, phase: str, now: float, reason: str = "") -> None:
        """Change the phase; `reason` is a sentence."""
        reason = self._scrub(reason)
        if (phase, reason) != (self.phase, self.reason):
            self.phase, self.reason, self.phase_since = phase, reason, now

    def meet(self, error: CdcError, phase: str, now: float) -> None:
        """Change the phase because of an error."""
        self.trouble = Trouble(type(error).__name__, self._scrub(str(error)), now)
        self.enter(phase, now, error.message)

    @property
    def lag_bytes(self) -> int | None:
        """WAL between the confirmed LSN and the server's end; None while either is unknown."""
        if self.wal_end is None or self.confirmed is None:
            return None
        return max(0, self.wal_end - self.confirmed)

    @property
    def lag_events(self) -> int:
        """Events in flight, and an estimate of the unread ones, by the mean WAL that an event has taken so far."""
        if self.received is None or self.wal_end is None:
            return self.in_flight + (self.relay.unbatched if self.relay else 0)
        unread = max(0, self.wal_end - self.received)
        passed = self.received - (self.began or self.received)
        if self.read < _ENOUGH_EVENTS or passed <= 0:
            return self.in_flight
        return self.in_flight + round(unread * self.read / passed)

    def lag_seconds(self, now: float) -> float:
        """Age of the oldest transaction that was read and is not settled; 0 when there is none."""
        return 0.0 if self.oldest is None else max(0.0, now - self.oldest)

    def waiting_seconds(self, now: float) -> float:
        """How long nothing has been delivered although something waits; 0 when something was, or nothing waits."""
        return 0.0 if self.waiting_since is None else max(0.0, now - self.waiting_since)
