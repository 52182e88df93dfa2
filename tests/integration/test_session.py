"""What a session of PostgreSQL depends on and waits for: locks of others are reported, and no wait is without end."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.errors import Locked, PostgresUnavailable
from cdc.postgres.connection import connect, query
from cdc.postgres.session import PostgresSession
from tests.pipeline import Pipeline
from tests.pooler import pooler
from tests.servers import PostgresOf
from tests.versions import OLD_POSTGRES

pytestmark = pytest.mark.timeout(180)


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
    module_postgres: PostgresOf, caplog: pytest.LogCaptureFixture
) -> None:
    dsn = module_postgres(None).dsn
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
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("rollback prepared 'order 7'")


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


ODD = {
    "DateStyle": "German",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Tokyo",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "search_path": "nowhere",
    "quote_all_identifiers": "on",
    "row_security": "on",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "client_min_messages": "error",
    "exit_on_error": "on",
    "idle_in_transaction_session_timeout": "1h",
    "idle_session_timeout": "1h",
    "statement_timeout": "1h",
    "lock_timeout": "1h",
}
SINCE_17 = {"transaction_timeout": "1h"}


@pytest.mark.parametrize("binaries", [None, *OLD_POSTGRES], ids=str)
@pytest.mark.parametrize("source", ["database", "role", "options", "PGOPTIONS"])
@pytest.mark.parametrize("user", ["postgres", "replicator"])
def test_case_c1_c2_a_session_does_not_depend_on_settings_made_elsewhere(
    module_postgres: PostgresOf,
    monkeypatch: pytest.MonkeyPatch,
    binaries: Path | None,
    source: str,
    user: str,
) -> None:
    dsn = module_postgres(binaries).dsn
    with psycopg.connect(dsn, autocommit=True) as admin:
        name = f"odd_{source.lower()}_{user}"
        admin.execute(f"create database {name}".encode())
        admin.execute("drop role if exists replicator")
        admin.execute("create role replicator login replication")
        odd = ODD | (SINCE_17 if admin.info.server_version >= 170000 else {})
        if source in ("database", "role"):
            place = f"database {name}" if source == "database" else f"role {user} in database {name}"
            for setting, value in odd.items():
                admin.execute(f"alter {place} set {setting} = '{value}'".encode())
    options = " ".join(f"-c {setting}={value}" for setting, value in odd.items())
    dsn = make_conninfo(dsn, dbname=name, user=user)
    if source == "options":
        dsn = make_conninfo(dsn, options=options)
    elif source == "PGOPTIONS":
        monkeypatch.setenv("PGOPTIONS", options)
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with psycopg.connect(dsn) as plain:
        found = {setting: plain.execute(f"show {setting}".encode()).fetchall()[0][0] for setting in odd}
        assert {setting: value.split(",")[0] for setting, value in found.items()} == odd
    for replicates in (False, True):
        with connect(dsn, replication="database") if replicates else connect(dsn) as connection:
            kept = {setting: _shown(connection, setting) for setting in (*odd, "client_encoding")}
            limits = ("0", "0") if replicates else ("5s", "20s")
            assert (kept.pop("lock_timeout"), kept.pop("statement_timeout")) == limits
            assert kept == {setting: EXPECTED[setting] for setting in kept}


EXPECTED = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, DMY",  # the order of the German style stays: ISO does not show it
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "search_path": "pg_catalog",
    "quote_all_identifiers": "off",
    "row_security": "off",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "client_min_messages": "warning",
    "exit_on_error": "off",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
}


def _shown(connection: PostgresSession, setting: str) -> str:
    return (connection.command(f"show {setting}".encode()).get_value(0, 0) or b"").decode()


def test_case_c1_a_connection_of_a_pooler_is_left_as_it_was(module_postgres: PostgresOf, folder: Path) -> None:
    dsn = module_postgres(None).dsn
    upstream = int(str(conninfo_to_dict(dsn)["port"]))
    with pooler("stand-in", upstream, folder) as port, connect(make_conninfo(dsn, port=port)) as connection:
        found = {setting: _shown(connection, setting) for setting in ("search_path", "lock_timeout", "row_security")}
    assert found == {"search_path": '"$user", public', "lock_timeout": "0", "row_security": "on"}


def test_case_c2_a_superuser_session_resets_what_only_superusers_may(database: str) -> None:
    dsn = make_conninfo(database, options="-c session_replication_role=replica -c lc_messages=POSIX")
    with connect(dsn) as connection:
        assert _shown(connection, "session_replication_role") == "origin"
        assert _shown(connection, "lc_messages") == "C"


def test_case_c2_an_event_trigger_finds_its_tables_while_the_outbox_is_created(bare_pipeline: Pipeline) -> None:
    bare_pipeline.sql("create table changes (tag text)")
    bare_pipeline.sql(
        "create function note() returns event_trigger language plpgsql as"
        " $$ begin insert into changes values (tg_tag); end $$"
    )
    bare_pipeline.sql("create event trigger noting on ddl_command_end execute function note()")
    done = bare_pipeline.run("outbox", "init")
    assert done.returncode == 0, done.stderr
    assert ("CREATE TABLE",) in bare_pipeline.sql("select tag from changes")


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_case_c1_h2_text_goes_out_in_utf8_whatever_encoding_the_dsn_names(pipeline: Pipeline, guarantee: str) -> None:
    pipeline.settings["postgres"]["dsn"] = make_conninfo(pipeline.dsn, client_encoding="LATIN1")
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    pipeline.settings["outbox"] = {"headers": ["note"]}
    pipeline.sql("alter table outbox add column note text")
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload, note) values"
        """ ('note', 'café 日本', 'Noted', '{"seq": 1, "text": "Ã© 日本"}', 'Ã©')"""
    )
    running = pipeline.start("--accept-changes").streams()
    pipeline.settles()
    assert running.stop() == 0
    (record,) = pipeline.judge()
    assert (record.key, record.value["text"], record.header("note")) == ("café 日本", "Ã© 日本", "Ã©")
