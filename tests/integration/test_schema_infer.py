"""`schema infer` on real outbox tables."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from cdc.demo.shop import Till
from tests.pipeline import NOTED, Pipeline

COLUMNS = (
    "(id uuid primary key default gen_random_uuid(), aggregatetype varchar(255) not null default 'note',"
    " aggregateid varchar(255) not null default 'k', type varchar(255) not null, payload {})"
)


@pytest.fixture
def table(bare_pipeline: Pipeline) -> Pipeline:
    """A pipeline whose outbox is a jsonb table, without a contract."""
    (bare_pipeline.folder / "schemas" / "Noted.avsc").unlink()
    bare_pipeline.sql(f"create table outbox {COLUMNS.format('jsonb')}")
    return bare_pipeline


def insert(pipeline: Pipeline, event_type: str, *payloads: Any) -> list[str]:
    """Insert a row for each payload, JSON text or a value; return their ids."""
    texts = [payload if isinstance(payload, str) else json.dumps(payload) for payload in payloads]
    ((kind,),) = pipeline.sql(
        "select format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = 'outbox'::regclass and attname = 'payload'"
    )
    return [
        row_id
        for (row_id,) in pipeline.sql(
            f"insert into outbox (type, payload) select %s, p::{kind} from unnest(%s::text[]) with ordinality t(p, n)"
            " order by n returning id::text",
            event_type,
            texts,
        )
    ]


def infer(pipeline: Pipeline, *arguments: str, code: int = 0) -> Any:
    done = pipeline.run("schema", "infer", *arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def done_by_type(report: Any) -> dict[str, str]:
    return {each["type"]: each["done"] for each in report["types"]}


def contract(pipeline: Pipeline, name: str, folder: str = "schemas") -> Any:
    return json.loads((pipeline.folder / folder / f"{name}.avsc").read_text())


def kinds(schema: Any) -> dict[str, Any]:
    return {field["name"]: field["type"] for field in schema["fields"]}


def clean(pipeline: Pipeline) -> None:
    done = pipeline.run("schema", "check", "--table")
    assert done.returncode == 0, done.stderr


def test_every_row_of_the_demo_shop_is_encoded_with_the_inferred_contracts(table: Pipeline) -> None:
    till = Till(7)
    table.sql("alter table outbox add created_at timestamptz not null default '2026-01-31 08:00:00.5+00'")
    for number in range(60):
        order, placed = till.order()
        events = [placed, till.cancel(order) if number % 3 == 0 else till.capture(order)]
        for event in events:
            insert(table, event.type, event.payload)
    report = infer(table)
    assert done_by_type(report) == dict.fromkeys(["OrderCancelled", "OrderPlaced", "PaymentCaptured"], "written")
    assert (report["rows"], report["since"], report["problems"]) == (120, "2026-01-31T08:00:00Z", [])
    clean(table)
    placed_at, order_id = (kinds(contract(table, "OrderPlaced"))[name] for name in ("placed_at", "order_id"))
    assert placed_at == ["null", {"type": "long", "logicalType": "timestamp-micros"}]
    assert order_id == ["null", {"type": "string", "logicalType": "uuid"}]
    assert contract(table, "OrderPlaced")["doc"] == "Inferred from 60 rows since 2026-01-31T08:00:00Z."
    shown = table.run("schema", "infer", "--output", str(table.folder / "other")).stdout
    assert "uncertain: OrderPlaced $.placed_at: each of 60 texts was a timestamp" in shown
    assert "review the contracts, then run: cdc-publisher schema check --table" in shown


@pytest.mark.parametrize("kind", ["json", "jsonb", "text", "varchar(500)", "char(80)"])
def test_contracts_are_inferred_from_each_type_of_payload_column(bare_pipeline: Pipeline, kind: str) -> None:
    bare_pipeline.sql(f"create table outbox {COLUMNS.format(kind)}")
    insert(bare_pipeline, "Paid", '{"amount": 12345678901234567890.123456789, "items": [{"sku": "00123"}]}')
    assert done_by_type(infer(bare_pipeline)) == {"Paid": "written"}
    clean(bare_pipeline)
    amount = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9}
    assert kinds(contract(bare_pipeline, "Paid"))["amount"] == ["null", amount]


def test_a_bytea_payload_is_refused(bare_pipeline: Pipeline) -> None:
    bare_pipeline.sql(f"create table outbox {COLUMNS.format('bytea')}")
    done = bare_pipeline.run("schema", "infer")
    assert done.returncode == 1
    assert "column payload of table public.outbox is bytea: its payloads are Avro already" in done.stderr


def test_an_existing_contract_is_kept_without_update(table: Pipeline) -> None:
    file = table.folder / "schemas" / "Noted.avsc"
    file.write_text(json.dumps(NOTED))
    insert(table, "Noted", {"seq": 1, "new": True})
    insert(table, "Other", {"x": 1})
    assert done_by_type(infer(table)) == {"Noted": "kept", "Other": "written"}
    assert json.loads(file.read_text()) == NOTED
    assert done_by_type(infer(table)) == {"Noted": "kept", "Other": "kept"}


def test_update_adds_new_fields_at_the_end_of_the_contract(table: Pipeline) -> None:
    file = table.folder / "schemas" / "deep" / "Noted.avsc"
    file.parent.mkdir()
    file.write_text(json.dumps(NOTED))
    insert(table, "Noted", {"seq": 1, "new": {"x": 1.5}}, {"seq": 2, "text": "y", "other": None})
    assert done_by_type(infer(table, "--update")) == {"Noted": "updated"}
    after = contract(table, "Noted", "schemas/deep")
    assert after["fields"][:2] == NOTED["fields"]
    assert list(kinds(after)) == ["seq", "text", "new", "other"]
    assert kinds(after)["new"][1]["name"] == "Noted_New"
    clean(table)
    before = file.read_text()
    assert done_by_type(infer(table, "--update")) == {"Noted": "unchanged"}
    assert file.read_text() == before
    assert [each.name for each in file.parent.iterdir()] == ["Noted.avsc"]


def test_update_lists_rows_that_do_not_match_and_changes_nothing(table: Pipeline) -> None:
    file = table.folder / "schemas" / "Noted.avsc"
    file.write_text(json.dumps(NOTED))
    _, bad, null = insert(table, "Noted", {"seq": 1, "new": 1}, {"seq": "x", "new": 2}, {"seq": None})
    insert(table, "Other", {"x": 1})
    report = infer(table, "--update", code=1)
    assert done_by_type(report) == {"Noted": "refused", "Other": "held back"}
    first, second, summary = report["problems"]
    assert (first["id"], first["problem"]) == (bad, '$.seq: "x" is not a long; string accepts it')
    assert (second["id"], second["problem"]) == (null, "$.seq: null is not a long")
    assert summary["problem"].startswith("2 rows do not match the contract with new fields added")
    assert json.loads(file.read_text()) == NOTED
    assert [each.name for each in (table.folder / "schemas").iterdir()] == ["Noted.avsc"]


def test_rows_that_no_contract_can_hold_are_listed_and_other_types_are_written(bare_pipeline: Pipeline) -> None:
    bare_pipeline.sql(f"create table outbox {COLUMNS.format('text')}")
    good, text, array, half, name = insert(
        bare_pipeline, "Bad", '{"a": 1}', "not JSON", "[1]", r'{"a": "\ud800"}', '{"foo-bar": 1}'
    )
    insert(bare_pipeline, "Good", '{"a": 1}')
    report = infer(bare_pipeline, code=1)
    assert done_by_type(report) == {"Bad": "refused", "Good": "written"}
    problems = {each["id"]: each["problem"] for each in report["problems"] if "id" in each}
    assert set(problems) == {text, array, half, name}
    assert good not in problems
    assert "the payload is not JSON" in problems[text]
    assert "Avro does not accept 'foo-bar' as the name of a field" in report["problems"][-1]["problem"]
    assert not (bare_pipeline.folder / "schemas" / "Bad.avsc").exists()


def test_event_types_that_are_no_names_get_an_entry_for_the_settings(table: Pipeline) -> None:
    insert(table, "order-placed", {"a": 1})
    insert(table, "shop.OrderPaid", {"a": 1})
    report = infer(table)
    assert report["settings"] == {"types": {"order-placed": "order_placed"}}
    assert (table.folder / "schemas" / "shop" / "OrderPaid.avsc").exists()
    assert 'types = { "order-placed" = "order_placed" }' in table.run("schema", "infer").stdout
    assert set(done_by_type(infer(table)).values()) == {"kept"}
    table.settings["avro"]["types"] = report["settings"]["types"]
    assert infer(table)["settings"] == {"types": {}}
    clean(table)


def test_a_contract_of_the_settings_that_does_not_exist_yet_is_made_under_its_name(table: Pipeline) -> None:
    table.settings["avro"]["types"] = {"a": "shop.Both", "b": "shop.Both"}
    insert(table, "a", {"x": 1})
    insert(table, "b", {"y": 1})
    assert done_by_type(infer(table)) == {"a": "written", "b": "written"}
    assert list(kinds(contract(table, "Both", "schemas/shop"))) == ["x", "y"]
    clean(table)


def test_only_wanted_types_are_inferred(table: Pipeline) -> None:
    insert(table, "A", {"x": 1})
    insert(table, "B", {"x": 1})
    table.sql("insert into outbox (type, payload) values ('C', null)")
    assert done_by_type(infer(table, "--type", "A")) == {"A": "written"}
    done = table.run("schema", "infer", "--type", "A", "--type", "C")
    assert (done.returncode, "has no row of type C with a payload" in done.stderr) == (78, True)


def test_a_sample_covers_the_table_and_its_extremes(bare_pipeline: Pipeline) -> None:
    bare_pipeline.sql(
        f"create table outbox {COLUMNS.format('jsonb').replace(' primary key', '')[:-1]}, at timestamptz)"
        " partition by hash (id)"
    )
    for part in range(3):
        bare_pipeline.sql(f"create table part_{part} partition of outbox for values with (modulus 3, remainder {part})")
    bare_pipeline.sql(
        "insert into outbox (type, payload, at) select 'A', jsonb_build_object('n', n, 'filler', 'filler'), now()"
        " from generate_series(1, 1000) n"
    )
    bare_pipeline.sql(
        """insert into outbox (type, payload, at) values
        ('A', jsonb_build_object('longest', repeat('x', 100)), now()), ('A', '{"s": 1}', now()),
        ('A', '{"oldest": 1, "fill": "filler"}', '2020-01-01'), ('Rare', '{"only": true}', 'infinity')"""
    )
    report = infer(bare_pipeline, "--sample", "10")
    all_rows, rare = report["types"]
    assert 10 <= all_rows["rows"] <= 13
    assert (all_rows["of"], all_rows["since"]) == (1003, "2020-01-01T00:00:00Z")
    assert (rare["rows"], rare["of"], rare["since"]) == (1, 1, None)
    assert {"longest", "s", "oldest", "n", "filler"} <= kinds(contract(bare_pipeline, "A")).keys()
    clean(bare_pipeline)


def test_memory_does_not_grow_with_the_rows(table: Pipeline) -> None:
    table.sql(
        "insert into outbox (type, payload) select 'A', jsonb_build_object('n', n, 'text', repeat('x', 1000),"
        " 'by', jsonb_build_object('k' || n, n)) from generate_series(1, 15000) n"
    )
    tracemalloc.start()
    try:
        report = infer(table)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report["rows"] == 15000
    assert peak < 10_000_000  # of 15 MB


def test_a_file_of_another_contract_is_not_overwritten(table: Pipeline) -> None:
    other: Path = table.folder / "schemas" / "A.avsc"
    other.write_text(json.dumps({**NOTED, "name": "Elsewhere"}))
    insert(table, "A", {"x": 1})
    done = table.run("schema", "infer")
    assert (done.returncode, "A.avsc exists, and is not the contract A" in done.stderr) == (78, True)
    assert contract(table, "A")["name"] == "Elsewhere"


def test_payloads_that_are_nested_too_deeply_are_refused(table: Pipeline) -> None:
    insert(table, "Deep", '{"a":' * 450 + "1" + "}" * 450)
    done = table.run("schema", "infer")
    assert done.returncode in (1, 78)
    assert "nested too deeply" in done.stderr
    assert not (table.folder / "schemas" / "Deep.avsc").exists()
