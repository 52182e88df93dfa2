"""A second pair of eyes: a thread with its own SQL connection, which posts what it sees into a queue.

The replication stream tells neither how far the server's WAL has come nor that the server wants to stop:
a fast shutdown waits for us, and only an ordinary connection is told so.
"""

import logging
import queue
import threading
from typing import Final, NamedTuple

import psycopg

from cdc.errors import CdcError
from cdc.lsn import LSN
from cdc.postgres.connection import connect

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
_SHUTDOWN: Final = frozenset({"57P01", "57P02"})  # admin_shutdown, crash_shutdown


class WalEnd(NamedTuple):
    """The server's WAL has been flushed up to here."""

    lsn: LSN


class Stopping(NamedTuple):
    """The server is shutting down."""

    reason: str


Observation = WalEnd | Stopping


class Sentinel:
    """Watches one server until `stop`. Its failures are not the publisher's: it connects again by itself."""

    def __init__(self, dsn: str) -> None:
        self.observations: queue.SimpleQueue[Observation] = queue.SimpleQueue()
        self._dsn = dsn
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sentinel", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, and wait for it a little."""
        self._stopped.set()
        self._thread.join(LOOK_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with connect(self._dsn, application_name="cdc-publisher sentinel") as connection:
                    self._watch(connection)
            except psycopg.Error as error:
                if error.sqlstate in _SHUTDOWN:
                    self.observations.put(Stopping(str(error).split("\n")[0]))
                log.debug("the sentinel lost its connection", exc_info=error)
            except CdcError as error:
                log.debug("the sentinel cannot connect", exc_info=error)
            self._stopped.wait(LOOK_SECONDS)

    def _watch(self, connection: "psycopg.Connection[tuple[object, ...]]") -> None:
        while not self._stopped.is_set():
            row = connection.execute("select pg_current_wal_flush_lsn()::text").fetchone()
            assert row is not None
            self.observations.put(WalEnd(LSN.parse(str(row[0]))))
            self._stopped.wait(LOOK_SECONDS)
