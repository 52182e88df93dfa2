"""Rows whose table has changed since they were written: each is read by its own Relation message."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc.local.postgres import PostgresServer
from tests.pipeline import Pipeline, Running, eventually, make_pipeline, prepare
from tests.reader import Received
from tests.servers import Servers, a_database, a_folder, a_postgres
from tests.versions import OLD_POSTGRES

pytestmark = pytest.mark.timeout(180)

INSERT = "insert into outbox (id, aggregatetype, aggregateid, type, payload{more}) values ({values}{extra})"
ACCELERATORS = ["auto", "python"]


@pytest.fixture(
    scope="module", params=[None, *OLD_POSTGRES], ids=lambda folder: folder.parent.name if folder else "newest"
)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of each version, for this module alone."""
    with a_folder() as home, a_postgres(home, request.param) as server:
        yield server


@pytest.fixture
def bare(server: PostgresServer, servers: Servers, topic_prefix: str, tmp_path: Path) -> Iterator[Pipeline]:
    """A pipeline in an empty database of that server."""
    with a_database(server.dsn) as dsn:
        pipeline = make_pipeline(dsn, servers.kafka, topic_prefix, tmp_path)
        yield pipeline
        pipeline.close()


@pytest.fixture
def pipeline(bare: Pipeline) -> Pipeline:
    return prepare(bare)


def insert(pipeline: Pipeline, seq: int, key: str = "'k'", more: str = "", extra: str = "") -> None:
    values = f"'00000000-0000-0000-0000-{seq:012d}', 'note', {key}, 'Noted', '{{\"seq\": {seq}}}'"
    pipeline.sql(INSERT.format(values=values, more=more, extra=extra))


def alter(pipeline: Pipeline, *statements: str) -> None:
    for statement in statements:
        pipeline.sql(statement)


def published(pipeline: Pipeline, running: Running, count: int) -> list[Received]:
    """All records in the order of their events, once there are so many."""
    found: list[Received] = []

    def complete() -> bool:
        assert running.process.poll() is None, f"exit {running.process.poll()}: {running.messages()}"
        found[:] = pipeline.records()
        return len(found) >= count

    eventually(complete, f"{count} records, {running.messages()}")
    return sorted(found, key=lambda record: record.position)


RETYPED = {
    "enum to text": (
        ["create type kind as enum ('Noted')", "alter table outbox alter column type type kind using type::kind"],
        ["alter table outbox alter column type type text"],
    ),
    "enum dropped, text added": (
        ["create type kind as enum ('Noted')", "alter table outbox alter column type type kind using type::kind"],
        [
            "alter table outbox drop column type",
            "drop type kind",
            "alter table outbox add column type text",
        ],
    ),
    "an enum and a text column swap their names": (
        [
            "create type kind as enum ('Noted')",
            "alter table outbox alter column type type kind using type::kind",
            "alter table outbox alter column type drop not null",
            "alter table outbox add column other text default 'Noted'",
        ],
        [
            "alter table outbox rename column type to was",
            "alter table outbox rename column other to type",
            "alter table outbox rename column was to other",
        ],
    ),
    "numeric to bigint": (
        ["alter table outbox alter column aggregateid type numeric using 5"],
        ["alter table outbox alter column aggregateid type bigint"],
    ),
    "citext to text": (
        ["create extension citext", "alter table outbox alter column aggregateid type citext"],
        ["alter table outbox alter column aggregateid type text"],
    ),
}


@pytest.mark.parametrize("accelerator", ACCELERATORS)
@pytest.mark.parametrize("change", RETYPED)
def test_case_a2_rows_of_a_type_that_only_text_can_read_are_read_as_text(
    pipeline: Pipeline, change: str, accelerator: str
) -> None:
    pipeline.settings["delivery"] = {"accelerator": accelerator}
    before, after = RETYPED[change]
    alter(pipeline, *before)
    for seq in (1, 2):
        insert(pipeline, seq, "'5'")
    alter(pipeline, *after)
    for seq in (3, 4):
        insert(pipeline, seq, "'5'")
    running = pipeline.start()
    records = published(pipeline, running, 4)
    assert [(record.value["seq"], record.key, record.header("eventType")) for record in records] == [
        (seq, "5", "Noted") for seq in (1, 2, 3, 4)
    ]
    assert [line["format"] for line in running.log if line.get("event") == "streaming"] == ["binary", "text"]
    pipeline.settles()
    assert running.stop() == 0


DOMAINS = [
    "create domain identity as uuid",
    "create domain name_of_type as varchar(20) check (value <> '')",
    "create domain key_of_key as name_of_type",
    "create domain yes_or_no as bool",
    "create domain padded as char(9)",
    "create domain document as jsonb",
    "create domain document2 as document",
    "alter table outbox alter column id drop default",
    "alter table outbox alter column id type identity",
    "alter table outbox alter column type type name_of_type",
    "alter table outbox alter column aggregateid type key_of_key",
    "alter table outbox alter column payload type document2",
    "alter table outbox add column urgent yes_or_no",
    "alter table outbox add column place padded",
]


@pytest.mark.parametrize("accelerator", ACCELERATORS)
@pytest.mark.parametrize("extra", [None, "numeric"], ids=["binary", "text"])
def test_case_a3_a4_columns_of_domains_are_read_as_their_base_types(
    pipeline: Pipeline, extra: str | None, accelerator: str
) -> None:
    pipeline.settings["delivery"] = {"accelerator": accelerator}
    pipeline.settings["outbox"] = {"headers": ["urgent", "place"]}
    alter(pipeline, *DOMAINS)
    if extra:  # no decoder of its binary format: the session requests text
        alter(pipeline, f"alter table outbox add column amount {extra} default 1")
        pipeline.settings["outbox"]["headers"].append("amount")
    assert pipeline.run("check").returncode == 0, pipeline.run("check").stdout
    running = pipeline.start()
    for seq in (1, 2, 3):
        insert(pipeline, seq, "'k'", ", urgent, place", ", true, 'here'")
    records = published(pipeline, running, 3)
    assert running.count("session_failed") == 0
    for seq, record in enumerate(records, 1):
        assert (record.id, record.key) == (f"00000000-0000-0000-0000-{seq:012d}", "k")
        assert (record.header("eventType"), record.value["seq"]) == ("Noted", seq)
        assert (record.header("urgent"), record.header("place")) == ("true", "here")
    assert [line["format"] for line in running.log if line.get("event") == "streaming"] == [
        "text" if extra else "binary"
    ]
    assert running.stop() == 0


@pytest.mark.parametrize("extra", [False, True], ids=["binary", "text"])
def test_case_a4_a_payload_of_a_domain_over_bytea_is_passed_through(pipeline: Pipeline, *, extra: bool) -> None:
    alter(
        pipeline,
        "create domain avro as bytea",
        "create domain avro2 as avro",
        "alter table outbox alter column payload type avro2 using null",
    )
    if extra:
        alter(pipeline, "alter table outbox add column amount numeric default 1")
        pipeline.settings["outbox"] = {"headers": ["amount"]}
    running = pipeline.start()
    values = "'00000000-0000-0000-0000-000000000001', 'note', 'k', 'Noted', '\\xc30100ff'"
    for _ in range(3):
        pipeline.sql(INSERT.format(values=values.replace("0001'", f"00{_}1'"), more="", extra=""))
    assert [record.raw for record in published(pipeline, running, 3)] == [b"\xc3\x01\x00\xff"] * 3
    assert running.stop() == 0


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_case_a5_rows_from_before_a_header_column_lack_its_header(pipeline: Pipeline, accelerator: str) -> None:
    pipeline.settings["delivery"] = {"accelerator": accelerator}
    pipeline.settings["outbox"] = {"headers": ["tenant"]}
    for seq in (1, 2, 3):
        insert(pipeline, seq)
    alter(pipeline, "alter table outbox add column tenant text default 'acme'")
    for seq in (4, 5, 6):
        insert(pipeline, seq)
    running = pipeline.start()
    records = published(pipeline, running, 6)
    found = [[value for name, value in record.headers if name == "tenant"] for record in records]
    assert found == [[], [], [], ["acme"], ["acme"], ["acme"]]
    assert sum(line.get("event") == "header_left_out" for line in running.log) == 1
    pipeline.settles()
    assert running.stop() == 0


def test_case_a5_a_row_from_before_a_needed_column_is_a_dead_letter_of_its_own(pipeline: Pipeline) -> None:
    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    pipeline.settings["outbox"] = {"columns": {"key": "tenant"}}
    insert(pipeline, 1)
    alter(pipeline, "alter table outbox add column tenant text default 'acme'")
    insert(pipeline, 2)
    running = pipeline.start()
    (record,) = published(pipeline, running, 1)
    assert (record.value["seq"], record.key) == (2, "acme")
    pipeline.settles()
    assert running.stop() == 0
    shown = pipeline.run("dlq", "list").stdout
    assert "did not publish column" in shown


def test_case_a5_a_needed_column_that_is_dropped_while_running_ends_with_the_fix(pipeline: Pipeline) -> None:
    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    running = pipeline.start().streams()
    insert(pipeline, 1)
    published(pipeline, running, 1)
    alter(pipeline, "alter table outbox rename column type to kind")
    values = "'00000000-0000-0000-0000-000000000002', 'note', 'k', 'Noted', '{\"seq\": 2}'"
    pipeline.sql(INSERT.replace(" type", " kind").format(values=values, more="", extra=""))
    assert running.wait() == 1
    assert "column 'type' is missing" in running.messages()[-1]
    alter(pipeline, "alter table outbox rename column kind to type")
    insert(pipeline, 3)
    again = pipeline.start()
    assert [record.value["seq"] for record in published(pipeline, again, 2)] == [1, 3]
    assert again.stop() == 0


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_case_c10_a_type_column_of_char_n_finds_its_contract(pipeline: Pipeline, accelerator: str) -> None:
    pipeline.settings["delivery"] = {"accelerator": accelerator}
    alter(
        pipeline,
        *[f"alter table outbox alter column {name} type char(20)" for name in ("type", "aggregatetype", "aggregateid")],
    )
    running = pipeline.start()
    for seq in (1, 2, 3):
        insert(pipeline, seq)
    records = published(pipeline, running, 3)
    assert [(record.key, record.header("eventType"), record.topic) for record in records] == [
        ("k", "Noted", pipeline.topic)
    ] * 3
    assert running.stop() == 0
    audit = pipeline.run("audit")
    assert audit.returncode == 0, audit.stdout


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_case_g3_a_null_key_is_a_record_without_a_key(pipeline: Pipeline, accelerator: str) -> None:
    pipeline.settings["delivery"] = {"accelerator": accelerator}
    alter(pipeline, "alter table outbox alter column aggregateid drop not null")
    running = pipeline.start()
    for seq in (1, 2, 3, 4):
        insert(pipeline, seq, "null" if seq % 2 else "'k'")
    records = published(pipeline, running, 4)
    assert sorted((record.value["seq"], record.key) for record in records) == [(1, ""), (2, "k"), (3, ""), (4, "k")]
    assert running.stop() == 0
    audit = pipeline.run("audit")
    assert audit.returncode == 0, audit.stdout
