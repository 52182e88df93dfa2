"""Idempotent processing in PostgreSQL: an event's id and what its handler writes are one transaction, or neither is.

    inbox = Inbox("billing")
    with inbox.event(connection, event_id) as new:
        if new:
            connection.execute("insert into invoice ...")

The unique key (consumer, event_id) decides. While one process is within the block of an event, another with the same
event waits; when the first commits, the second is told that the event is not new, and when the first rolls back, it is
the second's to apply. So an event is applied once, however often and to however many processes it is delivered.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import pq, sql
from psycopg.rows import tuple_row

from cdc.consumer.errors import InboxError
from cdc.errors import ConfigError

BATCH: Final = 1000
_LONGEST_NAME: Final = 63  # bytes: PostgreSQL cuts the rest off

_CREATE: Final = """\
CREATE TABLE {table} (
    consumer text NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX ON {table} (consumer, received_at);"""
# The key is named, so that a table without it is an error instead of one that never finds anything.
_INSERT: Final = (
    "INSERT INTO {table} (consumer, event_id) VALUES (%s, %s) ON CONFLICT (consumer, event_id) DO NOTHING RETURNING 1"
)
_PRUNE: Final = """
DELETE FROM {table} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {table} WHERE consumer = %s AND received_at < now() - %s::interval
    ORDER BY received_at LIMIT %s FOR UPDATE SKIP LOCKED))"""
_EXISTS: Final = "SELECT to_regclass(%s) IS NOT NULL"
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('cdc.consumer.inbox ' || %s, 0))"


class _Table:
    """The table and its SQL, which both inboxes share."""

    def __init__(self, consumer: str, *, table: str = "inbox", schema: str | None = None) -> None:
        if not consumer:
            raise ConfigError("an inbox needs the name of its consumer")
        for name in (table, schema):
            if name is not None and not 0 < len(name.encode()) <= _LONGEST_NAME:
                raise ConfigError(f"{name!r} cannot be the name of a table or schema: PostgreSQL takes 1 to 63 bytes")
        if "\0" in f"{consumer}{table}{schema}":
            raise ConfigError("PostgreSQL takes no zero byte in a name")
        self.consumer = consumer
        identifier = sql.Identifier(schema, table) if schema is not None else sql.Identifier(table)
        self._name = identifier.as_string()
        self.sql = _CREATE.format(table=self._name)
        """The statements that make the table, for your migrations."""
        named = self._name.replace("%", "%%")  # beside placeholders
        self._insert = _INSERT.format(table=named).encode()
        self._prune = _PRUNE.format(table=named).encode()

    def _values(self, event_id: str | UUID) -> tuple[str, str]:
        if not event_id:
            raise InboxError("an event without an id cannot be told from another", hint="give it an id that is its own")
        return self.consumer, str(event_id)

    def _pruned(self, older_than: timedelta, batch: int) -> tuple[str, timedelta, int]:
        if older_than <= timedelta(0) or batch < 1:
            raise ConfigError("prune needs an age above zero and a batch of at least one row")
        return self.consumer, older_than, batch


def _check_begin(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], *, nested: bool) -> None:
    status = connection.info.transaction_status
    if status != pq.TransactionStatus.IDLE and not nested and not connection.closed:
        raise InboxError(
            "the connection is in a transaction already, which would have to be committed after the block",
            hint="commit or roll back first, use an autocommit connection, or say nested=True and commit yourself",
        )


def _check_end(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], event_id: str | UUID) -> None:
    # PostgreSQL answers a COMMIT of a failed transaction with a ROLLBACK that nobody looks at.
    if connection.info.transaction_status == pq.TransactionStatus.INERROR:
        raise InboxError(
            f"event {event_id} is not applied: a statement failed the transaction, and its error was caught",
            hint="let errors of PostgreSQL out of the block, or catch them around connection.transaction() within it",
        )


@contextlib.contextmanager
def _telling_rollback(event_id: str | UUID) -> Iterator[None]:
    """psycopg would swallow a Rollback: the block would end like one that was committed."""
    try:
        yield
    except psycopg.Rollback as rollback:
        if rollback.transaction is not None:
            raise
        raise InboxError(f"event {event_id} is not applied: the block raised psycopg.Rollback") from None


class Inbox(_Table):
    """The events that `consumer` has applied, in a table that several consumers may share.

    `table` and `schema` are names as they are, quoted for you; without a schema the search_path decides. Raises
    ConfigError for names that PostgreSQL does not take. It keeps no connection and may be shared by threads.
    """

    def create(self, connection: psycopg.Connection[Any]) -> bool:
        """Create the table unless it is there; returns whether it was created. Several processes may do so at once.

        It is one transaction, or part of yours. Raises psycopg's errors.
        """
        with connection.transaction(), psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
            cursor.execute(_LOCK, [self._name])
            if cursor.execute(_EXISTS, [self._name]).fetchone() == (True,):
                return False
            cursor.execute(self.sql.encode())
            return True

    @contextlib.contextmanager
    def event(
        self, connection: psycopg.Connection[Any], event_id: str | UUID, *, nested: bool = False
    ) -> Iterator[bool]:
        """A block that is the transaction of one event; it is given whether the event is new.

        Write what is to be done once, through the same connection, when it is new; pass it over when it is not. The
        block commits at its end. An exception rolls everything back, the event's id too, and goes on to the caller:
        the event can be tried again.

        With `nested` the block is a savepoint of the transaction that you have open. Then an exception rolls back to
        the savepoint alone, your transaction remains usable, and the event is applied when, and only when, you commit.

        Raises InboxError when a transaction is open and `nested` is not said, when the block swallowed an error that
        failed its transaction, and when it raised psycopg.Rollback; then nothing is applied. Raises psycopg's errors:
        at isolation levels above READ COMMITTED SerializationFailure for an event that another process just committed
        (try again), OperationalError when the connection is lost; if that happens in the commit itself, whether the
        event was applied is found out by trying again.
        """
        values = self._values(event_id)
        _check_begin(connection, nested=nested)
        with connection.transaction():
            with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
                new = cursor.execute(self._insert, values).fetchone() is not None
            with _telling_rollback(event_id):
                yield new
            _check_end(connection, event_id)

    def prune(self, connection: psycopg.Connection[Any], *, older_than: timedelta, batch: int = BATCH) -> int:
        """Forget events that this consumer applied longer ago than `older_than`; returns how many.

        An event that is forgotten is new when it is delivered again. So the age must exceed the latest that a
        duplicate can come: at least the retention of the topics, or the longest time until an offset is reset or a
        dead letter is replayed. Rows are deleted `batch` at a time, each batch in a transaction of its own; several
        processes may prune at once. Raises InboxError when a transaction is open, ConfigError for an age or batch of
        nothing, psycopg's errors.
        """
        values, total = self._pruned(older_than, batch), 0
        _check_begin(connection, nested=False)
        while True:
            with connection.transaction(), psycopg.Cursor(connection) as cursor:
                deleted = cursor.execute(self._prune, values).rowcount
            total += deleted
            if deleted < batch:
                return total


class AsyncInbox(_Table):
    """The same for psycopg's AsyncConnection: every promise of `Inbox`, and the same table."""

    async def create(self, connection: psycopg.AsyncConnection[Any]) -> bool:
        """As `Inbox.create`."""
        async with connection.transaction(), psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
            await cursor.execute(_LOCK, [self._name])
            if await (await cursor.execute(_EXISTS, [self._name])).fetchone() == (True,):
                return False
            await cursor.execute(self.sql.encode())
            return True

    @contextlib.asynccontextmanager
    async def event(
        self, connection: psycopg.AsyncConnection[Any], event_id: str | UUID, *, nested: bool = False
    ) -> AsyncIterator[bool]:
        """As `Inbox.event`. A task that is cancelled within the block rolls back."""
        values = self._values(event_id)
        _check_begin(connection, nested=nested)
        async with connection.transaction():
            async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
                new = await (await cursor.execute(self._insert, values)).fetchone() is not None
            with _telling_rollback(event_id):
                yield new
            _check_end(connection, event_id)

    async def prune(
        self, connection: psycopg.AsyncConnection[Any], *, older_than: timedelta, batch: int = BATCH
    ) -> int:
        """As `Inbox.prune`."""
        values, total = self._pruned(older_than, batch), 0
        _check_begin(connection, nested=False)
        while True:
            async with connection.transaction(), psycopg.AsyncCursor(connection) as cursor:
                deleted = (await cursor.execute(self._prune, values)).rowcount
            total += deleted
            if deleted < batch:
                return total
