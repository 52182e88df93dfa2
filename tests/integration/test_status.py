"""`status` on real servers, with a publisher and without one."""

import json
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc.config.loading import load
from cdc.local.postgres import PostgresServer
from cdc.status.lookout import looked
from tests.endpoint import listening
from tests.impostor import Impostor, answering
from tests.pipeline import Pipeline, eventually, make_pipeline, prepare
from tests.ports import free_port
from tests.servers import PrivatePostgres, Servers

NOT_SET = "[http] listen is not set: from the database alone"
NOWHERE = "postgresql://postgres@127.0.0.1:1/db"


def status(pipeline: Pipeline, url: str | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of one look, without a process of its own."""
    found = looked(load(pipeline.configure(), environ={}), url)
    return found.exit_code, json.loads(found.json_line())


def test_the_life_of_a_slot_is_shown_from_the_database(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    assert pipeline.run("outbox", "init").returncode == 0
    code, found = status(pipeline)
    assert (code, found["state"], found["running"], found["source"]) == (1, "stopped", False, "database")
    assert found["notes"] == [NOT_SET]
    assert found["summary"] == f"replication slot '{pipeline.slot}' does not exist: it has not been created yet"
    assert found["hint"] == "run: cdc-publisher slot create"

    assert pipeline.run("slot", "create").returncode == 0
    pipeline.create_topic(pipeline.topic)
    pipeline.insert(*range(100))
    pipeline.sql("analyze outbox")
    code, found = status(pipeline)
    assert (code, found["state"], found["running"]) == (1, "stopped", False)
    assert found["summary"].startswith("no process reads the slot; ")
    assert found["hint"] == "start it with: cdc-publisher start"
    assert found["lag"]["bytes"] > 0
    assert found["slot"]["retained_bytes"] >= found["lag"]["bytes"]
    assert found["slot"]["wal_status"] == "reserved"
    assert found["memory"]["confirmed"] == found["slot"]["confirmed"] == str(pipeline.confirmed())
    assert found["memory"]["age_seconds"] >= 0
    assert found["table"] == {"name": "public.outbox", "rows": 100}

    running = pipeline.start().streams()
    pipeline.settles()
    code, found = status(pipeline)
    assert (code, found["state"], found["running"], found["ready"]) == (0, "streaming", True, None)
    ((pid,),) = pipeline.sql("select active_pid from pg_replication_slots where slot_name = %s", pipeline.slot)
    assert found["slot"]["active_pid"] == pid
    assert f"pid {pid} (cdc-publisher stream" in found["summary"]
    assert found["notes"] == [NOT_SET]
    assert running.stop() == 0
    done = pipeline.run("status", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["state"] == "stopped"

    pipeline.run("slot", "drop", "--yes")  # takes it back from Kafka too
    assert status(pipeline)[1]["summary"].endswith("does not exist: it has not been created yet")


def test_a_slot_dropped_by_hand_is_lost(pipeline: Pipeline) -> None:
    pipeline.sql("select pg_drop_replication_slot(%s)", pipeline.slot)
    code, found = status(pipeline)
    assert (code, found["state"]) == (1, "slot_lost")
    assert (
        f"replication slot '{pipeline.slot}' does not exist any more: its last position in Kafka is "
        in found["summary"]
    )
    assert found["hint"] == "run: cdc-publisher recover"


def test_a_re_created_slot_is_noticed(pipeline: Pipeline) -> None:
    pipeline.sql("select pg_drop_replication_slot(%s)", pipeline.slot)
    pipeline.insert(1)
    pipeline.sql("select pg_create_logical_replication_slot(%s, 'pgoutput')", pipeline.slot)
    _, found = status(pipeline)
    assert "it was advanced, or dropped and created again; start will refuse it" in found["notes"][1]


def test_another_program_that_reads_the_slot_is_named(pipeline: Pipeline) -> None:
    with psycopg.connect(
        make_conninfo(pipeline.dsn, replication="database", application_name="somebody else"), autocommit=True
    ) as stranger:
        options = "(proto_version '1', publication_names 'cdc_publisher')"
        stranger.pgconn.exec_(f"START_REPLICATION SLOT {pipeline.slot} LOGICAL 0/0 {options}".encode())
        _, found = status(pipeline)
        assert "(somebody else" in found["summary"]
        assert found["notes"][1] == "the reader calls itself 'somebody else': it is not cdc-publisher"
        stranger.pgconn.finish()


@pytest.fixture
def onlooker(pipeline: Pipeline) -> Iterator[str]:
    """A DSN of a role that may do nothing but connect and replicate."""
    name = f"onlooker_{pipeline.slot}"
    pipeline.sql(f"create role {name} login replication")
    yield make_conninfo(pipeline.dsn, user=name)
    pipeline.sql(f"drop role {name}")


def test_the_role_of_the_publisher_needs_no_more_rights_for_it(pipeline: Pipeline, onlooker: str) -> None:
    pipeline.settings["postgres"]["dsn"] = onlooker
    running = pipeline.start().streams()
    code, found = status(pipeline)
    assert (code, found["state"], found["running"]) == (0, "streaming", True)
    assert found["slot"]["confirmed"]
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("dsn", "code", "summary"),
    [
        (NOWHERE, 75, "PostgreSQL cannot be reached: "),
        ("postgresql://postgres@nowhere.invalid/db", 75, "PostgreSQL cannot be reached: "),
        ("no such database", 1, "PostgreSQL refuses the connection: "),
    ],
)
def test_a_database_that_does_not_answer_is_reported(
    bare_pipeline: Pipeline, dsn: str, code: int, summary: str
) -> None:
    if dsn == "no such database":
        dsn = make_conninfo(bare_pipeline.dsn, dbname="no_such_database")
    bare_pipeline.settings["postgres"]["dsn"] = dsn
    exit_code, found = status(bare_pipeline)
    assert (exit_code, found["state"], found["running"], found["source"]) == (code, None, None, None)
    assert found["summary"].startswith(summary)
    assert found["notes"] == ["[http] listen is not set, and the database cannot be read"]
    shown = bare_pipeline.run("status")
    assert shown.returncode == code
    assert f"● unknown  {summary}" in shown.stdout
    assert found["hint"] in shown.stdout
    assert "Traceback" not in shown.stdout + shown.stderr


def test_kafka_out_of_reach_is_noted_and_not_waited_for(pipeline: Pipeline) -> None:
    pipeline.settings["kafka"]["bootstrap.servers"] = "127.0.0.1:1"
    code, found = status(pipeline)
    assert (code, found["state"], found["memory"]) == (1, "stopped", None)
    assert found["notes"][1].startswith("the slot's last position in Kafka is unknown: ")
    pipeline.settings.pop("kafka")
    assert status(pipeline)[1]["notes"] == [NOT_SET]


def test_a_running_publisher_is_shown_from_its_endpoint(pipeline: Pipeline) -> None:
    endpoint = listening(pipeline)
    pipeline.insert(1, 2, 3)
    pipeline.settles()
    address = f"http://{endpoint.address}"

    def known() -> bool:
        return bool(status(pipeline, address)[1]["totals"]["delivered"] == 3)

    eventually(known, "three events are counted")
    code, found = status(pipeline, address)
    assert (code, found["running"], found["source"], found["url"]) == (0, True, "endpoint", address)
    assert found["state"] in ("idle", "streaming")
    assert found["publisher"]["pid"] == endpoint.running.process.pid
    assert found["publisher"]["accelerator"]
    assert found["topics"][pipeline.topic]["events"] == 3
    shown = pipeline.run("status", "--url", f"{address}/")
    assert shown.returncode == 0
    assert shown.stdout.startswith("● ")
    assert f"pid {endpoint.running.process.pid} · up " in shown.stdout
    assert pipeline.topic in shown.stdout
    assert "\x1b" not in shown.stdout

    pipeline.settings["postgres"]["dsn"] = NOWHERE  # of no use while the publisher answers
    assert status(pipeline, address)[0] == 0
    endpoint.running.kill()
    code, found = status(pipeline, address)
    assert (code, found["state"]) == (75, None)
    assert found["notes"][0].startswith(f"the publisher does not answer at {address} (")


def test_the_publisher_of_these_settings_is_asked_where_it_listens(pipeline: Pipeline) -> None:
    port = free_port()
    pipeline.settings["http"] = {"listen": f"0.0.0.0:{port}"}
    running = pipeline.start().logs("listening").streams()
    code, found = status(pipeline)
    assert (code, found["source"], found["url"]) == (0, "endpoint", f"http://127.0.0.1:{port}")

    pipeline.settings["postgres"]["slot"] = "another"
    _, found = status(pipeline)
    assert found["source"] == "database"
    answers = f"at http://127.0.0.1:{port} the publisher of another slot answers, 'slot_"
    assert found["notes"][0].startswith(answers)
    assert running.stop() == 0


def test_another_program_at_the_publishers_address_is_not_believed(pipeline: Pipeline) -> None:
    for body in (b"<html>hello</html>", b'{"state": "streaming", "ready": true}'):
        with Impostor(answering(body)) as stranger:
            pipeline.settings["http"] = {"listen": stranger.address}
            code, found = status(pipeline)
        assert (code, found["source"], found["state"]) == (1, "database", "stopped")
        told = f"the publisher does not answer at http://{stranger.address} (the answer is not"
        assert found["notes"][0].startswith(told)


def test_a_lost_slot_is_shown_with_its_reason_and_a_full_bar(
    private_postgres: PrivatePostgres, servers: Servers, topic_prefix: str, tmp_path: Any
) -> None:
    limits = {"max_slot_wal_keep_size": "32MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}
    server: PostgresServer = private_postgres(settings=limits)
    pipeline = prepare(make_pipeline(server.dsn, servers.kafka, topic_prefix, tmp_path))
    _, found = status(pipeline)
    assert found["slot"]["limit_bytes"] == 32 * 1024 * 1024
    assert found["slot"]["safe_bytes"] > 0
    assert " of 33.6 MB · " in pipeline.run("status").stdout
    for _ in range(6):
        pipeline.insert(1)
        pipeline.sql("select pg_switch_wal()")
    pipeline.sql("checkpoint")
    code, found = status(pipeline)
    assert (code, found["state"], found["slot"]["wal_status"]) == (1, "slot_lost", "lost")
    assert f"replication slot '{pipeline.slot}' is lost (wal_removed)" in found["summary"]
    assert found["hint"] == "run: cdc-publisher recover"


def test_without_settings_it_says_which_are_missing(bare_pipeline: Pipeline) -> None:
    bare_pipeline.settings["postgres"].pop("dsn")
    done = bare_pipeline.run("status")
    assert (done.returncode, done.stdout) == (78, "")
    assert "[postgres] dsn is required" in done.stderr
    assert bare_pipeline.run("status", "--watch").returncode == 78
    code, found = status(bare_pipeline, "http://127.0.0.1:1")
    assert (code, found["state"]) == (75, None)


@pytest.mark.parametrize("options", [("--interval", "0"), ("--url", "nowhere"), ("--url", "http://u:p@h")])
def test_wrong_options_are_a_matter_of_usage(bare_pipeline: Pipeline, options: tuple[str, str]) -> None:
    done = bare_pipeline.run("status", *options)
    assert done.returncode == 2
    assert options[0] in done.stderr


def test_watching_without_a_terminal_prints_lines_until_it_is_stopped(pipeline: Pipeline) -> None:
    command = pipeline.command("status", "--watch", "--json", "--interval", "0.1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        lines = [json.loads(watching.stdout.readline()) for _ in range(3)]
        watching.terminate()
        rest, errors = watching.communicate(timeout=60)
    assert (watching.returncode, errors) == (0, "")
    assert [line["state"] for line in lines] == ["stopped"] * 3
    assert len(lines[2]["history"]["lag_bytes"]) == 3
    assert all(json.loads(line) for line in rest.splitlines())

    # A reader of the lines that goes away is no error.
    program = shlex.join(pipeline.command("status", "--watch", "--interval", "0.1"))
    piped = ["bash", "-c", f"set -o pipefail; {program} | head -2"]
    done = subprocess.run(piped, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("  ")[1] for line in done.stdout.splitlines()] == ["stopped"] * 2
