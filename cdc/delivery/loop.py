"""The loop between one replication session and one producer: a single thread, no queue, no lock.

Delivery reports arrive inside `sink.poll`, on this same thread. Source and sink are protocols; tests drive the loop
with twins in memory.
"""

from collections.abc import Callable
from typing import Final

from cdc.delivery.liveness import Liveness
from cdc.delivery.ports import NOT_AHEAD, Ahead, Clock, Sink, Source
from cdc.delivery.session import Session
from cdc.errors import CdcError
from cdc.records.record import Sendable, value_bytes
from cdc.replication.settlement import Failure
from cdc.telemetry.metrics import Metrics

BLOCKED_SECONDS: Final = 0.05  # how long to wait for delivery reports while Kafka takes nothing more
_ANSWER_SECONDS: Final = 0.001  # how soon to look for the answer that an event waits for
_IDLE_SECONDS: Final = 0.25  # how soon a signal is noticed while nothing happens
_REPORT_SECONDS: Final = 0.001  # how soon a delivery report is noticed while the stream is silent
_GATHER_SECONDS: Final = 0.02  # how long to leave the stream alone that was read to its end under load: see `Pace`
BRISK_FRAMES: Final = 2_000
WINDOW_SECONDS: Final = 0.01


class Pace:
    """Counts frames in windows of time, which decides how to wait for the next ones; `now` is in monotonic seconds.

    Close behind PostgreSQL's walsender each message costs it a system call, and the reader another: a reader that
    discards took 110,000 events/s so, and 236,000 when it let 20 ms worth of them gather in the socket. But waiting
    adds latency: while few frames come, the socket wakes the reader and their records are sent at once.
    """

    def __init__(self, now: float) -> None:
        self._since = now
        self._frames = 0
        self._before = 0  # in the window before this one

    def took(self, frames: int, now: float) -> None:
        """Count frames that came at `now`."""
        passed = now - self._since
        if passed >= WINDOW_SECONDS:
            self._before = self._frames if passed < 2 * WINDOW_SECONDS else 0
            self._since, self._frames = now, 0
        self._frames += frames

    def brisk(self) -> bool:
        """Whether more than 2,000 frames came in the last 10 to 20 ms."""
        return self._frames + self._before > BRISK_FRAMES


class Publisher:
    """Moves records from `source` to `sink` and the slot behind them.

    `failed` turns a failed delivery into a CdcError; `alive` is called in each turn; reading stops when more than
    `ahead` waits for the sink; `metrics` counts records.
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        session: Session,
        failed: Callable[[Failure], CdcError],
        clock: Clock,
        alive: Callable[[], None] = lambda: None,
        ahead: Ahead = NOT_AHEAD,
        metrics: Metrics | None = None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._session = session
        self._failed = failed
        self._clock = clock
        self._alive = alive
        self._ahead = ahead
        self._metrics = metrics
        self._liveness = Liveness(session.confirmation.status_seconds, clock.monotonic())
        self._backlog: list[Sendable] = []
        self._waiting = 0  # bytes of values that came since the backlog was last empty
        self._silent = 0
        self._pending_since: float | None = None  # an event waits for its topic or its schema
        self._pace = Pace(clock.monotonic())
        self._hastened = True  # nothing was sent since

    def step(self) -> None:
        """Do one turn. Raises the error that ends this session; nothing unconfirmed is lost by that."""
        now = self._clock.monotonic()
        self._liveness.turn(now)
        self._serve(self._blocked_seconds(now))  # 1. only deliveries move the LSN
        self._send()  # 2. what waits goes first
        if self._session.pending:
            self._liveness.heard()
            before = self._session.reached
            self._queue(self._session.resume())
            self._send()  # now, as the next turn begins with waiting where something is left
            if self._session.reached != before:
                self._pending_since = None
        elif self._full():
            self._liveness.heard()
        else:  # 3. new WAL only when nothing waits: this is the back-pressure
            frames = self._source.read()
            self._pace.took(len(frames), now)
            if frames:
                self._silent = 0
                self._liveness.heard()
                self._receive(frames)
                self._send()
            else:
                self._liveness.silent()
                self._rest()

    @property
    def silent_seconds(self) -> float:
        """For how long PostgreSQL has sent nothing while the loop listened."""
        return self._liveness.silence

    def _receive(self, frames: list[bytes]) -> None:
        metrics = self._metrics
        began = self._clock.monotonic() if metrics else 0.0
        records = self._session.receive(frames)
        if metrics:
            metrics.encoded(len(records), self._clock.monotonic() - began)
        self._queue(records)

    def _serve(self, seconds: float) -> None:
        """Take delivery reports, and send PostgreSQL the status update that is due: also while Kafka is down."""
        self._alive()
        self._sink.poll(seconds)
        confirmation, failure = self._session.confirmation, self._session.ledger.failure
        if failure:
            raise self._failed(failure)
        now, unix_time = self._clock.monotonic(), self._clock.unix()
        if self._metrics:
            self._metrics.now = unix_time
        position = confirmation.position(now, unix_time)
        if position:
            self._backlog.append(position)
        status = confirmation.status(now, unix_time)
        if status:
            self._source.write(status)

    def _blocked_seconds(self, now: float) -> float:
        """How long to wait for delivery reports, which end the wait; 0 while nothing is in the way of reading on.

        An answer that an event waits for does not end it: so as not to add much to answers that come soon, the wait is
        a twentieth of the time that the event has waited.
        """
        if self._full():
            return BLOCKED_SECONDS
        if not self._session.pending:
            self._pending_since = None
            return 0.0
        if self._pending_since is None:
            self._pending_since = now
        return min(BLOCKED_SECONDS, max(_ANSWER_SECONDS, (now - self._pending_since) / 20))

    def _full(self) -> bool:
        return len(self._backlog) > self._ahead.records or self._waiting > self._ahead.size

    def _queue(self, records: list[Sendable]) -> None:
        self._backlog.extend(records)
        if self._ahead.records:
            self._waiting += value_bytes(records)

    def _send(self) -> None:
        sent = self._sink.send(self._backlog)
        if sent:
            if self._metrics:
                self._metrics.sent(self._backlog[:sent])
            del self._backlog[:sent]
            self._hastened = False
        if not self._backlog:
            self._waiting = 0

    def _rest(self) -> None:
        self._silent += 1
        if self._silent == 1 and self._pace.brisk():
            self._clock.sleep(_GATHER_SECONDS)
        elif not self._hastened:
            self._hastened = True
            self._sink.hasten()
        elif len(self._sink):
            self._source.wait(_REPORT_SECONDS)
        else:
            due = self._session.confirmation.due() - self._clock.monotonic()
            self._source.wait(min(_IDLE_SECONDS, max(_REPORT_SECONDS, due)))

    def drain(self, deadline: float) -> bool:
        """Stop reading, wait until everything read is delivered, confirm it. False when the time was too short.

        Reading stops between two transactions: the part of one would be sent again at the next start.
        """
        session = self._session
        session.finish()
        while self._clock.monotonic() < deadline:
            if self._done():
                break
            unfinished = session.ledger.open is not None and not session.poison
            self._serve(0 if unfinished and not session.pending else BLOCKED_SECONDS)
            self._send()
            if unfinished and not self._backlog:
                self._finish_transaction()
        self._source.write(session.confirmation.last_status(self._clock.monotonic(), self._clock.unix()))
        return self._done()

    def _done(self) -> bool:
        """Whether everything read is delivered, and may be confirmed."""
        return not self._backlog and self._settled() and self._session.confirmation.complete

    def _settled(self) -> bool:
        """Whether everything that can be delivered is; of a poisoned transaction, all but the poison event."""
        ledger = self._session.ledger
        if self._session.poison:
            return ledger.undelivered == 1
        return ledger.undelivered == 0 and ledger.open is None

    def _finish_transaction(self) -> None:
        if self._session.pending:
            self._queue(self._session.resume())
            return
        frames = self._source.read()
        if frames:
            self._queue(self._session.receive(frames))
        else:
            self._source.wait(BLOCKED_SECONDS)
