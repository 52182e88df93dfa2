"""`[outbox] header_format` with columns of every kind, on a real server, in both formats of the stream."""

from typing import Any

import pytest

from tests.integration.checking import check
from tests.pipeline import Pipeline

COLUMNS = {
    "at": ("timestamptz", "2026-01-31 09:00:00.123456+01"),
    "local": ("timestamp", "2026-01-31 08:00:00"),
    "day": ("date", "2026-01-31"),
    "clock": ("time", "08:00:00.5"),
    "zoned": ("timetz", "08:00:00+02"),
    "price": ("numeric(10, 2)", "12.50"),
    "items": ("int[]", "{1,NULL,3}"),
    "every": ("interval", "1 day 2 hours"),
    "tenant": ("text", "acme"),
    "active": ("boolean", "true"),
    "number": ("bigint", "-7"),
    "ref": ("uuid", "00112233-4455-6677-8899-aabbccddeeff"),
}
POSTGRES = {
    "at": "2026-01-31 08:00:00.123456+00", "local": "2026-01-31 08:00:00", "day": "2026-01-31", "clock": "08:00:00.5",
    "zoned": "08:00:00+02", "price": "12.50", "items": "{1,NULL,3}", "every": "1 day 02:00:00", "tenant": "acme",
    "active": "true", "number": "-7", "ref": "00112233-4455-6677-8899-aabbccddeeff",
}  # fmt: skip
ISO = POSTGRES | {
    "at": "2026-01-31T08:00:00.123456Z",
    "local": "2026-01-31T08:00:00",
    "zoned": "08:00:00+02:00",
    "raw": "aGVsbG8=",
}
BINARY = ["tenant", "active", "number", "ref"]  # with bytea: the types that the stream brings in binary


def add(pipeline: Pipeline, columns: dict[str, tuple[str, str]]) -> None:
    for name, (kind, _) in columns.items():
        pipeline.sql(f'alter table outbox add column "{name}" {kind}')


def insert(pipeline: Pipeline, columns: dict[str, tuple[str, str]]) -> None:
    """Insert rows with values, rows with nulls, and again, so that rows of both kinds follow a row that was learned."""
    names = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join(f"'{value}'::{kind}" for kind, value in columns.values())
    nulls = ", ".join("null" for _ in columns)
    for cells in (values, nulls, values):
        pipeline.sql(
            f"insert into outbox (aggregatetype, aggregateid, type, payload, {names})"
            f" select 'note', 'k', 'Noted', '{{\"seq\": 1}}', {cells} from generate_series(1, 5)"
        )


def sent_headers(pipeline: Pipeline) -> list[dict[str, Any]]:
    own = {"id", "eventType", "cdc-position"}
    return [{name: value for name, value in record.headers if name not in own} for record in pipeline.records()]


def published(
    pipeline: Pipeline,
    columns: dict[str, tuple[str, str]],
    form: str,
    accelerator: str,
    headers: list[str] | None = None,
) -> list[dict[str, Any]]:
    if accelerator == "native":
        pytest.importorskip("cdc_native", reason="there is no Rust toolchain")
    add(pipeline, columns)
    pipeline.settings["outbox"] = {"headers": headers or list(columns), "header_format": form}
    pipeline.settings["delivery"] = {"accelerator": accelerator}
    running = pipeline.start().streams()
    insert(pipeline, columns)
    pipeline.settles()
    assert running.stop() == 0
    return sent_headers(pipeline)


@pytest.mark.parametrize("accelerator", ["python", "native"])
def test_case_g4_headers_are_postgresql_text_by_default(pipeline: Pipeline, accelerator: str) -> None:
    found = published(pipeline, COLUMNS, "postgres", accelerator)
    assert found == [POSTGRES] * 5 + [{}] * 5 + [POSTGRES] * 5


@pytest.mark.parametrize("accelerator", ["python", "native"])
def test_a_column_is_sent_under_the_name_behind_its_colon(pipeline: Pipeline, accelerator: str) -> None:
    columns = {"a:b": COLUMNS["at"], "ref": COLUMNS["ref"]}
    found = published(
        pipeline, columns, "iso", accelerator, headers=['"a:b":occurredAt', "ref:orderRef", "ref", "aggregateid:key"]
    )
    rows = {"occurredAt": ISO["at"], "orderRef": ISO["ref"], "ref": ISO["ref"], "key": "k"}
    nulls = {**dict.fromkeys(rows), "key": "k"}
    assert found == [rows] * 5 + [nulls] * 5 + [rows] * 5
    assert check(pipeline)["outbox_table"].status == "pass"
    assert pipeline.run("audit").returncode == 0


@pytest.mark.parametrize("accelerator", ["python", "native"])
@pytest.mark.parametrize("names", [[*COLUMNS], BINARY], ids=["text", "binary"])
def test_case_g4_iso_headers_are_iso_8601_base64_and_null(
    pipeline: Pipeline, names: list[str], accelerator: str
) -> None:
    columns = {name: COLUMNS[name] for name in names} | {"raw": ("bytea", "hello")}
    found = published(pipeline, columns, "iso", accelerator)
    values = {name: ISO[name] for name in columns}
    nulls = dict.fromkeys(columns)
    assert found == [values] * 5 + [nulls] * 5 + [values] * 5
    assert check(pipeline)["outbox_table"].status == "pass"
