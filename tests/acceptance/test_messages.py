"""Events as logical messages: alone and beside the table, through kills, rollbacks and other databases."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Json

from tests import documents
from tests.load import Load
from tests.pipeline import Pipeline, make_pipeline
from tests.reader import Received, read_all
from tests.servers import PostgresOf, Servers, a_database
from tests.versions import OLD_POSTGRES

pytestmark = pytest.mark.timeout(300)

VERSIONS = [None, *OLD_POSTGRES]
GUARANTEES = ["at-least-once", "exactly-once"]
on_each_version = pytest.mark.parametrize("binaries", VERSIONS, ids=str)
with_each_guarantee = pytest.mark.parametrize("guarantee", GUARANTEES)
EMIT = "select outbox_emit('note', %s, 'Noted', %s::json, id => %s)"
WRITTEN = "create table written (id uuid, key text, seq int, place serial)"


class Emitting(Load):
    """Writers whose events are messages, or rows, in turn; `written` has what they committed, in its order."""

    rows = True

    def _transaction(
        self, connection: "psycopg.Connection[tuple[object, ...]]", chance: random.Random, number: int, seq: int
    ) -> int:
        events = chance.randint(1, 6)
        with connection.transaction(), connection.cursor() as cursor:
            for place in range(seq, seq + events):
                key = f"w{number}-{place % 3}"
                cursor.execute(
                    "insert into written (id, key, seq) values (gen_random_uuid(), %s, %s) returning id", [key, place]
                )
                found = cursor.fetchone()
                assert found
                payload = {"seq": place, "text": "x" * chance.choice([0, 10, 3000])}
                if self.rows and chance.random() < 0.5:
                    cursor.execute(
                        "insert into outbox (id, aggregatetype, aggregateid, type, payload)"
                        " values (%s, 'note', %s, 'Noted', %s)",
                        [found[0], key, Json(payload)],
                    )
                else:
                    cursor.execute(EMIT, [key, Json(payload), found[0]])
            if chance.random() < 0.1:
                raise psycopg.Rollback
        self._committed += events
        return seq + events


class EmittingOnly(Emitting):
    """All of them are messages."""

    rows = False


@pytest.fixture
def piped(
    module_postgres: PostgresOf, binaries: Path | None, servers: Servers, topic_prefix: str, tmp_path: Path
) -> Iterator[Pipeline]:
    """A pipeline of a database of a server of each version that is still to be prepared by `made`."""
    with a_database(module_postgres(binaries).dsn) as dsn:
        pipeline = make_pipeline(dsn, servers.kafka, topic_prefix, tmp_path)
        yield pipeline
        pipeline.close()


def made(pipeline: Pipeline, *, table: bool = False, guarantee: str = "at-least-once", **delivery: Any) -> Pipeline:
    """Prepare a pipeline for messages, and for a table beside them."""
    pipeline.settings["outbox"] = {"messages": "outbox"}
    if table:
        pipeline.settings["outbox"]["table"] = "public.outbox"
    pipeline.settings["delivery"] = {"guarantee": guarantee, **delivery}
    for command in (("outbox", "init", "--messages"), ("slot", "create")):
        done = pipeline.run(*command)
        assert done.returncode == 0, done.stderr
    pipeline.create_topic(pipeline.topic)
    pipeline.sql(WRITTEN)
    return pipeline


def listed(pipeline: Pipeline) -> list[dict[str, Any]]:
    """The dead letters."""
    done = pipeline.run("dlq", "list", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def judged(pipeline: Pipeline) -> list[Received]:
    """Compare topics with what was written: each event once, and in its order."""
    records = pipeline.records()
    written = {str(row_id): (key, seq) for row_id, key, seq in pipeline.sql("select id, key, seq from written")}
    times = Counter(record.id for record in records)
    assert not written.keys() - times.keys(), "lost events"
    assert not times.keys() - written.keys(), "phantom events"
    assert set(times.values()) == {1}, "duplicates"
    for record in records:
        assert written[record.id] == (record.key, record.value["seq"])
    for key in {record.key for record in records}:
        of_key = [record for record in records if record.key == key]
        assert [record.value["seq"] for record in of_key] == sorted(record.value["seq"] for record in of_key)
        assert [record.position for record in of_key] == sorted(record.position for record in of_key)
    return records


@pytest.mark.parametrize(
    ("binaries", "table", "guarantee"),
    [
        case
        for binaries in VERSIONS
        for case in (
            (binaries, False, GUARANTEES[binaries is None]),
            (binaries, True, GUARANTEES[binaries is not None]),
        )
    ],
)
def test_nothing_is_lost_doubled_or_reordered_through_kills(piped: Pipeline, table: bool, guarantee: str) -> None:
    pipeline = made(piped, table=table, guarantee=guarantee)
    running = pipeline.start().streams()
    with (Emitting if table else EmittingOnly)(pipeline.dsn) as load:
        for _ in range(3):
            load.goes_on(150)
            running.kill()
            load.goes_on(50)
            running = pipeline.start().streams()
        load.goes_on(100)
    pipeline.settles()
    assert running.stop() == 0
    judged(pipeline)


@on_each_version
def test_rows_and_messages_of_one_transaction_have_its_indexes_in_their_order(piped: Pipeline) -> None:
    pipeline = made(piped, table=True)
    insert = "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Noted', %s)"
    with pipeline.connect() as connection, connection.transaction():
        for seq in range(6):
            if seq % 2:
                connection.execute(insert, [Json({"seq": seq})])
            else:
                connection.execute(EMIT, ["k", Json({"seq": seq}), f"00000000-0000-0000-0000-00000000000{seq}"])
            connection.execute("select pg_logical_emit_message(true, 'another', 'x')")
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    records = pipeline.records()
    assert [record.value["seq"] for record in records] == list(range(6))
    assert [int(record.position[-8:], 16) for record in records] == list(range(6))
    assert running.count("messages of the prefix 'another' are no events") == 1


@on_each_version
def test_what_is_rolled_back_is_no_event_and_what_is_prepared_becomes_one(piped: Pipeline) -> None:
    pipeline = made(piped)
    emit = "select outbox_emit('note', 'k', 'Noted', '{{\"seq\": {}}}')"
    running = pipeline.start().streams()
    with pipeline.connect() as connection:
        for statement in (
            "begin", emit.format(1), "savepoint a", emit.format(2), "rollback to a", emit.format(3), "commit",
            "begin", emit.format(4), "rollback",
            "begin", emit.format(6), "prepare transaction 'later'",
            "begin", emit.format(7), "prepare transaction 'never'",
            emit.format(5), "commit prepared 'later'", "rollback prepared 'never'",
        ):  # fmt: skip
            connection.execute(statement.encode())
    pipeline.settles()
    assert running.stop() == 0
    assert [record.value["seq"] for record in pipeline.records()] == [1, 3, 5, 6]


def raw(pipeline: Pipeline) -> list[Received]:
    return read_all(pipeline.kafka, pipeline.prefix, bytes)


PAYLOAD = '{"big":12345678901234567890.10, "huge" : 1.0e400,"ä":"\\u00e4", "seq": 1}'


@pytest.mark.parametrize(
    ("binaries", "encoding"), [(None, "LATIN1"), *((each, "UTF8") for each in OLD_POSTGRES)], ids=str
)
def test_a_payload_is_sent_as_the_writer_wrote_it_whatever_the_encoding_of_the_database(
    piped: Pipeline, encoding: str
) -> None:
    name = f"other_{piped.slot}"
    piped.sql(f"create database {name} template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'")
    piped.dsn = piped.settings["postgres"]["dsn"] = psycopg.conninfo.make_conninfo(piped.dsn, dbname=name)
    piped.settings["record"] = {"value": "text"}
    pipeline = made(piped, on_poison="dead-letter")
    who = '{"who": "é"}'
    pipeline.sql("select outbox_emit('note', %s, 'Noted', %s, headers => %s)", "ö", PAYLOAD, who)
    # The text form comes in the database's encoding.
    held = '{"id":"x","aggregatetype":"note","aggregateid":"ö","type":"Noted","payload":1}'
    pipeline.sql("select pg_logical_emit_message(true, 'outbox', %s::text)", held)
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    records = raw(pipeline)
    assert (records[0].key, records[0].raw.decode(), records[0].header("who")) == ("ö", PAYLOAD, "é")
    letters = listed(pipeline)
    if encoding == "UTF8":
        assert (records[1].key, records[1].raw, letters) == ("ö", b"1", [])
    else:
        assert len(records) == 1
        assert ["is not UTF-8" in letter["message"] for letter in letters] == [True]


def test_messages_come_with_their_contracts_and_are_strict(bare_pipeline: Pipeline) -> None:
    pipeline = made(bare_pipeline, on_poison="dead-letter")
    for payload, event_type in (('{"seq": 1}', "Noted"), ('{"seq": 1.5}', "Noted"), ('{"seq": 2}', "Unknown")):
        pipeline.sql("select outbox_emit('note', 'k', %s, %s)", event_type, payload)
    pipeline.sql("select pg_logical_emit_message(true, 'outbox', '{broken'::bytea)")
    pipeline.sql("select pg_logical_emit_message(true, 'outbox', '{\"id\": 1}'::bytea)")
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    assert [record.value["seq"] for record in pipeline.records()] == [1]
    letters = listed(pipeline)
    assert [letter["error"] for letter in letters] == [
        "payload-mismatch", "contract-missing", "unreadable-row", "unreadable-row",
    ]  # fmt: skip


@pytest.mark.parametrize(("binaries", "guarantee"), list(zip(VERSIONS, GUARANTEES, strict=False)), ids=str)
def test_a_message_that_is_not_transactional_stops_the_publisher_until_it_is_skipped(
    piped: Pipeline, guarantee: str
) -> None:
    pipeline = made(piped, guarantee=guarantee)
    held = '{"id":"stray","aggregatetype":"note","aggregateid":"k","type":"Noted","payload":{"seq":9}}'
    with pipeline.connect() as connection:
        connection.execute("select outbox_emit('note', 'k', 'Noted', '{\"seq\": 1}')")
        connection.execute("begin")
        connection.execute("select pg_logical_emit_message(false, 'outbox', %s)", [held])
        connection.execute("rollback")
        connection.execute("select outbox_emit('note', 'k', 'Noted', '{\"seq\": 2}')")
    running = pipeline.start()
    assert running.wait() == 1
    said = running.messages()[-1]
    assert "it is not transactional" in said
    position = said.split("--skip ")[1].split()[0]
    assert f"at position {position}" in said
    assert [record.value["seq"] for record in pipeline.records()] == [1]

    running = pipeline.start("--skip", position).streams()
    pipeline.settles()
    running.kill()
    running = pipeline.start().streams()  # without the option: it is behind the slot
    pipeline.sql("select outbox_emit('note', 'k', 'Noted', '{\"seq\": 3}')")
    pipeline.settles()
    assert running.stop() == 0
    assert [record.value["seq"] for record in pipeline.records()] == [1, 2, 3]
    (letter,) = listed(pipeline)
    assert (letter["id"], letter["position"], letter["error"]) == ("stray", position, "not-transactional")
    assert pipeline.run("dlq", "replay", "--all", "--yes").returncode == 0
    assert sorted(record.value["seq"] for record in pipeline.records()) == [1, 2, 3, 9]


def test_a_message_of_50_megabytes_is_poison_by_its_length_and_passes_where_the_limits_allow_it(
    bare_pipeline: Pipeline,
) -> None:
    bare_pipeline.settings["record"] = {"value": "text"}
    pipeline = made(bare_pipeline)
    pipeline.sql("select outbox_emit('note', 'k', 'Noted', to_json(repeat('x', 50 * 1024 * 1024)))")
    running = pipeline.start()
    assert running.wait() == 1
    assert "is too large for any topic" in running.messages()[-1]

    large = 60 * 1024 * 1024
    pipeline.settings["kafka"] |= {"message.max.bytes": large, "queue.buffering.max.kbytes": 200_000}
    pipeline.settings["topics"]["name"] = f"{pipeline.prefix}large-{{aggregatetype}}"
    pipeline.settings["topics"] |= {"create": True, "config": {"max.message.bytes": large}}
    running = pipeline.start("--accept-changes").streams()
    pipeline.settles()
    assert running.stop() == 0
    assert [len(record.raw) for record in raw(pipeline)] == [50 * 1024 * 1024 + 2]


@with_each_guarantee
def test_what_kafka_has_is_known_by_id_when_messages_begin_to_count(bare_pipeline: Pipeline, guarantee: str) -> None:
    pipeline = made(bare_pipeline, table=True, guarantee=guarantee)
    pipeline.settings["outbox"].pop("messages")
    pipeline.sql("select pg_copy_logical_replication_slot(%s, 'before')", pipeline.slot)
    with pipeline.connect() as connection, connection.transaction():
        for number in range(3):
            connection.execute("select outbox_emit('note', %s, 'Noted', '{\"seq\": 0}')", [f"m{number}"])
            connection.execute(
                "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', %s, 'Noted', %s)",
                [f"r{number}", Json({"seq": 1})],
            )
    running = pipeline.start().streams()
    pipeline.settles()
    running.kill()
    assert sorted(record.key for record in pipeline.records()) == ["r0", "r1", "r2"]

    # As after a crash of the server, which forgets how far the slot was: all rows come again, with other numbers.
    pipeline.sql("select pg_drop_replication_slot(%s)", pipeline.slot)
    pipeline.sql("select pg_copy_logical_replication_slot('before', %s)", pipeline.slot)
    pipeline.sql("select pg_drop_replication_slot('before')")
    pipeline.settings["outbox"]["messages"] = "outbox"
    running = pipeline.start("--accept-changes").streams()
    pipeline.settles()
    assert running.stop() == 0
    assert sorted(record.key for record in pipeline.records()) == ["m0", "m1", "m2", "r0", "r1", "r2"]


def test_start_refuses_another_prefix_until_it_is_accepted(bare_pipeline: Pipeline) -> None:
    pipeline = made(bare_pipeline)
    running = pipeline.start().streams()
    pipeline.sql("select outbox_emit('note', 'k', 'Noted', '{\"seq\": 1}')")
    pipeline.settles()
    assert running.stop() == 0
    pipeline.settings["outbox"]["messages"] = "shop"
    said = pipeline.run_process("start")
    assert said.returncode == 1
    assert "[outbox] messages is 'shop', and was 'outbox'" in said.stderr
    pipeline.run("outbox", "init", "--messages")
    pipeline.sql("select outbox_emit('note', 'k', 'Noted', '{\"seq\": 2}')")
    running = pipeline.start("--accept-changes").streams()
    pipeline.settles()
    assert running.stop() == 0
    assert [record.value["seq"] for record in pipeline.records()] == [1, 2]


def test_messages_are_nothing_where_nobody_asked_for_them(pipeline: Pipeline) -> None:
    pipeline.sql("select pg_logical_emit_message(true, 'outbox', '{}'), pg_logical_emit_message(false, 'outbox', 'x')")
    pipeline.insert(1)
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    assert [record.value["seq"] for record in pipeline.judge()] == [1]


def test_the_page_is_run(bare_pipeline: Pipeline) -> None:
    pipeline = made(bare_pipeline, on_poison="dead-letter")
    pipeline.sql("create table orders (id text, state text)")
    pipeline.sql("create role shop_service_" + pipeline.slot)
    blocks = [block for block in documents.blocks(documents.ROOT / "docs" / "messages.md") if not block.is_run]
    commands = [line for block in blocks if block.language == "sh" for line in block.text.splitlines()]
    assert commands[0] == "cdc-publisher outbox init --messages --writers shop_service --revoke"
    try:
        words = commands[0].replace("shop_service", f"shop_service_{pipeline.slot}").split()[1:]
        done = pipeline.run(*words)
        assert done.returncode == 0, done.stderr
        for block in blocks:
            if block.language == "sql":
                with pipeline.connect() as connection:
                    connection.execute(block.text.encode())
        running = pipeline.start().streams()
        pipeline.settles()
        assert running.stop() == 0
    finally:
        pipeline.sql(f"drop owned by shop_service_{pipeline.slot}")
        pipeline.sql(f"drop role shop_service_{pipeline.slot}")
    letters = listed(pipeline)
    assert [(letter["key"], letter["error"]) for letter in letters] == [("o-1", "contract-missing")] * 3
