"""Slots that others made or read, on servers of each version: the property is named, and its fix works as printed."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.checking import check, copied
from tests.pipeline import Pipeline, make_pipeline, prepare
from tests.servers import PrivatePostgres, Servers
from tests.versions import OLD_POSTGRES

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=[None, *OLD_POSTGRES], ids=str)
def outbox(
    request: pytest.FixtureRequest,
    private_postgres: PrivatePostgres,
    servers: Servers,
    topic_prefix: str,
    tmp_path: Path,
) -> Iterator[Pipeline]:
    """A pipeline on a private server of each version, with prepared transactions."""
    server = private_postgres({"max_prepared_transactions": "5"}, request.param)
    made = make_pipeline(server.dsn, servers.kafka, topic_prefix, tmp_path)
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
    if not alters:  # a new slot lacks the event; the hint says how to publish it
        assert "cdc-publisher audit --repair" in (line.hint or "")
        assert outbox.run("audit", "--repair", "--yes").returncode == 0
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
