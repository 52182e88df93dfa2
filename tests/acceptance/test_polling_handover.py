"""What docs/polling.md has one do: moves of an outbox whose publishers are killed, a restored dump, and PgBouncer."""

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.local import packages
from tests.pipeline import Pipeline, eventually, prepare
from tests.pooler import pooler

pytestmark = pytest.mark.timeout(240)


@contextlib.contextmanager
def a_writer(pipeline: Pipeline) -> Iterator[None]:
    """One writer of three keys, which inserts until the end."""
    stop = threading.Event()

    def write() -> None:
        with pipeline.connect() as connection:
            for seq in range(100_000):
                if stop.wait(0.005):
                    return
                connection.execute(
                    "insert into outbox (aggregatetype, aggregateid, type, payload)"
                    " values ('note', %s, 'Noted', jsonb_build_object('seq', %s::int8))",
                    [f"k{seq % 3}", seq],
                )

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def run(pipeline: Pipeline, *arguments: str, code: int = 0) -> str:
    done = pipeline.run(*arguments)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_a_relay_follows_a_slot_and_no_writer_stops(bare_pipeline: Pipeline) -> None:
    pipeline = prepare(bare_pipeline)
    pipeline.settings["delivery"] = {"guarantee": "exactly-once"}
    pipeline.settings["outbox"] = {"published": "mark"}
    running = pipeline.start().streams()
    with a_writer(pipeline):
        time.sleep(0.3)
        running.kill()  # so that the slot is behind
        time.sleep(0.3)
        run(pipeline, "outbox", "init", "--polling")
        pipeline.settings["postgres"]["source"] = "polling"
        refused = pipeline.run_process("start")
        assert refused.returncode == 1
        assert "has to publish everything up to" in refused.stderr
        pipeline.settings["postgres"]["source"] = "slot"
        running = pipeline.start().streams()
        ((until,),) = pipeline.sql("select handover::text from cdc_relay")
        passed = "select from pg_replication_slots where slot_name = %s and confirmed_flush_lsn >= %s::pg_lsn"
        eventually(lambda: len(pipeline.sql(passed, pipeline.slot, until)) == 1, "the slot has passed the hand-over")
        running.kill()  # what it sent beyond it is not confirmed
        pipeline.settings["postgres"]["source"] = "polling"
        running = pipeline.start().streams()
        time.sleep(0.3)
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.judge()) > 50
    assert pipeline.sql("select handover from cdc_relay") == [(None,)]
    run(pipeline, "--set", "postgres.source=slot", "slot", "drop", "--yes")
    assert "no findings" in run(pipeline, "audit")


def test_a_slot_follows_a_relay_and_no_writer_stops(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    pipeline.settings["outbox"] = {"published": "mark"}
    pipeline.settings["postgres"]["source"] = "polling"
    prepare(pipeline)
    relay = pipeline.start().streams()
    with a_writer(pipeline):
        time.sleep(0.3)
        pipeline.settings["postgres"]["source"] = "slot"
        run(pipeline, "outbox", "init")
        assert "--from-polling" in run(pipeline, "slot", "create", code=1)
        handing = pipeline.process("slot", "create", "--from-polling").logs("stop the publisher of the relay now")
        time.sleep(0.3)
        assert relay.stop() == 0
        assert handing.wait() == 0, handing.messages()
        time.sleep(0.2)
        running = pipeline.start().streams()
        time.sleep(0.3)
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.judge()) > 50
    assert pipeline.sql("select from cdc_relay") == []
    pipeline.settings["postgres"]["source"] = "polling"
    refused = pipeline.run_process("start")
    assert (refused.returncode, "no relay" in refused.stderr) == (1, True), refused.stderr


def test_a_restored_dump_is_refused_and_reset(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    pipeline.settings["outbox"] = {"published": "mark"}
    pipeline.settings["postgres"]["source"] = "polling"
    prepare(pipeline)
    relay = pipeline.start().streams()
    pipeline.insert(1, 2)
    pipeline.settles()
    assert relay.stop() == 0
    pipeline.insert(3)
    restored = f"{conninfo_to_dict(pipeline.dsn)['dbname']}_restored"
    programs = packages.postgres() / "pginstall" / "bin"
    dump = subprocess.run([programs / "pg_dump", "-d", pipeline.dsn], check=True, capture_output=True)
    pipeline.sql(f"create database {restored}")
    try:
        original, pipeline.dsn = pipeline.dsn, make_conninfo(pipeline.dsn, dbname=restored)
        subprocess.run(
            [programs / "psql", "-qX", "-d", pipeline.dsn], input=dump.stdout, check=True, capture_output=True
        )
        pipeline.settings["postgres"]["dsn"] = pipeline.dsn
        refused = pipeline.run_process("start")
        assert (refused.returncode, "--reset" in refused.stderr) == (1, True), refused.stderr
        assert "1 rows are to be sent" in run(pipeline, "outbox", "init", "--polling", "--reset")
        relay = pipeline.start().streams()
        pipeline.insert(4)
        pipeline.settles()
        assert relay.stop() == 0
        assert len(pipeline.judge()) == 4
    finally:
        pipeline.close()
        pipeline.dsn = pipeline.settings["postgres"]["dsn"] = original
        pipeline.sql(f"drop database {restored} with (force)")


@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="needs the package pgbouncer")
def test_a_relay_works_through_pgbouncer_in_transaction_mode(bare_pipeline: Pipeline, folder: Path) -> None:
    pipeline = bare_pipeline
    pipeline.settings["postgres"]["source"] = "polling"
    upstream = int(str(conninfo_to_dict(pipeline.dsn)["port"]))
    with pooler("pgbouncer", upstream, folder) as port:
        pooled = make_conninfo(pipeline.dsn, host="127.0.0.1", port=port, sslmode="disable")
        pipeline.settings["postgres"]["dsn"] = pooled
        pipeline.settings["outbox"] = {"published": "mark"}
        prepare(pipeline)
        assert "run: " not in run(pipeline, "check", "--topic", pipeline.topic, code=0).split("polling_connection")[0]
        first = pipeline.start().streams()
        with a_writer(pipeline):
            time.sleep(0.3)
            assert first.stop() == 0
            second = pipeline.start()
            second.streams()
            time.sleep(0.3)
        pipeline.settles()
        assert "runs the relay" in run(pipeline, "status")
        assert "no findings" in run(pipeline, "audit")
        assert second.stop() == 0
        pipeline.settings["outbox"] = {"published": "delete"}
        third = pipeline.start().streams()
        pipeline.insert(999_999)
        pipeline.settles()
        assert third.stop() == 0
        with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as connection:
            row = connection.execute("select current_setting('row_security')").fetchone()
        assert row == ("on",), "no setting leaks into sessions of others"
    assert len({record.id for record in pipeline.records()}) == len(pipeline.records()) > 50
