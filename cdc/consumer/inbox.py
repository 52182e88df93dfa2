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

from cdc.consumer.errors import CommittedEarly, InboxError, InvalidId
from cdc.errors import ConfigError

BATCH: Final = 1000
LONGEST_ID: Final = 2600
"""Bytes of an event id and its consumer's name together: PostgreSQL indexes no entry of more than 2,704 bytes."""
_LONGEST_CONSUMER: Final = 1000
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
    "INSERT INTO {table} (consumer, event_id) VALUES (%s, %s) ON CONFLICT (consumer, event_id) DO NOTHING"
    " RETURNING pg_current_xact_id()::text"
)
# Whether a transaction is still this session's, and its state. The transaction's status does not show that a block
# executed ROLLBACK AND CHAIN; the table cannot be asked, because a block may change role and search_path.
_STATE: Final = (
    "SELECT pg_current_xact_id_if_assigned()::text IS NOT DISTINCT FROM %(xid)s, pg_xact_status(%(xid)s::text::xid8)"
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
        if len(consumer.encode(errors="replace")) > _LONGEST_CONSUMER:
            raise ConfigError(f"the name of an inbox's consumer has at most {_LONGEST_CONSUMER} bytes")
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
        text = str(event_id or "")
        if not text:
            raise InvalidId("the event has no id", hint="give each event a unique id")
        try:
            size, longest = len(text.encode()), LONGEST_ID - len(self.consumer.encode())
        except UnicodeEncodeError as error:
            raise InvalidId(f"the event id cannot be stored as text: {error}") from None
        if size > longest:
            raise InvalidId(
                f"the event id has {size} bytes; an inbox of consumer {self.consumer!r} takes at most {longest}",
                hint="give events shorter ids, such as UUIDs",
            )
        if "\0" in text:
            raise InvalidId("the event id contains a NUL character, which PostgreSQL cannot store")
        return self.consumer, text

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


def _check_state(state: tuple[Any, ...] | None, event_id: str | UUID) -> None:
    """Raise InboxError if the transaction of the inbox's row is not the session's transaction any more."""
    same, status = state or (False, None)
    if same:
        return
    if status == "committed":
        raise _committed_early(event_id)
    did = "rolled back" if status == "aborted" else "ended"
    raise InboxError(f"event {event_id} was not applied: the block {did} the transaction by SQL", hint=_LEAVE_IT)


def _committed_early(event_id: str | UUID) -> CommittedEarly:
    return CommittedEarly(
        f"event {event_id} counts as applied, perhaps in part: the block committed the transaction by SQL",
        hint=_LEAVE_IT,
    )


_LEAVE_IT: Final = "execute no BEGIN, COMMIT or ROLLBACK in the block; for savepoints use connection.transaction()"


def _can_ask(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    return connection.info.transaction_status in (pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS)


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
        that failed its transaction, if it raised psycopg.Rollback, or if it executed ROLLBACK. Raises CommittedEarly if
        it executed COMMIT, and InvalidId for an id that is empty, longer than 2,600 bytes (together with the consumer's
        name) or not storable as text. Raises errors of psycopg: SerializationFailure at
        isolation levels above READ COMMITTED for an event that another process just committed (retry it), and
        OperationalError if the connection is lost. If it is lost during the commit, a retry finds out whether the event
        was applied.
        """
        values, inserted = self._values(event_id), None
        _check_begin(connection, nested=nested)
        try:
            with connection.transaction():
                with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
                    inserted = cursor.execute(self._insert, values).fetchone()
                with _refuse_rollback(event_id):
                    yield inserted is not None
                _check_end(connection, event_id)
                if inserted is not None:
                    _check_state(self._state(connection, inserted), event_id)
        except InboxError:
            raise
        except Exception as error:
            if inserted is not None and _can_ask(connection):
                with connection.transaction():
                    _, status = self._state(connection, inserted) or (False, None)
                if status == "committed":
                    raise _committed_early(event_id) from error
            raise

    def _state(self, connection: psycopg.Connection[Any], inserted: tuple[Any, ...]) -> tuple[Any, ...] | None:
        with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
            return cursor.execute(_STATE, {"xid": inserted[0]}).fetchone()

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
        values, inserted = self._values(event_id), None
        _check_begin(connection, nested=nested)
        try:
            async with connection.transaction():
                async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
                    inserted = await (await cursor.execute(self._insert, values)).fetchone()
                with _refuse_rollback(event_id):
                    yield inserted is not None
                _check_end(connection, event_id)
                if inserted is not None:
                    _check_state(await self._state(connection, inserted), event_id)
        except InboxError:
            raise
        except Exception as error:
            if inserted is not None and _can_ask(connection):
                async with connection.transaction():
                    _, status = await self._state(connection, inserted) or (False, None)
                if status == "committed":
                    raise _committed_early(event_id) from error
            raise

    async def _state(
        self, connection: psycopg.AsyncConnection[Any], inserted: tuple[Any, ...]
    ) -> tuple[Any, ...] | None:
        async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
            return await (await cursor.execute(_STATE, {"xid": inserted[0]})).fetchone()

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
