"""Slots that others made or read, on servers of each version: the property is named, and its fix works as printed."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cdc.postgres import slots
from cdc.postgres.connection import connect
from tests.integration.checking import check, copied
from tests.integration.test_session import held
from tests.pipeline import Pipeline, eventually, make_pipeline, prepare
from tests.produced import produces
from tests.servers import PostgresOf, PrivatePostgres, Servers, a_database
from tests.standby import PrivatePair
from tests.versions import OLD_POSTGRES

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=[None, *OLD_POSTGRES], ids=str)
def outbox(
    request: pytest.FixtureRequest,
    module_postgres: PostgresOf,
    servers: Servers,
    topic_prefix: str,
    tmp_path: Path,
) -> Iterator[Pipeline]:
    """A pipeline on the module's server of each version."""
    with a_database(module_postgres(request.param).dsn) as dsn:
        made = make_pipeline(dsn, servers.kafka, topic_prefix, tmp_path)
        yield prepare(made)
        made.close()


def _again(outbox: Pipeline, *arguments: str) -> None:
    """Make the slot anew, with other arguments."""
    outbox.sql("select pg_drop_replication_slot(%s)", outbox.slot)
    outbox.sql(f"select pg_create_logical_replication_slot('{outbox.slot}', {', '.join(arguments)})")


def _prepared(outbox: Pipeline, *statements: str) -> None:
    with psycopg.connect(outbox.dsn, autocommit=True) as connection:
        for statement in ("begin", *statements, "prepare transaction 'order 7'"):
            connection.execute(statement.encode())


_INSERT = "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Noted', '{\"seq\": 1}')"


def test_case_c6_a_two_phase_slot_is_refused_and_its_fix_brings_the_events(outbox: Pipeline) -> None:
    _again(outbox, "'pgoutput'", "false", "true")
    _prepared(outbox, _INSERT)
    done = outbox.run_process("start", "--accept-changes")
    assert done.returncode == 1
    assert f"replication slot '{outbox.slot}' was created with two_phase" in done.stderr
    line = check(outbox)["replication_slot"]
    assert line.status == "fail"
    assert "was created with two_phase" in line.found
    alters = outbox.sql("show server_version_num")[0][0] >= "180000"
    assert ("TWO_PHASE false" in line.fix[0]) == alters
    outbox.sql("commit prepared 'order 7'")
    copied(outbox, line.fix)
    assert alters or line.fix[-1].endswith(" recover")
    running = outbox.start("--accept-changes").streams()
    outbox.settles()
    assert running.stop() == 0
    assert [record.value["seq"] for record in outbox.records()] == [1]


def test_case_c6_a_temporary_slot_is_refused_and_named(outbox: Pipeline) -> None:
    outbox.sql("select pg_drop_replication_slot(%s)", outbox.slot)
    with psycopg.connect(outbox.dsn, autocommit=True) as owner:
        owner.execute("select pg_create_logical_replication_slot(%s, 'pgoutput', true)", [outbox.slot])
        done = outbox.run_process("start")
        assert done.returncode == 1
        assert f"is temporary: it ends with the session of process {owner.info.backend_pid}" in done.stderr
        line = check(outbox)["replication_slot"]
        assert (line.status, line.fix[0]) == ("fail", f"SELECT pg_terminate_backend({owner.info.backend_pid});")
        copied(outbox, line.fix)
    assert check(outbox)["replication_slot"].status == "pass"


def test_case_c9_slot_create_names_the_transactions_that_it_waits_for(outbox: Pipeline) -> None:
    outbox.sql("select pg_drop_replication_slot(%s)", outbox.slot)
    with held(outbox.dsn, "create table elsewhere (n int)", end="commit") as pid:
        creating = outbox.process("slot", "create")
        creating.logs(f"waiting for the end of the transaction of process {pid} (role postgres, psql")
        assert check(outbox)["replication_slot"].found.startswith("process ")
        running = outbox.start("--accept-changes").logs("has not finished creating replication slot")
    assert creating.wait() == 0
    running.streams()
    assert running.stop() == 0


def test_case_c9_a_killed_slot_create_leaves_no_slot_behind(outbox: Pipeline) -> None:
    outbox.sql("select pg_drop_replication_slot(%s)", outbox.slot)
    _prepared(outbox, "create table elsewhere (n int)")
    creating = outbox.process("slot", "create")
    creating.logs("waiting for the end of the transaction of prepared transaction order 7")
    creating.kill()
    there = "select from pg_replication_slots where slot_name = %s"
    eventually(lambda: not outbox.sql(there, outbox.slot), "the server gives up the slot")
    outbox.sql("commit prepared 'order 7'")
    assert not outbox.sql(there, outbox.slot)


def test_case_c11_the_timeline_is_known_right_after_a_promotion(private_pair: PrivatePair) -> None:
    pair = private_pair()
    with psycopg.connect(pair.standby.dsn, autocommit=True) as standby:
        standby.execute("select pg_promote()")
        with connect(pair.standby.dsn) as connection:
            assert slots.timeline(connection) == 2


@produces("synchronous_standby:warn")
def test_case_c8_a_publisher_that_commits_wait_for_is_reported_and_the_fix_ends_that(outbox: Pipeline) -> None:
    running = outbox.start().streams()
    outbox.sql("alter system set synchronous_standby_names = '*'")
    outbox.sql("select pg_reload_conf()")
    running.logs("commits in PostgreSQL wait until Kafka has their events")
    outbox.insert(1, 2)  # the commit returns, because the publisher confirms it
    outbox.sql("create table elsewhere (n int)")  # as it confirms one without events
    line = check(outbox)["synchronous_standby"]
    assert line.status == "warn"
    assert "which matches the publisher: commits wait" in line.found
    copied(outbox, line.fix)
    eventually(lambda: check(outbox)["synchronous_standby"].status == "pass", "commits do not wait any more")
    assert running.stop() == 0
    outbox.insert(3)
    assert len(outbox.records()) == 2


def test_case_c8_the_fix_keeps_the_real_standbys_synchronous(
    private_pair: PrivatePair, servers: Servers, topic_prefix: str, tmp_path: Path
) -> None:
    primary = private_pair().primary
    made = prepare(make_pipeline(primary.dsn, servers.kafka, topic_prefix, tmp_path))
    made.sql("alter system set synchronous_standby_names = 'ANY 1 (*)'")
    made.sql("select pg_reload_conf()")
    try:
        running = made.start().logs("commits in PostgreSQL wait")
        copied(made, check(made)["synchronous_standby"].fix)
        states = "select application_name, sync_state from pg_stat_replication order by 1"
        expected = [("cdc-publisher stream", "async"), ("standby", "quorum")]
        eventually(lambda: made.sql(states) == expected, "only the standby is synchronous")
        assert made.sql("show synchronous_standby_names") == [('ANY 1 ("standby")',)]
        assert running.stop() == 0
    finally:
        made.close()


def test_case_c8_a_failover_slot_that_waits_for_an_absent_standby_is_reported(
    private_postgres: PrivatePostgres, servers: Servers, topic_prefix: str, tmp_path: Path
) -> None:
    server = private_postgres()
    made = prepare(make_pipeline(server.dsn, servers.kafka, topic_prefix, tmp_path), "--failover")
    made.sql("select pg_create_physical_replication_slot('replica')")
    made.sql("alter system set synchronized_standby_slots = 'replica'")
    made.sql("select pg_reload_conf()")
    try:
        running = made.start().logs("no standby reads the slots that synchronized_standby_slots names (replica)")
        made.insert(1)
        line = check(made)["failover_slot"]
        assert (line.status, "(replica)" in line.found) == ("warn", True)
        made.sql("alter system reset synchronized_standby_slots")
        made.sql("select pg_reload_conf()")
        made.settles()
        assert running.stop() == 0
        assert len(made.judge()) == 1
    finally:
        made.close()
