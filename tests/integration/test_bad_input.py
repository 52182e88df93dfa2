"""Invalid input is reported in one line with a remedy and an exit code, and changes nothing."""

from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.pipeline import Pipeline, make_pipeline
from tests.servers import PrivatePostgres, Servers


def _fails(pipeline: Pipeline, code: int, *phrases: str, command: tuple[str, ...] = ("start",)) -> str:
    """Run a command that must fail with `code`, and a last line that holds all `phrases`."""
    done = (pipeline.run_process if "start" in command else pipeline.run)(*command)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().split("\n")[-1]
    for phrase in phrases:
        assert phrase in last
    return last


def test_a_mistyped_setting_suggests_the_nearest_name(bare_pipeline: Pipeline) -> None:
    bare_pipeline.settings["postgres"]["publicaton"] = "x"
    last = _fails(bare_pipeline, 78, "cdc-publisher.toml", "[postgres] publicaton", "did you mean 'publication'?")
    assert last.startswith("cdc-publisher: ")


def test_unsafe_and_unknown_kafka_settings_are_refused(
    bare_pipeline: Pipeline,
) -> None:
    bare_pipeline.settings["kafka"]["acks"] = "1"
    _fails(bare_pipeline, 78, '"acks" = 1 is refused: only acks=all means that the record is durable')
    bare_pipeline.settings["kafka"] = {"bootstrap.servers": bare_pipeline.kafka, "linger.mss": 5}
    _fails(bare_pipeline, 78, "linger.mss")


def test_unreachable_servers_are_temporary(pipeline: Pipeline) -> None:
    pipeline.settings["delivery"] = {"startup_seconds": 0.2}
    right = pipeline.settings["kafka"]["bootstrap.servers"]
    pipeline.settings["kafka"]["bootstrap.servers"] = "127.0.0.1:1"
    _fails(pipeline, 75, "Kafka cannot be reached at 127.0.0.1:1", "bootstrap.servers")
    pipeline.settings["kafka"]["bootstrap.servers"] = right
    pipeline.settings["postgres"]["dsn"] = "postgresql://someone:secret@127.0.0.1:1/shop"
    last = _fails(pipeline, 75, "PostgreSQL cannot be reached", "[postgres] dsn")
    assert "secret" not in last


def test_missing_objects_are_reported_with_the_command_that_creates_them(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    _fails(pipeline, 1, "table public.outbox does not exist", "cdc-publisher outbox init")
    assert pipeline.run("outbox", "init").returncode == 0
    _fails(pipeline, 1, f"replication slot '{pipeline.slot}' does not exist", "cdc-publisher slot create")
    pipeline.sql("alter publication cdc_publisher drop table outbox")
    _fails(pipeline, 1, "does not hold table public.outbox", 'ALTER PUBLICATION "cdc_publisher" ADD TABLE')
    pipeline.sql("alter publication cdc_publisher add table outbox")
    pipeline.sql("alter publication cdc_publisher set (publish = 'delete')")
    _fails(pipeline, 1, "does not publish inserts", "SET (publish = 'insert')")
    pipeline.sql("drop publication cdc_publisher")
    _fails(pipeline, 1, "publication 'cdc_publisher' does not exist", "cdc-publisher outbox init")


def test_a_table_without_the_columns_is_described(pipeline: Pipeline) -> None:
    pipeline.settings["outbox"] = {"columns": {"payload": "body", "key": "created_at"}, "headers": ["tenant"]}
    _fails(pipeline, 1, "column 'body' is missing", "column 'tenant' is missing", "[outbox] columns")
    pipeline.settings["outbox"] = {"columns": {"payload": "created_at"}}
    _fails(pipeline, 1, "column 'created_at' is timestamp with time zone, not jsonb, json, text or bytea")


def test_b19_a_wal_level_below_logical_is_named_by_start_and_by_slot_create(
    private_postgres: PrivatePostgres, servers: Servers, topic_prefix: str, tmp_path: Path
) -> None:
    server = private_postgres({"wal_level": "replica"})
    pipeline = make_pipeline(server.dsn, servers.kafka, topic_prefix, tmp_path)
    assert pipeline.run("outbox", "init").returncode == 0
    _fails(pipeline, 1, "wal_level", "ALTER SYSTEM SET wal_level = 'logical'")
    _fails(pipeline, 1, "wal_level", "ALTER SYSTEM SET wal_level = 'logical'", command=("slot", "create"))


def test_b20_a_role_without_replication_is_named(pipeline: Pipeline) -> None:
    role = f"weak_{pipeline.slot}"
    with pipeline.connect() as connection:
        connection.execute(f"create role {role} login".encode())
    try:
        pipeline.settings["postgres"]["dsn"] = make_conninfo(pipeline.dsn, user=role)
        _fails(pipeline, 1, f'role "{role}" may not replicate', f'ALTER ROLE "{role}" REPLICATION')
    finally:
        with pipeline.connect() as connection:
            connection.execute(f"drop role {role}".encode())


def test_b20_a_role_that_may_create_nothing_leaves_nothing_half_created(bare_pipeline: Pipeline) -> None:
    role = f"weak_{bare_pipeline.slot}"
    with bare_pipeline.connect() as connection:
        connection.execute(f"create role {role} login".encode())
        connection.execute(f"grant create on schema public to {role}".encode())
    try:
        bare_pipeline.settings["postgres"]["dsn"] = make_conninfo(bare_pipeline.dsn, user=role)
        _fails(bare_pipeline, 1, "permission denied for database", command=("outbox", "init"))
        assert bare_pipeline.sql("select to_regclass('outbox')") == [(None,)]
    finally:
        with bare_pipeline.connect() as connection:
            connection.execute(f"drop owned by {role}; drop role {role}".encode())


def test_a_dsn_that_does_not_parse_shows_no_password(bare_pipeline: Pipeline) -> None:
    bare_pipeline.settings["postgres"]["dsn"] = "postgresql://user:se%cret@127.0.0.1/shop"
    last = _fails(bare_pipeline, 78, "[postgres] dsn is not a connection string")
    assert "se%cret" not in last


def test_a_server_that_refuses_by_name_is_permanent(pipeline: Pipeline) -> None:
    pipeline.settings["postgres"]["dsn"] = make_conninfo(pipeline.dsn, user="nobody_by_this_name")
    _fails(pipeline, 1, 'role "nobody_by_this_name" does not exist', "check [postgres] dsn")
    pipeline.settings["postgres"]["dsn"] = make_conninfo(pipeline.dsn, dbname="no_such_database")
    _fails(pipeline, 1, 'database "no_such_database" does not exist')


@pytest.mark.parametrize(
    ("event_type", "payload", "reason"),
    [
        ("Noticed", '{"seq": 2}', "no contract for event type 'Noticed' in"),
        ("Noted", '{"seq": 3000000000000000000000}', "Noted $.seq: 3000000000000000000000 is out of range for long"),
        ("Noted", '{"seq": "two"}', 'Noted $.seq: "two" is not a long'),
        ("Noted", '{"seq": 2, "extra": 1}', "Noted $.extra: is not a field of tests.Noted"),
        ("Noted", "{}", "Noted $.seq: is missing and has no default"),
    ],
)
def test_c8_a_poison_event_stops_with_id_position_and_reason_and_holds_the_slot(
    pipeline: Pipeline, event_type: str, payload: str, reason: str
) -> None:
    pipeline.insert(1)
    ((poison_id,),) = pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', %s, %s) returning id",
        event_type,
        payload,
    )
    pipeline.insert(3)
    for _ in range(2):  # it stays where it is, however often it is started
        last = _fails(pipeline, 1, f"poison event {poison_id} at position ", reason)
    records = pipeline.records()
    assert [r.value["seq"] for r in records] == [1]
    position = last.split("position ")[1].split(":")[0]
    assert position > records[0].position
    assert pipeline.confirmed() <= int(position.split("-")[1], 16)

    # Once there is a contract that fits, it goes on with nothing lost.
    anything = '{"type": "record", "name": "%s", "namespace": "tests", "fields": [%s]}'
    fields = '{"name": "%s", "type": ["null", "long", "double", "string"], "default": null}'
    schemas = pipeline.folder / "schemas"
    (schemas / f"{event_type}.avsc").write_text(
        anything % (event_type, ", ".join(fields % f for f in ("seq", "extra")))
    )
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.records()) == 3


def test_contracts_that_do_not_parse_are_listed_all_at_once(pipeline: Pipeline) -> None:
    (pipeline.folder / "schemas" / "One.avsc").write_text("{")
    (pipeline.folder / "schemas" / "Two.avsc").write_text('{"type": "record", "name": "Two"}')
    done = pipeline.run_process("start")
    assert done.returncode == 78
    assert "One.avsc" in done.stderr
    assert "Two.avsc" in done.stderr


def test_b4_a_publication_that_vanishes_while_streaming_stops_before_anything_is_confirmed(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    pipeline.sql("drop publication cdc_publisher")
    ((before,),) = pipeline.sql("select pg_current_wal_lsn()::text")
    pipeline.insert(2)
    assert running.wait() == 1
    assert "cdc_publisher" in running.messages()[-1]
    with psycopg.connect(pipeline.dsn) as connection:
        passed = connection.execute(
            "select confirmed_flush_lsn > %s::pg_lsn from pg_replication_slots where slot_name = %s",
            [before, pipeline.slot],
        ).fetchone()
    assert passed == (False,)
