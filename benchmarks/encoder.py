"""Microseconds per event from JSON value to Avro body: compiled encoder, mapping and fastavro, fastavro alone, avro.

Also from payload to value, as the publisher does it: `avro`, `json` and `text` of `[record] value`, parsing included.

    python benchmarks/encoder.py [--json] [--repeat 15]

A run is some thousand events; figures are the median of the runs. `fastavro alone` does not validate values
(docs/mapping.md); `avro` is the package of the Apache project (`pip install avro`), omitted if it is missing.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import fastavro
import orjson
from rich.console import Console
from rich.table import Table

from cdc.avro.compiled import compiler
from cdc.avro.contracts import Contract
from cdc.avro.json_values import JsonForm
from cdc.avro.mapping import convert
from cdc.records.router import text_value

HEADER = b"\xc3\x01" + bytes(8)


def record(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": key, "type": kind} for key, kind in fields.items()]}


LINE = record("Line", sku="string", qty="int")
ORDER = record(
    "Order",
    order_id="long",
    customer_id="long",
    currency="string",
    total_cents="long",
    note=["null", "string"],
    lines={"type": "array", "items": LINE},
)
CHANGE = record("StatusChanged", order_id="long", status="string", paid="boolean")
ITEM = record(
    "Item",
    sku="string",
    title="string",
    qty="int",
    cents="long",
    weight="double",
    tags={"type": "array", "items": "string"},
)
CATALOGUE = record(
    "Catalogue", id="string", labels={"type": "map", "values": "string"}, items={"type": "array", "items": ITEM}
)

PAYLOADS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "small": (CHANGE, {"order_id": 123456, "status": "SHIPPED", "paid": True}),
    "nested 200 bytes": (
        ORDER,
        {
            "order_id": 123456,
            "customer_id": 778,
            "currency": "EUR",
            "total_cents": 12999,
            "note": "leave at the door please",
            "lines": [{"sku": "SKU-12345-A", "qty": 2}, {"sku": "SKU-777-B", "qty": 1}, {"sku": "SKU-99-C", "qty": 4}],
        },
    ),
    "5 kB": (
        CATALOGUE,
        {
            "id": "catalogue-2026-01",
            "labels": {f"label-{n}": "x" * n for n in range(20)},
            "items": [
                {
                    "sku": f"SKU-{n:05}",
                    "title": f"Article number {n}, in several colours",
                    "qty": n,
                    "cents": n * 1999,
                    "weight": n / 7,
                    "tags": ["new", "sale", "été"],
                }
                for n in range(34)
            ],
        },
    ),
}


def ways(schema: dict[str, Any], value: dict[str, Any]) -> dict[str, Callable[[], bytes]]:
    """Return each way to encode the value, by name; the others are compared with the first."""
    parsed = fastavro.parse_schema(schema, named_schemas={})
    encode, to_datum = compiler.compile_encoder(parsed), convert.mapper(parsed)

    def write(datum: Any) -> bytes:
        buffer = io.BytesIO()
        buffer.write(HEADER)
        fastavro.schemaless_writer(buffer, parsed, datum)
        return buffer.getvalue()

    found = {
        "compiled": lambda: encode(value, HEADER),
        "mapping + fastavro": lambda: write(to_datum(value)),
        "fastavro alone": lambda: write(value),
    }
    try:
        import avro.io
        import avro.schema
    except ImportError:
        return found
    apache = avro.io.DatumWriter(avro.schema.parse(json.dumps(schema)))

    def by_avro() -> bytes:
        buffer = io.BytesIO()
        buffer.write(HEADER)
        apache.write(value, avro.io.BinaryEncoder(buffer))
        return buffer.getvalue()

    return {**found, "avro": by_avro}


def values(schema: dict[str, Any], payload: bytes) -> dict[str, Callable[[], bytes]]:
    """Return the way from payload to value for each kind of value."""
    contract = Contract(fastavro.parse_schema(schema, named_schemas={}), "")
    as_json = contract.json_encoder(JsonForm())
    return {
        "avro": lambda: contract.encode(payload, HEADER),
        "json": lambda: as_json.encode(payload, b""),
        "text": lambda: text_value(payload, b""),
    }


def microseconds(call: Callable[[], Any], repeat: int) -> float:
    """Return the median time per call, in microseconds, of `repeat` runs of about 20 ms each."""
    call()
    started = time.perf_counter()
    for _ in range(20):
        call()
    count = max(20, int(0.02 * 20 / (time.perf_counter() - started)))
    return statistics.median(_run(call, count) for _ in range(repeat))


def _run(call: Callable[[], Any], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count * 1e6


def measure(repeat: int) -> list[dict[str, Any]]:
    """Measure each payload with each encoder; return one row per pair."""
    rows = []
    for name, (schema, value) in PAYLOADS.items():
        text = orjson.dumps(value)
        calls = ways(schema, value)
        bodies = {call() for call in calls.values()}
        assert len(bodies) == 1, f"{name}: not all ways make the same bytes"
        parse = microseconds(lambda text=text: orjson.loads(text), repeat)  # type: ignore[misc]
        times = {way: microseconds(call, repeat) for way, call in calls.items()}
        whole = {f"payload to {kind}": microseconds(call, repeat) for kind, call in values(schema, text).items()}
        rows += [
            {
                "payload": name,
                "json_bytes": len(text),
                "avro_bytes": len(next(iter(bodies))) - len(HEADER),
                "way": way,
                "us_per_event": round(took, 3),
                "parse_us": round(parse, 3),
                "ratio": round(took / times["compiled"], 2),
            }
            for way, took in (times | whole).items()
        ]
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    shown = Table(
        title="JSON value to Avro body, header included", caption="ratio: times as long as the compiled encoder"
    )
    shown.add_column("payload")
    shown.add_column("way")
    for column in ("us/event", "ratio", "parse JSON, us"):
        shown.add_column(column, justify="right")
    for row in rows:
        first = row["way"] == "compiled"
        shown.add_row(
            f"{row['payload']} ({row['json_bytes']} B)" if first else "",
            row["way"],
            f"{row['us_per_event']:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['parse_us']:.2f}" if first else "",
            end_section=row["way"] == "payload to text",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="Microseconds per event of each way to encode")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--repeat", type=int, default=15, help="runs of which the median is taken")
    options = parser.parse_args()
    rows = measure(options.repeat)
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        Console().print(table(rows))


if __name__ == "__main__":
    main()
