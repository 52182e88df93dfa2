"""Reads the rows that a relay has not confirmed: all of the snapshot that the confirmed one does not see.

Its row in `cdc_relay` is read in the snapshot of the audit, so that every other row was in Kafka before the topics are
read. A position of the stream is a number that ascends with each epoch, in place of an LSN: see polling.md.
"""

import contextlib
from collections.abc import Iterator
from typing import Final

from psycopg import sql

from cdc.config.settings import Settings
from cdc.lsn import LSN
from cdc.postgres import relay_facts
from cdc.postgres.connection import Conn, converting, snapshot
from cdc.postgres.relay_facts import Relay

COUNTER_BITS: Final = 42
_PORTION: Final = 5000

DELETED: Final = (
    'rows are deleted when they are confirmed ([outbox] published = "delete"): records are judged by their positions'
    " and sequence numbers only, and a missing event is not found"
)
STRAYS: Final = "they are in no batch: see check"


class UnconfirmedRows:
    """The relay of the settings, and the rows that it has still to confirm. Raises PostgresError without a relay."""

    def __init__(self, connection: Conn, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self.relay = relay_facts.require(connection, settings)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[LSN]:
        """Open a snapshot; the rows of all positions below the one yielded were visible in it."""
        table = self._settings.outbox.qualified_name
        with snapshot(self._connection, "reading the outbox table", table=table):
            self.relay = relay_facts.require(self._connection, self._settings)
            yield LSN(self.relay.confirmed_batch)

    def ids(self) -> Iterator[str]:
        """Yield the ids of rows that are not confirmed, and of those that will be in no batch."""
        relay = self.relay
        condition = sql.SQL("({} or {})").format(relay_facts.unconfirmed(relay), self._stray(relay))
        statement = sql.SQL("select t.{}::text from {} t where {}").format(
            sql.Identifier(self._settings.outbox.columns.id), self._table, condition
        )
        with converting("reading the outbox table"), self._connection.cursor("cdc_unconfirmed") as cursor:
            cursor.itersize = _PORTION
            yield from (row_id for (row_id,) in cursor.execute(statement) if row_id is not None)

    def strays(self) -> int:
        """Return how many rows will be in no batch."""
        statement = sql.SQL("select count(*) from {} t where {}").format(self._table, self._stray(self.relay))
        with converting("reading the outbox table"):
            ((count,),) = self._connection.execute(statement).fetchall()
        return int(count)

    def end(self) -> LSN:
        """Return a position above all that were given out by now."""
        return LSN(relay_facts.require(self._connection, self._settings).epoch + 1 << COUNTER_BITS)

    def _stray(self, relay: Relay) -> sql.Composed:
        return relay_facts.stray(relay.cleared, self._settings.outbox.published, "t")

    @property
    def _table(self) -> sql.Identifier:
        return sql.Identifier(*self._settings.outbox.qualified_name)
