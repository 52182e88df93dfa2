"""Rows that SQL does not show, or that the publication leaves out on purpose: each reader of the table says so."""

import json
from collections.abc import Iterator

import pytest
from psycopg.conninfo import make_conninfo

from cdc.audit.table import OutboxTable
from cdc.config.loading import load
from cdc.errors import PostgresError
from cdc.postgres import rows
from cdc.postgres.connection import connect
from tests.integration.checking import check, fixed, no_role, role
from tests.pipeline import Pipeline, prepare


@pytest.fixture
def limited(pipeline: Pipeline) -> Iterator[Pipeline]:
    """A pipeline whose role sees no row, by a policy, and in which no event was published."""
    pipeline.insert(1, 2)
    name = role(pipeline)
    pipeline.sql(f'grant select, update, delete on outbox to "{name}"')
    pipeline.sql("alter table outbox enable row level security")
    pipeline.settings["postgres"]["dsn"] = make_conninfo(pipeline.dsn, user=name)
    yield pipeline
    pipeline.settings["postgres"]["dsn"] = pipeline.dsn
    no_role(pipeline, name)


@pytest.mark.parametrize(
    "command", ["audit", "audit --repair --yes", "schema check --table", "outbox purge --grace 0s --accept-unknown"]
)
def test_case_b3_a_reader_that_a_policy_keeps_from_rows_ends_with_the_reason(limited: Pipeline, command: str) -> None:
    before = limited.confirmed()
    if command.startswith("audit"):  # the events are lost, on purpose
        limited.sql("select pg_replication_slot_advance(%s, pg_current_wal_lsn())", limited.slot)
        assert limited.confirmed() > before
    done = limited.run(*command.split())
    assert done.returncode == 1, done.stdout
    assert "row-level security" in done.stderr
    assert "BYPASSRLS" in done.stderr


def test_case_b3_check_warns_of_rows_that_a_policy_hides_and_does_not_say_that_there_are_none(
    limited: Pipeline,
) -> None:
    found = check(limited)
    assert "row-level security of table public.outbox may hide rows" in found["table_rights"].found
    assert found["outbox_rows"].status == "warn"
    assert "could not be checked" in found["outbox_rows"].found


def test_case_b3_a_policy_hides_nothing_where_a_pooler_drops_the_settings_of_the_session(limited: Pipeline) -> None:
    settings = load(limited.configure(), ())
    with connect(settings.postgres.dsn) as connection:
        connection.execute("set row_security = on")
        with pytest.raises(PostgresError, match="row-level security"):
            list(rows.read(connection, settings))
        with pytest.raises(PostgresError, match="row-level security"):
            OutboxTable(connection, settings, None)


def test_case_b3_rows_that_the_publication_filters_are_not_missing(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    prepare(pipeline)
    pipeline.sql("alter publication cdc_publisher set table outbox where (aggregateid not like 'no%')")
    pipeline.start().streams()
    pipeline.insert(1, 2)
    pipeline.insert(3, 4, key="not at all")
    pipeline.settles()
    found = json.loads(pipeline.run("audit", "--json", "--repair", "--yes").stdout)
    assert (found["counts"]["rows"], found["counts"]["delivered"], found["findings"]) == (4, 2, [])
    assert found["repair"]["missing"] == 0
    assert [(note["count"], note["why"]) for note in found["not_judged"]] == [
        (2, "the row filter of the publication excludes them")
    ]
    assert fixed(pipeline, "publication_rows", "warn", "publishes only rows with")


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("drop table notes", "may have been dropped, detached or truncated"),
        ("alter table outbox detach partition notes", "may have been dropped, detached or truncated"),
        ("truncate notes", "may have been dropped, detached or truncated"),
    ],
)
def test_case_b4_records_of_rows_that_went_with_their_partition_are_not_judged(
    bare_pipeline: Pipeline, statement: str, why: str
) -> None:
    pipeline = bare_pipeline
    pipeline.sql(
        "create table outbox (id uuid default gen_random_uuid(), aggregatetype text, aggregateid text, type text,"
        " payload jsonb, created_at timestamptz default now()) partition by list (aggregateid)"
    )
    pipeline.sql("create table notes partition of outbox for values in ('k'); ")
    pipeline.sql("create table others partition of outbox default")
    prepare(pipeline)
    pipeline.start().streams()
    pipeline.insert(1, key="other")
    pipeline.insert(2, 3)
    pipeline.settles()
    pipeline.sql(statement)
    done = pipeline.run("audit", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["findings"], found["counts"]["purged"]) == (0, [], 2)
    assert why in found["not_judged"][0]["why"]


@pytest.mark.parametrize("statement", ["truncate outbox", "drop table child"])
def test_case_b4_truncated_tables_and_dropped_children_are_not_judged_either(
    pipeline: Pipeline, statement: str
) -> None:
    pipeline.sql("create table child () inherits (outbox)")
    pipeline.sql("alter publication cdc_publisher add table only child")
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.sql(
        "insert into child (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Noted', '{\"seq\": 2}')"
    )
    pipeline.insert(3)
    pipeline.settles()
    assert running.stop() == 0
    pipeline.sql(statement)
    done = pipeline.run("audit", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["findings"]) == (0, []), found
    assert found["counts"]["purged"] == (3 if "truncate" in statement else 1)
