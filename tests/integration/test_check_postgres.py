"""Each defect of PostgreSQL that `check` tells, made on a real server, and mended by what it prints."""

import contextlib
import json
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.integration.checking import (
    check,
    copied,
    mended,
    no_role,
    not_passed,
    role,
    told,
)
from tests.pipeline import Pipeline, make_pipeline, prepare
from tests.pooler import POOLERS, pooler
from tests.servers import PrivatePostgres, Servers

TABLE = "id uuid primary key, aggregatetype text, aggregateid text, type text, payload jsonb"


def test_a_new_database_is_made_ready_by_what_is_printed(bare_pipeline: Pipeline) -> None:
    found = check(bare_pipeline)
    for name in ("outbox_table", "publication", "replication_slot"):
        assert found[name].status == "fail"
    mended(bare_pipeline, "outbox_table", "fail", "table public.outbox does not exist")
    assert check(bare_pipeline)["publication"].status == "pass"
    mended(bare_pipeline, "replication_slot", "fail", "does not exist")
    bare_pipeline.sql("drop publication cdc_publisher")
    mended(bare_pipeline, "publication", "fail", "publication 'cdc_publisher' does not exist")
    bare_pipeline.create_topic(bare_pipeline.topic)
    ready = check(bare_pipeline, "--topic", bare_pipeline.topic)
    assert set(not_passed(ready).values()) <= {"warn"}, not_passed(ready)


def test_a_running_publisher_is_seen_and_not_disturbed(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    found = check(pipeline)
    assert "read by our publisher, pid" in found["replication_slot"].found
    assert found["slot_identity"].status == "pass"
    assert "as the publisher left them" in found["slot_identity"].found
    assert "ours among them" in found["wal_senders"].found
    pipeline.insert(2)
    pipeline.settles()
    assert running.stop() == 0
    pipeline.judge()


def test_nothing_is_changed_on_either_side(bare_pipeline: Pipeline) -> None:
    def everything() -> list[object]:
        topics = [name for name in _topics(bare_pipeline) if name.startswith(bare_pipeline.prefix)]
        catalogs = ("pg_class", "pg_publication", "pg_roles")
        counts = [bare_pipeline.sql(f"select count(*) from {name}") for name in catalogs]
        slots = bare_pipeline.sql("select slot_name from pg_replication_slots where database = current_database()")
        return [topics, counts, slots]

    before = everything()
    bare_pipeline.settings["delivery"] = {"guarantee": "exactly-once", "on_poison": "dead-letter"}
    check(bare_pipeline, "--topic", bare_pipeline.topic)
    assert everything() == before


def _topics(pipeline: Pipeline) -> list[str]:
    from confluent_kafka.admin import AdminClient

    return list(AdminClient({"bootstrap.servers": pipeline.kafka}).list_topics(timeout=30).topics)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (TABLE.replace(", payload jsonb", ""), "column 'payload' is missing"),
        (TABLE.replace(" type text,", ""), "column 'type' is missing"),
        (TABLE.replace("jsonb", "integer"), "column 'payload' is integer, not jsonb"),
        (TABLE.replace("aggregateid text", "aggregateid bytea"), "column 'aggregateid' is bytea, not text"),
    ],
)
def test_a_table_of_another_shape_gets_the_columns_that_it_lacks(
    bare_pipeline: Pipeline, columns: str, problem: str
) -> None:
    bare_pipeline.sql(f"create table outbox ({columns})")
    mended(bare_pipeline, "outbox_table", "fail", problem)


def test_names_are_quoted_in_what_is_printed(bare_pipeline: Pipeline) -> None:
    odd = 'Odd "name'
    bare_pipeline.settings["outbox"] = {"table": f"{odd}.{odd}", "headers": [odd]}
    bare_pipeline.settings["postgres"]["publication"] = odd
    bare_pipeline.sql('create schema "Odd ""name"')
    assert bare_pipeline.run("outbox", "init").returncode == 0
    bare_pipeline.sql('alter publication "Odd ""name" drop table "Odd ""name"."Odd ""name"')
    mended(bare_pipeline, "publication", "fail", "does not hold table")
    bare_pipeline.sql('alter table "Odd ""name"."Odd ""name" drop column "Odd ""name"')
    mended(bare_pipeline, "outbox_table", "fail", "column 'Odd \"name' is missing")


def test_a_view_and_an_unlogged_table_are_no_outbox(bare_pipeline: Pipeline) -> None:
    bare_pipeline.sql(f"create unlogged table outbox ({TABLE})")
    mended(bare_pipeline, "outbox_table", "fail", "is unlogged or temporary")
    bare_pipeline.sql("alter table outbox rename to rows; create view outbox as select * from rows")
    told(bare_pipeline, "outbox_table", "fail", "public.outbox is a view")


def test_a_publication_that_leaves_something_out_is_mended(pipeline: Pipeline) -> None:
    pipeline.sql("alter publication cdc_publisher drop table outbox")
    mended(pipeline, "publication", "fail", "does not hold table public.outbox")
    pipeline.sql("alter publication cdc_publisher set (publish = 'delete')")
    mended(pipeline, "publication", "fail", "does not publish inserts")
    pipeline.sql("alter publication cdc_publisher set table outbox (id, type)")
    mended(pipeline, "publication", "fail", "leaves out 'aggregatetype', 'aggregateid', 'payload'")
    pipeline.sql("alter publication cdc_publisher set table outbox where (type <> 'x')")
    mended(pipeline, "publication_rows", "warn", "publishes only rows with")
    pipeline.sql("alter publication cdc_publisher set (publish = 'insert, update, truncate')")
    mended(pipeline, "publication_scope", "warn", "updates, truncates too")
    pipeline.sql('create table "Other one" (id int primary key)')
    pipeline.sql('alter publication cdc_publisher add table "Other one"')
    mended(pipeline, "publication_scope", "warn", "public.Other one")
    pipeline.sql("drop publication cdc_publisher")
    pipeline.sql("create publication cdc_publisher for all tables with (publish = 'insert')")
    told(pipeline, "publication_scope", "warn", "for all tables")


def test_a_partitioned_table_is_published_under_its_own_name(bare_pipeline: Pipeline) -> None:
    bare_pipeline.sql(f"create table outbox ({TABLE.replace(' primary key', '')}) partition by hash (id)")
    bare_pipeline.sql("create table outbox_0 partition of outbox for values with (modulus 1, remainder 0)")
    bare_pipeline.sql("create publication cdc_publisher for table outbox with (publish = 'insert')")
    mended(bare_pipeline, "publication", "fail", "via its partition root")
    assert check(bare_pipeline)["publication_scope"].status == "pass"


def test_a_slot_that_was_moved_by_a_stranger_is_told_and_accepted(pipeline: Pipeline) -> None:
    pipeline.insert(1)
    pipeline.sql("select pg_replication_slot_advance(%s, pg_current_wal_lsn())", pipeline.slot)
    line = check(pipeline)["slot_identity"]
    assert (line.status, "but the publisher moved it only to" in line.found) == ("fail", True)
    repair, start = line.fix
    assert repair.endswith("audit --repair")
    assert start.endswith("start --accept-changes")
    copied(pipeline, [repair])
    running = pipeline.start("--accept-changes").streams()
    assert running.stop() == 0
    assert check(pipeline)["slot_identity"].status == "pass"
    assert pipeline.run("audit").returncode == 0


def test_slots_of_another_kind_or_database_are_not_ours(pipeline: Pipeline, servers: Servers) -> None:
    ours = pipeline.slot
    other = f"{ours}_x"[:63]
    pipeline.settings["postgres"]["slot"] = other
    with psycopg.connect(servers.dsn, autocommit=True) as elsewhere:
        for make, phrase in (
            ("select pg_create_physical_replication_slot(%s)", "is a physical slot"),
            ("select pg_create_logical_replication_slot(%s, 'test_decoding')", "uses the plugin test_decoding"),
            ("select pg_create_logical_replication_slot(%s, 'pgoutput')", "belongs to database"),
        ):
            try:
                elsewhere.execute(make.encode(), [other])
            except psycopg.errors.UndefinedFile:  # a server without contrib modules
                continue
            try:
                told(pipeline, "replication_slot", "fail", phrase)
            finally:
                elsewhere.execute("select pg_drop_replication_slot(%s)", [other])


def test_another_reader_of_the_slot_is_told_and_ended(pipeline: Pipeline) -> None:
    stranger = psycopg.connect(pipeline.dsn, application_name="Debezium", replication="database", autocommit=True)
    with contextlib.closing(stranger):
        options = b"proto_version '1', publication_names 'cdc_publisher'"
        slot = pipeline.slot.encode()
        stranger.pgconn.exec_(b'START_REPLICATION SLOT "' + slot + b'" LOGICAL 0/0 (' + options + b")")
        line = check(pipeline)["replication_slot"]
        assert (line.status, "'Debezium' reads it" in line.found) == ("warn", True)
        (end,) = line.fix
        assert end.startswith("SELECT pg_terminate_backend(")
        pipeline.sql(end.rstrip(";").replace(")", ", 5000)"))  # and wait for its end
        assert check(pipeline)["replication_slot"].status == "pass"


def test_transactions_that_hold_the_slot_back_are_told_with_the_statement_that_ends_them(
    private_postgres: PrivatePostgres, servers: Servers, topic_prefix: str, tmp_path: Path
) -> None:
    """On a server of its own: all transactions of the server are told, and those of other tests would be ended."""
    pipeline = prepare(make_pipeline(private_postgres().dsn, servers.kafka, topic_prefix, tmp_path))
    now = ("--long-transaction", "0")
    with contextlib.closing(psycopg.connect(pipeline.dsn, application_name="batch job")) as session:
        session.execute("create table held (id int)")
        mended(pipeline, "long_transactions", "warn", "batch job, idle in transaction", options=now)
    with contextlib.closing(psycopg.connect(pipeline.dsn)) as session:
        session.execute("create table held (id int)")
        session.execute(f"prepare transaction 'it''s {pipeline.slot}'".encode())
    mended(pipeline, "prepared_transactions", "warn", f"it's {pipeline.slot}", options=now)


@pytest.mark.parametrize("kind", POOLERS)
def test_a_pooler_between_is_told(pipeline: Pipeline, kind: str, folder: Path) -> None:
    ((port,),) = pipeline.sql("select current_setting('port')::int")
    right = pipeline.settings["postgres"]["dsn"]
    with pooler(kind, port, folder) as place:
        pipeline.settings["postgres"]["dsn"] = make_conninfo(right, port=place)
        line = check(pipeline)["direct_connection"]
        refused = "unsupported startup parameter: replication" in line.found
        between = "a pooler stands between" in line.found
        assert (line.status, refused, between) in (("fail", True, False), ("warn", False, True)), line
        assert (line.status == "warn") == (kind == "later stand-in")
        assert "not to a pooler such as PgBouncer" in (line.hint or "")
        assert check(pipeline)["outbox_table"].status == "pass"
    pipeline.settings["postgres"]["dsn"] = right
    assert check(pipeline)["direct_connection"].status == "pass"


def test_a_role_that_lacks_rights_is_told_what_to_grant(pipeline: Pipeline) -> None:
    name = role(pipeline, "login")
    try:
        found = check(pipeline)
        assert found["direct_connection"].status == "fail"
        mended(pipeline, "replication_role", "fail", f'role "{name}" may not replicate')
        assert check(pipeline)["direct_connection"].status == "pass"
        assert check(pipeline)["long_transactions"].status == "pass"
        mended(pipeline, "session_rights", "warn", "does not see the sessions of others")
        mended(pipeline, "table_rights", "warn", "may not read table public.outbox")
        found = check(pipeline, "--topic", pipeline.topic)
        assert "fail" not in not_passed(found).values()
    finally:
        no_role(pipeline, name)


def test_an_entrance_that_is_closed_is_opened_by_what_is_printed(pipeline: Pipeline, servers: Servers) -> None:
    name = role(pipeline, "nologin replication")
    try:
        mended(pipeline, "postgres_reachable", "fail", "is not permitted to log in")
        pipeline.sql(f'revoke connect on database "{_database(pipeline)}" from public')
        mended(pipeline, "postgres_reachable", "fail", "permission denied for database")
    finally:
        no_role(pipeline, name)
    pipeline.sql(f'grant connect on database "{_database(pipeline)}" to public')
    mended_later = f"Another of {pipeline.slot}"
    pipeline.settings["postgres"]["dsn"] = make_conninfo(pipeline.dsn, user=mended_later)
    try:
        mended(pipeline, "postgres_reachable", "fail", f'role "{mended_later}" does not exist')
    finally:
        no_role(pipeline, mended_later)
    pipeline.settings["postgres"]["dsn"] = make_conninfo(servers.dsn, dbname="no such database")
    told(pipeline, "postgres_reachable", "fail", 'database "no such database" does not exist')


def _database(pipeline: Pipeline) -> str:
    return str(pipeline.sql("select current_database()")[0][0])


def test_each_side_is_looked_at_when_the_others_are_down(pipeline: Pipeline) -> None:
    pipeline.settings["postgres"]["dsn"] = "postgresql://someone:canary-word@127.0.0.1:1/shop"
    pipeline.settings["kafka"]["bootstrap.servers"] = "127.0.0.1:1"
    pipeline.settings["avro"]["schemas"] = "nowhere"
    done = pipeline.run("check", "--json")
    assert done.returncode == 1
    assert "canary-word" not in done.stdout + done.stderr
    failed = [one["name"] for one in json.loads(done.stdout)["checks"] if one["status"] == "fail"]
    assert failed == ["postgres_reachable", "kafka_reachable", "contracts"]
