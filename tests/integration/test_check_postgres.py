"""`check` reports each problem of PostgreSQL, produced on a real server; the fix that it prints solves the problem."""

import contextlib
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.integration.checking import (
    Line,
    check,
    copied,
    fixed,
    no_role,
    not_passed,
    parsed,
    reported,
    role,
)
from tests.pipeline import Pipeline, eventually, make_pipeline, prepare
from tests.pooler import POOLERS, pooler
from tests.produced import produces
from tests.servers import PrivatePostgres, Servers, a_database

TABLE = "id uuid primary key, aggregatetype text, aggregateid text, type text, payload jsonb"


@produces("outbox_table:fail", "publication:fail", "replication_slot:fail")
def test_printed_fixes_prepare_a_new_database(bare_pipeline: Pipeline) -> None:
    found = check(bare_pipeline)
    for name in ("outbox_table", "publication", "replication_slot"):
        assert found[name].status == "fail"
    fixed(bare_pipeline, "outbox_table", "fail", "table public.outbox does not exist")
    assert check(bare_pipeline)["publication"].status == "pass"
    fixed(bare_pipeline, "replication_slot", "fail", "does not exist")
    bare_pipeline.sql("drop publication cdc_publisher")
    fixed(bare_pipeline, "publication", "fail", "publication 'cdc_publisher' does not exist")
    bare_pipeline.create_topic(bare_pipeline.topic)
    ready = check(bare_pipeline, "--topic", bare_pipeline.topic)
    assert set(not_passed(ready).values()) <= {"warn"}, not_passed(ready)


def test_running_publisher_is_recognized_and_not_disturbed(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    found = check(pipeline)
    assert "read by a publisher, pid" in found["replication_slot"].found
    assert found["slot_identity"].status == "pass"
    assert "match the publisher's record" in found["slot_identity"].found
    assert "including the publisher's" in found["wal_senders"].found
    pipeline.insert(2)
    pipeline.settles()
    assert running.stop() == 0
    pipeline.judge()


def test_check_changes_nothing_in_postgresql_or_kafka(bare_pipeline: Pipeline) -> None:
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
def test_printed_fix_adds_or_converts_columns(bare_pipeline: Pipeline, columns: str, problem: str) -> None:
    bare_pipeline.sql(f"create table outbox ({columns})")
    fixed(bare_pipeline, "outbox_table", "fail", problem)


STORED = "type text generated always as ('Noted') stored"


def test_printed_fixes_quote_names(bare_pipeline: Pipeline) -> None:
    odd = 'Odd "name'
    bare_pipeline.settings["outbox"] = {"table": f"{odd}.{odd}", "headers": [odd]}
    bare_pipeline.settings["postgres"]["publication"] = odd
    bare_pipeline.sql('create schema "Odd ""name"')
    assert bare_pipeline.run("outbox", "init").returncode == 0
    bare_pipeline.sql('alter publication "Odd ""name" drop table "Odd ""name"."Odd ""name"')
    fixed(bare_pipeline, "publication", "fail", "does not hold table")
    bare_pipeline.sql('alter table "Odd ""name"."Odd ""name" drop column "Odd ""name"')
    fixed(bare_pipeline, "outbox_table", "fail", "column 'Odd \"name' is missing")


MAPPED = [
    (
        "id uuid, aggregateid text, topic text, payload jsonb",
        {},
        'columns = {aggregate = "topic", type = "topic"}',
        {"aggregate": "topic", "type": "topic"},
    ),
    (TABLE.replace(" type text,", ""), {}, 'columns = {type = "aggregatetype"}', {"type": "aggregatetype"}),
    (
        "event_id uuid, aggregatetype text, key text, type text, body json",
        {"key": "key"},
        'columns = {key = "key", id = "event_id", payload = "body"}',
        {"key": "key", "id": "event_id", "payload": "body"},
    ),
]


@pytest.mark.parametrize(("table", "columns", "proposed", "right"), MAPPED)
def test_case_g3_a_missing_column_is_mapped_first(
    bare_pipeline: Pipeline, table: str, columns: dict[str, str], proposed: str, right: dict[str, str]
) -> None:
    bare_pipeline.sql(f"create table outbox ({table})")
    bare_pipeline.settings["outbox"] = {"columns": columns}
    line = check(bare_pipeline)["outbox_table"]
    assert line.status == "fail"
    assert f"set [outbox] {proposed} to use columns that it has, or change the table" in line.found
    assert all(statement.startswith("ALTER TABLE") for statement in line.fix)
    bare_pipeline.settings["outbox"] = {"columns": right}
    assert check(bare_pipeline)["outbox_table"].status == "pass"


def test_case_a6_outbox_init_publishes_stored_generated_columns(bare_pipeline: Pipeline) -> None:
    bare_pipeline.sql(f"create table outbox ({TABLE.replace(' type text', f' {STORED}')})")
    assert bare_pipeline.run("outbox", "init").returncode == 0
    assert bare_pipeline.run("slot", "create").returncode == 0
    bare_pipeline.create_topic(bare_pipeline.topic)
    running = bare_pipeline.start()
    for _ in range(2):
        bare_pipeline.sql("insert into outbox values (gen_random_uuid(), 'note', 'k', default, '{\"seq\": 1}')")
    bare_pipeline.settles()
    assert [record.header("eventType") for record in bare_pipeline.records()] == ["Noted"] * 2
    assert running.stop() == 0


def test_case_a5_a6_rows_from_before_a_generated_column_was_published_lack_its_header(pipeline: Pipeline) -> None:
    pipeline.settings["outbox"] = {"headers": ["tenant"]}
    pipeline.sql("alter table outbox add column tenant text generated always as ('acme') stored")
    pipeline.insert(1)
    fixed(pipeline, "publication", "fail", "leaves out 'tenant' of table public.outbox")
    pipeline.insert(2)
    running = pipeline.start()
    pipeline.settles()
    records = sorted(pipeline.records(), key=lambda record: record.position)
    assert [[value for name, value in record.headers if name == "tenant"] for record in records] == [[], ["acme"]]
    assert running.stop() == 0


def test_case_a6_outbox_init_refuses_virtual_generated_columns(bare_pipeline: Pipeline) -> None:
    virtual = STORED.replace("stored", "virtual")
    bare_pipeline.sql(f"create table outbox ({TABLE.replace(' type text', f' {virtual}')})")
    done = bare_pipeline.run("outbox", "init")
    assert done.returncode == 1
    assert "'type' (virtual)" in done.stderr
    assert bare_pipeline.sql("select from pg_publication") == []
    bare_pipeline.sql("create publication cdc_publisher for table outbox with (publish_generated_columns = stored)")
    assert bare_pipeline.run("outbox", "init").returncode == 1
    reported(bare_pipeline, "publication", "fail", "'type' (virtual)")


@produces("database_encoding:warn")
def test_case_c7_bytes_that_are_no_utf_8_in_a_database_of_sql_ascii_are_poison(
    servers: Servers, topic_prefix: str, tmp_path: Path
) -> None:
    with a_database(servers.dsn, "encoding 'SQL_ASCII' locale 'C' template template0") as dsn:
        pipeline = prepare(make_pipeline(dsn, servers.kafka, topic_prefix, tmp_path))
        pipeline.dsn = make_conninfo(dsn, client_encoding="UTF8")  # psycopg returns bytes by default
        pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
        pipeline.settings["outbox"] = {"headers": ["place"]}
        pipeline.sql("alter table outbox add column place text default 'é'")
        reported(pipeline, "database_encoding", "warn", "SQL_ASCII")
        cells, byte = ["note", "k", "Noted", '{"seq": 1}'], r"\xe9"
        for broken in (0, 1, 2, None):
            values = [f"E'{cell}{byte if place == broken else ''}'" for place, cell in enumerate(cells)]
            pipeline.sql(f"insert into outbox (aggregatetype, aggregateid, type, payload) values ({', '.join(values)})")
        running = pipeline.start()
        pipeline.settles()
        (record,) = pipeline.records()
        assert (record.key, record.value["seq"], record.header("place")) == ("k", 1, "é")
        listed = pipeline.run("dlq", "list").stdout
        for name in ("aggregatetype", "aggregateid", "type"):
            assert f"column '{name}' is not UTF-8" in listed
        assert running.stop() == 0
        pipeline.close()


def test_case_c10_a_schema_and_a_table_with_a_dot(bare_pipeline: Pipeline) -> None:
    bare_pipeline.settings["outbox"] = {"table": '"my.schema"."out.box"'}
    bare_pipeline.sql('create schema "my.schema"')
    prepare(bare_pipeline)
    assert not {name for name, status in not_passed(check(bare_pipeline)).items() if status == "fail"}
    running = bare_pipeline.start()
    for seq in (1, 2):
        bare_pipeline.sql(
            'insert into "my.schema"."out.box" (aggregatetype, aggregateid, type, payload)'
            f" values ('note', 'k', 'Noted', '{{\"seq\": {seq}}}')"
        )
    bare_pipeline.settles()
    assert [record.value["seq"] for record in bare_pipeline.records()] == [1, 2]
    for command in (["audit"], ["outbox", "purge", "--dry-run"], ["status"]):
        done = bare_pipeline.run(*command)
        assert done.returncode == 0, done.stderr
    assert running.stop() == 0


@produces("outbox_table:fail")
def test_view_or_unlogged_table_is_a_failure(bare_pipeline: Pipeline) -> None:
    bare_pipeline.sql(f"create unlogged table outbox ({TABLE})")
    fixed(bare_pipeline, "outbox_table", "fail", "is unlogged or temporary")
    bare_pipeline.sql("alter table outbox rename to rows; create view outbox as select * from rows")
    reported(bare_pipeline, "outbox_table", "fail", "public.outbox is a view")


@produces("publication:fail", "publication_rows:warn", "publication_scope:warn")
def test_printed_fix_corrects_incomplete_publication(pipeline: Pipeline) -> None:
    pipeline.sql("alter publication cdc_publisher drop table outbox")
    fixed(pipeline, "publication", "fail", "does not hold table public.outbox")
    pipeline.sql("alter publication cdc_publisher set (publish = 'delete')")
    fixed(pipeline, "publication", "fail", "does not publish inserts")
    pipeline.sql("alter publication cdc_publisher set table outbox (id, type)")
    fixed(pipeline, "publication", "fail", "leaves out 'aggregatetype', 'aggregateid', 'payload'")
    pipeline.sql("alter publication cdc_publisher set table outbox where (type <> 'x')")
    fixed(pipeline, "publication_rows", "warn", "publishes only rows with")
    pipeline.sql("alter publication cdc_publisher set (publish = 'insert, update, truncate')")
    fixed(pipeline, "publication_scope", "warn", "also publishes updates, truncates")
    pipeline.sql('create table "Other one" (id int primary key)')
    pipeline.sql('alter publication cdc_publisher add table "Other one"')
    fixed(pipeline, "publication_scope", "warn", "public.Other one")
    pipeline.sql("drop publication cdc_publisher")
    pipeline.sql("create publication cdc_publisher for all tables with (publish = 'insert')")
    reported(pipeline, "publication_scope", "warn", "for all tables")


def test_printed_fix_publishes_partitions_via_their_root(bare_pipeline: Pipeline) -> None:
    bare_pipeline.sql(f"create table outbox ({TABLE.replace(' primary key', '')}) partition by hash (id)")
    bare_pipeline.sql("create table outbox_0 partition of outbox for values with (modulus 1, remainder 0)")
    bare_pipeline.sql("create publication cdc_publisher for table outbox with (publish = 'insert')")
    fixed(bare_pipeline, "publication", "fail", "via its partition root")
    assert check(bare_pipeline)["publication_scope"].status == "pass"


@produces("slot_identity:fail")
def test_slot_advanced_by_another_client_is_reported_and_accepted(pipeline: Pipeline) -> None:
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


@produces("replication_slot:fail")
def test_slot_of_another_kind_or_database_is_a_failure(pipeline: Pipeline, servers: Servers) -> None:
    other = f"{pipeline.slot}_x"[:63]

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
                reported(pipeline, "replication_slot", "fail", phrase)
            finally:
                elsewhere.execute("select pg_drop_replication_slot(%s)", [other])


@produces("replication_slot:warn")
def test_printed_fix_ends_another_reader_of_the_slot(pipeline: Pipeline) -> None:
    client = psycopg.connect(pipeline.dsn, application_name="Debezium", replication="database", autocommit=True)
    with contextlib.closing(client):
        options = b"proto_version '1', publication_names 'cdc_publisher'"
        slot = pipeline.slot.encode()
        client.pgconn.exec_(b'START_REPLICATION SLOT "' + slot + b'" LOGICAL 0/0 (' + options + b")")
        line = check(pipeline)["replication_slot"]
        assert (line.status, "'Debezium' reads it" in line.found) == ("warn", True)
        (end,) = line.fix
        assert end.startswith("SELECT pg_terminate_backend(")
        pipeline.sql(end.rstrip(";").replace(")", ", 5000)"))  # and wait for its end
        assert check(pipeline)["replication_slot"].status == "pass"


@produces("long_transactions:warn", "prepared_transactions:warn")
def test_printed_fix_ends_long_and_prepared_transactions(
    private_postgres: PrivatePostgres, servers: Servers, topic_prefix: str, tmp_path: Path
) -> None:
    """On its own server: the fix ends all transactions of the server, those of other tests included."""
    pipeline = prepare(make_pipeline(private_postgres().dsn, servers.kafka, topic_prefix, tmp_path))
    now = ("--long-transaction", "0")
    with contextlib.closing(psycopg.connect(pipeline.dsn, application_name="batch job")) as session:
        session.execute("create table held (id int)")
        fixed(pipeline, "long_transactions", "warn", "batch job, idle in transaction", options=now)
    with contextlib.closing(psycopg.connect(pipeline.dsn)) as session:
        session.execute("create table held (id int)")
        session.execute(f"prepare transaction 'it''s {pipeline.slot}'".encode())
    fixed(pipeline, "prepared_transactions", "warn", f"it's {pipeline.slot}", options=now)


@pytest.mark.parametrize("kind", [kind for kind in POOLERS if kind != "later stand-in"])
@produces("direct_connection:fail")
def test_pooler_that_refuses_replication_is_a_failure(pipeline: Pipeline, kind: str, folder: Path) -> None:
    line = _behind_pooler(pipeline, kind, folder)
    assert line.status == "fail"
    assert "unsupported startup parameter: replication" in line.found


@produces("direct_connection:warn")
def test_pooler_that_allows_replication_is_a_warning(pipeline: Pipeline, folder: Path) -> None:
    line = _behind_pooler(pipeline, "later stand-in", folder)
    assert line.status == "warn"
    assert "goes through a pooler" in line.found


def _behind_pooler(pipeline: Pipeline, kind: str, folder: Path) -> Line:
    """Return the line `direct_connection` behind a pooler; the same connection without it must pass."""
    ((port,),) = pipeline.sql("select current_setting('port')::int")
    right = pipeline.settings["postgres"]["dsn"]
    with pooler(kind, port, folder) as place:
        pipeline.settings["postgres"]["dsn"] = make_conninfo(right, port=place)
        line = check(pipeline)["direct_connection"]
        assert "not at a pooler such as PgBouncer" in (line.hint or "")
        assert check(pipeline)["outbox_table"].status == "pass"
    pipeline.settings["postgres"]["dsn"] = right
    assert check(pipeline)["direct_connection"].status == "pass"
    return line


@produces("direct_connection:fail", "replication_role:fail", "session_rights:warn", "table_rights:warn")
def test_printed_fix_grants_missing_rights(pipeline: Pipeline) -> None:
    name = role(pipeline, "login")
    try:
        found = check(pipeline)
        assert found["direct_connection"].status == "fail"
        fixed(pipeline, "replication_role", "fail", f'role "{name}" may not replicate')
        assert check(pipeline)["direct_connection"].status == "pass"
        assert check(pipeline)["long_transactions"].status == "pass"
        fixed(pipeline, "session_rights", "warn", "cannot see the activity of other sessions")
        fixed(pipeline, "table_rights", "warn", "may not read table public.outbox")
        found = check(pipeline, "--topic", pipeline.topic)
        assert "fail" not in not_passed(found).values()
    finally:
        no_role(pipeline, name)


@produces("postgres_reachable:fail")
def test_printed_fix_admits_a_rejected_role(pipeline: Pipeline, servers: Servers) -> None:
    name = role(pipeline, "nologin replication")
    try:
        fixed(pipeline, "postgres_reachable", "fail", "is not permitted to log in")
        pipeline.sql(f'revoke connect on database "{_database(pipeline)}" from public')
        fixed(pipeline, "postgres_reachable", "fail", "permission denied for database")
    finally:
        no_role(pipeline, name)
    pipeline.sql(f'grant connect on database "{_database(pipeline)}" to public')
    missing_role = f"Another of {pipeline.slot}"
    pipeline.settings["postgres"]["dsn"] = make_conninfo(pipeline.dsn, user=missing_role)
    try:
        fixed(pipeline, "postgres_reachable", "fail", f'role "{missing_role}" does not exist')
    finally:
        no_role(pipeline, missing_role)
    pipeline.settings["postgres"]["dsn"] = make_conninfo(servers.dsn, dbname="no such database")
    reported(pipeline, "postgres_reachable", "fail", 'database "no such database" does not exist')


def _database(pipeline: Pipeline) -> str:
    return str(pipeline.sql("select current_database()")[0][0])


@produces("postgres_reachable:fail", "kafka_reachable:fail", "contracts:fail")
def test_each_side_is_checked_when_the_others_are_down(pipeline: Pipeline) -> None:
    pipeline.settings["postgres"]["dsn"] = "postgresql://someone:canary-word@127.0.0.1:1/shop"
    pipeline.settings["kafka"]["bootstrap.servers"] = "127.0.0.1:1"
    pipeline.settings["avro"]["schemas"] = "nowhere"
    done = pipeline.run("check", "--json")
    assert done.returncode == 1
    assert "canary-word" not in done.stdout + done.stderr
    failed = [name for name, line in parsed(done.stdout, done.returncode).items() if line.status == "fail"]
    assert failed == ["postgres_reachable", "kafka_reachable", "contracts"]


@produces("outbox_order:warn", "recovery:warn")
def test_it_is_reported_beforehand_whether_a_loss_of_the_slot_could_be_healed(pipeline: Pipeline) -> None:
    line = check(pipeline)["recovery"]
    assert line.status == "pass"
    assert "`recover` would look at rows since the horizon of 20" in line.found
    assert check(pipeline)["outbox_order"].found == "column cdc_seq numbers the rows of public.outbox"
    pipeline.sql("alter table outbox drop column cdc_seq")
    fixed(pipeline, "outbox_order", "warn", "no column numbers the rows of public.outbox")
    assert check(pipeline)["outbox_order"].status == "pass"
    pipeline.sql(
        "do $$ begin execute format('alter sequence %s cache 20', pg_get_serial_sequence('outbox', 'cdc_seq')); end $$"
    )
    fixed(pipeline, "outbox_order", "warn", "gives each session 20 numbers at once")
    assert check(pipeline)["outbox_order"].status == "pass"
    with psycopg.connect(pipeline.dsn) as connection:
        connection.execute(
            "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Noted', '{}')"
        )
        connection.execute("delete from outbox")
    eventually(lambda: check(pipeline)["recovery"].status == "warn", "statistics show the rows")
    reported(pipeline, "recovery", "warn", "were inserted, and none is in the table")


def test_after_a_loss_of_the_slot_recover_is_the_fix(pipeline: Pipeline) -> None:
    pipeline.insert(1)
    pipeline.sql("select pg_drop_replication_slot(%s)", pipeline.slot)
    line = check(pipeline)["replication_slot"]
    assert line.status == "fail"
    assert [one.split()[-1] for one in line.fix] == ["recover"]
    fixed(pipeline, "replication_slot", "fail", "does not exist")
    assert check(pipeline)["replication_slot"].status == "pass"


def test_the_printed_sql_of_order_numbers_the_rows(pipeline: Pipeline) -> None:
    pipeline.sql("alter table outbox drop column cdc_seq")
    printed = pipeline.run("outbox", "init", "--order", "--print")
    assert printed.returncode == 0
    assert check(pipeline)["outbox_order"].status == "warn"
    pipeline.sql(printed.stdout)
    assert check(pipeline)["outbox_order"].status == "pass"
    again = pipeline.run("outbox", "init", "--order")
    assert "exist already" in again.stdout
