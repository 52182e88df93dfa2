"""`outbox purge` beside a real publisher, and where it cannot be known who moved the slot."""

import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cdc.lsn import LSN
from tests.load import Load
from tests.pipeline import PATIENCE, Pipeline, Running, eventually, prepare

# Each row that is deleted leaves the slot's confirmed LSN of that moment.
WITNESS = """
    create table gone (id uuid, confirmed pg_lsn);
    create function witness() returns trigger language plpgsql as $$ begin
        insert into gone select id, (select confirmed_flush_lsn from pg_replication_slots where slot_name = '{slot}')
        from deleted;
        return null;
    end $$;
    create trigger witness after delete on outbox referencing old table as deleted
        for each statement execute function witness()
"""


@pytest.fixture
def watching() -> Iterator["list[Running]"]:
    """Purges that go on; they are ended with the test."""
    started: list[Running] = []
    yield started
    for running in started:
        if running.process.poll() is None:
            running.kill()


def watch(pipeline: Pipeline, started: "list[Running]", folder: Path, *options: str) -> Running:
    log = folder / f"purge-{len(started)}.log"
    command = pipeline.command("--log-format", "json", "outbox", "purge", "--watch", *options)
    with log.open("wb") as output:
        started.append(Running(subprocess.Popen(command, stdout=output, stderr=output), log))
    return started[-1]


def sessions(pipeline: Pipeline) -> int:
    ((count,),) = pipeline.sql(
        "select count(pg_terminate_backend(pid))::int from pg_stat_activity"
        " where application_name = 'cdc-publisher purge' and datname = current_database()"
    )
    return int(count)


def write_savepoints(pipeline: Pipeline, stop: threading.Event, number: int) -> None:
    """Long transactions of many subtransactions, some undone, with rows that claim to be old."""
    chance, seq = random.Random(number), 0
    with psycopg.connect(pipeline.dsn, autocommit=True) as connection:
        while not stop.is_set():
            with connection.transaction():
                for _ in range(chance.randint(1, 90)):
                    seq += 1
                    with connection.transaction(force_rollback=chance.random() < 0.2):
                        connection.execute(
                            "insert into outbox (aggregatetype, aggregateid, type, payload, created_at) values"
                            " ('note', %s, 'Noted', jsonb_build_object('seq', %s::int8), '2020-01-01')",
                            [f"s{number}", seq],
                        )
                stop.wait(chance.random() * 0.2)


def test_beside_writers_and_publisher_no_row_goes_that_was_not_confirmed_before(
    pipeline: Pipeline, watching: "list[Running]", tmp_path: Path
) -> None:
    pipeline.sql(WITNESS.format(slot=pipeline.slot))
    publisher = pipeline.start().streams()
    stop = threading.Event()
    writers = [threading.Thread(target=write_savepoints, args=(pipeline, stop, number)) for number in range(2)]
    with Load(pipeline.dsn, writers=2):
        for writer in writers:
            writer.start()
        # Each on its own, and against each other.
        tight = watch(pipeline, watching, tmp_path, "--grace", "0", "--interval", "0", "--batch", "40")
        aged = watch(pipeline, watching, tmp_path, "--grace", "1s", "--interval", "0")
        try:
            eventually(
                lambda: bool(pipeline.sql("select from gone offset 1999") or len(gone(pipeline)) >= 2000), "rows go"
            )
        finally:
            stop.set()
            for writer in writers:
                writer.join()
    pipeline.settles()
    assert [aged.stop(), tight.stop()] == [0, 0]
    assert publisher.stop() == 0
    assert tight.log[-1]["message"] == "stopped"
    deleted = gone(pipeline)
    committed_at = {r.id: LSN(int(r.position.split("-")[1], 16)) for r in pipeline.records()}
    left = {str(row) for (row,) in pipeline.sql("select id from outbox")}
    assert deleted.keys() | left == committed_at.keys()
    assert not deleted.keys() & left
    for row, confirmed in deleted.items():
        assert committed_at[row] < confirmed


def gone(pipeline: Pipeline) -> dict[str, LSN]:
    return {str(row): LSN.parse(lsn) for row, lsn in pipeline.sql("select id, confirmed::text from gone")}


def test_it_goes_on_through_outages_and_tells_age_by_itself_where_no_column_does(
    pipeline: Pipeline, watching: "list[Running]", tmp_path: Path
) -> None:
    pipeline.sql("alter table outbox drop column created_at")
    pipeline.insert(1, 2, 3)
    refused = pipeline.run("outbox", "purge")
    assert refused.returncode == 1
    assert "--age-column" in refused.stderr
    running = watch(pipeline, watching, tmp_path, "--grace", "1s", "--interval", "0", "--wait", "0")
    running.logs("start the publisher")
    assert pipeline.sql("select count(*)::int from outbox") == [(3,)]
    publisher = pipeline.start().streams()
    eventually(lambda: pipeline.sql("select count(*)::int from outbox") == [(0,)], "rows go")
    eventually(lambda: sessions(pipeline) == 1, "its session is there, and is ended")
    pipeline.insert(4)
    eventually(lambda: pipeline.sql("select count(*)::int from outbox") == [(0,)], "rows go again")
    assert running.count("PostgreSQL, ")
    running.signal(signal.SIGINT)
    assert running.wait() == 0
    assert publisher.stop() == 0
    assert len(pipeline.records()) == 4


def test_the_publisher_goes_on_while_partitions_are_dropped(bare_pipeline: Pipeline) -> None:
    bare_pipeline.sql(
        "create table outbox (id uuid not null default gen_random_uuid(), aggregatetype text, aggregateid text,"
        " type text, payload jsonb, created_at timestamptz not null default now()) partition by range (created_at)"
    )
    for year in (2023, 2024, 2025):
        bare_pipeline.sql(
            f"create table y{year} partition of outbox for values from ('{year}-01-01') to ('{year + 1}-01-01')"
        )
    bare_pipeline.sql("create table rest partition of outbox default")
    pipeline = prepare(bare_pipeline)
    publisher = pipeline.start().streams()
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload, created_at) select 'note', 'old', 'Noted',"
        " jsonb_build_object('seq', s), make_date(2023 + s % 3, 5, 5) from generate_series(1, 30) s"
    )
    pipeline.insert(1)
    done = pipeline.run("outbox", "purge")
    assert done.stdout == (
        "deleted 10 rows of public.outbox; dropped public.y2023 (10 rows), public.y2024 (10 rows)\n"
    ), done.stderr
    pipeline.insert(2, 3)
    pipeline.settles()
    assert publisher.stop() == 0
    records = pipeline.records()
    assert sorted(r.value["seq"] for r in records if r.key == "old") == list(range(1, 31))
    assert [r.value["seq"] for r in records if r.key == "k"] == [1, 2, 3]


def test_a_slot_that_another_hand_moved_is_refused_and_one_that_is_unknown_too(pipeline: Pipeline) -> None:
    pipeline.insert(1, 2)

    def purge(*options: str) -> "subprocess.CompletedProcess[str]":
        """Run while somebody moves the slot who is no publisher."""
        with subprocess.Popen(
            pipeline.command("outbox", "purge", "--grace", "0", *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while process.poll() is None:
                pipeline.sql("select pg_logical_emit_message(true, 'test', '')")
                pipeline.sql("select pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", pipeline.slot)
            output, errors = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    moved = purge()
    assert moved.returncode == 1
    assert "not as the publisher left it" in moved.stderr
    assert "start --accept-changes" in moved.stderr
    assert purge("--accept-unknown").returncode == 1
    assert pipeline.sql("select count(*)::int from outbox") == [(2,)]

    assert pipeline.run("slot", "advance", "--yes").returncode == 0  # which Kafka is told
    unknown = purge()
    assert unknown.returncode == 1
    assert "has no record of slot" in unknown.stderr
    assert "--accept-unknown" in unknown.stderr
    assert pipeline.sql("select count(*)::int from outbox") == [(2,)]
    accepted = purge("--accept-unknown")
    assert accepted.stdout == "deleted 2 rows of public.outbox\n", accepted.stderr


def test_a_publication_that_was_made_anew_is_refused(pipeline: Pipeline) -> None:
    publisher = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    assert publisher.stop() == 0
    pipeline.sql("drop publication cdc_publisher")
    pipeline.sql("create publication cdc_publisher for table outbox with (publish = 'insert')")
    pipeline.insert(2)
    found = pipeline.run("outbox", "purge", "--grace", "0", "--wait", "0")
    assert found.returncode == 1
    assert "publication cdc_publisher was dropped and created again" in found.stderr
    assert pipeline.sql("select count(*)::int from outbox") == [(2,)]
