"""Runs sessions indefinitely: connect, publish, and after a temporary fault resume from the slot, until stopped.

Each session re-creates everything it knows: stream, producer and ledger never outlive a fault, so there is
nothing to repair. The slot is the memory. Servers and time are given by shape: `cdc.app.connections` has the real ones.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from cdc.backoff import Backoff
from cdc.config.settings import Settings
from cdc.delivery.confirmation import PROMPT_SECONDS, Confirmation
from cdc.delivery.loop import Publisher
from cdc.delivery.monitor import LOGGED_SECONDS, SHOWN_SECONDS, Monitor
from cdc.delivery.ports import NOT_AHEAD, Ahead, Clock, Contracts, Ends, Flag, Servers, Source
from cdc.delivery.reports import Positions
from cdc.delivery.sequence import Sequences
from cdc.delivery.session import Session
from cdc.delivery.slot_memory import Recognition
from cdc.errors import (
    BinaryUnreadable,
    CdcError,
    Fenced,
    KafkaError,
    KafkaRefused,
    Locked,
    PostgresRefused,
    RecoveryUnfinished,
    SlotActive,
    SlotLost,
    Temporary,
)
from cdc.lsn import LSN
from cdc.records.fastpath.generated import Unrolled
from cdc.records.fastpath.layout import Make
from cdc.replication.prefixes import Prefixes
from cdc.replication.publication import child_oids, table_oid
from cdc.replication.settlement import Ledger
from cdc.telemetry.metrics import HELD, RECOVERING, STANDBY, STOPPING, STREAMING, WAITING, Metrics
from cdc.telemetry.spans import Tracer, encoding, refusals

log = logging.getLogger(__name__)

LONGEST_STATUS_SECONDS: Final = 10.0
REFUSALS_TOLERATED: Final = 5
"""How often a connection that worked before may be refused: a password changes in two places, never at once."""
AHEAD: Final = Ahead(10_000, 8_388_608)
"""How much is prepared while a Kafka transaction commits: about the time that a commit takes."""
FENCES_TOLERATED: Final = 5
FENCES_SECONDS: Final = 300.0
"""A broker that was away for long fences us too, but not so often in so short a time."""
_STANDBY_SECONDS: Final = 1.0
PATIENT_AFTER_SECONDS: Final = 60.0
PATIENT_SECONDS: Final = 5.0
"""How often a patient standby looks who reads the slot, after a minute of trying each second."""


class Service:
    """Publishes until `stop` is set; when `reload` is set, continues with reloaded contracts.

    `alive` is called at least every few seconds in every state. `make` creates what takes runs of plain rows. The
    metrics are written into `metrics`; with `metered`, also those counted for each record. `tracer` makes spans of
    events. `heal` recovers from a lost slot, or raises the error that it is given. `taken` says whether another process
    reads the slot, for a patient standby: it asks that before it tries, which costs the server far less.
    """

    def __init__(
        self,
        settings: Settings,
        contracts: Contracts,
        servers: Servers,
        stop: Flag,
        reload: Flag,
        clock: Clock,
        random: Callable[[], float],
        *,
        accept_changes: bool = False,
        alive: Callable[[], None] = lambda: None,
        make: Make = Unrolled,
        metrics: Metrics | None = None,
        metered: bool = False,
        tracer: Tracer | None = None,
        heal: Callable[[CdcError], None] | None = None,
        taken: Callable[[], bool] | None = None,
    ) -> None:
        self._settings = settings
        self._contracts = contracts
        self._servers = servers
        self._stop = stop
        self._reload = reload
        self._clock = clock
        self._random = random
        self._recognition = Recognition(settings, accept_changes=accept_changes)
        self._alive = alive
        self._make = make
        self._tracer = tracer
        self._heal = heal
        self._taken = taken
        self._standing_by = False  # since the last session
        self._stands_by_since = 0.0
        self._backoff = Backoff(random)
        self._reached = False  # PostgreSQL and Kafka, at least once
        self._refusals = 0
        self._confirmed = LSN(0)
        self._text_until = LSN(0)  # behind the last transaction that had binary values of an unknown type
        self._fenced: deque[float] = deque(maxlen=FENCES_TOLERATED)
        self._metrics = metrics or Metrics()
        self._metered = self._metrics if metered else None
        self._prefixes = Prefixes(settings.outbox.messages)
        self._metrics.other_messages = self._prefixes.others

    def run(self) -> bool:
        """Publish until stopped; return True when everything that was read is delivered and confirmed.

        Raises PoisonEvent, PostgresError, KafkaError or ConfigError for errors that need an operator, and Temporary
        when the servers were never reached within `startup_seconds`.
        """
        give_up_at = self._clock.monotonic() + self._settings.delivery.startup_seconds
        drained = True
        while not self._stop.is_set():
            self._alive()
            try:
                drained = self._session()
                if not self._reload.is_set() or self._stop.is_set():
                    return drained
                self._read_again()
            except SlotActive as active:
                self._stand_by(active)
                self._stop.wait(_STANDBY_SECONDS * (0.5 + self._random()))
                self._be_patient()
            except Fenced as fenced:
                self._check_fences(fenced)
                self._pause(fenced)
            except (SlotLost, RecoveryUnfinished) as lost:
                self._recover(lost)
            except Temporary as error:
                # A lock shows that PostgreSQL was reached.
                if not self._reached and not isinstance(error, Locked) and self._clock.monotonic() >= give_up_at:
                    raise
                self._pause(error)
            except (PostgresRefused, KafkaRefused) as error:
                self._refusals += 1
                if not self._reached or self._refusals > REFUSALS_TOLERATED:
                    raise
                self._pause(error)
        return drained

    def _check_fences(self, fenced: Fenced) -> None:
        """Raise KafkaError when fencing repeats although the slot is ours."""
        now = self._clock.monotonic()
        if len(self._fenced) == FENCES_TOLERATED and now - self._fenced[0] < FENCES_SECONDS:
            raise KafkaError(
                f"{fenced.message}, again and again, although no other publisher is active",
                hint="end the other publisher, or give its slot another name: two servers that were copied from each"
                " other have slots of the same transactional id",
            )
        self._fenced.append(now)

    def _stand_by(self, active: SlotActive) -> None:
        phase = HELD if active.held else STANDBY
        if not self._standing_by:
            self._stands_by_since = self._clock.monotonic()
        self._standing_by = True
        if phase != self._metrics.phase:  # once, not each second
            if active.held:
                log.warning("%s", active.held, extra={"event": "slot_held", "reason": active.message})
            else:
                log.info("standby: another publisher is active", extra={"event": "standby", "reason": active.message})
        self._metrics.enter(phase, self._clock.unix(), active.held)

    def _be_patient(self) -> None:
        """Wait while another process reads the slot, if that has gone on for long."""
        since = self._clock.monotonic() - self._stands_by_since
        if self._taken is None or since < PATIENT_AFTER_SECONDS:
            return
        with contextlib.suppress(CdcError):  # which the next session meets too
            while not self._stop.is_set() and self._taken():
                self._alive()
                self._stop.wait(PATIENT_SECONDS * (0.5 + self._random()))

    def _recover(self, lost: CdcError) -> None:
        """Recover if that is wanted, or wait as a standby for the recovery of another process; else raise the error."""
        if self._heal is not None:
            try:
                self._heal(lost)
                return
            except Temporary as error:
                self._pause(error)
                return
            except RecoveryUnfinished as unfinished:
                lost = unfinished
        if not (isinstance(lost, RecoveryUnfinished) and self._standing_by):
            raise lost
        if self._metrics.phase != RECOVERING:
            log.info("waiting for the end of a recovery", extra={"event": "recovery_awaited", "reason": str(lost)})
        self._metrics.enter(RECOVERING, self._clock.unix(), lost.message)
        self._stop.wait(_STANDBY_SECONDS * (0.5 + self._random()))

    def _pause(self, error: CdcError) -> None:
        self._metrics.meet(error, WAITING, self._clock.unix())
        pause = self._backoff.pause()
        log.warning("%s", error, extra={"event": "session_failed", "retry_in_seconds": round(pause, 2)})
        self._stop.wait(pause)

    def _read_again(self) -> None:
        self._reload.clear()
        try:
            self._contracts.read()
            log.info(
                "reloaded the contracts", extra={"event": "contracts_reloaded", "contracts": len(self._contracts.names)}
            )
        except CdcError as error:
            log.error(
                "reloading contracts failed; keeping the previous ones: %s",
                error,
                extra={"event": "contracts_not_reloaded"},
            )

    def _session(self) -> bool:
        settings = self._settings
        with contextlib.ExitStack() as stack:
            ends = self._servers.open(stack, text=self._confirmed < self._text_until)
            known = self._recognition.recognise(ends)
            self._reached, self._refusals = True, 0
            sent_before, record = self._recognition.sent_before(ends, known)
            batch = self._recognition.batch
            settled = self._metered.settled if self._metered else None
            ledger = Ledger(ends.slot.confirmed, settled)
            positions = Positions(settings.topics.positions, record, ledger.fail, PROMPT_SECONDS, batch, ends.progress)
            status_seconds = min(ends.wal_sender_timeout / 3 or LONGEST_STATUS_SECONDS, LONGEST_STATUS_SECONDS)
            session = Session(
                settings.outbox.new_name or settings.outbox.qualified_name,
                ends.outbox,
                encoding(self._tracer)(
                    ends.outbox,
                    self._contracts,
                    self._contracts,
                    envelope=self._contracts.envelope,
                    frame_bytea=settings.avro.bytea == "body",
                    values=settings.record,
                    examine=self._contracts.examine,
                ),
                ends.topics,
                Confirmation(ledger, status_seconds, positions),
                refusals(self._tracer, ends.dead_letters),
                table_oid(ends.slot.definition),
                sent_before,
                Sequences(ends.tails, ends.topics.partitions) if settings.delivery.sequence else None,
                self._make,
                child_oids(ends.slot.definition),
                self._prefixes,
            )
            ends.begin(record)
            log.info(
                "streaming",
                extra={
                    "event": "streaming",
                    "slot": settings.postgres.slot,
                    "publication": settings.postgres.publication,
                    "confirmed": str(ends.slot.confirmed),
                    "stream": ends.outbox.stream,
                    "format": "binary" if ends.binary else "text",
                    "guarantee": settings.delivery.guarantee,
                },
            )
            ahead = AHEAD if batch else NOT_AHEAD
            publisher = Publisher(
                ends.source, ends.sink, session, ends.failed, self._clock, self._alive, ahead, self._metered
            )
            monitor = Monitor(
                session=session,
                publisher=publisher,
                sentinel=ends.sentinel,
                clock=self._clock,
                metrics=self._metrics,
                stream=ends.outbox.stream,
                interval=SHOWN_SECONDS if self._metered else LOGGED_SECONDS,
            )
            try:
                return self._publish(publisher, ends, session, monitor)
            except BinaryUnreadable:
                # The catalog describes today's columns, and says nothing about the types of earlier rows.
                if ledger.open:
                    self._text_until = LSN(ledger.open.commit_lsn + 1)
                raise
            finally:
                self._confirmed = ledger.confirmed
                self._recognition.keep(positions.record)
                monitor.sample()

    def _publish(self, publisher: Publisher, ends: Ends, session: Session, monitor: Monitor) -> bool:
        metrics = self._metrics
        self._standing_by = False
        metrics.enter(STREAMING, self._clock.unix())
        metrics.reconnects += metrics.sessions > 0
        metrics.sessions += 1
        confirmed = session.ledger.confirmed
        while not (self._stop.is_set() or self._reload.is_set() or session.poison):
            publisher.step()
            monitor.look()
            if session.ledger.confirmed > confirmed:
                self._backoff.reset()
        metrics.enter(STOPPING, self._clock.unix())
        return self._finish(publisher, ends.source, session)

    def _finish(self, publisher: Publisher, source: Source, session: Session) -> bool:
        drained = False
        try:
            drained = publisher.drain(self._clock.monotonic() + self._settings.delivery.drain_seconds)
            source.stop()
        except Temporary as error:
            log.warning(
                "the last status update may not have arrived: %s", error, extra={"event": "status_update_unanswered"}
            )
        if not drained:
            log.warning(
                "stopped before Kafka confirmed everything; the rest is sent again at the next start",
                extra={"event": "stopped_undelivered", "undelivered": session.ledger.undelivered},
            )
        log.info(
            "stopped", extra={"event": "stopped", "events": session.events, "confirmed": str(session.confirmation.lsn)}
        )
        if session.poison:
            raise session.poison
        return drained
