"""Tables that inherit from the outbox, and its partitions: SQL counts their rows to it, and so does the publisher."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests import ROOT, documents
from tests.integration.checking import check, fixed, reported
from tests.pipeline import Pipeline, make_pipeline, prepare
from tests.produced import produces
from tests.servers import PostgresOf, Servers, a_database
from tests.versions import OLD_POSTGRES

INSERT = (
    "insert into {} (aggregatetype, aggregateid, type, payload)"
    " select 'note', {!r}, 'Noted', jsonb_build_object('seq', s) from generate_series({}, {}) s"
)


def insert(pipeline: Pipeline, table: str, first: int, last: int) -> None:
    pipeline.sql(INSERT.format(table, table, first, last))


@pytest.fixture(params=[None, *OLD_POSTGRES], ids=lambda folder: folder.parent.name if folder else "newest")
def family(
    request: pytest.FixtureRequest,
    bare_pipeline: Pipeline,
    module_postgres: PostgresOf,
    servers: Servers,
    topic_prefix: str,
    folder: Path,
) -> Iterator[Pipeline]:
    """A pipeline whose outbox has a child, and this one a child of its own, with a column that the outbox lacks."""
    with contextlib.ExitStack() as ends:
        pipeline = bare_pipeline
        if request.param:
            dsn = ends.enter_context(a_database(module_postgres(request.param).dsn))
            pipeline = make_pipeline(dsn, servers.kafka, topic_prefix, folder)
        ends.callback(pipeline.close)
        prepare(pipeline)
        pipeline.sql("create table child () inherits (outbox)")
        pipeline.sql("create table grandchild (more text, primary key (id)) inherits (child)")
        yield pipeline


@pytest.mark.parametrize("accelerator", ["python", "native"])
def test_case_b1_rows_of_inheriting_tables_are_published_as_rows_of_the_outbox(
    family: Pipeline, accelerator: str
) -> None:
    if accelerator == "native":
        pytest.importorskip("cdc_native")
    family.settings["delivery"] = {"accelerator": accelerator}
    fixed(family, "outbox_children", "fail", "public.child inherits from public.outbox", "public.grandchild inherits")
    assert check(family)["outbox_children"].status == "pass"
    assert check(family)["publication_scope"].status == "pass"
    family.start().streams()
    with family.connect() as connection:
        for seq in range(0, 60, 2):
            with connection.transaction():
                for table in ("outbox", "child", "grandchild"):
                    connection.execute(INSERT.format(table, table, seq, seq + 1).encode())
        connection.execute(INSERT.format("grandchild", "grandchild", 60, 99).encode())
    family.settles()
    assert len(family.judge()) == 3 * 60 + 40
    found = json.loads(family.run("audit", "--json").stdout)
    assert (found["counts"]["rows"], found["counts"]["delivered"], found["findings"]) == (220, 220, [])


def test_case_b1_a_child_that_is_not_published_is_refused_before_anything_is_confirmed(family: Pipeline) -> None:
    insert(family, "child", 1, 3)
    insert(family, "outbox", 1, 2)
    before = family.confirmed()
    refused = family.run_process("start")
    assert refused.returncode == 1
    assert "table public.child inherits from public.outbox" in refused.stderr
    assert "ADD TABLE ONLY" in refused.stderr
    assert family.confirmed() == before
    refused = family.run("outbox", "init")
    assert (refused.returncode, "table public.child inherits from" in refused.stderr) == (1, True)
    refused = family.run("outbox", "purge", "--grace", "0s", "--accept-unknown")
    assert (refused.returncode, "table public.child inherits from" in refused.stderr) == (1, True)
    assert family.sql("select count(*)::int from outbox") == [(5,)]
    fixed(family, "outbox_children", "fail", "public.child inherits from public.outbox")
    family.start().streams()
    family.settles()
    found = json.loads(family.run("audit", "--json", "--repair", "--yes").stdout)
    assert found["repair"] == {"missing": 3, "repaired": 3, "found_meanwhile": 0, "stays": 0}
    assert len({record.id for record in family.records()}) == 5


def test_case_b1_outbox_init_publishes_the_children_that_there_are(family: Pipeline) -> None:
    family.sql("drop publication cdc_publisher")
    assert family.run("outbox", "init").returncode == 0
    assert check(family)["outbox_children"].status == "pass"


def test_case_b1_a_child_that_is_added_as_the_page_says_loses_nothing(pipeline: Pipeline) -> None:
    (block,) = [b for b in documents.blocks(ROOT / "docs" / "delivery.md") if "INHERITS" in b.text]
    with pipeline.connect() as connection:
        connection.execute(block.text.encode())
    insert(pipeline, "outbox_2027", 1, 3)
    assert check(pipeline)["outbox_children"].status == "pass"
    pipeline.start().streams()
    pipeline.settles()
    assert len(pipeline.judge()) == 3


def test_case_b1_a_child_that_appears_while_running_ends_the_publisher_with_the_reason(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    insert(pipeline, "outbox", 1, 2)
    pipeline.settles()
    pipeline.sql("create table child () inherits (outbox)")
    insert(pipeline, "child", 3, 4)
    assert running.wait() == 1
    assert "inherit from table public.outbox" in running.log[-1]["message"]
    assert "public.child (not published)" in running.log[-1]["message"]
    fixed(pipeline, "outbox_children", "fail", "public.child inherits from public.outbox")
    done = pipeline.run_process("start")
    assert (done.returncode, "public.child, and none before" in done.stderr) == (1, True)
    assert pipeline.run("audit", "--repair", "--yes").stdout.endswith("repaired 2 events\n")
    again = pipeline.start("--accept-changes").streams()
    insert(pipeline, "child", 5, 6)
    pipeline.settles()
    assert len({record.id for record in pipeline.records()}) == 6
    pipeline.sql("alter publication cdc_publisher drop table only child")
    assert again.wait() == 1


def test_case_b1_a_child_may_be_published_by_its_schema_and_not_with_other_rows_or_columns(family: Pipeline) -> None:
    family.sql("alter publication cdc_publisher add table only grandchild")
    family.sql("alter publication cdc_publisher add table only child (id, type)")
    fixed(
        family, "outbox_children", "fail", "leaves out 'aggregatetype', 'aggregateid', 'payload' of table public.child"
    )
    family.sql("alter publication cdc_publisher drop table only child")
    family.sql("alter publication cdc_publisher add table only child where (type <> 'x')")
    fixed(family, "outbox_children", "fail", "public.child", "has another row filter for it")
    family.sql("drop publication cdc_publisher")
    family.sql("create publication cdc_publisher for tables in schema public with (publish = 'insert')")
    assert check(family)["outbox_children"].status == "pass"
    family.sql("alter table child no inherit outbox")
    assert check(family)["outbox_children"].found == "no table inherits from it"
    family.sql("alter table child inherit outbox")
    family.sql("alter table child set unlogged")
    fixed(family, "outbox_children", "fail", "public.child is unlogged")


def test_case_b1_rows_of_children_are_purged_when_they_are_confirmed(family: Pipeline) -> None:
    family.sql("alter publication cdc_publisher add table only child, only grandchild")
    running = family.start().streams()
    for table in ("outbox", "child", "grandchild"):
        insert(family, table, 1, 2)
    family.settles()
    done = family.run("outbox", "purge", "--grace", "0s", "--wait", "60s")  # while commits of others fill the WAL
    assert done.stdout == "deleted 6 rows of public.outbox\n", done.stderr
    assert running.stop() == 0
    assert family.sql("select count(*)::int from outbox") == [(0,)]


@produces("outbox_children:fail", "outbox_children:warn")
def test_case_b1_partitions_outside_of_the_wal_are_refused_or_warned_of(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    pipeline.sql(
        "create table outbox (id uuid default gen_random_uuid(), aggregatetype text, aggregateid text, type text,"
        " payload jsonb) partition by list (aggregatetype)"
    )
    pipeline.sql("create unlogged table notes partition of outbox for values in ('note')")
    pipeline.sql("create foreign data wrapper nothing")
    pipeline.sql("create server nowhere foreign data wrapper nothing")
    prepare(pipeline)
    refused = pipeline.run_process("start")
    assert (refused.returncode, "table public.notes is unlogged or temporary" in refused.stderr) == (1, True)
    fixed(pipeline, "outbox_children", "fail", "public.notes is unlogged")
    pipeline.sql("create foreign table archive partition of outbox for values in ('old') server nowhere")
    reported(pipeline, "outbox_children", "warn", "foreign tables (public.archive), which write no WAL")
    pipeline.start().logs("may be in foreign tables (public.archive)").streams()


PARTITIONED = (
    "create table outbox (id uuid default gen_random_uuid(), aggregatetype text, aggregateid text, type text,"
    " payload jsonb, created_at timestamptz not null default now())"
)


@produces("outbox_moves:warn")
def test_case_b2_updates_that_move_rows_are_warned_of_until_a_trigger_refuses_them(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    pipeline.sql(f"{PARTITIONED} partition by list (aggregateid)")
    for key in ("k", "other"):
        pipeline.sql(f"create table notes_{key} partition of outbox for values in ('{key}')")
    prepare(pipeline)
    running = pipeline.start().logs("an UPDATE that moves a row of public.outbox to another partition").streams()
    pipeline.insert(1, 2)
    fixed(pipeline, "outbox_moves", "warn", "is a DELETE and an INSERT in the WAL")
    with pytest.raises(psycopg.errors.RaiseException, match="would publish its event again"):
        pipeline.sql("update outbox set aggregateid = 'other'")
    pipeline.sql("update outbox set created_at = now()")
    pipeline.settles()
    assert len(pipeline.judge()) == 2
    assert running.stop() == 0
    again = pipeline.start().streams()
    assert again.count("an UPDATE that moves a row") == 0


@pytest.mark.parametrize("key", ["((aggregateid || type))", "(aggregatetype)"])
def test_case_b2_expressions_and_partitions_of_partitions_are_kept_in_place_too(
    bare_pipeline: Pipeline, key: str
) -> None:
    pipeline = bare_pipeline
    pipeline.sql(f"{PARTITIONED} partition by hash {key}")
    for remainder in (0, 1):
        bounds = f"for values with (modulus 2, remainder {remainder}) partition by hash (aggregateid)"
        pipeline.sql(f"create table half_{remainder} partition of outbox {bounds}")
        pipeline.sql(
            f"create table all_{remainder} partition of half_{remainder} for values with (modulus 1, remainder 0)"
        )
    prepare(pipeline)
    fixed(pipeline, "outbox_moves", "warn", "to another partition")
    pipeline.insert(1)
    for column in ("aggregateid", "aggregatetype" if "||" not in key else "type"):
        with pytest.raises(psycopg.errors.RaiseException):
            pipeline.sql(f"update outbox set {column} = 'elsewhere'")


def test_case_b2_an_update_that_makes_a_row_pass_the_filter_is_warned_of(pipeline: Pipeline) -> None:
    pipeline.sql("alter publication cdc_publisher set table outbox where (id > '11111111-1111-1111-1111-111111111111')")
    assert check(pipeline)["outbox_moves"].status == "pass"
    pipeline.sql("alter publication cdc_publisher set (publish = 'insert, update')")
    fixed(pipeline, "outbox_moves", "warn", "filters rows of public.outbox and publishes updates")


def test_case_b2_the_trigger_of_the_page_passes_the_check(bare_pipeline: Pipeline) -> None:
    bare_pipeline.sql(f"{PARTITIONED} partition by range (created_at)")
    bare_pipeline.sql("create table rest partition of outbox default")
    prepare(bare_pipeline)
    (block,) = [b for b in documents.blocks(ROOT / "docs" / "delivery.md") if "CREATE TRIGGER" in b.text]
    with bare_pipeline.connect() as connection:
        connection.execute(block.text.encode())
    assert check(bare_pipeline)["outbox_moves"].status == "pass"
