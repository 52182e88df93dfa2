"""`outbox`, `slot` and `config` on a real server."""

import json
import tomllib

import psycopg
import pytest

from cdc.lsn import LSN
from tests.pipeline import Pipeline


def test_outbox_init_creates_what_is_missing_and_then_nothing(bare_pipeline: Pipeline) -> None:
    first = bare_pipeline.run("outbox", "init")
    assert first.returncode == 0
    assert first.stdout.split("\n")[:2] == ["created table public.outbox", "created publication cdc_publisher"]
    again = bare_pipeline.run("outbox", "init")
    assert again.returncode == 0
    assert "created" not in again.stdout
    assert bare_pipeline.sql("select pubinsert, pubupdate, pubdelete, pubtruncate from pg_publication") == [
        (True, False, False, False)
    ]


def test_outbox_init_print_shows_sql_that_makes_the_same_table(bare_pipeline: Pipeline) -> None:
    bare_pipeline.settings["outbox"] = {"table": 'public."Odd; name"'.replace('"', ""), "headers": ["tenant"]}
    shown = bare_pipeline.run("outbox", "init", "--print")
    assert shown.returncode == 0
    with psycopg.connect(bare_pipeline.dsn, autocommit=True) as connection:
        connection.execute(shown.stdout.encode())
    done = bare_pipeline.run("outbox", "init")
    assert done.returncode == 0, done.stderr
    assert "exist already" in done.stdout
    assert ("tenant", "text") in bare_pipeline.sql(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = 'public.\"Odd; name\"'::regclass"
    )


@pytest.mark.parametrize(
    ("columns", "difference"),
    [
        ("id uuid", "column 'payload' is missing"),
        (
            "id uuid, aggregatetype text, aggregateid text, type text, payload int",
            "column 'payload' is integer, not jsonb",
        ),
        ("id uuid, aggregatetype text, aggregateid bytea, type text, payload json", "column 'aggregateid' is bytea"),
    ],
)
def test_outbox_init_refuses_a_table_of_another_shape(bare_pipeline: Pipeline, columns: str, difference: str) -> None:
    bare_pipeline.sql(f"create table outbox ({columns})")
    done = bare_pipeline.run("outbox", "init")
    assert done.returncode == 1
    assert "is not the outbox that the settings describe" in done.stderr
    assert difference in done.stderr
    assert bare_pipeline.sql("select from pg_publication") == []


def test_a_slot_is_created_listed_advanced_and_dropped(pipeline: Pipeline) -> None:
    twice = pipeline.run("slot", "create")
    assert (twice.returncode, "exists already" in twice.stderr) == (1, True)
    listed = json.loads(pipeline.run("slot", "list", "--json").stdout)
    (mine,) = [slot for slot in listed if slot["name"] == pipeline.slot]
    assert mine["plugin"] == "pgoutput"
    assert mine["active_pid"] is None
    assert pipeline.slot in pipeline.run("slot", "list").stdout

    pipeline.insert(1)
    before, end = pipeline.confirmed(), pipeline.wal_end()
    asked = pipeline.run("slot", "advance")
    assert (asked.returncode, "skipping events" in asked.stdout) == (130, True)
    assert pipeline.confirmed() == before
    done = pipeline.run("slot", "advance", "--to", str(end), "--yes")
    assert done.returncode == 0, done.stderr
    assert before < pipeline.confirmed() <= LSN.parse(done.stdout.split()[-1])
    assert pipeline.run("slot", "advance", "--to", "nonsense").returncode == 2

    assert pipeline.run("slot", "drop").returncode == 130
    assert pipeline.run("slot", "drop", "--yes").returncode == 0
    gone = pipeline.run("slot", "drop", "--yes")
    assert (gone.returncode, "does not exist" in gone.stderr) == (1, True)


def test_an_active_slot_is_refused_with_the_pid(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    ((pid,),) = pipeline.sql("select active_pid from pg_replication_slots where slot_name = %s", pipeline.slot)
    for command in (("slot", "drop", "--yes"), ("slot", "advance", "--yes")):
        done = pipeline.run(*command)
        assert done.returncode == 1
        assert f"process {pid} of PostgreSQL reads it" in done.stderr
    assert running.stop() == 0


def test_slot_create_warns_when_there_is_no_publication_yet(bare_pipeline: Pipeline) -> None:
    done = bare_pipeline.run("slot", "create")
    assert done.returncode == 0
    assert "warning: publication 'cdc_publisher' does not exist" in done.stderr


def test_config_show_is_a_settings_file_without_secrets(bare_pipeline: Pipeline) -> None:
    bare_pipeline.settings["postgres"]["dsn"] = "postgresql://u:canary-1@localhost/db"
    bare_pipeline.settings["kafka"]["sasl.password"] = "canary-2"
    shown = bare_pipeline.run("config", "show", CDC_OUTBOX__HEADERS="tenant,region")
    assert shown.returncode == 0
    assert "canary" not in shown.stdout + shown.stderr
    assert tomllib.loads(shown.stdout)["outbox"]["headers"] == ["tenant", "region"]
    assert json.loads(bare_pipeline.run("config", "show", "--json").stdout)["postgres"]["slot"] == bare_pipeline.slot


def test_config_validate_reports_every_problem(bare_pipeline: Pipeline) -> None:
    assert bare_pipeline.run("config", "validate").returncode == 0
    bare_pipeline.settings["postgres"].pop("dsn")
    bare_pipeline.settings["kafka"]["no.such.property"] = 1
    bare_pipeline.settings["avro"]["schemas"] = "nowhere"
    done = bare_pipeline.run("config", "validate")
    assert done.returncode == 78
    for problem in ("[postgres] dsn is required", "no.such.property", "nowhere is not a folder"):
        assert problem in done.stderr


def test_config_validate_judges_contracts_as_start_does(bare_pipeline: Pipeline) -> None:
    bare_pipeline.settings["avro"]["schemas"] = "nowhere"
    bare_pipeline.settings["record"] = {"value": "text"}
    assert bare_pipeline.run("config", "validate").returncode == 0
    bare_pipeline.settings["record"]["values"] = {"Noted": "json"}
    assert bare_pipeline.run("config", "validate").returncode == 78
