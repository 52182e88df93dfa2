"""PostgreSQL is changed while the publisher runs: it stops within seconds, and reports cause, rows and next steps."""

import contextlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc.local.postgres import PostgresServer
from cdc.lsn import LSN
from tests.pipeline import Pipeline, Running, Shop, eventually
from tests.torment import Torment
from tests.versions import OLD_POSTGRES

pytestmark = pytest.mark.timeout(240)

VERSIONS = pytest.mark.parametrize("binaries", [None, *OLD_POSTGRES], ids=str)
SECONDS_TO_STOP = 20.0


def _stops(running: Running) -> str:
    """Wait until the publisher exits with 1 within seconds, and return its last line."""
    eventually(lambda: running.process.poll() is not None, f"exit, after {running.messages()}", SECONDS_TO_STOP)
    assert running.wait() == 1, running.messages()
    assert running.count("Traceback") == 0
    return running.messages()[-1]


def _missing(pipeline: Pipeline) -> set[int]:
    """Numbers of the rows that are in the table or its predecessor, but not in the topics."""
    published = {record.value["seq"] for record in pipeline.records()}
    ((old,),) = pipeline.sql("select to_regclass('old_outbox')")
    tables = ["outbox", "old_outbox"] if old else ["outbox"]
    rows = [row for table in tables for row in pipeline.sql(f"select (payload ->> 'seq')::int from {table}")]
    return {seq for (seq,) in rows} - published


def _drop_publication(pipeline: Pipeline) -> None:
    pipeline.sql("drop publication cdc_publisher")


def _create_publication_again(pipeline: Pipeline) -> None:
    pipeline.sql("drop publication cdc_publisher; create publication cdc_publisher for table outbox")


def _take_table_out(pipeline: Pipeline) -> None:
    pipeline.sql("alter publication cdc_publisher drop table outbox")
    pipeline.insert(2)


def _publish_updates_only(pipeline: Pipeline) -> None:
    pipeline.sql("alter publication cdc_publisher set (publish = 'update')")
    pipeline.insert(2)


def _add_row_filter(pipeline: Pipeline) -> None:
    pipeline.sql("alter publication cdc_publisher set table outbox where (aggregateid <> 'k')")
    pipeline.insert(2)


def _swap_table(pipeline: Pipeline) -> None:
    pipeline.sql("alter table outbox rename to old_outbox; create table outbox (like old_outbox including all)")
    pipeline.insert(2)


@VERSIONS
@pytest.mark.parametrize(
    ("change", "told", "lost"),
    [
        pytest.param(_drop_publication, "publication cdc_publisher does not exist any more", set(), id="b4_dropped"),
        pytest.param(
            _create_publication_again, "publication cdc_publisher was dropped and created again", set(), id="b4_again"
        ),
        pytest.param(
            _take_table_out, "publication cdc_publisher has no table public.outbox any more", {2}, id="b5_table"
        ),
        pytest.param(_publish_updates_only, "publication cdc_publisher publishes no inserts now", {2}, id="b5_inserts"),
        pytest.param(
            _add_row_filter, "publication cdc_publisher got a row filter for table public.outbox", {2}, id="b5_filter"
        ),
        pytest.param(_swap_table, "table public.outbox was replaced by another of its name", {2}, id="b6_swapped"),
    ],
)
def test_stream_that_no_longer_receives_rows_ends_and_names_suspect_rows(
    shop: Shop, binaries: Path | None, change: Callable[[Pipeline], None], told: str, lost: set[int]
) -> None:
    _, pipeline = shop(binaries)
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    before = pipeline.wal_end()
    change(pipeline)
    after = pipeline.wal_end()
    last = _stops(running)
    assert told in last
    for step in ("compare the table with the topics", "publish again what is missing", "--accept-changes"):
        assert step in last
    found = re.search(r"rows committed between LSN (\S+) and (\S+),", last)
    assert found, last
    assert LSN.parse(found[1]) <= after
    assert LSN.parse(found[2]) > before
    assert _missing(pipeline) == lost


def test_b4_recreated_publication_is_accepted_only_on_request(shop: Shop) -> None:
    _, pipeline = shop()
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    _create_publication_again(pipeline)
    _stops(running)
    pipeline.insert(2)
    last = _stops(pipeline.start())
    assert "publication" in last
    assert "--accept-changes" in last
    running = pipeline.start("--accept-changes").streams()
    pipeline.settles()
    assert running.stop() == 0
    running = pipeline.start().streams()  # said once, it stays said
    assert running.stop() == 0
    assert len(pipeline.judge()) == 2


def _fill(pipeline: Pipeline) -> None:
    """Write more WAL than a slot limited to 1 MB may retain, and let a checkpoint invalidate it."""
    pipeline.sql("create table if not exists filler (n int)")
    for _ in range(6):
        pipeline.sql("insert into filler values (1)")
        pipeline.sql("select pg_switch_wal()")
    pipeline.sql("checkpoint")


def _wal_status(pipeline: Pipeline) -> Any:
    ((status,),) = pipeline.sql("select wal_status from pg_replication_slots")
    return status


@VERSIONS
def test_b2_slot_invalidated_while_inactive_ends_with_advice(shop: Shop, binaries: Path | None) -> None:
    _, pipeline = shop(binaries, max_slot_wal_keep_size="1MB", max_wal_size="32MB", min_wal_size="32MB")
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    confirmed = pipeline.confirmed()
    assert running.stop() == 0
    pipeline.insert(2)
    _fill(pipeline)
    assert _wal_status(pipeline) == "lost"
    for _ in range(2):  # and stays so, however often it is started
        last = _stops(pipeline.start())
        assert f"replication slot '{pipeline.slot}' is lost (" in last
        assert "events committed after LSN" in last
        assert last.endswith("run: cdc-publisher recover")
    (shown,) = re.findall(r"after LSN (\S+) are", last)
    assert LSN.parse(shown) >= confirmed
    assert _missing(pipeline) == {2}


def test_b2_slot_invalidated_during_a_kafka_outage_ends_with_advice(
    torment: Torment,
) -> None:
    stack, pipeline = torment(max_slot_wal_keep_size="1MB", max_wal_size="32MB", min_wal_size="32MB")
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    (broker,) = stack.brokers
    broker.freeze()
    try:
        pipeline.insert(2)
        held = pipeline.confirmed()
        _fill(pipeline)
        last = _stops(running)
    finally:
        broker.thaw()
    assert f"replication slot '{pipeline.slot}' is lost (" in last
    assert last.endswith("run: cdc-publisher recover")
    ((confirmed,),) = pipeline.sql("select confirmed_flush_lsn::text from pg_replication_slots")
    assert LSN.parse(confirmed) <= pipeline.wal_end()
    (shown,) = re.findall(r"after LSN (\S+) are", last)
    assert held <= LSN.parse(shown)
    assert _missing(pipeline) <= {2}


def test_b3_idle_timeout_is_logged_and_spares_only_an_active_slot(shop: Shop) -> None:
    _, pipeline = shop(idle_replication_slot_timeout="2s")
    running = pipeline.start().streams()
    assert running.count("idle_replication_slot_timeout is 2s") == 1
    pipeline.insert(1)
    pipeline.settles()
    time.sleep(2.5)
    pipeline.sql("checkpoint")
    pipeline.insert(2)
    pipeline.settles()
    assert running.count("streaming") == 1
    assert running.stop() == 0
    time.sleep(2.5)
    pipeline.sql("checkpoint")
    last = _stops(pipeline.start())
    assert f"replication slot '{pipeline.slot}' is lost (idle_timeout)" in last
    assert last.endswith("run: cdc-publisher recover")


def test_b18_server_without_a_free_walsender_is_waited_for(shop: Shop) -> None:
    server, pipeline = shop(max_wal_senders="1", max_connections="12")
    with psycopg.connect(make_conninfo(server.dsn, replication="database"), autocommit=True):
        running = pipeline.start().logs("max_wal_senders", times=2)
    running.streams()
    pipeline.insert(1)
    pipeline.settles()
    crowd: list[psycopg.Connection[Any]] = []

    def refused() -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            while True:  # also the place that the publisher just left
                crowd.append(psycopg.connect(server.dsn, autocommit=True))
        crowd[0].execute("select pg_terminate_backend(active_pid, 5000) from pg_replication_slots")
        return running.count("too many clients") >= 2

    try:
        eventually(refused, f"too many clients, in {running.messages()}")
    finally:
        for connection in crowd:
            connection.close()
    pipeline.insert(2)
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.judge()) == 2


def _require_password(server: PostgresServer, role: str) -> None:
    """Require a password of one role for new connections; other roles stay trusted."""
    hba = server.data / "pg_hba.conf"
    hba.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("select pg_reload_conf()")


@VERSIONS
def test_b20_changed_password_is_retried_before_the_publisher_exits(shop: Shop, binaries: Path | None) -> None:
    server, pipeline = shop(binaries)
    pipeline.sql("create role publisher login replication password 'first'")
    _require_password(server, "publisher")
    pipeline.settings["postgres"]["dsn"] = make_conninfo(pipeline.dsn, user="publisher", password="first")
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    hang_up = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'publisher'"
    pipeline.sql("alter role publisher password 'second'")
    pipeline.sql(hang_up)
    running.logs("password authentication failed")
    pipeline.sql("alter role publisher password 'first'")
    running.logs("streaming", times=2)
    pipeline.insert(2)
    pipeline.settles()
    pipeline.sql("alter role publisher password 'third'")
    pipeline.sql(hang_up)
    assert running.wait() == 1
    assert "password authentication failed" in running.messages()[-1]
    assert "check the user and the password in [postgres] dsn" in running.messages()[-1]
    assert not any("first" in message for message in running.messages())
    assert "password authentication failed" in _stops(pipeline.start())  # never accepted: at once


def test_b12_failover_slot_is_created_with_a_warning_unless_a_standby_is_waited_for(shop: Shop) -> None:
    _, pipeline = shop()
    assert pipeline.run("slot", "drop", "--yes").returncode == 0
    assert pipeline.run("slot", "create", "--failover").returncode == 0
    (listed,) = json.loads(pipeline.run("slot", "list", "--json").stdout)
    assert (listed["failover"], listed["synced"]) == (True, False)
    assert "failover" in pipeline.run("slot", "list").stdout
    running = pipeline.start().streams()
    assert running.count("synchronized_standby_slots is empty") == 1
    assert running.stop() == 0
