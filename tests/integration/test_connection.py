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
from cdc.outbox.topic_template import TopicTemplate
from cdc.postgres import catalog, slots
from cdc.postgres import outbox_table as table
from cdc.postgres.connection import connect
from tests.servers import PrivatePostgres
from tests.versions import OLD_POSTGRES

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=[None, *OLD_POSTGRES], ids=str)
def pair(
    request: pytest.FixtureRequest, private_postgres: PrivatePostgres, folder: Path
) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary, and a standby that was made of it."""
    binaries = request.param
    primary = private_postgres(binaries=binaries)
    standby = PostgresServer(folder / "standby", binaries=binaries)
    primary.stop()
    standby.home.mkdir(mode=0o755)
    subprocess.run(["cp", "-a", str(primary.data), str(standby.home / "data")], check=True)
    (standby.data / "standby.signal").touch()
    try:
        primary.start()
        standby.start()
        yield primary, standby
    finally:
        standby.purge()


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
        assert "session is read-only" in raised.value.message
        assert "refused" in raised.value.message
    with connect(_several(standby, target_session_attrs="any")) as connection:
        assert connection.info.port == standby.port  # what was asked for wins


def test_text_does_not_depend_on_settings_of_database_environment_or_dsn(
    private_postgres: PrivatePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = private_postgres()
    odd = {
        "datestyle": "German",
        "intervalstyle": "iso_8601",
        "timezone": "Asia/Tokyo",
        "bytea_output": "escape",
        "extra_float_digits": "-15",
    }
    with connect(server.dsn) as connection:
        for name, value in odd.items():
            connection.execute(f"alter database postgres set {name} = '{value}'".encode())
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGDATESTYLE", "German")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    expected = "2026-01-31 17:45:00+00 1 day 02:00:00 \\x6d69 0.1234567890123456 é off"
    statement = (
        "select concat_ws(' ', timestamptz '2026-01-31 17:45:00 UTC', interval '1 day 2 hours',"
        " '\\x6d69'::bytea, 0.1234567890123456::float8, 'é', current_setting('row_security'))"
    )
    for dsn in (server.dsn, make_conninfo(server.dsn, options="-c timezone=Asia/Tokyo", client_encoding="LATIN1")):
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


def test_b14_a_slot_of_another_database_is_told(private_postgres: PrivatePostgres) -> None:
    server = private_postgres()
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("create database elsewhere")
    with connect(make_conninfo(server.dsn, dbname="elsewhere")) as connection:
        slots.create(connection, "cdc_publisher")
    settings = Settings.model_validate({"postgres": {"dsn": server.dsn}})
    with connect(server.dsn) as connection:
        table.execute(connection, table.missing(connection, settings))
        with pytest.raises(PostgresError, match="belongs to database 'elsewhere'"):
            catalog.inspect(connection, settings, settings.outbox.parts, TopicTemplate(settings.topics.name))
