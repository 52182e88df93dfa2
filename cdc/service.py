"""Sessions for ever: connect, publish, and after a temporary fault again from the slot, until told to stop.

Everything a session knows is built anew each time: stream, producer and ledger never outlive a fault, so there is
nothing to repair. The slot is the memory.
"""

import contextlib
import hashlib
import logging
import queue
import random
import threading
import time
from typing import Final

from cdc.backoff import Backoff
from cdc.config.settings import Settings
from cdc.encoding import Encoding
from cdc.errors import CdcError, PostgresUnavailable, SlotActive, Temporary
from cdc.kafka.cluster import Cluster
from cdc.kafka.producer import Sink, delivery_error
from cdc.ledger import Ledger
from cdc.outbox import Outbox
from cdc.postgres import catalog
from cdc.postgres.connection import connect
from cdc.postgres.sentinel import Observation, Sentinel, Stopping
from cdc.postgres.source import Source
from cdc.progress import Progress
from cdc.publisher import Publisher
from cdc.schemas import Schemas
from cdc.session import Session
from cdc.topics import TopicTemplate

log = logging.getLogger(__name__)

LONGEST_STATUS_SECONDS: Final = 10.0
_REACH_SECONDS: Final = 5.0
_STANDBY_SECONDS: Final = 1.0
_SHUTDOWN_GRACE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.25


def stream_id(system_identifier: str, timeline: int, slot: str) -> str:
    """Who issues positions: 8 hex digits of a hash over the cluster, its timeline and the slot."""
    return hashlib.sha256(f"{system_identifier}/{timeline}/{slot}".encode()).hexdigest()[:8]


class Service:
    """Publishes until `stop` is set; when `reload` is set, goes on with contracts that are read again."""

    def __init__(self, settings: Settings, schemas: Schemas, stop: threading.Event, reload: threading.Event) -> None:
        self._settings = settings
        self._schemas = schemas
        self._stop = stop
        self._reload = reload
        self._columns = settings.outbox.parts
        self._template = TopicTemplate(settings.topics.name)
        self._backoff = Backoff(random.random)
        self._reached = False  # PostgreSQL and Kafka, at least once

    def run(self) -> bool:
        """Publish until told to stop; True when everything that was read is delivered and confirmed.

        Raises PoisonEvent, PostgresError, KafkaError or ConfigError for what needs a person, and Temporary when the
        servers were never reached within `startup_seconds`.
        """
        give_up_at = time.monotonic() + self._settings.delivery.startup_seconds
        while not self._stop.is_set():
            try:
                drained = self._session()
                if not self._reload.is_set() or self._stop.is_set():
                    return drained
                self._read_again()
            except SlotActive as active:
                log.info("standby: another publisher reads the slot", extra={"reason": active.message})
                self._stop.wait(_STANDBY_SECONDS * (0.5 + random.random()))
            except Temporary as error:
                if not self._reached and time.monotonic() >= give_up_at:
                    raise
                pause = self._backoff.pause()
                log.warning("%s", error, extra={"retry_in_seconds": round(pause, 2)})
                self._stop.wait(pause)
        return True

    def _read_again(self) -> None:
        self._reload.clear()
        try:
            self._schemas.read()
            log.info("read the contracts again", extra={"contracts": len(self._schemas.names)})
        except CdcError as error:
            log.error("the contracts stay as they were: %s", error)

    def _session(self) -> bool:
        settings = self._settings
        with contextlib.ExitStack() as stack:
            if not self._reached:
                Cluster(settings.kafka).reach(_REACH_SECONDS)
            with connect(settings.postgres.dsn, application_name="cdc-publisher preflight") as connection:
                found = catalog.inspect(connection, settings, self._columns, self._template)
            source = stack.enter_context(contextlib.closing(Source(settings.postgres.dsn)))
            outbox = Outbox(
                stream_id(*source.identify(), settings.postgres.slot),
                self._columns,
                self._template,
                settings.outbox.headers,
                tombstones=settings.outbox.tombstones,
            )
            source.start(settings.postgres.slot, settings.postgres.publication, binary=found.binary)
            self._reached = True
            sink = stack.enter_context(contextlib.closing(Sink(settings)))
            sentinel = Sentinel(settings.postgres.dsn)
            stack.callback(sentinel.stop)
            session = Session(
                settings.outbox.qualified_name,
                outbox,
                Encoding(
                    outbox,
                    self._schemas,
                    self._schemas,
                    envelope=self._schemas.envelope,
                    frame_bytea=settings.avro.bytea == "body",
                ),
                Ledger(found.confirmed),
                min(found.wal_sender_timeout / 3 or LONGEST_STATUS_SECONDS, LONGEST_STATUS_SECONDS),
            )
            log.info(
                "streaming",
                extra={
                    "slot": settings.postgres.slot,
                    "publication": settings.postgres.publication,
                    "confirmed": str(found.confirmed),
                    "stream": outbox.stream,
                    "format": "binary" if found.binary else "text",
                },
            )
            publisher = Publisher(source, sink, session, delivery_error)
            return self._publish(publisher, source, session, sentinel)

    def _publish(self, publisher: Publisher, source: Source, session: Session, sentinel: Sentinel) -> bool:
        watch = _Watch(session, sentinel)
        confirmed = session.ledger.confirmed
        while not (self._stop.is_set() or self._reload.is_set() or session.poison):
            publisher.step()
            watch.look()
            if session.ledger.confirmed > confirmed:
                self._backoff.reset()
        return self._finish(publisher, source, session)

    def _finish(self, publisher: Publisher, source: Source, session: Session) -> bool:
        drained = False
        try:
            drained = publisher.drain(time.monotonic() + self._settings.delivery.drain_seconds)
            source.stop()
        except Temporary as error:
            log.warning("the last status update may not have arrived: %s", error)
        if not drained:
            log.warning(
                "stopped before Kafka confirmed everything; what is missing will be sent again at the next start",
                extra={"undelivered": session.ledger.undelivered},
            )
        log.info("stopped", extra={"events": session.events, "confirmed": str(session.ledger.confirmed)})
        if session.poison:
            raise session.poison
        return drained


class _Watch:
    """Looks now and then at what the sentinel saw, and reports progress."""

    def __init__(self, session: Session, sentinel: Sentinel) -> None:
        self._sentinel = sentinel
        self._progress = Progress(session, time.monotonic())
        self._look_at = 0.0
        self._leave_at: float | None = None

    def look(self) -> None:
        """Raises PostgresUnavailable when the server wants to stop and has waited for us long enough."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._sentinel.observations.get_nowait(), now)
        if self._leave_at is not None and now >= self._leave_at:
            raise PostgresUnavailable("PostgreSQL is shutting down")
        self._progress.report(now, time.time())

    def _take(self, observation: Observation, now: float) -> None:
        if isinstance(observation, Stopping):
            # A fast shutdown waits until all is confirmed; while Kafka is down that would be for ever.
            self._leave_at = self._leave_at or now + _SHUTDOWN_GRACE_SECONDS
        else:
            self._progress.wal_end = observation.lsn
