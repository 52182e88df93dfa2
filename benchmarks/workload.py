"""The published events: an order as nested jsonb, in several sizes, and its contract. Rows are the same in each run.

`payload` and `payload_sql` produce the same document, in Python and in PostgreSQL, where backlogs are built; a backlog
is checked against the first.
"""

import hashlib
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

AGGREGATE: Final = "order"
KEYS: Final = 50_000
PARTITIONS: Final = 4
NULL_NOTE_EVERY: Final = 10
PREFIX: Final = "outbox"  # of logical messages
ID_SQL: Final = "(lpad(to_hex(n), 12, '0') || substr(md5(n::text), 13))::uuid"
CURRENCIES: Final = ("EUR", "USD", "GBP")


@dataclass(frozen=True, slots=True)
class Workload:
    """A backlog's number of events, their size, and the size of its transactions."""

    events: int
    lines: int = 2  # order lines in each payload
    note: int = 36  # characters of the note, where there is one
    rows: int = 5  # of one transaction; 0: all events are one transaction
    keys: int = KEYS
    types: int = 1
    columns: int = 0  # of the table that the publisher has no use for
    partitions: int = PARTITIONS

    @property
    def type_names(self) -> list[str]:
        """Return the event types, in the order of `number % types`."""
        return ["OrderPlaced"] if self.types == 1 else [f"OrderPlaced{number}" for number in range(self.types)]


SHAPES: Final = {
    "200B": Workload(1_000_000),
    "1kB": Workload(300_000, lines=14, note=430),
    "10kB": Workload(50_000, lines=150, note=5500),
    "one-row": Workload(500_000, rows=1),
    "one-transaction": Workload(1_000_000, rows=0),
}


def payload(workload: Workload, number: int) -> dict[str, Any]:
    """Return the payload of event `number`."""
    text = hashlib.md5(str(number).encode()).hexdigest() * (workload.note // 32 + 1)
    return {
        "order_id": number,
        "customer_id": number * 7919 % workload.keys,
        "currency": CURRENCIES[number % len(CURRENCIES)],
        "total_cents": number * 37 % 1_000_000,
        "note": None if number % NULL_NOTE_EVERY == 0 else text[: workload.note],
        "lines": [
            {"sku": f"SKU-{10_000 + (number * 31 + line * 7919) % 90_000}", "qty": 1 + (number + line) % 9}
            for line in range(workload.lines)
        ],
    }


def event_id(number: int) -> str:
    """Return the id of event `number`."""
    return str(uuid.UUID(f"{number:012x}{hashlib.md5(str(number).encode()).hexdigest()[12:]}"))


def number(event_id: str) -> int:
    """Return the number of an event by its id."""
    return int(event_id.replace("-", "")[:12], 16)


def event(workload: Workload, number: int) -> dict[str, Any]:
    """Return event `number` as its record shows it."""
    return {
        "id": event_id(number),
        "key": f"customer-{number * 7919 % workload.keys}",
        "type": workload.type_names[number % workload.types],
        "value": payload(workload, number),
    }


def payload_sql(workload: Workload) -> str:
    """Return the payload as an SQL expression over a bigint `n`."""
    line = (
        "jsonb_build_object('sku', 'SKU-' || (10000 + (n * 31 + {0} * 7919) % 90000), 'qty', (1 + (n + {0}) % 9)::int)"
    )
    # A list that is written out is built in half the time of a subquery.
    written = f"jsonb_build_array({', '.join(line.format(number) for number in range(workload.lines))})"
    queried = f"(select jsonb_agg({line.format('l')} order by l) from generate_series(0, {workload.lines - 1}) l)"
    currencies = ", ".join(f"'{currency}'" for currency in CURRENCIES)
    return (
        f"jsonb_build_object('order_id', n, 'customer_id', n * 7919 % {workload.keys},"
        f" 'currency', (array[{currencies}])[1 + n % {len(CURRENCIES)}], 'total_cents', n * 37 % 1000000,"
        f" 'note', case when n % {NULL_NOTE_EVERY} <> 0"
        f" then left(repeat(md5(n::text), {workload.note // 32 + 1}), {workload.note}) end,"
        f" 'lines', {written if workload.lines <= 5 else queried})"
    )


def _row_sql(workload: Workload) -> dict[str, str]:
    """Return an SQL expression over `n` for each column of the outbox."""
    # Ids in the order of time, as UUIDv7: random ones would fill the WAL with pages of the index.
    kind = f"'{workload.type_names[0]}'" if workload.types == 1 else f"'OrderPlaced' || n % {workload.types}"
    return {
        "id": ID_SQL,
        "aggregatetype": f"'{AGGREGATE}'",
        "aggregateid": f"'customer-' || n * 7919 % {workload.keys}",
        "type": kind,
        "payload": payload_sql(workload),
        **{name: f"'{name}'" for name in extra_columns(workload)},
    }


def rows_sql(workload: Workload) -> str:
    """Return the columns and the select list over `n` of an insert into the outbox."""
    row = _row_sql(workload)
    return f"({', '.join(row)}) select {', '.join(row.values())}"


def message_sql(workload: Workload) -> str:
    """Return the call over `n` that writes an event as a logical message."""
    members = ", ".join(f"'{name}', {value}" for name, value in _row_sql(workload).items())
    return f"pg_logical_emit_message(true, '{PREFIX}', convert_to(json_build_object({members})::text, 'UTF8'))"


def extra_columns(workload: Workload) -> list[str]:
    return [f"extra_{number}" for number in range(workload.columns)]


def contract(name: str) -> dict[str, Any]:
    """Return the Avro schema of an event type."""
    line = {"type": "record", "name": f"{name}Line", "fields": [_field("sku", "string"), _field("qty", "int")]}
    fields = [
        _field("order_id", "long"),
        _field("customer_id", "long"),
        _field("currency", "string"),
        _field("total_cents", "long"),
        _field("note", ["null", "string"]),
        _field("lines", {"type": "array", "items": line}),
    ]
    return {"type": "record", "name": name, "namespace": "bench", "fields": fields}


def _field(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, "type": kind}


def write_contracts(folder: Path, workload: Workload) -> None:
    """Write one `.avsc` file per event type."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in workload.type_names:
        (folder / f"{name}.avsc").write_text(json.dumps(contract(name)))
