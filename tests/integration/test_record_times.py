"""`[record] timestamp = COLUMN` on real servers: the time of each record, in both formats, with both accelerators."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.integration.checking import check, fixed
from tests.pipeline import Pipeline
from tests.reader import Received, read_all

pytestmark = pytest.mark.timeout(180)

EXPECTED = 1_769_846_400_123
TYPES = {
    "timestamptz": "2026-01-31 09:00:00.123999+01",
    "timestamp": "2026-01-31 08:00:00.123999",
    "bigint": str(EXPECTED),
    "moment": "2026-01-31 09:00:00.123999+01",  # a domain
}


def column(pipeline: Pipeline, kind: str, name: str = "at") -> None:
    if kind == "moment":
        pipeline.sql("create domain moment as timestamptz")
    pipeline.sql(f'alter table outbox add column "{name}" {kind}')
    pipeline.settings["record"] = {"timestamp": name}


def insert(pipeline: Pipeline, *values: str | None, payload: str = '{"seq": 1}') -> None:
    """Insert one row for each value of the column `at`, in one transaction."""
    with pipeline.connect() as connection, connection.transaction():
        for value in values:
            connection.execute(
                "insert into outbox (aggregatetype, aggregateid, type, payload, at) values"
                " ('note', 'k', 'Noted', %s, %s)",
                (payload, value),
            )


def letters(pipeline: Pipeline) -> list[Received]:
    return read_all(pipeline.kafka, f"{pipeline.prefix}dead", lambda value: value)


def times(records: list[Received]) -> list[int]:
    return [record.timestamp[1] for record in records]


def is_recent(milliseconds: int) -> bool:
    return abs(time.time() * 1000 - milliseconds) < 3_600_000


def configured(pipeline: Pipeline, name: str, value: str) -> None:
    resource = ConfigResource(ResourceType.TOPIC, pipeline.topic)
    resource.add_incremental_config(ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET))
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result()


@pytest.mark.parametrize("accelerator", ["python", "native"])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("headers", [[], ["at:occurredAt", "created_at"]], ids=["binary", "text"])
def test_a_record_has_the_time_of_its_column_or_where_that_is_null_of_its_commit(
    pipeline: Pipeline, kind: str, accelerator: str, headers: list[str]
) -> None:
    if accelerator == "native":
        pytest.importorskip("cdc_native", reason="there is no Rust toolchain")
    column(pipeline, kind)
    pipeline.settings["outbox"] = {"headers": headers}
    pipeline.settings["delivery"] = {"accelerator": accelerator}
    running = pipeline.start().streams()
    for value in (TYPES[kind], None, TYPES[kind]):
        insert(pipeline, *([value] * 3))
    pipeline.settles()
    (streaming,) = [line for line in running.log if line.get("event") == "streaming"]
    assert streaming["format"] == ("text" if headers else "binary")
    assert running.stop() == 0
    found = times(pipeline.records())
    assert found[:3] + found[6:] == [EXPECTED] * 6
    assert all(map(is_recent, found[3:6]))
    assert check(pipeline)["outbox_table"].status == "pass"
    audited = pipeline.run("audit", "--json")
    assert audited.returncode == 0, audited.stdout


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_a_time_that_no_record_can_have_is_poison(pipeline: Pipeline, guarantee: str) -> None:
    column(pipeline, "timestamptz")
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    assert pipeline.run("outbox", "init").returncode == 0
    wrong = ["infinity", "-infinity", "1969-12-31 23:59:59+00", "1970-01-01 00:00:00+00", "10000-01-01 00:00:00+00"]
    running = pipeline.start().streams()
    insert(pipeline, TYPES["timestamptz"], *wrong, None)
    assert running.wait() == 1
    assert any("column 'at': " in message for message in running.messages())
    pipeline.settings["delivery"]["on_poison"] = "dead-letter"
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.records()) == 2
    found = letters(pipeline)
    assert len(found) == len(wrong)
    assert all(map(is_recent, times(found)))
    assert {letter.header("cdc-error-class") for letter in found} == {"unreadable-row"}
    assert pipeline.run("audit").returncode == 0


def test_a_time_that_the_topic_refuses_makes_a_dead_letter_whose_replay_has_it(pipeline: Pipeline) -> None:
    column(pipeline, "bigint")
    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    assert pipeline.run("outbox", "init").returncode == 0
    configured(pipeline, "message.timestamp.before.max.ms", "86400000")
    running = pipeline.start().streams()
    insert(pipeline, "1000000000000", None)
    pipeline.settles()
    assert running.stop() == 0
    (letter,) = letters(pipeline)
    assert letter.header("cdc-error-class") == "kafka-refused"
    assert (is_recent(letter.timestamp[1]), letter.header("cdc-timestamp")) == (True, "1000000000000")
    configured(pipeline, "message.timestamp.before.max.ms", "9223372036854775807")
    replayed = pipeline.run("dlq", "replay", "--all", "--yes")
    assert replayed.returncode == 0, replayed.stderr
    found = [record for record in pipeline.records() if record.header("id") == letter.header("id")]
    assert times(found) == [1_000_000_000_000]


def test_events_that_kafka_has_are_not_sent_again_whatever_their_times(pipeline: Pipeline) -> None:
    column(pipeline, "bigint")
    for _ in range(3):
        running = pipeline.start().streams()
        for number in range(5):
            insert(pipeline, *(str(1_000_000_000_000 - number) for _ in range(20)))
        running.kill()
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.judge()) == 300


def test_an_audit_goes_by_the_times_of_rows_and_repairs_with_those_of_the_column(pipeline: Pipeline) -> None:
    column(pipeline, "bigint")
    running = pipeline.start().streams()
    insert(pipeline, "1000000000000", "1000000000001", None)
    pipeline.settles()
    assert running.stop() == 0
    for options in ([], ["--since", "1h"], ["--until", datetime.now(UTC).isoformat()]):
        audited = pipeline.run("audit", "--json", *options)
        counts: dict[str, Any] = json.loads(audited.stdout)["counts"]
        assert (audited.returncode, counts["delivered"], counts["purged"]) == (0, 3, 0), audited.stdout
    insert(pipeline, "1000000000002")
    pipeline.sql("select pg_replication_slot_advance(%s, pg_current_wal_lsn())", pipeline.slot)
    repaired = pipeline.run("audit", "--since", "1h", "--repair", "--yes")
    assert repaired.returncode == 0, (repaired.stdout, repaired.stderr)
    assert sorted(times(pipeline.records()))[:3] == [1_000_000_000_000, 1_000_000_000_001, 1_000_000_000_002]


def test_recovered_records_have_the_times_of_their_column(pipeline: Pipeline) -> None:
    column(pipeline, "timestamp")
    running = pipeline.start().streams()
    insert(pipeline, TYPES["timestamp"])
    pipeline.settles()
    assert running.stop() == 0
    pipeline.sql("select pg_drop_replication_slot(%s)", pipeline.slot)
    insert(pipeline, "2026-01-31 08:00:01", "2026-01-31 08:00:02")
    recovered = pipeline.run("recover")
    assert recovered.returncode == 0, recovered.stderr
    assert times(pipeline.records()) == [EXPECTED, 1_769_846_401_000, 1_769_846_402_000]
    assert pipeline.run("audit").returncode == 0


def test_check_and_start_want_a_column_of_times(pipeline: Pipeline) -> None:
    pipeline.settings["record"] = {"timestamp": "at"}
    fixed(pipeline, "outbox_table", "fail", "column 'at' is missing")
    ((kind,),) = pipeline.sql("select format_type(atttypid, null) from pg_attribute where attname = 'at'")
    assert kind == "timestamp with time zone"
    for name, wrong in (("day", "date"), ("number", "int"), ("written", "text")):
        pipeline.sql(f"alter table outbox add column {name} {wrong}")
        pipeline.settings["record"] = {"timestamp": name}
        start = pipeline.run_process("start")
        assert start.returncode == 1
        assert "of [record] timestamp is" in start.stderr, start.stderr
        fixed(pipeline, "outbox_table", "fail", "not timestamptz, timestamp or bigint")


def test_check_compares_the_times_of_waiting_rows_with_the_limits_of_their_topic(pipeline: Pipeline) -> None:
    column(pipeline, "timestamptz")
    insert(pipeline, None, TYPES["timestamptz"], None)
    assert "column 'at' of waiting row" in check(pipeline)["topic_timestamps"].found
    configured(pipeline, "message.timestamp.before.max.ms", "86400000")
    fixed(pipeline, "topic_timestamps", "fail", "refuses its timestamp: message.timestamp.before.max.ms")
    configured(pipeline, "retention.ms", "86400000")
    assert check(pipeline)["topic_timestamps"].status == "warn"
    configured(pipeline, "retention.ms", "-1")
    insert(pipeline, "2100-01-01 00:00:00+00")
    fixed(pipeline, "topic_timestamps", "fail", "in the future, and topic", "message.timestamp.after.max.ms")


def test_init_makes_the_column_of_times(pipeline: Pipeline) -> None:
    pipeline.sql("drop table outbox")
    pipeline.sql("drop publication if exists cdc_publisher")
    pipeline.settings["record"] = {"timestamp": "occurred at"}
    done = pipeline.run("outbox", "init")
    assert done.returncode == 0, done.stderr
    ((kind,),) = pipeline.sql("select format_type(atttypid, null) from pg_attribute where attname = 'occurred at'")
    assert kind == "timestamp with time zone"
