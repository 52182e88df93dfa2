"""The publisher's record of its slot: a slot moved, re-created or read by others is never used silently."""

from pathlib import Path

import psutil

from tests.pipeline import Pipeline, make_pipeline, prepare
from tests.servers import PrivatePostgres, Servers


def started_and_stopped(pipeline: Pipeline, *seqs: int) -> None:
    publisher = pipeline.start().streams()
    pipeline.insert(*seqs)
    pipeline.settles()
    assert publisher.stop() == 0


def refused(pipeline: Pipeline) -> str:
    """Start the publisher, which must exit with 1, and return its output."""
    publisher = pipeline.start()
    assert publisher.wait() == 1
    assert publisher.count("streaming") == 0
    return publisher.messages()[-1]


def test_slot_dropped_and_created_again_is_detected_and_not_used_b1(pipeline: Pipeline) -> None:
    started_and_stopped(pipeline, 1, 2)
    left = pipeline.confirmed()
    pipeline.sql("select pg_drop_replication_slot(%s)", pipeline.slot)
    pipeline.insert(3)
    created = pipeline.run("slot", "create")
    assert created.returncode == 0
    assert "an earlier slot" in created.stderr
    again = pipeline.confirmed()
    told = refused(pipeline)
    assert f"'{pipeline.slot}' stands at {again}, but the publisher moved it only to" in told
    assert "--accept-changes" in told
    assert pipeline.confirmed() == again >= left
    assert [record.value["seq"] for record in pipeline.records()] == [1, 2]
    accepted = pipeline.start("--accept-changes").streams()
    pipeline.insert(4)
    pipeline.settles()
    assert accepted.stop() == 0
    assert [record.value["seq"] for record in pipeline.records()] == [1, 2, 4]
    started_and_stopped(pipeline, 5)


def test_slot_advanced_by_another_client_is_detected_a19(pipeline: Pipeline) -> None:
    started_and_stopped(pipeline, 1)
    pipeline.insert(2)
    pipeline.sql("select pg_replication_slot_advance(%s, pg_current_wal_lsn())", pipeline.slot)
    told = refused(pipeline)
    assert "it was advanced, or dropped and created again" in told


def test_slot_moved_by_own_commands_is_used_a19_b1(pipeline: Pipeline) -> None:
    started_and_stopped(pipeline, 1)
    pipeline.insert(2)
    assert pipeline.run("slot", "advance", "--yes").returncode == 0
    started_and_stopped(pipeline, 3)
    pipeline.insert(4)
    assert pipeline.run("slot", "drop", "--yes").returncode == 0
    assert pipeline.run("slot", "create").returncode == 0
    started_and_stopped(pipeline, 5)
    assert [record.value["seq"] for record in pipeline.records()] == [1, 3, 5]


def test_publication_recreated_while_stopped_is_detected_b4(pipeline: Pipeline) -> None:
    started_and_stopped(pipeline, 1)
    pipeline.sql("drop publication cdc_publisher")
    pipeline.insert(2)
    pipeline.sql("create publication cdc_publisher for table outbox with (publish = 'insert')")
    told = refused(pipeline)
    assert "publication cdc_publisher was dropped and created again" in told


def test_table_swapped_while_stopped_is_detected_b6(pipeline: Pipeline) -> None:
    started_and_stopped(pipeline, 1)
    pipeline.sql("alter table outbox rename to outbox_old")
    pipeline.sql("create table outbox (like outbox_old including all)")
    pipeline.sql("alter publication cdc_publisher set table outbox")
    told = refused(pipeline)
    assert "table public.outbox was replaced by another of its name" in told


def test_events_move_to_other_topics_only_on_request_d10(pipeline: Pipeline) -> None:
    started_and_stopped(pipeline, 1)
    pipeline.settings["topics"]["name"] = f"{pipeline.prefix}other.{{aggregatetype}}"
    told = refused(pipeline)
    assert "[topics] name is" in told
    pipeline.create_topic(f"{pipeline.prefix}other.note")
    pipeline.insert(2)
    accepted = pipeline.start("--accept-changes").streams()
    pipeline.settles()
    assert accepted.stop() == 0
    started_and_stopped(pipeline, 3)
    pipeline.judge()


def test_connected_but_silent_server_is_given_up_without_loss_a14(
    private_postgres: PrivatePostgres, servers: Servers, topic_prefix: str, tmp_path: Path
) -> None:
    server = private_postgres({"wal_sender_timeout": "2s"})
    pipeline = prepare(make_pipeline(server.dsn, servers.kafka, topic_prefix, tmp_path))
    try:
        publisher = pipeline.start().streams()
        pipeline.insert(1)
        pipeline.settles()
        ((pid,),) = pipeline.sql("select pid from pg_stat_replication")
        walsender = psutil.Process(pid)
        walsender.suspend()
        try:
            pipeline.insert(2)
            publisher.logs("PostgreSQL has been silent for 5 s").logs("still holds the slot")
        finally:
            walsender.resume()
        publisher.logs("streaming", times=2)
        pipeline.settles()
        assert publisher.stop() == 0
        pipeline.judge(duplicates=True)
    finally:
        pipeline.close()
