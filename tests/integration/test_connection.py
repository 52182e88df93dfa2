"""Several hosts, standbys and databases that are not ours: the primary is found, or what is wrong is told."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc.config.settings import Settings
from cdc.errors import PostgresError, PostgresRefused, PostgresUnavailable
from cdc.local.postgres import PostgresServer
from cdc.postgres import catalog, slots
from cdc.postgres import outbox_table as table
from cdc.postgres.connection import connect, snapshot
from tests.pipeline import Pipeline
from tests.servers import Servers, a_database, a_folder, a_postgres
from tests.versions import OLD_POSTGRES

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", params=[None, *OLD_POSTGRES], ids=str)
def servers_of_module(request: pytest.FixtureRequest) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    with a_folder() as home, a_postgres(home, request.param) as primary:
        standby = PostgresServer(home / "standby", binaries=request.param)
        primary.stop()
        standby.home.mkdir(mode=0o755)
        subprocess.run(["cp", "-a", str(primary.data), str(standby.home / "data")], check=True)
        (standby.data / "standby.signal").touch()
        try:
            standby.start()
            yield primary, standby
        finally:
            standby.purge()


@pytest.fixture
def pair(servers_of_module: tuple[PostgresServer, PostgresServer]) -> tuple[PostgresServer, PostgresServer]:
    """A primary, which may be stopped, and a standby that was made of it and does not follow it."""
    servers_of_module[0].start()
    return servers_of_module


def _several(*servers: PostgresServer, **parameters: str) -> str:
    ports = ",".join(str(server.port) for server in servers)
    hosts = ",".join("127.0.0.1" for _ in servers)
    return make_conninfo(host=hosts, port=ports, user="postgres", dbname="postgres", **parameters)


def test_b14_of_several_hosts_the_primary_is_taken_and_waited_for_while_there_is_none(
    pair: tuple[PostgresServer, PostgresServer],
) -> None:
    primary, standby = pair
    dsn = _several(standby, primary)
    with connect(dsn) as connection:
        assert connection.info.port == primary.port
        catalog.server(connection)
    with connect(dsn, replication="database") as connection:
        assert connection.info.port == primary.port
    primary.stop()
    for order in (dsn, _several(primary, standby)):
        with pytest.raises(PostgresUnavailable) as raised:
            connect(order)
        assert raised.value.hint == "none of the hosts in [postgres] dsn is a primary that answers"
        assert "server is in hot standby mode" in raised.value.message
        assert "refused" in raised.value.message
    with connect(_several(standby, target_session_attrs="any")) as connection:
        assert connection.info.port == standby.port  # what was asked for wins


def test_text_does_not_depend_on_settings_of_database_environment_or_dsn(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {
        "datestyle": "German",
        "intervalstyle": "iso_8601",
        "timezone": "Asia/Tokyo",
        "bytea_output": "escape",
        "extra_float_digits": "-15",
    }
    with connect(database) as connection:
        for name, value in odd.items():
            connection.execute(f"alter database {connection.info.dbname} set {name} = '{value}'".encode())
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGDATESTYLE", "German")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    expected = "2026-01-31 17:45:00+00 1 day 02:00:00 \\x6d69 0.1234567890123456 é off"
    statement = (
        "select concat_ws(' ', timestamptz '2026-01-31 17:45:00 UTC', interval '1 day 2 hours',"
        " '\\x6d69'::bytea, 0.1234567890123456::float8, 'é', current_setting('row_security'))"
    )
    for dsn in (database, make_conninfo(database, options="-c timezone=Asia/Tokyo", client_encoding="LATIN1")):
        with connect(dsn) as connection:
            assert connection.execute(statement.encode()).fetchone() == (expected,)
        with connect(dsn, replication="database") as connection:
            assert connection.pgconn.exec_(statement.encode()).get_value(0, 0) == expected.encode()


def test_b14_a_standby_alone_is_told(pair: tuple[PostgresServer, PostgresServer]) -> None:
    _, standby = pair
    with connect(standby.dsn) as connection:
        with pytest.raises(PostgresError, match="the server is a standby; point"):
            catalog.server(connection)
        assert slots.find(connection) == []  # can be listed there, too
    with pytest.raises(PostgresUnavailable, match="is no primary"):
        connect(make_conninfo(standby.dsn, target_session_attrs="read-write"))


def test_b14_a_database_that_is_not_there_is_told_of_all_hosts_and_of_one(
    pair: tuple[PostgresServer, PostgresServer],
) -> None:
    for servers in (pair, pair[:1]):
        with pytest.raises(PostgresRefused, match='database "shop" does not exist'):
            connect(make_conninfo(_several(*servers), dbname="shop"))


def test_b14_a_slot_of_another_database_is_told(servers: Servers, database: str) -> None:
    with a_database(servers.dsn) as elsewhere:
        with connect(elsewhere) as connection:
            name = connection.info.dbname
            slots.create(connection, f"slot_{name}")
        settings = Settings.model_validate({"postgres": {"dsn": database, "slot": f"slot_{name}"}})
        with connect(database) as connection:
            table.execute(connection, table.missing(connection, settings))
            with pytest.raises(PostgresError, match=f"belongs to database '{name}'"):
                catalog.inspect(connection, settings)


def test_case_c4_of_several_hosts_a_primary_whose_transactions_are_read_only_by_default_is_taken(
    pair: tuple[PostgresServer, PostgresServer], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    primary, standby = pair
    with psycopg.connect(primary.dsn, autocommit=True) as admin:
        admin.execute("alter system set default_transaction_read_only = on")
        admin.execute("select pg_reload_conf()")
    services = folder / "services"
    services.write_text(f"[shop]\nhost=127.0.0.1,127.0.0.1\nport={standby.port},{primary.port}\nuser=postgres\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    for dsn in (_several(standby, primary), _several(primary, standby), "service=shop dbname=postgres"):
        with connect(dsn) as connection:
            assert connection.info.port == primary.port
            connection.execute("create table public.made (n int)")
            connection.execute("drop table public.made")
        with connect(dsn, replication="database") as connection:
            assert connection.info.port == primary.port
    monkeypatch.setenv("PGHOST", "127.0.0.1,127.0.0.1")
    monkeypatch.setenv("PGPORT", f"{standby.port},{primary.port}")
    with connect("user=postgres dbname=postgres") as connection:
        assert connection.info.port == primary.port
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "any")
    with connect("user=postgres dbname=postgres") as connection:
        assert connection.info.port == standby.port  # what was asked for wins
    with pytest.raises(PostgresUnavailable) as raised:
        connect(_several(standby, primary, target_session_attrs="read-write"))
    assert "needs target_session_attrs=primary" in raised.value.hint
    with psycopg.connect(primary.dsn, autocommit=True) as admin:
        admin.execute("alter system reset default_transaction_read_only")
        admin.execute("select pg_reload_conf()")


@pytest.mark.parametrize("value", ["database", "true", "off", "maybe"])
def test_case_c5_replication_in_the_dsn_is_left_to_each_connection(pipeline: Pipeline, value: str) -> None:
    pipeline.settings["postgres"]["dsn"] = make_conninfo(pipeline.dsn, replication=value)
    assert pipeline.run("config", "validate").returncode == 0
    assert pipeline.run("slot", "list").returncode == 0
    pipeline.insert(1)
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.judge()) == 1


@pytest.mark.parametrize(
    ("parameters", "environment", "reason"),
    [
        ({"port": "notaport"}, {}, "invalid integer value"),
        ({"sslmode": "bogus"}, {}, "invalid sslmode value"),
        ({"service": "unknown"}, {}, 'definition of service "unknown" not found'),
        ({}, {"PGTARGETSESSIONATTRS": "bogus"}, "invalid target_session_attrs value"),
        ({"keepalives": "x"}, {}, "invalid integer value"),
    ],
)
def test_case_h10_what_libpq_refuses_ends_with_78_and_config_validate_says_so(
    bare_pipeline: Pipeline, parameters: dict[str, str], environment: dict[str, str], reason: str
) -> None:
    bare_pipeline.settings["postgres"]["dsn"] = make_conninfo(bare_pipeline.dsn, **parameters)
    for command in (("config", "validate"), ("slot", "list")):
        done = bare_pipeline.run(*command, **environment)
        assert done.returncode == 78
        assert reason in done.stderr
    done = bare_pipeline.run_process("start", **environment)
    assert done.returncode == 78
    assert "correct [postgres] dsn" in done.stderr


@pytest.mark.parametrize(
    ("parameters", "environment", "reason"),
    [
        ({}, {"PGTZ": "Mars"}, 'invalid value for parameter "TimeZone"'),
        ({}, {"PGOPTIONS": "-c shared_buffers=1"}, 'parameter "shared_buffers" cannot be changed'),
        ({"options": "-c nothing=1"}, {}, "unrecognized configuration parameter"),
        ({"require_auth": "scram-sha-256"}, {}, 'authentication method requirement "scram-sha-256" failed'),
        ({"channel_binding": "require"}, {}, "channel binding required"),
    ],
)
def test_case_h10_what_a_server_refuses_of_the_start_up_packet_ends_with_78(
    bare_pipeline: Pipeline, parameters: dict[str, str], environment: dict[str, str], reason: str
) -> None:
    bare_pipeline.settings["postgres"]["dsn"] = make_conninfo(bare_pipeline.dsn, **parameters)
    done = bare_pipeline.run_process("start", **environment)
    assert done.returncode == 78
    assert reason in done.stderr


def test_case_h2_an_unknown_client_encoding_is_overridden(pipeline: Pipeline) -> None:
    pipeline.settings["postgres"]["dsn"] = make_conninfo(pipeline.dsn, client_encoding="KLINGON")
    assert pipeline.run("slot", "list", PGCLIENTENCODING="KLINGON").returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        "alter table outbox alter column payload type json",
        "vacuum full outbox_part",
        "truncate outbox",
    ],
)
def test_a_snapshot_of_before_a_rewrite_does_not_show_an_empty_table(database: str, change: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection, connect(database) as reader:
        connection.execute("create table outbox (payload jsonb)")
        connection.execute("create table outbox_part () inherits (outbox)")
        connection.execute("insert into outbox select '{}'")
        with snapshot(reader, "reading", table=("public", "outbox")):
            assert reader.execute("select count(*) from public.outbox").fetchone() == (1,)
        with psycopg.connect(database) as exporting:
            exporting.execute("set transaction isolation level repeatable read")
            ((name,),) = exporting.execute("select pg_export_snapshot()").fetchall()
            with snapshot(reader, "reading", name, table=("public", "outbox")):
                assert reader.execute("select count(*) from public.outbox").fetchone() == (1,)
            connection.execute(change)
            with (
                pytest.raises(PostgresUnavailable, match=r"reading: table public\.outbox was rewritten or truncated"),
                snapshot(reader, "reading", name, table=("public", "outbox")),
            ):
                pass
