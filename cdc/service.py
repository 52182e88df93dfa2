"""Sessions for ever: connect, publish, and after a temporary fault again from the slot, until told to stop.

Everything a session knows is built anew each time: stream, producer and ledger never outlive a fault, so there is
nothing to repair. The slot is the memory. Servers and time are given by shape: `cdc.servers` has the real ones.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from cdc.backoff import Backoff
from cdc.config.settings import Settings
from cdc.definition import table_oid
from cdc.encoding import Encoder, Encoders, Encoding, Framing, Topics
from cdc.errors import CdcError, PostgresError, PostgresRefused, PostgresUnavailable, SlotActive, Temporary
from cdc.ledger import Failure, Ledger
from cdc.observations import Defect, Observation, Stopping
from cdc.outbox import Outbox
from cdc.positions import Mark, Positions, differences
from cdc.progress import Progress
from cdc.publisher import Clock, Publisher, Sink, Source
from cdc.session import PROMPT_SECONDS, DeadLetters, Session

log = logging.getLogger(__name__)

LONGEST_STATUS_SECONDS: Final = 10.0
REFUSALS_TOLERATED: Final = 5
"""A password is changed in two places, never at once: so often a connection that worked before may be refused."""
_STANDBY_SECONDS: Final = 1.0
_SHUTDOWN_GRACE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.25


class Flag(Protocol):
    """Something that may be asked for, as threading.Event has it."""

    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...
    def wait(self, timeout: float, /) -> object: ...


class Sentinel(Protocol):
    """A second pair of eyes on the server."""

    def observe(self) -> list[Observation]:
        """What it saw since it was last asked. Never waits."""
        ...


class Contracts(Encoders, Framing, Protocol):
    """Encoders and framing that can be read again."""

    @property
    def envelope(self) -> Encoder | None: ...
    @property
    def names(self) -> list[str]: ...
    def read(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of a session that has been opened, and what was found on the way."""

    source: Source
    sink: Sink
    sentinel: Sentinel
    topics: Topics
    outbox: Outbox
    dead_letters: DeadLetters | None
    mark: Mark  # the slot as it is now
    remembered: Callable[[], Mark | None]  # what Kafka holds of it; waits for Kafka
    failed: Callable[[Failure], CdcError]  # what a failed delivery means
    wal_sender_timeout: float  # seconds; 0 means never
    binary: bool


class Servers(Protocol):
    """PostgreSQL and Kafka."""

    def open(self, stack: contextlib.ExitStack) -> Ends:
        """Open one session, which `stack` closes. Raises CdcError; SlotActive while another process reads the slot."""
        ...


class Service:
    """Publishes until `stop` is set; when `reload` is set, goes on with contracts that are read again.

    `alive` is called while it works: at least every few seconds, whatever happens.
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
    ) -> None:
        self._settings = settings
        self._contracts = contracts
        self._servers = servers
        self._stop = stop
        self._reload = reload
        self._clock = clock
        self._random = random
        self._accept_changes = accept_changes
        self._alive = alive
        self._backoff = Backoff(random)
        self._reached = False  # PostgreSQL and Kafka, at least once
        self._refusals = 0
        self._mark: Mark | None = None  # the slot as this process knows it

    def run(self) -> bool:
        """Publish until told to stop; True when everything that was read is delivered and confirmed.

        Raises PoisonEvent, PostgresError, KafkaError or ConfigError for what needs a person, and Temporary when the
        servers were never reached within `startup_seconds`.
        """
        give_up_at = self._clock.monotonic() + self._settings.delivery.startup_seconds
        while not self._stop.is_set():
            self._alive()
            try:
                drained = self._session()
                if not self._reload.is_set() or self._stop.is_set():
                    return drained
                self._read_again()
            except SlotActive as active:
                log.info("standby: another publisher reads the slot", extra={"reason": active.message})
                self._stop.wait(_STANDBY_SECONDS * (0.5 + self._random()))
            except Temporary as error:
                if not self._reached and self._clock.monotonic() >= give_up_at:
                    raise
                self._pause(error)
            except PostgresRefused as error:
                self._refusals += 1
                if not self._reached or self._refusals > REFUSALS_TOLERATED:
                    raise
                self._pause(error)
        return True

    def _pause(self, error: CdcError) -> None:
        pause = self._backoff.pause()
        log.warning("%s", error, extra={"retry_in_seconds": round(pause, 2)})
        self._stop.wait(pause)

    def _read_again(self) -> None:
        self._reload.clear()
        try:
            self._contracts.read()
            log.info("read the contracts again", extra={"contracts": len(self._contracts.names)})
        except CdcError as error:
            log.error("the contracts stay as they were: %s", error)

    def _session(self) -> bool:
        settings = self._settings
        with contextlib.ExitStack() as stack:
            ends = self._servers.open(stack)
            self._recognise(ends)
            self._reached, self._refusals = True, 0
            ledger = Ledger(ends.mark.confirmed)
            session = Session(
                settings.outbox.qualified_name,
                ends.outbox,
                Encoding(
                    ends.outbox,
                    self._contracts,
                    self._contracts,
                    envelope=self._contracts.envelope,
                    frame_bytea=settings.avro.bytea == "body",
                ),
                ends.topics,
                ledger,
                min(ends.wal_sender_timeout / 3 or LONGEST_STATUS_SECONDS, LONGEST_STATUS_SECONDS),
                ends.dead_letters,
                Positions(settings.topics.positions, ends.mark, ledger.fail, PROMPT_SECONDS),
                table_oid(ends.mark.definition),
            )
            log.info(
                "streaming",
                extra={
                    "slot": settings.postgres.slot,
                    "publication": settings.postgres.publication,
                    "confirmed": str(ends.mark.confirmed),
                    "stream": ends.outbox.stream,
                    "format": "binary" if ends.binary else "text",
                },
            )
            publisher = Publisher(ends.source, ends.sink, session, ends.failed, self._clock, self._alive)
            try:
                return self._publish(publisher, ends, session)
            finally:
                assert session.positions
                self._mark = session.positions.mark

    def _recognise(self, ends: Ends) -> None:
        """Raises PostgresError when the slot, or what its stream depends on, is not as the publisher left it."""
        found = ends.mark
        if self._mark is None or self._mark.key != found.key or differences(found, self._mark):
            self._mark = ends.remembered() or self._mark  # another process may have moved the slot
        told = differences(found, self._mark) if self._mark else []
        if told and not self._accept_changes:
            raise PostgresError(
                f"not as the publisher left it: {'; '.join(told)}",
                hint="compare the outbox with the topics and publish again what is missing; then, to go on from where"
                " the slot stands, run once: cdc-publisher start --accept-changes",
            )
        if told:
            log.warning("going on although %s", "; ".join(told))
        elif self._mark and self._mark.timeline != found.timeline:
            log.warning(
                "PostgreSQL is on another timeline: a standby was promoted, or a backup was restored",
                extra={"timeline": found.timeline, "before": self._mark.timeline, "confirmed": str(found.confirmed)},
            )
        self._accept_changes = False

    def _publish(self, publisher: Publisher, ends: Ends, session: Session) -> bool:
        watch = _Watch(session, ends.sentinel, self._clock)
        confirmed = session.ledger.confirmed
        while not (self._stop.is_set() or self._reload.is_set() or session.poison):
            publisher.step()
            watch.look()
            if session.ledger.confirmed > confirmed:
                self._backoff.reset()
        return self._finish(publisher, ends.source, session)

    def _finish(self, publisher: Publisher, source: Source, session: Session) -> bool:
        drained = False
        try:
            drained = publisher.drain(self._clock.monotonic() + self._settings.delivery.drain_seconds)
            source.stop()
        except Temporary as error:
            log.warning("the last status update may not have arrived: %s", error)
        if not drained:
            log.warning(
                "stopped before Kafka confirmed everything; what is missing will be sent again at the next start",
                extra={"undelivered": session.ledger.undelivered},
            )
        log.info("stopped", extra={"events": session.events, "confirmed": str(session.confirmable)})
        if session.poison:
            raise session.poison
        return drained


class _Watch:
    """Looks now and then at what the sentinel saw, and reports progress."""

    def __init__(self, session: Session, sentinel: Sentinel, clock: Clock) -> None:
        self._sentinel = sentinel
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
        self._progress.report(now, self._clock.unix())

    def _take(self, observation: Observation, now: float) -> None:
        if isinstance(observation, Defect):
            raise observation.error
        if isinstance(observation, Stopping):
            # A fast shutdown waits until all is confirmed; while Kafka is down that would be for ever.
            self._leave_at = self._leave_at or now + _SHUTDOWN_GRACE_SECONDS
        else:
            self._progress.wal_end = observation.lsn
