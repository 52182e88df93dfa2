"""Events are sent as typed Avro or not at all: registry, framing, envelope and tombstones, on real servers."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from cdc.consumer import Decoder
from tests import ROOT
from tests.pipeline import NOTED, SOURCES, Pipeline
from tests.registry import Double

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def registry() -> Iterator[Double]:
    with Double() as double:
        yield double


def _use(pipeline: Pipeline, registry: Double, **settings: Any) -> None:
    pipeline.settings["schema_registry"] = {"url": registry.url, "timeout_seconds": 2, **settings}


def _schema(pipeline: Pipeline, name: str, *fields: dict[str, Any]) -> Path:
    file = pipeline.folder / "schemas" / f"{name}.avsc"
    file.write_text(json.dumps({"type": "record", "name": name, "namespace": "tests", "fields": fields}))
    return file


def _event(pipeline: Pipeline, event_type: str, payload: str | None) -> None:
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', %s, %s)",
        event_type,
        payload,
    )


def test_a_registered_contract_is_read_back_by_confluents_own_deserializer(
    pipeline: Pipeline, registry: Double
) -> None:
    _use(pipeline, registry)
    registered = pipeline.run("schema", "register", "--topic", pipeline.topic)
    assert registered.returncode == 0, registered.stderr
    running = pipeline.start().streams()
    pipeline.insert(1, 2, 3)
    pipeline.settles()
    assert running.stop() == 0
    records = pipeline.records()
    assert [r.raw[:5] for r in records] == [b"\x00\x00\x00\x00\x01"] * 3

    client = SchemaRegistryClient({"url": registry.url})
    theirs = AvroDeserializer(client)
    context = SerializationContext(pipeline.topic, MessageField.VALUE)
    assert [theirs(r.raw, context)["seq"] for r in records] == [1, 2, 3]
    client.close()
    ours = Decoder(registry_url=registry.url)
    assert [ours(r.raw, r.headers)["seq"] for r in records] == [1, 2, 3]


def test_unregistered_contract_stops_before_its_first_row_until_registered_d2(
    pipeline: Pipeline, registry: Double
) -> None:
    _use(pipeline, registry)
    pipeline.insert(1)
    done = pipeline.run_process("start")
    assert done.returncode == 1
    subject = f"{pipeline.topic}-tests.Noted"
    assert f"is not registered under subject {subject}" in done.stderr
    assert "run: cdc-publisher schema register" in done.stderr
    assert pipeline.records() == []
    assert pipeline.run("schema", "register", "--topic", pipeline.topic).returncode == 0
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.records()) == 1


def test_unavailable_registry_delays_new_types_but_not_known_ones_d1(pipeline: Pipeline, registry: Double) -> None:
    _use(pipeline, registry, auto_register=True)
    _schema(pipeline, "Other", {"name": "seq", "type": "long"})
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    registry.fault = "refuse"
    pipeline.insert(2)
    pipeline.settles()
    assert [r.raw[:5] for r in pipeline.records()] == [b"\x00\x00\x00\x00\x01"] * 2

    _event(pipeline, "Other", '{"seq": 3}')
    pipeline.insert(4)
    running.logs("registry")
    time.sleep(1)
    held = pipeline.confirmed()  # WAL of other databases may have moved it, up to the transaction that waits
    assert running.process.poll() is None
    registry.fault = None
    pipeline.settles()
    assert running.count("streaming") == 1
    assert running.stop() == 0
    records = sorted(pipeline.records(), key=lambda r: r.position)
    assert [r.header("eventType") for r in records] == ["Noted", "Noted", "Other", "Noted"]
    assert held <= int(records[2].position.split("-")[1], 16)


def test_contracts_are_read_from_the_registry_and_again_for_an_unknown_type(
    pipeline: Pipeline, registry: Double
) -> None:
    _use(pipeline, registry)
    assert pipeline.run("schema", "register", "--topic", pipeline.topic).returncode == 0
    _schema(pipeline, "Later", {"name": "seq", "type": "long"})
    pipeline.settings["avro"]["source"] = "registry"
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    pipeline.settings["avro"].pop("source")
    assert pipeline.run("schema", "register", "Later", "--topic", pipeline.topic).returncode == 0
    _event(pipeline, "Later", '{"seq": 2}')
    pipeline.settles()
    _event(pipeline, "Never", "{}")
    assert running.wait() == 1
    assert "no contract for event type 'Never' in registry" in running.messages()[-1]
    assert [r.header("eventType") for r in pipeline.records()] == ["Noted", "Later"]


def test_case_d2_unusable_subjects_of_other_teams_stop_neither_start_nor_a_new_type(
    pipeline: Pipeline, registry: Double
) -> None:
    _use(pipeline, registry)
    foreign = registry.store.foreign
    clash = {"type": "record", "name": "Noted", "namespace": "tests", "fields": [{"name": "other", "type": "int"}]}
    foreign("another-tests.Noted", json.dumps(clash))
    assert pipeline.run("schema", "register", "--topic", pipeline.topic).returncode == 0
    _schema(pipeline, "Later", {"name": "seq", "type": "long"})
    foreign("aaa-key", '"string"')
    foreign(f"{pipeline.topic}-key", "string")
    foreign("json-value", '{"type": "object"}', "JSON")
    foreign("proto-value", 'syntax = "proto3";', "PROTOBUF")
    foreign("broken-value", "{")
    foreign("dangling-value", '{"type": "record", "name": "Dangling", "fields": [{"name": "a", "type": "x.Y"}]}')
    pipeline.settings["avro"]["source"] = "registry"
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()

    pipeline.settings["avro"].pop("source")
    assert pipeline.run("schema", "register", "Later", "--topic", pipeline.topic).returncode == 0
    foreign("late-value", '{"type": "record", "name": "Bad", "fields": [{"name": "a", "type": "int", "default": "x"}]}')
    _event(pipeline, "Later", '{"seq": 2}')
    pipeline.settles()
    assert running.stop() == 0
    assert [r.header("eventType") for r in pipeline.records()] == ["Noted", "Later"]
    told = [line["subject"] for line in running.log if line.get("event") == "subject_passed_over"]
    assert sorted(told) == [
        "another-tests.Noted",
        "broken-value",
        "dangling-value",
        "late-value",
    ]


def test_case_d2_selected_subjects_are_own_ones_and_others_are_not_even_read(
    pipeline: Pipeline, registry: Double
) -> None:
    _use(pipeline, registry, subjects=[f"{pipeline.topic}-*"])
    assert pipeline.run("schema", "register", "--topic", pipeline.topic).returncode == 0
    registry.store.foreign("broken-value", "{")
    pipeline.settings["avro"]["source"] = "registry"
    pipeline.start().streams().stop()
    assert not any("broken-value" in path for path in registry.paths())
    registry.store.foreign(f"{pipeline.topic}-broken", '{"type": "record", "name": "Broken", "fields": 1}')
    running = pipeline.start()
    assert running.wait() == 78
    assert f"subject {pipeline.topic}-broken" in running.messages()[-1]


def test_case_d3_registry_that_is_down_or_refuses_everything_is_no_rows_fault(
    pipeline: Pipeline, registry: Double
) -> None:
    _use(pipeline, registry)
    assert pipeline.run("schema", "register", "--topic", pipeline.topic).returncode == 0
    _schema(pipeline, "Later", {"name": "seq", "type": "long"})
    assert pipeline.run("schema", "register", "Later", "--topic", pipeline.topic).returncode == 0
    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    running = pipeline.start().streams()
    registry.fault = "401"
    pipeline.insert(1)
    assert running.wait() == 1
    assert "Unauthorized" in running.messages()[-1]

    registry.fault = None
    (pipeline.folder / "schemas" / "Later.avsc").unlink()
    del registry.store.subjects[f"{pipeline.topic}-tests.Later"]
    pipeline.settings["avro"]["source"] = "registry"
    running = pipeline.start().streams()
    pipeline.settles()
    registry.fault = "503"
    _event(pipeline, "Later", '{"seq": 2}')
    pipeline.insert(3)
    running.logs("reloading contracts failed", times=2)
    assert [r.header("eventType") for r in pipeline.records()] == ["Noted"]
    later = {"type": "record", "name": "Later", "namespace": "tests", "fields": [{"name": "seq", "type": "long"}]}
    registry.store.foreign(f"{pipeline.topic}-tests.Later", json.dumps(later, sort_keys=True, separators=(",", ":")))
    registry.fault = None
    pipeline.settles()
    assert running.stop() == 0
    assert [r.header("eventType") for r in pipeline.records()] == ["Noted", "Later", "Noted"]


@SOURCES
def test_sighup_reads_the_contracts_again_without_repeating_anything(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    _schema(pipeline, "Added", {"name": "seq", "type": "int"})
    running.signal(signal.SIGHUP)
    running.logs("streaming", times=2)
    assert running.count("reloaded the contracts") == 1
    _event(pipeline, "Added", '{"seq": 2}')
    pipeline.settles()

    (pipeline.folder / "schemas" / "Broken.avsc").write_text("{")
    running.signal(signal.SIGHUP)
    running.logs("reloading contracts failed; keeping the previous ones")
    running.logs("streaming", times=3)
    pipeline.insert(3)
    pipeline.settles()
    assert running.stop() == 0

    (pipeline.folder / "schemas" / "Broken.avsc").unlink()
    assert [r.header("eventType") for r in pipeline.records()] == ["Noted", "Added", "Noted"]


def test_references_between_files_unknown_types_tombstones_and_lenient_settings(pipeline: Pipeline) -> None:
    (pipeline.folder / "schemas" / "Money.avsc").write_text(
        '{"type": "record", "name": "Money", "namespace": "tests", "fields": [{"name": "cents", "type": "long"}]}'
    )
    _schema(pipeline, "Paid", {"name": "amount", "type": "tests.Money"}, {"name": "proof", "type": "bytes"})
    pipeline.settings["avro"] |= {"unknown_types": "envelope", "unknown_fields": "ignore", "bytes": "base64"}
    pipeline.settings["outbox"] = {"tombstones": True}
    running = pipeline.start().streams()
    _event(pipeline, "Paid", '{"amount": {"cents": 5, "rate": 1}, "proof": "/+8="}')
    _event(pipeline, "Unheard", '{"a": [1, 2.50]}')
    _event(pipeline, "Noted", None)
    pipeline.settles()
    assert running.stop() == 0
    paid, unheard, tombstone = pipeline.records()
    assert paid.value == {"amount": {"cents": 5}, "proof": b"\xff\xef"}
    assert not tombstone.raw
    envelope = Decoder(folder=ROOT / "schemas" / "cdc")(unheard.raw)
    assert (envelope["type"], envelope["key"], json.loads(envelope["payload"])) == ("Unheard", "k", {"a": [1, 2.5]})
    assert envelope["id"] == unheard.id
    assert int(envelope["committed_at"].timestamp() * 1000) == unheard.timestamp[1]


def test_bare_avro_bodies_in_bytea_are_framed_if_configured(bare_pipeline: Pipeline) -> None:
    pipeline = bare_pipeline
    pipeline.sql(
        "create table outbox (id uuid primary key default gen_random_uuid(), aggregatetype text not null,"
        " aggregateid text not null, type text not null, payload bytea)"
    )
    pipeline.settings["avro"]["bytea"] = "body"
    for command in (("outbox", "init"), ("slot", "create")):
        assert pipeline.run(*command).returncode == 0
    pipeline.create_topic(pipeline.topic)
    running = pipeline.start().streams()
    pipeline.sql(r"insert into outbox values (default, 'note', 'k', 'Noted', '\x0e00')")
    pipeline.settles()
    assert running.stop() == 0
    (record,) = pipeline.records()
    assert record.value == {"seq": 7, "text": None}
    assert [field["name"] for field in NOTED["fields"]] == ["seq", "text"]  # type: ignore[index]
