"""Sessions for ever: connect, publish, and after a temporary fault again from the slot, until told to stop.

Everything a session knows is built anew each time: stream, producer and ledger never outlive a fault, so there is
nothing to repair. The slot is the memory. Servers and time are given by shape: `cdc.servers` has the real ones.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from cdc.backoff import Backoff
from cdc.config.settings import Settings
from cdc.definition import GO_ON, table_oid
from cdc.encoding import Encoder, Encoders, Encoding, Framing
from cdc.ends import Ends, Servers
from cdc.errors import (
    CdcError,
    Fenced,
    KafkaError,
    PostgresError,
    PostgresRefused,
    SlotActive,
    Temporary,
)
from cdc.ledger import Ledger
from cdc.lsn import LSN
from cdc.positions import AT_LEAST_ONCE, EXACTLY_ONCE, Batch, Mark, Positions, differences, reached
from cdc.publisher import NOT_AHEAD, Ahead, Clock, Publisher, Source
from cdc.resume import NOWHERE, Resume
from cdc.runs import Make
from cdc.sequences import Sequences
from cdc.session import PROMPT_SECONDS, Session
from cdc.unrolled import Unrolled
from cdc.watch import Watch

log = logging.getLogger(__name__)

LONGEST_STATUS_SECONDS: Final = 10.0
REFUSALS_TOLERATED: Final = 5
"""A password is changed in two places, never at once: so often a connection that worked before may be refused."""
BATCH_EVENTS: Final = 50_000
BATCH_BYTES: Final = 16_777_216
"""A Kafka transaction ends when it holds so much, or after `transaction_ms`, whichever comes first."""
AHEAD: Final = Ahead(10_000, 8_388_608)
"""What is made ready while a Kafka transaction is being committed: about the time that it takes."""
FENCES_TOLERATED: Final = 5
FENCES_SECONDS: Final = 300.0
"""A broker that was away for long takes a transaction from us, too; but not so often in so short a time."""
_STANDBY_SECONDS: Final = 1.0


class Flag(Protocol):
    """Something that may be asked for, as threading.Event has it."""

    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...
    def wait(self, timeout: float, /) -> object: ...


class Contracts(Encoders, Framing, Protocol):
    """Encoders and framing that can be read again."""

    @property
    def envelope(self) -> Encoder | None: ...
    @property
    def names(self) -> list[str]: ...
    def read(self) -> None: ...


class Service:
    """Publishes until `stop` is set; when `reload` is set, goes on with contracts that are read again.

    `alive` is called while it works: at least every few seconds, whatever happens. `make` says what takes runs of
    plain rows.
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
        self._make = make
        self._backoff = Backoff(random)
        self._reached = False  # PostgreSQL and Kafka, at least once
        self._refusals = 0
        self._fenced: deque[float] = deque(maxlen=FENCES_TOLERATED)
        self._mark: Mark | None = None  # the slot as this process knows it

    def run(self) -> bool:
        """Publish until told to stop; True when everything that was read is delivered and confirmed.

        Raises PoisonEvent, PostgresError, KafkaError or ConfigError for what needs a person, and Temporary when the
        servers were never reached within `startup_seconds`.
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
                log.info("standby: another publisher reads the slot", extra={"reason": active.message})
                self._stop.wait(_STANDBY_SECONDS * (0.5 + self._random()))
            except Fenced as fenced:
                self._check_fences(fenced)
                self._pause(fenced)
            except Temporary as error:
                if not self._reached and self._clock.monotonic() >= give_up_at:
                    raise
                self._pause(error)
            except PostgresRefused as error:
                self._refusals += 1
                if not self._reached or self._refusals > REFUSALS_TOLERATED:
                    raise
                self._pause(error)
        return drained

    def _check_fences(self, fenced: Fenced) -> None:
        """Raises KafkaError when it happens again and again although the slot is ours."""
        now = self._clock.monotonic()
        if len(self._fenced) == FENCES_TOLERATED and now - self._fenced[0] < FENCES_SECONDS:
            raise KafkaError(
                f"{fenced.message}, again and again, although the replication slot is ours",
                hint="end the other publisher, or give its slot another name: two servers that were copied from each"
                " other have slots of the same transactional id",
            )
        self._fenced.append(now)

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
            known = self._recognise(ends)
            self._reached, self._refusals = True, 0
            resume, mark = self._resume(ends, known)
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
                Positions(settings.topics.positions, mark, ledger.fail, PROMPT_SECONDS, self._batch),
                table_oid(ends.mark.definition),
                resume,
                Sequences(ends.tails, ends.topics.partitions) if settings.delivery.sequence else None,
                self._make,
            )
            log.info(
                "streaming",
                extra={
                    "slot": settings.postgres.slot,
                    "publication": settings.postgres.publication,
                    "confirmed": str(ends.mark.confirmed),
                    "stream": ends.outbox.stream,
                    "format": "binary" if ends.binary else "text",
                    "guarantee": settings.delivery.guarantee,
                },
            )
            ahead = AHEAD if self._batch else NOT_AHEAD
            publisher = Publisher(ends.source, ends.sink, session, ends.failed, self._clock, self._alive, ahead)
            try:
                return self._publish(publisher, ends, session)
            finally:
                assert session.positions
                self._mark = session.positions.mark

    @property
    def _batch(self) -> Batch | None:
        delivery = self._settings.delivery
        if delivery.guarantee == AT_LEAST_ONCE:
            return None
        return Batch(BATCH_EVENTS, BATCH_BYTES, delivery.transaction_ms / 1000)

    def _resume(self, ends: Ends, known: Mark | None) -> tuple[Resume, Mark]:
        """What of the stream was sent before, and the mark to begin with."""
        position = reached(known, ends.mark.timeline, ends.timelines) if known else None
        caught_up = known is not None and known.caught_up and self._batch is not None
        guarantee = self._settings.delivery.guarantee
        mark = replace(ends.mark, position=position, guarantee=guarantee, caught_up=caught_up)
        if caught_up:
            # What is beyond the position was never committed; and without one nothing was.
            return (Resume(LSN(position.commit_lsn + 1), position) if position else Resume()), mark
        if known and known.guarantee == EXACTLY_ONCE and not self._batch:
            ends.hand_over(mark)
        dead_letters = self._settings.topics.dead_letter if ends.dead_letters else None
        return Resume(ends.wal_end, position or NOWHERE, ends.tails, dead_letters), mark

    def _recognise(self, ends: Ends) -> Mark | None:
        """What is known of the slot from before.

        Raises PostgresError when it, or what its stream depends on, is not as the publisher left it.
        """
        found, missing = ends.mark, False
        if self._batch:
            # What became of the last transaction is only known from there.
            memory = ends.remembered()
            self._mark = memory.mark or self._mark
            missing = memory.mark is None and not memory.forgotten and ends.used
        elif self._mark is None or self._mark.key != found.key or differences(found, self._mark):
            self._mark = ends.remembered().mark or self._mark  # another process may have moved the slot
        told = differences(found, self._mark) if self._mark else []
        if missing:
            told.append(
                f"topic {self._settings.topics.positions!r} holds no position of replication slot {found.slot!r},"
                " although that was read from before"
            )
        if told and not self._accept_changes:
            raise PostgresError(
                f"not as the publisher left it: {'; '.join(told)}",
                hint=GO_ON,
            )
        if told:
            log.warning("going on although %s", "; ".join(told))
        elif self._mark and self._mark.timeline != found.timeline:
            log.warning(
                "PostgreSQL is on another timeline: a standby was promoted, or a backup was restored",
                extra={"timeline": found.timeline, "before": self._mark.timeline, "confirmed": str(found.confirmed)},
            )
        self._accept_changes = False
        return self._mark

    def _publish(self, publisher: Publisher, ends: Ends, session: Session) -> bool:
        watch = Watch(session, ends.sentinel, self._clock)
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
