"""Idempotent processing in PostgreSQL: an event's id and the handler's writes are committed in one transaction.

    inbox = Inbox("billing")
    with inbox.event(connection, event_id) as new:
        if new:
            connection.execute("insert into invoice ...")

The unique key (consumer, event_id) decides. While one process is in the block of an event, another process with the
same event waits. If the first commits, the event is not new for the second; if it rolls back, the second applies it. So
an event is applied exactly once, however often and to however many processes it is delivered.
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
_LONGEST_NAME: Final = 63  # bytes; PostgreSQL truncates longer names

_CREATE: Final = """\
CREATE TABLE {table} (
    consumer text NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX ON {table} (consumer, received_at);"""
# ON CONFLICT names the key, so that a table without that unique key is an error.
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
    """The inbox table and its SQL, shared by both inboxes."""

    def __init__(self, consumer: str, *, table: str = "inbox", schema: str | None = None) -> None:
        if not consumer:
            raise ConfigError("an inbox needs the name of its consumer")
        for name in (table, schema):
            if name is not None and not 0 < len(name.encode()) <= _LONGEST_NAME:
                raise ConfigError(f"{name!r} is not a valid name of a table or schema, which has 1 to 63 bytes")
        if "\0" in f"{consumer}{table}{schema}":
            raise ConfigError("names in PostgreSQL cannot contain a NUL byte")
        self.consumer = consumer
        identifier = sql.Identifier(schema, table) if schema is not None else sql.Identifier(table)
        self._name = identifier.as_string()
        self.sql = _CREATE.format(table=self._name)
        """The statements that create the table, for your migrations."""
        named = self._name.replace("%", "%%")  # in statements with placeholders
        self._insert = _INSERT.format(table=named).encode()
        self._prune = _PRUNE.format(table=named).encode()

    def _values(self, event_id: str | UUID) -> tuple[str, str]:
        if not event_id:
            raise InboxError("the event has no id", hint="give each event a unique id")
        return self.consumer, str(event_id)

    def _pruned(self, older_than: timedelta, batch: int) -> tuple[str, timedelta, int]:
        if older_than <= timedelta(0) or batch < 1:
            raise ConfigError("prune needs older_than above zero and a batch of at least one row")
        return self.consumer, older_than, batch


def _check_begin(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], *, nested: bool) -> None:
    status = connection.info.transaction_status
    if status != pq.TransactionStatus.IDLE and not nested and not connection.closed:
        raise InboxError(
            "the connection is in a transaction already",
            hint="commit or roll back first, use an autocommit connection, or pass nested=True and commit yourself",
        )


def _check_end(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], event_id: str | UUID) -> None:
    # PostgreSQL answers COMMIT of a failed transaction with ROLLBACK, which psycopg ignores.
    if connection.info.transaction_status == pq.TransactionStatus.INERROR:
        raise InboxError(
            f"event {event_id} was not applied: a statement failed, but its exception was caught",
            hint="let the exception propagate from the block, or catch it around a nested connection.transaction()",
        )


@contextlib.contextmanager
def _refuse_rollback(event_id: str | UUID) -> Iterator[None]:
    """Raise InboxError for psycopg.Rollback, which psycopg would swallow, as if the block had committed."""
    try:
        yield
    except psycopg.Rollback as rollback:
        if rollback.transaction is not None:
            raise
        raise InboxError(f"event {event_id} was not applied: the block raised psycopg.Rollback") from None


class Inbox(_Table):
    """The events that `consumer` has applied, in a table that several consumers can share.

    `table` and `schema` are unquoted names; without `schema`, the search_path applies. Raises ConfigError for invalid
    names. The inbox holds no connection and is thread-safe.
    """

    def create(self, connection: psycopg.Connection[Any]) -> bool:
        """Create the table if it does not exist, and return whether it was created. Safe to call concurrently.

        Runs in a transaction, or as part of an open one. Raises errors of psycopg.
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
        """Return a context manager that runs the transaction of one event and yields whether the event is new.

        If it is new, apply it through the same connection; otherwise skip it. The block commits at its end. An
        exception rolls back everything, including the event's id, and propagates; the event can be retried.

        With `nested`, the block is a savepoint in the open transaction. An exception rolls back to the savepoint only,
        the transaction remains usable, and the event is applied if and only if you commit.

        Raises InboxError, with nothing applied, if a transaction is open without `nested`, if the block caught an error
        that failed its transaction, or if it raised psycopg.Rollback. Raises errors of psycopg: SerializationFailure at
        isolation levels above READ COMMITTED for an event that another process just committed (retry it), and
        OperationalError if the connection is lost. If it is lost during the commit, a retry finds out whether the event
        was applied.
        """
        values = self._values(event_id)
        _check_begin(connection, nested=nested)
        with connection.transaction():
            with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
                new = cursor.execute(self._insert, values).fetchone() is not None
            with _refuse_rollback(event_id):
                yield new
            _check_end(connection, event_id)

    def prune(self, connection: psycopg.Connection[Any], *, older_than: timedelta, batch: int = BATCH) -> int:
        """Delete events that this consumer applied longer ago than `older_than`, and return their number.

        A deleted event is new if it is delivered again. So `older_than` must exceed the latest time of a duplicate: at
        least the retention of the topics, or the longest time until an offset is reset or a dead letter is replayed.
        Rows are deleted in transactions of `batch` rows each; several processes can prune concurrently. Raises
        InboxError if a transaction is open, ConfigError unless both arguments are positive, and errors of psycopg.
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
    """`Inbox` for psycopg's AsyncConnection, with the same guarantees and table."""

    async def create(self, connection: psycopg.AsyncConnection[Any]) -> bool:
        """Do the same as `Inbox.create`."""
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
        """Do the same as `Inbox.event`. A task that is cancelled within the block rolls back."""
        values = self._values(event_id)
        _check_begin(connection, nested=nested)
        async with connection.transaction():
            async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
                new = await (await cursor.execute(self._insert, values)).fetchone() is not None
            with _refuse_rollback(event_id):
                yield new
            _check_end(connection, event_id)

    async def prune(
        self, connection: psycopg.AsyncConnection[Any], *, older_than: timedelta, batch: int = BATCH
    ) -> int:
        """Do the same as `Inbox.prune`."""
        values, total = self._pruned(older_than, batch), 0
        _check_begin(connection, nested=False)
        while True:
            async with connection.transaction(), psycopg.AsyncCursor(connection) as cursor:
                deleted = (await cursor.execute(self._prune, values)).rowcount
            total += deleted
            if deleted < batch:
                return total
