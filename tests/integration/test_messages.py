"""Commands where events are messages: what they create, check and judge, and what is not possible without a table."""

import contextlib
import json
from collections.abc import Iterator

import psycopg
import pytest

from cdc.checks.waiting import oldest
from cdc.config.loading import load
from cdc.postgres.connection import connect
from tests.endpoint import Endpoint
from tests.integration.checking import check, fixed
from tests.pipeline import Pipeline
from tests.produced import produces

EMIT = "select outbox_emit('note', 'k', 'Noted', '{\"seq\": 1}')"
NO_TABLE = "not possible without an outbox table"


@contextlib.contextmanager
def a_role(pipeline: Pipeline, kind: str) -> Iterator[str]:
    """A role of its own; it and its grants are dropped at the end."""
    name = f"{kind}_{pipeline.slot}"
    pipeline.sql(f"create role {name}")
    try:
        yield name
    finally:
        pipeline.sql(f"drop owned by {name}")
        pipeline.sql(f"drop role {name}")


@pytest.fixture
def alone(bare_pipeline: Pipeline) -> Pipeline:
    """A pipeline whose events are messages only, with a publication without a table."""
    bare_pipeline.settings["outbox"] = {"messages": "outbox"}
    for command in (("outbox", "init", "--messages"), ("slot", "create")):
        done = bare_pipeline.run(*command)
        assert done.returncode == 0, done.stderr
    bare_pipeline.create_topic(bare_pipeline.topic)
    return bare_pipeline


def test_init_makes_function_and_empty_publication_once(alone: Pipeline) -> None:
    assert alone.sql("select pubname, puballtables from pg_publication") == [("cdc_publisher", False)]
    assert alone.sql("select from pg_publication_tables") == []
    assert alone.sql("select to_regclass('outbox')") == [(None,)]
    before = alone.sql("select xmin::text from pg_proc where proname = 'outbox_emit'")
    again = alone.run("outbox", "init", "--messages")
    assert "function outbox_emit and publication cdc_publisher exist already" in again.stdout
    assert alone.sql("select xmin::text from pg_proc where proname = 'outbox_emit'") == before
    alone.settings["outbox"]["messages"] = "shop"
    assert "created function public.outbox_emit" in alone.run("outbox", "init", "--messages").stdout


def test_init_makes_the_table_where_the_settings_name_it(bare_pipeline: Pipeline) -> None:
    bare_pipeline.sql("create schema shop")
    bare_pipeline.settings["outbox"] = {"messages": "outbox", "table": "shop.events"}
    printed = bare_pipeline.run("outbox", "init", "--messages", "--print").stdout
    done = bare_pipeline.run("outbox", "init", "--messages")
    assert (done.returncode, done.stderr) == (0, "")
    assert 'CREATE OR REPLACE FUNCTION "shop"."outbox_emit"' in printed
    assert "FROM PUBLIC" in printed
    found = bare_pipeline.sql("select schemaname, tablename from pg_publication_tables")
    assert found == [("shop", "events")]
    assert bare_pipeline.run("slot", "create").returncode == 0
    assert check(bare_pipeline)["publication"].status == "pass"


def test_init_wants_the_prefix_and_its_options_want_messages(bare_pipeline: Pipeline) -> None:
    asked = bare_pipeline.run("outbox", "init", "--messages")
    assert asked.returncode == 78
    assert "[outbox] messages is not set" in asked.stderr
    assert bare_pipeline.run("outbox", "init", "--revoke").returncode == 2


def test_only_granted_roles_write_events_and_only_while_the_slot_is_there(alone: Pipeline) -> None:
    with a_role(alone, "writer") as writer, a_role(alone, "other") as other:
        done = alone.run("outbox", "init", "--messages", "--revoke", "--writers", writer)
        assert "revoked the right to pg_logical_emit_message from PUBLIC" in done.stdout

        def tries(name: str, statement: str) -> str:
            with alone.connect() as connection:
                connection.execute(f"set role {name}".encode())
                try:
                    connection.execute(statement.encode())
                except psycopg.Error as error:
                    return str(error)
            return ""

        assert tries(writer, EMIT) == ""
        assert "permission denied for function outbox_emit" in tries(other, EMIT)
        bare = "select pg_logical_emit_message(true, 'outbox', 'x')"
        assert "permission denied for function pg_logical_emit_message" in tries(writer, bare)
        hidden = "create temp table pg_replication_slots as select 1; set search_path = pg_temp, public; " + EMIT
        assert tries(writer, hidden) == ""
        for wrong, said in (
            ("select outbox_emit(null, 'k', 'Noted', '{}')", "an event needs aggregatetype"),
            ("select outbox_emit('note', 'k', 'Noted', 'broken')", "invalid input syntax for type json"),
        ):
            assert said in tries(writer, wrong)
        assert alone.run("slot", "drop", "--yes").returncode == 0
        assert f"replication slot {alone.slot} does not exist, or is lost" in tries(writer, EMIT)


@produces("message_function:warn", "message_rights:warn")
def test_check_knows_the_function_and_the_rights(alone: Pipeline) -> None:
    fixed(alone, "message_rights", "warn", "every role may call pg_logical_emit_message")
    alone.sql("alter function outbox_emit security invoker")
    fixed(alone, "message_function", "warn", "is not SECURITY DEFINER with a fixed search_path")
    alone.sql("alter function outbox_emit reset all")
    fixed(alone, "message_function", "warn", "is not SECURITY DEFINER with a fixed search_path")
    alone.sql("grant execute on function outbox_emit to public")
    fixed(alone, "message_function", "warn", "every role may call function public.outbox_emit")
    alone.settings["outbox"]["messages"] = "shop"
    fixed(alone, "message_function", "warn", "was made by other settings")
    alone.sql("drop function outbox_emit")
    fixed(alone, "message_function", "warn", "there is no function public.outbox_emit")
    alone.sql("drop publication cdc_publisher")
    fixed(alone, "publication", "fail", "publication 'cdc_publisher' does not exist")
    found = check(alone, "--topic", alone.topic)
    assert found["outbox_table"].found == "no table: events are messages of the prefix shop"
    assert found["message_function"].status == found["message_rights"].status == "pass"


def test_check_looks_at_the_oldest_message_that_waits(alone: Pipeline) -> None:
    alone.sql("select pg_logical_emit_message(true, 'other', 'x'), pg_logical_emit_message(false, 'outbox', 'x')")
    settings = load(alone.configure(), (), {})
    with connect(alone.dsn) as connection:
        assert oldest(connection, settings) is None
        alone.sql("select outbox_emit('note', 'k', 'Noted', '{\"seq\": 1}')")
        waiting = oldest(connection, settings)
    assert waiting
    assert (waiting.event.topic, waiting.event.payload) == (alone.topic, b'{"seq": 1}')


def test_a_table_that_is_there_must_be_published_or_be_disowned(alone: Pipeline) -> None:
    alone.sql("create table outbox (id uuid, aggregatetype text, aggregateid text, type text, payload jsonb)")
    said = alone.run_process("start")
    assert said.returncode == 1
    assert "does not hold table public.outbox" in said.stderr
    assert 'set [outbox] table = ""' in said.stderr
    alone.settings["outbox"]["table"] = ""
    running = alone.start().streams()
    assert running.stop() == 0


@pytest.mark.parametrize("prefix", ["", "a b", "ä", "x" * 64, "cdc-publisher"])
def test_prefixes_that_no_message_should_have_are_refused(bare_pipeline: Pipeline, prefix: str) -> None:
    bare_pipeline.settings["outbox"] = {"messages": prefix}
    said = bare_pipeline.run("config", "validate")
    assert said.returncode == 78
    assert "[outbox] messages" in said.stderr


def test_no_table_and_no_messages_are_no_outbox(bare_pipeline: Pipeline) -> None:
    bare_pipeline.settings["outbox"] = {"table": ""}
    assert bare_pipeline.run("config", "validate").returncode == 78


def test_messages_beside_one_part_of_a_split_outbox_are_refused(bare_pipeline: Pipeline) -> None:
    columns = "id uuid, aggregatetype text, aggregateid text, type text, payload jsonb"
    bare_pipeline.sql(f"create table whole ({columns}) partition by hash (aggregateid)")
    bare_pipeline.sql("create table part partition of whole for values with (modulus 1, remainder 0)")
    bare_pipeline.sql("create publication cdc_publisher for table part with (publish = 'insert')")
    bare_pipeline.settings["outbox"] = {"messages": "outbox", "table": "public.part"}
    assert bare_pipeline.run("slot", "create").returncode == 0
    said = bare_pipeline.run_process("start")
    assert said.returncode == 1
    assert "table public.part is a partition of public.whole, and [outbox] messages is set" in said.stderr
    assert "is a partition of" in check(bare_pipeline)["publication"].found
    assert "is a partition of" in bare_pipeline.run("outbox", "init", "--messages").stderr


def test_what_needs_rows_says_in_a_line_that_there_are_none(alone: Pipeline) -> None:
    for command in (
        ("outbox", "purge"),
        ("schema", "infer"),
        ("schema", "check", "--table"),
    ):
        said = alone.run(*command)
        assert (said.returncode, said.stderr.count("\n")) == (1, 1), said
        assert NO_TABLE in said.stderr
    assert alone.run("slot", "drop", "--yes").returncode == 0
    for arguments in (("recover", "--yes"), ("slot", "create", "--backfill", "--yes")):
        said = alone.run(*arguments)
        assert (said.returncode, said.stderr.count("\n")) == (1, 1), said
        assert NO_TABLE in said.stderr


def test_audit_judges_positions_and_sequences_and_says_so(alone: Pipeline) -> None:
    for _ in range(3):
        alone.sql(EMIT)
    running = alone.start().streams()
    alone.settles()
    found = alone.run("audit")
    assert found.returncode == 0
    assert "events that are messages have no row" in found.stdout
    facts = json.loads(alone.run("audit", "--json").stdout)
    assert (facts["counts"]["records"], facts["counts"]["phantom"], facts["counts"]["rows"]) == (3, 0, 0)
    assert "nothing to repair" in alone.run("audit", "--repair", "--yes").stdout
    assert running.stop() == 0


def test_audit_of_rows_beside_messages_misses_rows_only(alone: Pipeline) -> None:
    alone.settings["outbox"]["table"] = "public.outbox"
    assert alone.run("outbox", "init").returncode == 1  # the publication has no table
    columns = "id uuid default gen_random_uuid(), aggregatetype text, aggregateid text, type text, payload jsonb"
    alone.sql(f"create table outbox ({columns})")
    alone.sql("alter publication cdc_publisher add table outbox")
    alone.sql(EMIT)
    alone.insert(1, 2)
    running = alone.start().streams()
    alone.settles()
    assert running.stop() == 0
    alone.insert(3)
    alone.sql(EMIT)
    facts = json.loads(alone.run("audit", "--json").stdout)
    assert facts["findings"] == []
    assert (facts["counts"]["records"], facts["counts"]["rows"], facts["counts"]["in_flight"]) == (3, 3, 1)
    assert alone.run("slot", "advance", "--yes").returncode == 0
    facts = json.loads(alone.run("audit", "--json").stdout)
    assert [one["finding"] for one in facts["findings"]] == ["missing"]


def test_status_and_metrics_count_other_messages(alone: Pipeline) -> None:
    alone.settings["http"] = {"listen": "127.0.0.1:0"}
    alone.sql(EMIT)
    alone.sql("select pg_logical_emit_message(true, 'other', 'x'), pg_logical_emit_message(false, 'other', 'x')")
    running = alone.start().streams()
    alone.settles()
    endpoint = Endpoint(running)
    assert endpoint.ask("/status").json["other_messages"] == {"other": 2}
    assert 'cdc_other_messages_total{prefix="other"} 2.0' in endpoint.ask("/metrics").text
    assert running.count("messages of the prefix 'other' are no events") == 1
    assert running.stop() == 0
