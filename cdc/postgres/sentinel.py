"""Monitors the server on a thread with an SQL connection of its own, and queues observations.

The replication stream does not report the end of the server's WAL, nor that the server is shutting down (a fast
shutdown waits for the stream, and only ordinary connections get the message), nor that rows are not published any more.
"""

import logging
import time
from collections.abc import Mapping
from typing import Final

from cdc.config.settings import Settings
from cdc.delivery.ports import SlotHealth, Stopping, StreamDefect, Synchronous, WalEnd
from cdc.errors import PostgresError, SlotLost
from cdc.lsn import LSN
from cdc.postgres import defects, horizons, publication, slot_health
from cdc.postgres.connection import INVALIDATED, SHUTTING_DOWN, Conn
from cdc.postgres.renamed import located
from cdc.postgres.source import STREAM
from cdc.postgres.watch import Watch
from cdc.replication.publication import PUT_RIGHT, differences, suspect

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
HORIZON_SECONDS: Final = 60.0
_SHUTDOWN: Final = frozenset({"57P01", "57P02"})  # admin_shutdown, crash_shutdown


class Sentinel(Watch):
    """Monitors one server for a slot.

    `expected` is the definition at the start of the stream, and `since` the end of the WAL when it was read.
    """

    def __init__(self, dsn: str, settings: Settings, expected: Mapping[str, str], since: LSN | None = None) -> None:
        super().__init__(dsn, LOOK_SECONDS)
        self._slot = settings.postgres.slot
        self._settings = settings
        self._expected = expected
        self._good = since  # the end of the WAL when no defect was seen for the last time
        self._warned: set[str] = set()  # dangers of the slot that were logged, until it is out of all of them
        self._is_synchronous = False
        self._away: str | None = None
        self._begin()

    def _lost(self, error: Exception) -> None:
        if tells_of_shutdown(error):
            self._observations.put(Stopping(str(error).split("\n")[0]))

    def _watch(self, connection: Conn) -> None:
        horizon_at = float("-inf")
        while not self._stopped.is_set():
            # Before the rest: without a defect, everything was well when the WAL ended here.
            row = connection.execute("select pg_current_wal_flush_lsn()::text").fetchone()
            assert row is not None
            end = LSN.parse(str(row[0]))
            self._observations.put(WalEnd(end))
            defect = self._definition(connection, end) or self._health(connection)
            if defect is not None:
                self._observations.put(StreamDefect(defect))
                self._stopped.set()  # later observations add nothing
                return
            if time.monotonic() >= horizon_at:
                horizon_at = time.monotonic() + HORIZON_SECONDS
                self._observations.put(horizons.take(connection, self._settings.outbox.qualified_name))
            self._good, self._failure = end, ""
            self._stopped.wait(LOOK_SECONDS)

    def _definition(self, connection: Conn, end: LSN) -> PostgresError | None:
        postgres, outbox = self._settings.postgres, self._settings.outbox
        changes = differences(publication.read(connection, postgres.publication, outbox.qualified_name), self._expected)
        if not changes:
            return None
        now = located(connection, self._settings)
        if now.outbox.qualified_name != outbox.qualified_name:
            log.info("the outbox was renamed", extra={"event": "outbox_renamed", "table": now.outbox.table})
            self._settings = now
            return self._definition(connection, end)
        return PostgresError(f"{'; '.join(changes)}: {suspect(self._good, end)}", hint=PUT_RIGHT)

    def _health(self, connection: Conn) -> PostgresError | None:
        found = slot_health.read(connection, self._slot)
        if found is None:
            return SlotLost(
                f"replication slot {self._slot!r} was dropped while it was in use: unconfirmed events are not in the"
                " stream any more",
                hint=INVALIDATED,
            )
        if problem := slot_health.problem(self._slot, found):
            return SlotLost(*problem)
        seen = SlotHealth(found.retained_bytes, found.limit_bytes, found.safe_bytes, found.wal_status)
        self._observations.put(seen)
        self._note_synchronous(found)
        self._note_standbys(found)
        state, sentence = slot_health.warning(self._slot, found) or (None, "")
        if state is None and self._warned:
            log.info("replication slot %r is out of danger", self._slot, extra={"event": "slot_out_of_danger"})
            self._warned.clear()
        elif state is not None and state not in self._warned:
            log.warning("%s", sentence, extra={"event": "slot_in_danger"})
            self._warned.add(state)
        return None

    def _note_synchronous(self, found: slot_health.Health) -> None:
        if found.sync_state not in ("sync", "quorum") or self._is_synchronous:
            return
        self._is_synchronous = True
        self._observations.put(Synchronous())
        log.warning(
            "commits in PostgreSQL wait until Kafka has their events, because synchronous_standby_names matches %r",
            STREAM,
            extra={"event": "synchronous_standby", "sync_state": found.sync_state},
        )

    def _note_standbys(self, found: slot_health.Health) -> None:
        if found.away and found.away != self._away:
            defect = defects.standbys_away(found.away)
            log.warning("%s", defect.error(), extra={"event": "waiting_for_standby", "slots": found.away})
        self._away = found.away


def tells_of_shutdown(error: BaseException) -> bool:
    """Return whether the server ended the session to shut down; `query` keeps PostgreSQL's own error as context."""
    states = {getattr(each, "sqlstate", None) for each in (error, error.__context__)}
    return bool(states & _SHUTDOWN) or SHUTTING_DOWN in str(error)
