"""A thread that monitors a server with an SQL connection of its own, and queues observations."""

import logging
import queue
import threading

import psycopg

from cdc.delivery.ports import Observation
from cdc.errors import CdcError, Temporary
from cdc.postgres.connection import Conn, connect

log = logging.getLogger(__name__)


class Watch:
    """Monitors one server until `stop`. Its failures do not affect the publisher: it reconnects by itself.

    A subclass has a `_watch`, which returns when nothing is left to observe, and calls `_begin` when it can run.
    """

    def __init__(self, dsn: str, retry_seconds: float) -> None:
        self._dsn = dsn
        self._retry_seconds = retry_seconds
        self._failure = ""
        self._observations: queue.SimpleQueue[Observation] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sentinel", daemon=True)

    def observe(self) -> list[Observation]:
        """Return the observations since the last call; never waits."""
        return [self._observations.get_nowait() for _ in range(self._observations.qsize())]

    def stop(self) -> None:
        """End the thread; wait a second for it."""
        self._stopped.set()
        self._thread.join(1.0)

    def _begin(self) -> None:
        self._thread.start()

    def _watch(self, connection: Conn) -> None:
        """Observe until `self._stopped` is set. May raise anything."""
        raise NotImplementedError

    def _lost(self, error: Exception) -> None:
        """Take an error that ended the connection."""

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with connect(self._dsn, application_name="cdc-publisher sentinel") as connection:
                    self._watch(connection)
            except Exception as error:  # of any kind: the end of this thread would go unnoticed
                self._lost(error)
                self._failed(error)
            self._stopped.wait(self._retry_seconds)

    def _failed(self, error: Exception) -> None:
        """Log a failure once, until another one follows."""
        failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if failure == self._failure:
            return
        self._failure = failure
        if isinstance(error, Temporary | psycopg.OperationalError):
            log.debug("the sentinel lost PostgreSQL: %s", failure)
        elif isinstance(error, CdcError | psycopg.Error):
            log.warning(
                "the outbox is not monitored at the moment: %s",
                failure,
                extra={"event": "monitoring_interrupted"},
            )
        else:
            log.error(
                "the outbox is not monitored at the moment: %s",
                failure,
                exc_info=error,
                extra={"event": "monitoring_failed"},
            )
