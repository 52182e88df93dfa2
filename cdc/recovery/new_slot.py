"""Creates a slot together with the snapshot of what its stream does not bring, and holds it while rows are sent."""

import contextlib
import math
import threading
import time
from typing import Final, NamedTuple

import psycopg
from psycopg import pq

from cdc.errors import CdcError, PostgresUnavailable
from cdc.lsn import LSN
from cdc.postgres import slot_health
from cdc.postgres.connection import connect
from cdc.postgres.source import Source
from cdc.replication.frames import status_update

RECOVER: Final = "cdc-publisher recover"
"""The `application_name` of its connections."""

_REPLY_SECONDS: Final = 10.0
_GRACE_SECONDS: Final = 30.0  # for the server to notice that the command was cancelled
_CANCELED: Final = "57014"
_LOOK_SECONDS: Final = 0.1
_GONE_SECONDS: Final = 10.0


class SlotStart(NamedTuple):
    """Where a slot begins, and the name of the snapshot that shows all that was committed before."""

    lsn: LSN
    snapshot: str


class NewSlot(Source):
    """A replication connection that creates a slot. Nothing is read from it, so nothing is confirmed.

    The snapshot exists until `hold` is called. Close the connection to release the slot.
    """

    def __init__(self, dsn: str, application: str = RECOVER) -> None:
        super().__init__(dsn, application)
        self._dsn = dsn
        self._released = threading.Event()
        self._replies = threading.Thread(target=self._reply, name="slot", daemon=True)
        # Nothing is read from this connection for as long as events are sent.
        self._command(b"SET wal_sender_timeout = 0", pq.ExecStatus.COMMAND_OK)

    def create(self, name: str, *, failover: bool, seconds: float | None = None) -> SlotStart:
        """Create a slot; PostgreSQL waits for the end of all open and prepared transactions.

        Raises PostgresUnavailable after `seconds`, if given, which names the transaction that the server waited for:
        the slot does not exist then.
        """
        options = "(SNAPSHOT 'export', FAILOVER true)" if failover else "EXPORT_SNAPSHOT"
        command = f'CREATE_REPLICATION_SLOT "{name}" LOGICAL pgoutput {options}'
        self._connection.patience = math.inf if seconds is None else seconds + _GRACE_SECONDS
        timer = threading.Timer(threading.TIMEOUT_MAX if seconds is None else seconds, self._cancel)
        timer.daemon = True
        timer.start()
        try:
            result = self._command(command.encode(), pq.ExecStatus.TUPLES_OK)
        except CdcError as error:
            self._make_sure(name)
            if seconds is not None and (self._blockers or isinstance(error, PostgresUnavailable)):
                raise self._late(name, seconds, error) from None
            raise
        finally:
            timer.cancel()
        return SlotStart(LSN.parse(_text(result, 1)), _text(result, 2))

    @property
    def _blockers(self) -> str:
        return self._connection.blockers

    def _cancel(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._connection.cancel()

    def _late(self, name: str, seconds: float, error: CdcError) -> CdcError:
        if not self._blockers:
            return error
        return PostgresUnavailable(
            f"replication slot {name!r} was not created within {seconds:g} s: {self._blockers}",
            hint="nothing was changed by this attempt; end that transaction, or wait for it with a longer --wait, and"
            " run the command again",
        )

    def _make_sure(self, name: str) -> None:
        """Wait until the server has dropped the slot that it could not finish."""
        self.close()
        deadline = time.monotonic() + _GONE_SECONDS
        with contextlib.suppress(CdcError), connect(self._dsn, application_name=RECOVER) as connection:
            while time.monotonic() < deadline:
                if slot_health.read(connection, name) is None:
                    return
                time.sleep(_LOOK_SECONDS)

    def hold(self, slot: str, publication: str) -> None:
        """Keep every other process from the slot. Ends the snapshot, unless another session has imported it."""
        self.start(slot, publication, binary=False)
        self._replies.start()

    def _reply(self) -> None:
        while not self._released.wait(_REPLY_SECONDS):
            with contextlib.suppress(CdcError):
                self.write(status_update(LSN(0), time.time(), reply_requested=False))

    def close(self) -> None:
        """Release the slot."""
        self._released.set()
        if self._replies.is_alive():
            self._replies.join()
        super().close()


def _text(result: pq.abc.PGresult, column: int) -> str:
    return (result.get_value(0, column) or b"").decode()
