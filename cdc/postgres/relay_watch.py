"""Monitors the outbox of a relay on a thread with an SQL connection of its own, and queues observations.

What the relay reads does not show that rows are missing in it: one that a disabled trigger gave no number is in no
batch.
"""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

from cdc.config.settings import Settings
from cdc.delivery.ports import Batches, Observation, StreamDefect
from cdc.errors import CdcError, Temporary
from cdc.postgres import polling_defects, relay_facts
from cdc.postgres.connection import Conn, connect

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0


class RelayWatch:
    """Monitors one outbox until `stop`. Its failures do not affect the publisher: it reconnects by itself.

    `batches` returns the counters of the process.
    """

    def __init__(self, settings: Settings, batches: Callable[[], Batches]) -> None:
        self._settings = settings
        self._batches = batches
        self._failure = ""
        self._observations: queue.SimpleQueue[Observation] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay watch", daemon=True)
        self._thread.start()

    def observe(self) -> list[Observation]:
        """Return the observations since the last call; never waits."""
        return [self._observations.get_nowait() for _ in range(self._observations.qsize())]

    def stop(self) -> None:
        """End the thread; wait a second for it."""
        self._stopped.set()
        self._thread.join(RETRY_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with connect(self._settings.postgres.dsn, application_name="cdc-publisher sentinel") as connection:
                    self._watch(connection)
            except Exception as error:  # of any kind: the end of this thread would go unnoticed
                self._failed(error)
            self._stopped.wait(RETRY_SECONDS)

    def _watch(self, connection: Conn) -> None:
        while not self._stopped.is_set():
            if defect := polling_defects.first(connection, self._settings):
                self._observations.put(StreamDefect(defect.error()))
                self._stopped.set()  # later observations add nothing
                return
            self._observations.put(relay_facts.observe(connection, self._settings))
            self._observations.put(self._batches())
            self._failure = ""
            self._stopped.wait(LOOK_SECONDS)

    def _failed(self, error: Exception) -> None:
        """Log a failure once, until another one follows."""
        failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if failure == self._failure:
            return
        self._failure = failure
        if isinstance(error, Temporary):
            log.debug("the sentinel lost PostgreSQL: %s", failure)
        elif isinstance(error, CdcError):
            log.warning(
                "the outbox is not monitored at the moment: %s", failure, extra={"event": "monitoring_interrupted"}
            )
        else:
            log.error(
                "the outbox is not monitored at the moment: %s",
                failure,
                exc_info=error,
                extra={"event": "monitoring_failed"},
            )
