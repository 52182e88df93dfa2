"""The inbox on a real PostgreSQL: events are applied exactly once despite failures, with both kinds of connections."""

import asyncio
import contextlib
import random
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.rows import dict_row

from cdc.consumer import AsyncInbox, Inbox, InboxError, Rejected
from cdc.consumer.inbox import LONGEST_ID
from cdc.errors import ConfigError
from tests.pipeline import eventually

Connection = psycopg.Connection[Any]
ID = "7d3c0d5e-58bd-4fca-a6c4-8a3fa0e3e9f0"


@pytest.fixture
def inbox() -> Inbox:
    return Inbox("billing")


@pytest.fixture
def connection(database: str, inbox: Inbox) -> Iterator[Connection]:
    """A connection as psycopg makes it, to a database with an inbox and a table to write to."""
    with psycopg.connect(database) as made:
        assert inbox.create(made)
        made.execute("create table written (what text)")
        made.commit()
        yield made


def apply(inbox: Inbox, connection: Connection, event_id: Any = ID, what: str = "once") -> bool:
    with inbox.event(connection, event_id) as new:
        if new:
            connection.execute("insert into written values (%s)", [what])
    return new


def fail(connection: Connection, *, caught: bool = False) -> None:
    """What a handler writes before it fails, and how."""
    connection.execute("insert into written values ('never')")
    try:
        connection.execute("insert into nowhere values (1)")
    except errors.UndefinedTable:
        if not caught:
            raise


def written(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as other:
        return [what for (what,) in other.execute("select what from written order by ctid")]


def test_an_event_is_new_once_and_committed_with_the_writes(
    connection: Connection, database: str, inbox: Inbox
) -> None:
    assert apply(inbox, connection)
    assert written(database) == ["once"]
    assert not apply(inbox, connection)
    assert not apply(inbox, connection, uuid.UUID(ID))
    assert apply(Inbox("shipping"), connection, what="another consumer")
    assert written(database) == ["once", "another consumer"]
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_an_exception_rolls_back_the_event_and_the_writes(connection: Connection, database: str, inbox: Inbox) -> None:
    with pytest.raises(ZeroDivisionError), inbox.event(connection, ID):
        _ = connection.execute("insert into written values ('never')").rowcount / 0
    with pytest.raises(errors.UndefinedTable), inbox.event(connection, ID):
        fail(connection)
    assert apply(inbox, connection)
    assert written(database) == ["once"]


def test_a_caught_error_of_postgresql_is_not_reported_as_a_commit(
    connection: Connection, database: str, inbox: Inbox
) -> None:
    with (
        pytest.raises(InboxError, match="a statement failed, but its exception was caught"),
        inbox.event(connection, ID),
    ):
        fail(connection, caught=True)
    with inbox.event(connection, ID) as new:
        assert new
        with pytest.raises(errors.UndefinedTable), connection.transaction():
            connection.execute("insert into nowhere values (1)")
        connection.execute("insert into written values ('after a savepoint')")
    assert written(database) == ["after a savepoint"]


def test_psycopg_rollback_is_not_reported_as_a_commit(connection: Connection, inbox: Inbox) -> None:
    with pytest.raises(InboxError, match=r"psycopg\.Rollback"), inbox.event(connection, ID):
        raise psycopg.Rollback
    assert apply(inbox, connection)


def test_an_open_transaction_is_refused_unless_nested(connection: Connection, database: str, inbox: Inbox) -> None:
    connection.execute("select 1")  # which begins a transaction that nobody would commit
    with pytest.raises(InboxError, match="in a transaction already"), inbox.event(connection, ID):
        raise AssertionError("not to be reached")
    with pytest.raises(InboxError), inbox.event(connection, ""):
        raise AssertionError("not to be reached")
    connection.rollback()
    assert apply(inbox, connection)
    assert written(database) == ["once"]


def test_a_nested_event_is_applied_when_the_callers_transaction_commits(
    connection: Connection, database: str, inbox: Inbox
) -> None:
    connection.execute("insert into written values ('mine')")
    with inbox.event(connection, ID, nested=True) as new:
        assert new
        connection.execute("insert into written values ('once')")
    assert written(database) == []
    connection.rollback()

    connection.execute("insert into written values ('mine')")
    with pytest.raises(errors.UndefinedTable), inbox.event(connection, ID, nested=True):
        fail(connection)
    with inbox.event(connection, ID, nested=True) as new:
        assert new
        connection.execute("insert into written values ('once')")
    with inbox.event(connection, ID, nested=True) as new:
        assert not new
    with pytest.raises(InboxError), inbox.event(connection, "other", nested=True):
        fail(connection, caught=True)
    connection.commit()
    assert written(database) == ["mine", "once"]
    roll_back_all(inbox, connection)
    assert apply(inbox, connection, "other", "at last")


def roll_back_all(inbox: Inbox, connection: Connection) -> None:
    with connection.transaction() as outer, inbox.event(connection, "other", nested=True):
        raise psycopg.Rollback(outer)


@pytest.mark.parametrize("first_commits", [True, False])
def test_a_concurrent_block_waits_and_applies_if_the_first_rolls_back(
    connection: Connection, database: str, inbox: Inbox, first_commits: bool
) -> None:
    results: list[bool] = []

    def second() -> None:
        with psycopg.connect(database) as other:
            results.append(apply(inbox, other, what="second"))

    thread = threading.Thread(target=second)
    try:
        with inbox.event(connection, ID) as new:
            assert new
            connection.execute("insert into written values ('first')")
            thread.start()
            eventually(lambda: waiting(database) == 1, "the second waits")
            assert results == []
            if not first_commits:
                raise ConnectionAbortedError
    except ConnectionAbortedError:
        pass
    thread.join()
    assert results == [not first_commits]
    assert written(database) == ["first" if first_commits else "second"]


def waiting(dsn: str) -> int:
    with psycopg.connect(dsn) as watcher:
        row = watcher.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        ).fetchone()
        assert row
        return int(row[0])


def test_a_concurrent_event_in_stricter_isolation_is_an_error_and_then_known(
    connection: Connection, database: str, inbox: Inbox
) -> None:
    connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    connection.execute("select count(*) from written")  # its snapshot
    with psycopg.connect(database) as other:
        assert apply(inbox, other)
    with pytest.raises(errors.SerializationFailure), inbox.event(connection, ID, nested=True):
        raise AssertionError("not to be reached")
    connection.rollback()
    assert not apply(inbox, connection)


def test_a_connection_that_is_lost_in_the_block_leaves_nothing(
    connection: Connection, database: str, inbox: Inbox
) -> None:
    with psycopg.connect(database) as victim:
        with pytest.raises(psycopg.OperationalError), inbox.event(victim, ID):
            lose(victim, connection)
        assert victim.closed
        with pytest.raises(psycopg.OperationalError), inbox.event(victim, ID):
            raise AssertionError("not to be reached")
    connection.rollback()
    assert apply(inbox, connection)


def lose(victim: Connection, admin: Connection) -> None:
    victim.execute("insert into written values ('never')")
    admin.execute("select pg_terminate_backend(%s, 5000)", [victim.info.backend_pid])
    victim.execute("select 1")


def test_the_inbox_works_with_any_connection_settings(database: str) -> None:
    inbox = Inbox("c", table='in"box %s; \n x', schema="My 100% Schema")
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as connection:
        connection.execute('create schema "My 100% Schema"')
        connection.execute("create table written (what text)")
        connection.cursor_factory = psycopg.RawCursor
        assert inbox.create(connection)
        assert not inbox.create(connection)
        with inbox.event(connection, ID) as new:
            assert new
            connection.execute("insert into written values ($1)", ["once"])
        with connection.pipeline(), inbox.event(connection, ID) as new:
            assert not new
        assert inbox.prune(connection, older_than=timedelta(microseconds=1)) == 1
        with connection.pipeline(), inbox.event(connection, ID) as new:
            assert new


def test_a_table_without_its_key_is_an_error(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create table inbox (consumer text, event_id text, received_at timestamptz default now())")
        with pytest.raises(errors.InvalidColumnReference), Inbox("c").event(connection, ID):
            raise AssertionError("not to be reached")


def test_processes_that_create_the_table_at_once_do_not_disturb_each_other(database: str, inbox: Inbox) -> None:
    made: list[bool] = []

    def create() -> None:
        with psycopg.connect(database) as connection:
            made.append(inbox.create(connection))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]


def test_prune_deletes_only_older_events_of_its_consumer_in_batches(
    connection: Connection, database: str, inbox: Inbox
) -> None:
    for number in range(10):
        assert apply(inbox, connection, f"old {number}")
    assert apply(Inbox("shipping"), connection)
    connection.execute("update inbox set received_at = received_at - interval '40 days'")
    connection.commit()
    assert apply(inbox, connection, "young")
    month = timedelta(days=30)
    assert inbox.prune(connection, older_than=timedelta(days=50), batch=3) == 0
    connection.execute("select 1")
    with pytest.raises(InboxError, match="in a transaction already"):
        inbox.prune(connection, older_than=month)
    connection.rollback()
    for wrong in ({"older_than": timedelta(0)}, {"older_than": month, "batch": 0}):
        with pytest.raises(ConfigError):
            inbox.prune(connection, **wrong)
    with psycopg.connect(database) as busy:
        busy.execute("select from inbox where event_id = 'old 0' for update")
        assert inbox.prune(connection, older_than=month, batch=3) == 9  # another prune has the tenth
    assert inbox.prune(connection, older_than=month, batch=3) == 1
    assert connection.execute("select consumer, event_id from inbox order by 1").fetchall() == [
        ("billing", "young"),
        ("shipping", ID),
    ]


def test_the_asynchronous_inbox_has_the_same_guarantees(connection: Connection, database: str, inbox: Inbox) -> None:
    same = AsyncInbox("billing")

    async def apply_once(event_id: str, what: str) -> bool:
        async with (
            await psycopg.AsyncConnection.connect(database) as own,
            same.event(own, event_id) as new,
        ):
            if new:
                await own.execute("insert into written values (%s)", [what])
        return new

    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(database) as own:
            assert not await same.create(own)
            assert await AsyncInbox("c", table="other").create(own)
            results = await asyncio.gather(*(apply_once(ID, "one of five") for _ in range(5)))
            assert sorted(results) == [False] * 4 + [True]

            async def fail_within(*, caught: bool) -> None:
                async with same.event(own, "failing"):
                    await own.execute("insert into written values ('never')")
                    with contextlib.suppress(errors.UndefinedTable) if caught else contextlib.nullcontext():
                        await own.execute("insert into nowhere values (1)")

            with pytest.raises(errors.UndefinedTable):
                await fail_within(caught=False)
            with pytest.raises(InboxError, match="a statement failed"):
                await fail_within(caught=True)
            with pytest.raises(InboxError, match="Rollback"):
                async with same.event(own, "failing"):
                    raise psycopg.Rollback
            await own.execute("select 1")
            with pytest.raises(InboxError, match="already"):
                async with same.event(own, "failing"):
                    raise AssertionError("not to be reached")
            async with same.event(own, "nested", nested=True) as new:
                assert new
            await own.rollback()

            entered = asyncio.Event()

            async def hang() -> None:
                async with same.event(own, "cancelled"):
                    await own.execute("insert into written values ('never')")
                    entered.set()
                    await asyncio.sleep(3600)

            task = asyncio.create_task(hang())
            await entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for event_id in ("failing", "nested", "cancelled"):
                assert await apply_once(event_id, event_id)
            assert await same.prune(own, older_than=timedelta(microseconds=1), batch=2) == 4

    asyncio.run(run())
    assert written(database) == ["one of five", "failing", "nested", "cancelled"]
    assert apply(inbox, connection)


LEAVING = [
    "rollback",
    "rollback and chain",
    "rollback; begin",
    "abort; insert into written values ('within another transaction')",
    "savepoint mine; rollback",
]


def leave(connection: Connection, statements: str, failure: Exception | None = None) -> None:
    """End the transaction of the block by SQL, which psycopg does not notice, and write more or fail."""
    connection.execute("insert into written values ('never')")
    for statement in statements.split("; "):
        connection.execute(statement)
    if failure is not None:
        raise failure


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("statements", LEAVING)
def test_case_h8_a_rollback_by_sql_is_not_reported_as_a_commit(
    connection: Connection, database: str, inbox: Inbox, statements: str, nested: bool
) -> None:
    if nested:
        connection.execute("select 1")
    with pytest.raises(InboxError, match="rolled back the transaction"), inbox.event(connection, ID, nested=nested):
        leave(connection, statements)
    connection.rollback()
    assert written(database) == []
    assert apply(inbox, connection)
    assert written(database) == ["once"]


def test_case_h8_a_rollback_by_sql_on_an_autocommit_connection_is_an_error(database: str, inbox: Inbox) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        inbox.create(connection)
        connection.execute("create table written (what text)")
        with pytest.raises(InboxError, match="rolled back the transaction"), inbox.event(connection, ID):
            leave(connection, "rollback")
        assert apply(inbox, connection)
    assert written(database) == ["once"]


@pytest.mark.parametrize("statements", ["commit", "commit and chain", "end; begin", "commit; select 1"])
def test_case_h8_a_commit_by_sql_is_an_error_that_no_retry_hides(
    connection: Connection, database: str, inbox: Inbox, statements: str
) -> None:
    with pytest.raises(InboxError, match="committed the transaction") as ended, inbox.event(connection, ID):
        leave(connection, statements)
    assert isinstance(ended.value, Rejected)
    with pytest.raises(InboxError, match="committed the transaction") as failed, inbox.event(connection, "other"):
        leave(connection, statements, ValueError("after half of the writes"))
    assert isinstance(failed.value.__cause__, ValueError)
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert written(database) == ["never", "never"]


def test_case_h8_savepoints_settings_and_other_roles_in_the_block_are_no_error(
    connection: Connection, database: str, inbox: Inbox
) -> None:
    with inbox.event(connection, ID) as new:
        assert new
        leave(connection, "savepoint mine; insert into written values ('undone'); rollback to savepoint mine")
        connection.execute("set local search_path = pg_catalog")
        connection.execute("set local role pg_monitor")
        connection.execute("reset all")
    assert written(database) == ["never"]
    with inbox.event(connection, ID) as new:
        assert not new
        connection.execute("rollback")  # nothing was written: the event stays as it was
    assert not apply(inbox, connection)


def test_case_h8_a_prepared_transaction_is_not_reported_as_a_commit(connection: Connection, inbox: Inbox) -> None:
    with (
        pytest.raises((InboxError, errors.ObjectNotInPrerequisiteState)),
        inbox.event(connection, ID),
    ):
        leave(connection, f"prepare transaction '{connection.info.dbname}'")
    if connection.execute("select 1 from pg_prepared_xacts where database = current_database()").fetchone():
        connection.rollback()
        connection.autocommit = True
        connection.execute(f"rollback prepared '{connection.info.dbname}'")


def test_case_h8_the_asynchronous_inbox_notices_that_its_transaction_ended(
    connection: Connection, database: str
) -> None:
    same = AsyncInbox("billing")

    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(database) as own:

            async def leave_within(event_id: str, statement: bytes, failure: Exception | None = None) -> None:
                async with same.event(own, event_id):
                    await own.execute(statement)
                    await own.execute("insert into written values ('within another transaction')")
                    if failure is not None:
                        raise failure

            for statement in (b"rollback", b"rollback and chain"):
                with pytest.raises(InboxError, match="rolled back the transaction"):
                    await leave_within(ID, statement)
            with pytest.raises(InboxError, match="committed the transaction"):
                await leave_within("other", b"commit", ValueError("after half of the writes"))
            async with same.event(own, ID) as new:
                assert new

    asyncio.run(run())
    assert written(database) == []
    assert not apply(Inbox("billing"), connection)


@pytest.mark.parametrize("size", [2604, 10_000])
def test_case_h15_an_event_id_that_no_index_can_hold_is_refused_with_the_limit(
    connection: Connection, database: str, inbox: Inbox, size: int
) -> None:
    long = "".join(random.choices("0123456789abcdefghijklmnopqrstuvwxyz", k=size))
    with pytest.raises(InboxError, match=f"the event id has {size} bytes; .* at most {LONGEST_ID - 7}") as refused:
        apply(inbox, connection, long)
    assert isinstance(refused.value, Rejected)
    assert apply(inbox, connection, long[: LONGEST_ID - len("billing")])
    assert not apply(inbox, connection, long[: LONGEST_ID - len("billing")])
    assert written(database) == ["once"]


@pytest.mark.parametrize("wrong", ["a\0b", "\ud800"])
def test_case_h15_an_event_id_that_postgresql_cannot_store_is_refused(
    connection: Connection, inbox: Inbox, wrong: str
) -> None:
    with pytest.raises(InboxError, match="the event id"):
        apply(inbox, connection, wrong)
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
