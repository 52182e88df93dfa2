"""Records of a real Debezium beside the publisher's, for usual configurations: the table of docs/debezium.md.

The publisher has the settings that `takeover plan` makes of the connector. `CDC_TEST_UPDATE=1` writes the table again.
"""

import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from tests.acceptance.test_takeover import connector
from tests.debezium import DEBEZIUM_VERSION, Connect
from tests.documents import ROOT
from tests.pipeline import Pipeline, eventually
from tests.reader import Received, read_all

pytestmark = [pytest.mark.debezium, pytest.mark.timeout(900)]

JSON = "org.apache.kafka.connect.json.JsonConverter"
STRING = "org.apache.kafka.connect.storage.StringConverter"
BYTES = "org.apache.kafka.connect.converters.ByteArrayConverter"
ROUTER = "transforms.outbox."
PLACEMENT = f"{ROUTER}table.fields.additional.placement"
PLAIN = {"value.converter": JSON, "value.converter.schemas.enable": "false"}
EXPANDED = {**PLAIN, f"{ROUTER}table.expand.json.payload": "true"}
PAYLOAD = '{"total": 12.50, "note": null, "lines": []}'
PAGE = ROOT / "docs" / "debezium.md"
BEGIN, END = "<!-- made by tests/acceptance/test_takeover_differences.py -->\n", "<!-- end -->\n"
HEADINGS = ("configuration", "topic", "partition", "key", "value", "headers", "time")


class Case(NamedTuple):
    """One configuration: the type of the payload, options of the connector, and payloads of further events."""

    kind: str
    options: dict[str, str]
    more: tuple[str | None, ...] = ()


CASES = {
    "`StringConverter` for keys and values, `jsonb`": Case("jsonb", {"value.converter": STRING}),
    "`ByteArrayConverter`, Avro in `bytea`": Case("bytea", {"value.converter": BYTES}),
    "`JsonConverter` without schemas, `table.expand.json.payload`": Case("jsonb", EXPANDED),
    "`JsonConverter` without schemas": Case("jsonb", PLAIN),
    "`JsonConverter` with schemas, for keys and values": Case(
        "jsonb", {"key.converter": JSON, "value.converter": JSON}
    ),
    "`JsonConverter` without schemas for keys": Case(
        "jsonb", {"key.converter": JSON, "key.converter.schemas.enable": "false", "value.converter": STRING}
    ),
    "`tenant:header,type:header:eventType`": Case(
        "jsonb", {"value.converter": STRING, PLACEMENT: "tenant:header,type:header:eventType"}
    ),
    "`tenant:header:customer`, an alias": Case(
        "jsonb", {"value.converter": STRING, PLACEMENT: "tenant:header:customer"}
    ),
    "`note:header`, null": Case("jsonb", {"value.converter": STRING, PLACEMENT: "note:header"}),
    "`day:header`, of type `date`": Case("jsonb", {"value.converter": STRING, PLACEMENT: "day:header"}),
    "`route.tombstone.on.empty.payload`; payloads `''`, spaces, `NULL`": Case(
        "text",
        {"value.converter": STRING, f"{ROUTER}route.tombstone.on.empty.payload": "true"},
        ("", "  ", None),
    ),
    "`table.field.event.timestamp`, of type `timestamp`": Case(
        "jsonb", {"value.converter": STRING, f"{ROUTER}table.field.event.timestamp": "at"}
    ),
}


@pytest.fixture
def worker(servers: Any, tmp_path: Path) -> Iterator[Connect]:
    """A worker that runs."""
    made = Connect(tmp_path / "connect", servers.kafka, uuid.uuid4().hex[:8], 1)
    made.folder.mkdir()
    made.start()
    yield made
    made.stop()


def test_records_differ_from_debeziums_as_the_documentation_says(bare_pipeline: Pipeline, worker: Connect) -> None:
    both = [Both(bare_pipeline, number, case) for number, case in enumerate(CASES.values())]
    for each in both:
        each.prepare(worker)
    for each in both:
        worker.wait_for(each.name, "RUNNING")
        each.insert()
    running = [each.publisher.start() for each in both]
    for each in both:
        eventually(each.complete, f"records of {each.case}", 240)
    for one in running:
        assert one.stop() == 0, one.messages()
    rows = [f"| {name} | {' | '.join(each.row())} |" for name, each in zip(CASES, both, strict=True)]
    table = "\n".join([f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|", *rows, ""])
    text = PAGE.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    if os.environ.get("CDC_TEST_UPDATE"):
        PAGE.write_text(text[:begin] + table + text[end:])
    else:
        assert table == text[begin:end], f"Debezium {DEBEZIUM_VERSION}: CDC_TEST_UPDATE=1 writes the table again"


class Both:
    """One case: a table, Debezium's connector for it, and a publisher with slot and topics of its own."""

    def __init__(self, pipeline: Pipeline, number: int, case: Case) -> None:
        self.case = case
        self.name = f"{pipeline.slot}_{number}"
        self._pipeline = pipeline
        self._table = f"outbox_{number}"
        self._topics = {side: f"{pipeline.prefix}{side}.{number}." for side in ("theirs", "ours")}
        self._ids = [str(uuid.UUID(int=number * 100 + n + 1)) for n in range(1 + len(case.more))]
        folder = pipeline.folder / f"case-{number}"
        folder.mkdir()
        self.publisher = replace(
            pipeline, folder=folder, settings={"postgres": {"slot": self.name, "publication": self.name}}
        )

    def prepare(self, worker: Connect) -> None:
        """Make the table, topics and slots, and create the connector."""
        pipeline = self._pipeline
        pipeline.sql(
            f"create table {self._table} (id uuid primary key, aggregatetype text not null, aggregateid text not null,"
            f" type text not null, payload {self.case.kind}, tenant text, note text, day date, at timestamp)"
        )
        for topics in self._topics.values():
            pipeline.create_topic(f"{topics}note", 4)
        options = {
            **connector(self.publisher, **self.case.options),
            "table.include.list": f"public.{self._table}",
            f"{ROUTER}route.topic.replacement": f"{self._topics['theirs']}${{routedByValue}}",
        }
        file = self.publisher.folder / "connector.json"
        file.write_text(json.dumps({"name": self.name, "config": options}))
        planned = pipeline.run("takeover", "plan", str(file), "--worker", str(worker.worker_file), "--json")
        assert planned.returncode == 0, planned.stdout
        settings = json.loads(planned.stdout)["settings"]
        settings["postgres"] |= {"dsn": pipeline.dsn, "slot": f"{self.name}_ours", "publication": f"{self.name}_ours"}
        settings["topics"] |= {
            "name": f"{self._topics['ours']}{{aggregatetype}}",
            "positions": f"{pipeline.prefix}positions",
        }
        settings["kafka"] = {"bootstrap.servers": pipeline.kafka}
        settings["avro"] = {"schemas": "schemas"}
        self.publisher.settings.update(settings)
        pipeline.sql(f"create publication {self.name}_ours for table {self._table} with (publish = 'insert')")
        pipeline.sql(f"select pg_create_logical_replication_slot('{self.name}_ours', 'pgoutput')")
        status, answer = worker.ask("POST", "/connectors", {"name": self.name, "config": options})
        assert status == 201, answer

    def insert(self) -> None:
        """Insert each event, the last one in a transaction that deletes its row again."""
        self._begun = time.time() * 1000
        values = ["note", "o-1", "Noted", "acme", None, "2026-01-31", "2026-01-31 10:00:00.123"]
        payloads: list[str | bytes | None] = [PAYLOAD.encode() if self.case.kind == "bytea" else PAYLOAD]
        with psycopg.connect(self._pipeline.dsn) as connection:
            for event_id, payload in zip(self._ids, [*payloads, *self.case.more], strict=True):
                connection.execute(
                    f"insert into {self._table} values (%s, %s, %s, %s, %s, %s, %s, %s, %s)".encode(),
                    [event_id, *values[:3], payload, *values[3:]],
                )
                connection.execute(f"delete from {self._table}".encode())
                connection.commit()
        self._ended = time.time() * 1000

    def _records(self, side: str) -> dict[str, Received]:
        found = read_all(self._pipeline.kafka, self._topics[side], lambda value: value)
        by_id = {record.id: record for record in found}
        assert len(by_id) == len(found), f"duplicates of {side}"
        return by_id

    def complete(self) -> bool:
        """Whether both programs have sent every event: each of a row that its own transaction deleted."""
        return all(self._records(side).keys() == set(self._ids) for side in self._topics)

    def row(self) -> list[str]:
        """The cells of the table."""
        theirs, ours = self._records("theirs"), self._records("ours")
        pairs = [(theirs[event_id], ours[event_id]) for event_id in self._ids]
        return [
            _cell([_pair(*(each.topic.split(".")[-1] for each in pair)) for pair in pairs]),
            _cell([_pair(*(str(each.partition) for each in pair)) for pair in pairs]),
            _cell([_pair(*(each.key for each in pair)) for pair in pairs]),
            _cell([_pair(*(_text(each.raw) for each in pair)) for pair in pairs]),
            _cell([_pair(*(_headers(each) for each in pair)) for pair in pairs]),
            _cell([self._time(*pair) for pair in pairs]),
        ]

    def _time(self, theirs: Received, ours: Received) -> str:
        their, our = theirs.timestamp[1], ours.timestamp[1]
        if their == our:
            return ""
        assert self._begun - 1 <= our <= self._ended
        assert their > our
        return "of processing; here of the commit"


def _cell(pairs: list[str]) -> str:
    return "; ".join(dict.fromkeys(pair for pair in pairs if pair)) or "same"


def _pair(theirs: str, ours: str) -> str:
    return "" if theirs == ours else "; here ".join(f"`{each}`" if each else "none" for each in (theirs, ours))


def _text(value: bytes | None) -> str:
    if value is None:
        return "null"
    text = value.decode(errors="backslashreplace")
    return text.replace("|", "\\|")


def _headers(record: Received) -> str:
    """The headers but those that each program adds to all of its records."""
    own = ("cdc-position", "content-type", "eventType")
    return ", ".join(
        f"{name}: {'null' if value is None else value}"
        for name, value in sorted(record.headers)
        if name not in own and not name.startswith("__debezium.") and name != "id"
    )
