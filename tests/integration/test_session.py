"""What a session of PostgreSQL depends on and waits for: locks of others are reported, and no wait is without end."""

import contextlib
import signal
from collections.abc import Iterator

import psycopg
import pytest

from cdc.errors import Locked, PostgresUnavailable
from cdc.postgres.connection import connect, query
from tests.pipeline import Pipeline
from tests.servers import PrivatePostgres

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def private_prepared(private_postgres: PrivatePostgres) -> str:
    """The DSN of a server with prepared transactions."""
    return private_postgres({"max_prepared_transactions": "5"}).dsn


@contextlib.contextmanager
def held(dsn: str, *statements: str, end: str = "rollback") -> Iterator[int]:
    """Run statements in an open transaction, as `psql` would; yield the pid of its process."""
    with psycopg.connect(dsn, autocommit=True, application_name="psql") as other:
        other.execute("begin")
        for statement in statements:
            other.execute(statement.encode())
        yield other.info.backend_pid
        other.execute(end.encode())


def test_case_c3_start_streams_while_another_session_locks_the_outbox_or_another_table(pipeline: Pipeline) -> None:
    pipeline.sql("create table elsewhere (n int)")
    pipeline.sql("drop publication cdc_publisher")
    pipeline.sql("create publication cdc_publisher for all tables")
    pipeline.sql(f"select pg_drop_replication_slot('{pipeline.slot}')")
    pipeline.sql(f"select pg_create_logical_replication_slot('{pipeline.slot}', 'pgoutput')")
    pipeline.insert(1, 2)
    lock = "lock table outbox, elsewhere in access exclusive mode"
    with held(pipeline.dsn, lock):
        running = pipeline.start("--accept-changes").streams()
        pipeline.settles()
        status = pipeline.run("status", "--json")
        assert status.returncode == 0, status.stderr
    assert running.stop() == 0
    assert len(pipeline.judge()) == 2


def test_case_c3_start_reports_who_blocks_it_and_goes_on_when_the_lock_is_released(pipeline: Pipeline) -> None:
    pipeline.settings["delivery"] = {"startup_seconds": 1}  # the server was reached: locks do not count
    pipeline.insert(1)
    with held(pipeline.dsn, "lock table pg_publication in access exclusive mode") as pid:
        running = pipeline.start().logs("canceling statement due to lock timeout")
        line = next(line for line in running.log if line.get("event") == "waiting_for_lock")
        assert f"a lock on pg_catalog.pg_publication, held by process {pid} (role postgres, psql" in line["message"]
        assert line["pids"] == [pid]
    running.streams()
    pipeline.settles()
    assert running.stop() == 0


def test_case_c3_sigterm_ends_a_publisher_that_waits_for_a_lock(pipeline: Pipeline) -> None:
    with held(pipeline.dsn, "lock table pg_publication in access exclusive mode"):
        running = pipeline.start().logs("waiting for a lock")
        running.signal(signal.SIGTERM)
        assert running.wait() == 0


def test_case_c3_every_statement_has_limits_and_its_error_names_the_blocker(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("create table busy (n int)")
    with held(database, "lock table busy") as pid, connect(database, lock_seconds=1.5) as connection:
        with pytest.raises(Locked, match=rf"public\.busy, held by process {pid} \(role postgres, psql, idle in trans"):
            query(connection, "reading", "select from public.busy")
        assert "waiting for a lock on public.busy" in caplog.text
    with connect(database, statement_seconds=0.2) as connection:
        with pytest.raises(PostgresUnavailable, match="statement timeout"):
            query(connection, "sleeping", "select pg_sleep(60)")
        assert query(connection, "asking", "select 1") == [(1,)]


def test_case_c3_a_prepared_transaction_that_holds_a_lock_is_named(
    private_prepared: str, caplog: pytest.LogCaptureFixture
) -> None:
    dsn = private_prepared
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("create table busy (n int)")
        for statement in ("begin", "lock table busy", "prepare transaction 'order 7'"):
            admin.execute(statement.encode())
    with (
        connect(dsn, lock_seconds=1.5) as connection,
        pytest.raises(Locked, match="held by prepared transaction order"),
    ):
        query(connection, "reading", "select from public.busy")
    assert "public.busy, held by prepared transaction order 7" in caplog.text


def test_case_c3_a_server_that_stops_replying_ends_the_wait_of_a_statement(database: str) -> None:
    with connect(database) as connection:
        connection.patience = 1.0
        connection.observer = None
        with pytest.raises(PostgresUnavailable, match="has not replied for 1 s"):
            query(connection, "sleeping", "select pg_sleep(60)")
        assert connection.closed
    with connect(database, replication="database") as connection:
        connection.patience = 1.0
        with pytest.raises(psycopg.OperationalError, match="has not replied"):
            connection.command(b"select pg_sleep(60)")
