"""`check` reports problems of a server's settings, WAL and standbys; the fix that it prints solves the problem."""

import contextlib
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc.local.postgres import PostgresServer
from tests.integration.checking import (
    altered,
    check,
    copied,
    database,
    fixed,
    own_address,
    reported,
    restarted,
    sandbox,
    shell,
)
from tests.pipeline import Pipeline, eventually, prepare
from tests.produced import produces
from tests.servers import Servers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server of this module, which tests reconfigure and restart."""
    with sandbox(tmp_path_factory.mktemp("sandbox")) as server:
        yield server


@pytest.fixture
def outbox(server: PostgresServer, servers: Servers, tmp_path: Path) -> Iterator[Pipeline]:
    """A pipeline in a new database of that server, without table, publication and slot."""
    with database(server, servers.kafka, tmp_path) as pipeline:
        yield pipeline


@produces("wal_level:fail", "replication_slots:fail", "wal_senders:fail")
def test_printed_fixes_configure_a_new_server(server: PostgresServer, outbox: Pipeline) -> None:
    altered(server, wal_level="replica")
    found = check(outbox)
    assert (found["wal_level"].status, "'replica'" in found["wal_level"].found) == ("fail", True)
    assert found["wal_level"].hint == "then restart PostgreSQL"
    for statement in found["wal_level"].fix:
        outbox.sql(statement)
    restarted(server)
    assert check(outbox)["wal_level"].status == "pass"
    prepare(outbox)

    altered(server, max_replication_slots="1", max_wal_senders="1")
    taken = f"{outbox.slot}_x"[:63]
    outbox.settings["postgres"]["slot"] = taken
    with contextlib.closing(
        psycopg.connect(outbox.dsn, application_name="walreceiver", replication="database", autocommit=True)
    ):
        found = check(outbox)
        assert found["direct_connection"].status == "fail"
        for name, phrase in (("replication_slots", "1 of 1 in use"), ("wal_senders", "1 of 1 in use")):
            assert (found[name].status, phrase in found[name].found) == ("fail", True), found[name]
            for statement in found[name].fix:
                outbox.sql(statement)
    restarted(server)
    found = check(outbox)
    assert [found[name].status for name in ("replication_slots", "wal_senders", "direct_connection")] == ["pass"] * 3


@produces("wal_sender_timeout:warn", "idle_slot_timeout:warn", "slot_wal_limit:warn")
def test_settings_that_risk_the_slot_or_the_disk_are_reported(server: PostgresServer, outbox: Pipeline) -> None:
    altered(
        server,
        wal_level="logical",
        wal_sender_timeout="0",
        idle_replication_slot_timeout="1h",
        max_slot_wal_keep_size="-1",
    )
    prepare(outbox)
    fixed(outbox, "wal_sender_timeout", "warn", "wal_sender_timeout is 0")
    fixed(outbox, "idle_slot_timeout", "warn", "idle_replication_slot_timeout is 1h")
    fixed(outbox, "slot_wal_limit", "warn", "max_slot_wal_keep_size is -1")


@produces("retained_wal:warn", "other_slots:warn", "replication_slot:fail")
def test_retained_wal_is_reported_before_and_after_the_slot_is_lost(server: PostgresServer, outbox: Pipeline) -> None:
    altered(server, wal_level="logical", max_wal_size="32MB", min_wal_size="32MB", max_slot_wal_keep_size="-1")
    prepare(outbox)
    outbox.sql("select pg_create_physical_replication_slot('abandoned', true)")
    _write_wal(outbox, 5)
    line = check(outbox)["retained_wal"]
    assert (line.status, "more than max_wal_size" in line.found, line.fix) == (
        "warn",
        True,
        [f"cdc-publisher --config {outbox.folder}/cdc-publisher.toml start"],
    )
    running = outbox.start().streams()
    outbox.settles()
    assert running.stop() == 0
    fixed(outbox, "other_slots", "warn", "abandoned (retains")

    limit = int(_slot(outbox, "(pg_current_wal_lsn() - restart_lsn) / 1048576")[0]) + 64
    _limit(outbox, limit)
    while _slot(outbox, "safe_wal_size")[0] * 5 >= limit << 20:  # `check` warns below a fifth
        outbox.sql("select pg_logical_emit_message(false, 'filler', repeat('x', 1000000))")
    line = check(outbox)["retained_wal"]
    assert (line.status, "more it invalidates the slot" in line.found) == ("warn", True)
    copied(outbox, line.fix)
    eventually(lambda: "invalidates the slot" not in check(outbox)["retained_wal"].found, "the limit is raised")
    assert outbox.start().streams().stop() == 0
    _limit(outbox, 16)
    _write_wal(outbox, 3)
    fixed(outbox, "replication_slot", "fail", "is lost")
    assert check(outbox)["slot_identity"].status == "pass"


def _slot(pipeline: Pipeline, expression: str) -> tuple[Any, ...]:
    (found,) = pipeline.sql(f"select {expression} from pg_replication_slots where slot_name = %s", pipeline.slot)
    return found


def _limit(pipeline: Pipeline, megabytes: int) -> None:
    pipeline.sql(f"alter system set max_slot_wal_keep_size = '{megabytes}MB'")
    pipeline.sql("select pg_reload_conf()")
    eventually(lambda: pipeline.sql("show max_slot_wal_keep_size") == [(f"{megabytes}MB",)], "the limit holds")


def _write_wal(pipeline: Pipeline, segments: int) -> None:
    """Write WAL until `segments` segments of 16 MB are complete."""
    with pipeline.connect() as connection:
        for _ in range(segments):
            connection.execute("select pg_logical_emit_message(false, 'filler', repeat('x', 100000))")
            connection.execute("select pg_switch_wal()")
        connection.execute("checkpoint")


@produces("failover_slot:warn")
def test_failover_slot_is_compared_with_standbys(server: PostgresServer, outbox: Pipeline) -> None:
    altered(server, wal_level="logical", synchronized_standby_slots="")
    prepare(outbox, "--failover")
    reported(outbox, "failover_slot", "warn", "synchronized_standby_slots is empty")
    outbox.sql("select pg_create_physical_replication_slot('standby_1', true)")
    standby = psycopg.connect(server.dsn, replication="true", autocommit=True)
    with contextlib.closing(standby):
        ((begin,),) = outbox.sql("select restart_lsn::text from pg_replication_slots where slot_name = 'standby_1'")
        standby.pgconn.exec_(f'START_REPLICATION SLOT "standby_1" PHYSICAL {begin}'.encode())
        fixed(outbox, "failover_slot", "warn", "synchronized_standby_slots is empty")
        outbox.sql("select pg_drop_replication_slot(%s)", outbox.slot)
        assert outbox.run("slot", "create").returncode == 0
        fixed(outbox, "failover_slot", "warn", "there is a standby (standby_1)")
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where active")
        admin.execute("select pg_drop_replication_slot('standby_1')")


@produces("postgres_tls:warn")
def test_unencrypted_remote_connection_is_a_warning(server: PostgresServer, outbox: Pipeline) -> None:
    altered(server, wal_level="logical", listen_addresses="*")
    address = own_address()
    server.settings["listen_addresses"] = "*"
    restarted(server)
    try:
        outbox.settings["postgres"]["dsn"] = make_conninfo(outbox.dsn, host=address)
        line = check(outbox)["postgres_reachable"]
        assert (line.status, "no pg_hba.conf entry" in line.found) == ("fail", True)
        (command,) = line.fix
        with_trust = command.replace("scram-sha-256", "trust")  # the sandbox has no passwords
        outbox.settings["postgres"]["dsn"] = outbox.dsn
        shell(outbox, with_trust, server.dsn)
        outbox.settings["postgres"]["dsn"] = make_conninfo(outbox.dsn, host=address)
        found = check(outbox)
        assert found["postgres_reachable"].status == "pass"
        assert (found["postgres_tls"].status, f"to {address} is not encrypted" in found["postgres_tls"].found) == (
            "warn",
            True,
        )
    finally:
        server.settings.pop("listen_addresses")
        restarted(server)


@produces("postgres_primary:fail")
def test_standby_is_a_failure(server: PostgresServer, outbox: Pipeline) -> None:
    altered(server, wal_level="logical")
    prepare(outbox)
    server.stop()
    signal = server.data / "standby.signal"
    signal.touch()
    server.start()
    try:
        line = reported(outbox, "postgres_primary", "fail", "the server is a standby")
        assert line.hint == "point [postgres] dsn to the primary"
    finally:
        server.stop()
        signal.unlink()
        server.start()
    assert check(outbox)["postgres_primary"].status == "pass"


def test_case_h11_check_runs_as_a_user_without_an_account_and_a_home(
    outbox: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers often run as a number that no passwd file names."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(RuntimeError, match="home directory"):
        Path.home()
    found = check(outbox)
    assert found["postgres_reachable"].status == "pass"
    assert found["outbox_table"].status == "fail"
