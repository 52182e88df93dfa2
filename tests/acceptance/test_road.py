"""Committed rows arrive once each, in commit order per key, in the documented layout."""

import json
import random
import re
import threading
import time
import uuid
from typing import Any

import psycopg
import pytest

from tests.pipeline import SOURCES, Pipeline, eventually, prepare

pytestmark = pytest.mark.timeout(180)


def test_a_record_has_the_documented_layout(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    pipeline.insert(1, 2, key="customer-7")
    pipeline.insert(3, key="clé-é")
    pipeline.settles()
    records = sorted(pipeline.judge(), key=lambda r: r.position)
    first, second, _third = records

    assert {r.topic for r in records} == {pipeline.topic}
    assert [r.key for r in records] == ["customer-7", "customer-7", "clé-é"]
    assert [name for name, _ in first.headers] == ["id", "eventType", "cdc-position"]
    assert first.header("eventType") == "Noted"
    assert uuid.UUID(first.id).hex == first.id.replace("-", "")
    assert first.raw[:2] == b"\xc3\x01"
    assert first.value == {"seq": 1, "text": None}

    parts = [re.fullmatch(r"([0-9a-f]{8})-([0-9A-F]{16})-([0-9A-F]{8})", r.position) for r in records]
    assert all(parts)
    streams, lsns, indexes = zip(*(part.groups() for part in parts if part), strict=True)
    assert len(set(streams)) == 1
    assert lsns[0] == lsns[1] < lsns[2]
    assert [int(index, 16) for index in indexes] == [0, 1, 0]
    assert int(lsns[2], 16) < pipeline.confirmed()

    kind, timestamp = first.timestamp
    assert kind == 1  # CreateTime
    ((committed_at,),) = pipeline.sql("select extract(epoch from created_at) from outbox where id = %s", second.id)
    assert 0 <= timestamp / 1000 - float(committed_at) + 0.001 < 5
    assert running.stop() == 0


@SOURCES
def test_a7_interleaved_transactions_with_savepoints_arrive_in_commit_order(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    writers = [threading.Thread(target=_write, args=(pipeline.dsn, number)) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    pipeline.settles()
    records = pipeline.judge()
    assert len(records) > 500
    assert all(r.value["text"] != "rolled back" for r in records)
    assert running.stop() == 0


def _write(dsn: str, number: int) -> None:
    """One writer with its own keys: transactions of 1 to 6 rows, some rolled back in whole or in part."""
    chance = random.Random(number)
    with psycopg.connect(dsn) as connection:
        for turn in range(60):
            for row in range(chance.randint(1, 6)):
                doomed = chance.random() < 0.2
                if doomed:
                    connection.execute("savepoint before")
                _note(
                    connection, f"w{number}-{chance.randrange(3)}", turn * 10 + row, "rolled back" if doomed else "kept"
                )
                if doomed:
                    connection.execute("rollback to savepoint before")
                time.sleep(chance.random() * 0.002)
            if chance.random() < 0.15:
                connection.rollback()
            else:
                connection.commit()


def _note(connection: "psycopg.Connection[Any]", key: str, seq: int, text: str) -> None:
    connection.execute(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', %s, 'Noted', %s)",
        [key, json.dumps({"seq": seq, "text": text})],
    )


def test_a5_rows_of_one_copy_share_lsns_and_still_arrive_once_each_and_in_order(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    with (
        pipeline.connect() as connection,
        connection.cursor().copy("copy outbox (aggregatetype, aggregateid, type, payload) from stdin") as copy,
    ):
        for seq in range(5000):
            copy.write_row(("note", f"k{seq % 7}", "Noted", json.dumps({"seq": seq})))
    pipeline.settles()
    records = pipeline.judge()
    assert sorted(int(r.position[-8:], 16) for r in records) == list(range(5000))
    assert running.stop() == 0


@SOURCES
def test_a20_one_transaction_of_300000_rows_passes_with_flat_memory(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) select 'note', 'k' || n % 1000, 'Noted',"
        " jsonb_build_object('seq', n, 'text', repeat('x', 150)) from generate_series(1, 300000) n"
    )
    pipeline.settles(120)
    assert running.peak_memory() < 150_000_000
    assert running.stop() == 0
    assert len(pipeline.judge()) == 300_000


def test_a8_an_idle_outbox_never_pins_wal_while_other_tables_are_busy(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.sql("create table elsewhere (n int)")
    before = pipeline.confirmed()
    for _ in range(5):
        pipeline.sql("insert into elsewhere select generate_series(1, 1000)")
    pipeline.settles()
    assert pipeline.confirmed() > before
    assert len(pipeline.judge()) == 1
    assert running.stop() == 0


def test_b9_updates_deletes_and_truncates_are_ignored(pipeline: Pipeline) -> None:
    pipeline.sql("alter publication cdc_publisher set (publish = 'insert, update, delete, truncate')")
    running = pipeline.start().streams()
    with pipeline.connect() as connection, connection.transaction():
        _note(connection, "k", 1, "inserted and deleted in one transaction")
        connection.execute("update outbox set payload = jsonb_set(payload, '{seq}', '99')")
        connection.execute("delete from outbox")
    pipeline.insert(2)
    pipeline.sql("truncate outbox")
    pipeline.insert(3)
    pipeline.settles()
    assert [r.value["seq"] for r in pipeline.records()] == [1, 2, 3]
    assert running.stop() == 0


def test_a23_messages_origins_types_and_empty_transactions_are_ignored(pipeline: Pipeline) -> None:
    pipeline.sql("create type mood as enum ('good', 'bad')")
    pipeline.sql("alter table outbox add column mood mood default 'good'")
    running = pipeline.start().streams()
    pipeline.sql("select pg_logical_emit_message(true, 'prefix', 'content')")
    pipeline.sql("select pg_logical_emit_message(false, 'prefix', 'content')")
    pipeline.sql("create table elsewhere (n int)")
    origin = f"origin_{pipeline.slot}"
    with pipeline.connect() as connection:
        connection.execute("select pg_replication_origin_create(%s)", [origin])
        connection.execute("select pg_replication_origin_session_setup(%s)", [origin])
        with connection.transaction():
            connection.execute("select pg_replication_origin_xact_setup('0/12345', now())")
            _note(connection, "k", 1, "from an origin")
        connection.execute("select pg_replication_origin_session_reset()")
        connection.execute("select pg_replication_origin_drop(%s)", [origin])
    pipeline.sql("alter table outbox rename column mood to feeling")
    pipeline.insert(2)
    pipeline.settles()
    assert [r.value["seq"] for r in pipeline.judge()] == [1, 2]
    assert running.count("streaming") == 1
    assert running.stop() == 0


@SOURCES
def test_mapped_columns_header_columns_and_text_format_make_the_same_records(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    pipeline.sql("create type kind as enum ('Noted')")  # without a binary decoder: the stream comes as text
    pipeline.sql("create table events (no bigint primary key, agg text, ref int, kind kind, body json, tenant text)")
    pipeline.settings["outbox"] = {
        **pipeline.settings.get("outbox", {}),
        "table": "public.events",
        "columns": {"id": "no", "aggregate": "agg", "key": "ref", "type": "kind", "payload": "body"},
        "headers": ["tenant"],
    }
    pipeline.settings["topics"]["name"] = f"{pipeline.prefix}{{agg}}"
    prepare(pipeline)
    running = pipeline.start().streams()
    assert running.log[-1]["format"] == "text"
    pipeline.sql("""insert into events values (41, 'note', 7, 'Noted', '{"seq": 1, "text": "a"}', 'acme')""")
    pipeline.sql("""insert into events values (42, 'note', 7, 'Noted', '{"seq": 2, "text": "b"}', null)""")
    eventually(lambda: len(pipeline.records()) == 2, "both records")
    first, second = pipeline.records()
    assert (first.key, first.id, first.value) == ("7", "41", {"seq": 1, "text": "a"})
    assert first.headers[3:] == [("tenant", "acme")]
    assert second.headers[3:] == []
    assert running.stop() == 0


@SOURCES
def test_bytea_payloads_pass_through_as_they_are(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    pipeline.sql(
        "create table outbox (id uuid primary key default gen_random_uuid(), aggregatetype varchar(255) not null,"
        " aggregateid varchar(255) not null, type varchar(255) not null, payload bytea)"
    )
    prepare(pipeline)
    running = pipeline.start().streams()
    pipeline.sql(r"insert into outbox values (default, 'note', 'k', 'Anything', '\x00ff10')")
    pipeline.settles()
    (record,) = pipeline.records()
    assert record.raw == b"\x00\xff\x10"
    assert running.stop() == 0


@SOURCES
def test_missing_event_topics_are_waited_for_or_created(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values ('late', 'k', 'Noted', '{\"seq\": 1}')"
    )
    running.logs("does not exist: create it")
    before = pipeline.confirmed()
    assert len(pipeline.records()) == 0
    pipeline.create_topic(f"{pipeline.prefix}late")
    pipeline.settles()
    assert pipeline.confirmed() > before
    assert running.stop() == 0

    pipeline.settings["topics"] |= {"create": True, "partitions": 5, "config": {"retention.ms": 3_600_000}}
    running = pipeline.start().streams()
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values ('new', 'k', 'Noted', '{\"seq\": 2}')"
    )
    pipeline.settles()
    assert [r.topic for r in pipeline.judge()] == [f"{pipeline.prefix}late", f"{pipeline.prefix}new"]
    assert running.stop() == 0


def test_progress_is_logged_every_ten_seconds(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    pipeline.insert(*range(100))
    running.logs("progress")
    (line,) = [line for line in running.log if line["message"] == "progress"]
    assert line["events"] == 100
    assert line["events_per_second"] > 0
    assert line["lag_bytes"] >= 0
    assert line["lag_seconds"] == 0
    assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", line["confirmed"])
    eventually(lambda: line["confirmed"] <= str(pipeline.confirmed()), "the slot")
    assert running.stop() == 0


def test_a_partitioned_outbox_is_published_under_its_own_name(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    pipeline.sql(
        "create table outbox (id uuid default gen_random_uuid(), aggregatetype text not null, aggregateid text not"
        " null, type text not null, payload jsonb, month int default 1) partition by list (month)"
    )
    pipeline.sql("create table outbox_1 partition of outbox for values in (1)")
    for command in (("outbox", "init"), ("slot", "create")):
        assert pipeline.run(*command).returncode == 0
    pipeline.create_topic(pipeline.topic)
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.sql("create table outbox_2 partition of outbox for values in (2)")
    pipeline.sql("alter table outbox alter column month set default 2")
    pipeline.insert(2)
    pipeline.settles()
    assert running.stop() == 0
    assert [r.value["seq"] for r in pipeline.judge()] == [1, 2]

    pipeline.sql("alter publication cdc_publisher set (publish_via_partition_root = false)")
    refused = pipeline.run_process("start")
    assert refused.returncode == 1
    assert "does not publish table public.outbox via its partition root" in refused.stderr
    assert "SET (publish_via_partition_root = true)" in refused.stderr
