"""Monitors the outbox of a relay on a thread with an SQL connection of its own, and queues observations.

What the relay reads does not show that rows are missing in it: one that a disabled trigger gave no number is in no
batch.
"""

from collections.abc import Callable
from typing import Final

from cdc.config.settings import Settings
from cdc.delivery.ports import Batches, StreamDefect
from cdc.postgres import polling_defects, relay_facts
from cdc.postgres.connection import Conn
from cdc.postgres.watch import Watch

LOOK_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0


class RelayWatch(Watch):
    """Monitors the outbox of one relay; `batches` returns the counters of the process."""

    def __init__(self, settings: Settings, batches: Callable[[], Batches]) -> None:
        super().__init__(settings.postgres.dsn, RETRY_SECONDS)
        self._settings = settings
        self._batches = batches
        self._begin()

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
