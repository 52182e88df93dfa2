"""`recover` on real servers: a lost slot heals, without a loss, a duplicate or a change of order."""

import json
from typing import Any

import pytest

from tests.pipeline import Pipeline

GUARANTEES = pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])


def published(pipeline: Pipeline, *seqs: int) -> None:
    """Publish events, and stop."""
    publisher = pipeline.start().streams()
    pipeline.insert(*seqs)
    pipeline.settles()
    assert publisher.stop() == 0


def recovers(pipeline: Pipeline, *options: str, code: int = 0) -> dict[str, Any]:
    done = pipeline.run("recover", "--json", *options)
    assert done.returncode == code, (done.stdout, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def drop_slot(pipeline: Pipeline) -> None:
    pipeline.sql("select pg_drop_replication_slot(%s)", pipeline.slot)


@GUARANTEES
def test_a_dropped_slot_is_recovered_and_streams_on(pipeline: Pipeline, guarantee: str) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    published(pipeline, 1, 2)
    drop_slot(pipeline)
    pipeline.insert(3, 4)
    pipeline.insert(5, key="other")
    done = recovers(pipeline)
    assert (done["sent"], done["missing"], done["perhaps_again"]) == (3, 3, 0)
    assert recovers(pipeline)["finished"] is True
    pipeline.insert(6)
    published(pipeline, 7)
    records = pipeline.judge()
    recovered = [record for record in records if ("cdc-recovered", "true") in record.headers]
    assert sorted(record.value["seq"] for record in recovered) == [3, 4, 5]
    assert pipeline.run("audit").returncode == 0


def test_recover_beside_a_healthy_slot_is_refused(pipeline: Pipeline) -> None:
    refused = pipeline.run("recover")
    assert (refused.returncode, refused.stdout) == (1, "")
    # Above it may stand what the client library logs about connections of earlier tests in this process.
    assert (
        f"replication slot '{pipeline.slot}' is healthy: there is nothing to recover" in refused.stderr.split("\n")[-2]
    )
    assert "Traceback" not in refused.stderr


def test_a_dry_run_changes_nothing(pipeline: Pipeline) -> None:
    published(pipeline, 1)
    drop_slot(pipeline)
    pipeline.insert(2)
    found = recovers(pipeline, "--dry-run")
    assert (found["missing"], found["dry_run"]) == (1, True)
    assert pipeline.sql("select count(*) from pg_replication_slots where slot_name = %s", pipeline.slot) == [(0,)]
    assert pipeline.run("start").returncode == 1
    assert [record.value["seq"] for record in pipeline.records()] == [1]


def test_an_unfinished_recovery_stops_everything_else_and_is_continued(pipeline: Pipeline) -> None:
    published(pipeline, 1)
    drop_slot(pipeline)
    pipeline.insert(2)
    with pipeline.connect() as writer:
        writer.autocommit = False
        writer.execute("select pg_current_xact_id()")
        late = pipeline.run("recover", "--wait", "2")
        assert late.returncode == 75, late.stderr
        assert "was not created within 2 s: waiting for the end of the transaction of process" in late.stderr
        assert str(writer.info.backend_pid) in late.stderr
    assert pipeline.sql("select count(*) from pg_replication_slots where slot_name = %s", pipeline.slot) == [(0,)]
    commands: list[tuple[str, ...]] = [("start",), ("slot", "create"), ("outbox", "purge", "--accept-unknown")]
    for command in commands:
        refused = pipeline.run(*command)
        assert refused.returncode == 1, (command, refused.stderr)
        assert "cdc-publisher recover" in refused.stderr
    pipeline.sql("select pg_create_logical_replication_slot(%s, 'pgoutput')", pipeline.slot)
    commands = [("start",), ("outbox", "purge", "--grace", "0", "--accept-unknown")]
    for command in commands:
        refused = pipeline.run(*command)
        assert refused.returncode == 1, (command, refused.stderr)
        assert "a recovery of replication slot" in refused.stderr
        assert "run: cdc-publisher recover" in refused.stderr
    status = json.loads(pipeline.run("status", "--json").stdout)
    assert (status["state"], status["hint"]) == ("recovering", "unless it is running, run: cdc-publisher recover")
    assert "has begun and not ended" in pipeline.run("audit").stdout
    assert recovers(pipeline)["sent"] == 1
    published(pipeline, 3)
    pipeline.judge()


@GUARANTEES
def test_on_slot_lost_the_publisher_recovers_by_itself_once(pipeline: Pipeline, guarantee: str) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee, "on_slot_lost": "recover"}
    published(pipeline, 1, 2)
    drop_slot(pipeline)
    pipeline.insert(3, 4)
    publisher = pipeline.start().logs("recovered the slot").streams()
    pipeline.insert(5)
    pipeline.settles()
    assert publisher.stop() == 0
    pipeline.judge()
    drop_slot(pipeline)
    pipeline.insert(6)
    again = pipeline.start()
    assert again.wait() == 1
    assert "is lost again" in again.messages()[-1] or "minutes ago" in again.messages()[-1]
    assert recovers(pipeline)["sent"] == 1
    published(pipeline, 7)
    pipeline.judge()


def test_on_slot_lost_a_slot_that_never_was_is_not_made(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    pipeline.settings["delivery"] = {"on_slot_lost": "recover"}
    assert pipeline.run("outbox", "init").returncode == 0
    publisher = pipeline.start()
    assert publisher.wait() == 1
    assert "not recovered automatically: the slot has no record in Kafka" in publisher.messages()[-1]


def test_a_backfill_publishes_what_the_table_holds_and_streams_on(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    assert pipeline.run("outbox", "init").returncode == 0
    pipeline.create_topic(pipeline.topic)
    for key in ("a", "b"):
        pipeline.insert(*range(100), key=key)
    done = pipeline.run("slot", "create", "--backfill")
    assert done.returncode == 0, done.stderr
    assert "sent 200 events" in done.stdout
    pipeline.insert(100, key="a")
    published(pipeline, 1)
    pipeline.judge()
