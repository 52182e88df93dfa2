"""Microseconds per event from frame to record: the general path, and runs in plain Python and of the accelerator.

Each for the kinds of values: Avro, JSON and text.

    python native/bench.py [--json] [--repeat 15]

Frames are made, each with an id of its own; a run has 200 of them, as one read of the stream may bring. Figures are the
best of the repetitions. Payloads are as jsonb sends them: keys by length, then by bytes.
"""

import argparse
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import cdc_native
import fastavro

from cdc.avro.contracts import Contract
from cdc.avro.json_values import JsonForm
from cdc.config.settings import Record as Values
from cdc.lsn import LSN
from cdc.outbox.columns import Columns
from cdc.outbox.events import Outbox
from cdc.outbox.topic_template import TopicTemplate
from cdc.records.encoding import Encoding
from cdc.records.fastpath.generated import Unrolled
from cdc.records.fastpath.layout import Layout, Make
from cdc.records.record import Record
from cdc.records.router import Encoder
from cdc.replication.frames import XLOG_HEADER_SIZE
from cdc.replication.messages import Column, Insert, Relation
from cdc.replication.pgoutput import decode
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row

RUN = 200
OID = 16449
TYPES = {"id": 2950, "aggregatetype": 25, "aggregateid": 25, "type": 25, "payload": 3802}
PREFIX = "0badcafe-000000000172CEC8-"
LAYOUT = Layout(OID, True, ("uuid", "text", "text", "text", "jsonb"), 0, 2, 3, 4, (1,), (), tombstones=False)


def record(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": key, "type": kind} for key, kind in fields.items()]}


PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
MOMENT = {"type": "long", "logicalType": "timestamp-micros"}
LINE = record("Line", sku="string", qty="int", unit_price=PRICE)
SCHEMAS = {
    "small": record("Small", order_id="long", status="string", paid="boolean"),
    "flat, 200 bytes": record(
        "Flat", order_id="long", customer_id="long", currency="string", total_cents="long", note=["null", "string"],
        shop="string", channel="string", placed_at="long",
    ),
    "nested, 250 bytes": record(
        "Nested", order_id="long", lines={"type": "array", "items": LINE}, currency="string", total=PRICE,
        placed_at=MOMENT,
    ),
}  # fmt: skip
LINES = [{"sku": f"SKU-{n}", "qty": n, "unit_price": "12.50"} for n in (11, 222, 3333)]
VALUES: dict[str, Any] = {
    "small": {"order_id": 123456, "status": "SHIPPED", "paid": True},
    "flat, 200 bytes": {
        "order_id": 123456, "customer_id": 778, "currency": "EUR", "total_cents": 12999, "shop": "berlin-mitte-4",
        "note": "leave at the door please", "channel": "mobile application", "placed_at": 1785542400123456,
    },
    "nested, 250 bytes": {
        "order_id": 123456, "lines": LINES, "currency": "EUR", "total": "129.99",
        "placed_at": "2026-01-31T10:00:00.25Z",
    },
}  # fmt: skip


def as_jsonb(value: Any) -> Any:
    """The value with its keys in the order of jsonb."""
    if isinstance(value, dict):
        return {key: as_jsonb(value[key]) for key in sorted(value, key=lambda key: (len(key), key))}
    return [as_jsonb(item) for item in value] if isinstance(value, list) else value


def frame(payload: bytes) -> bytes:
    """An Insert of the outbox's table."""
    row = [uuid.uuid4().bytes, b"order", b"customer-1234", b"Order", b"\x01" + payload]
    head = b"w" + bytes(24) + b"I" + OID.to_bytes(4, "big") + b"N" + len(row).to_bytes(2, "big")
    return head + b"".join(b"b" + len(cell).to_bytes(4, "big") + cell for cell in row)


def best(run: Callable[[], object], repeat: int) -> float:
    """Microseconds per event of the quickest of some runs."""
    seconds = []
    for _ in range(repeat):
        begun = time.perf_counter()
        for _ in range(20):
            run()
        seconds.append(time.perf_counter() - begun)
    return min(seconds) / 20 / RUN * 1e6


def measured(name: str, value: str, repeat: int) -> dict[str, Any]:
    """One line of the table."""
    contract = Contract(fastavro.parse_schema(SCHEMAS[name], named_schemas={}), "bench")
    payload = json.dumps(as_jsonb(VALUES[name])).encode()
    frames = [frame(payload) for _ in range(RUN)]
    outbox = Outbox(PREFIX[:8], Columns(), TopicTemplate("outbox.event.{aggregatetype}"))
    kinds = Values.model_validate({"value": value})
    only = Only(contract, contract.json_encoder(JsonForm()) if value == "json" else contract)
    encoding = Encoding(outbox, only, only, values=kinds)
    event = outbox.event(row(frames[0], 0))
    encoding.record(event)
    route = encoding.shared(event)
    assert route

    def taken(make: Make) -> float:
        runs = make(LAYOUT)
        runs.learn(b"Order", (b"order",), route, 1_000_000)
        return round(best(lambda: runs.take(frames, 0, PREFIX, 0, 0, print), repeat), 2)

    return {
        "payload": name,
        "value": value,
        "bytes": len(payload),
        "general": round(best(general(frames, outbox, encoding), repeat), 2),
        "python": taken(Unrolled),
        "native": taken(cdc_native.Runs),
    }


class Only:
    """One encoder for every type, and the header of its contract for every topic."""

    def __init__(self, contract: Contract, encoder: Encoder) -> None:
        self._contract = contract
        self._encoder = encoder

    def get(self, _event_type: str, /) -> Encoder:
        return self._encoder

    def asks_again(self, event_type: str) -> bool:  # noqa: ARG002 - nothing is looked for
        return False

    def missing(self, event_type: str) -> str:
        return event_type

    def header(self, topic: str, contract: str) -> bytes | None:  # noqa: ARG002 - one for all
        return self._contract.header

    def close(self) -> None:
        pass


RELATION = Relation(OID, "public", "outbox", "d", tuple(Column(0, name, oid, -1) for name, oid in TYPES.items()))
TRANSACTION = Ledger().begin(LSN(0x172CEC8), 0)


def row(frame: bytes, index: int) -> Row:
    """The row of a frame, as the general path reads it."""
    message = decode(frame, XLOG_HEADER_SIZE)
    assert isinstance(message, Insert)
    return Row(TRANSACTION, index, RELATION, message.new)


def general(frames: list[bytes], outbox: Outbox, encoding: Encoding) -> Callable[[], list[Record]]:
    """The general path for the same frames."""
    return lambda: [encoding.record(outbox.event(row(each, index))) for index, each in enumerate(frames)]


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    lines = [measured(name, value, options.repeat) for name in SCHEMAS for value in ("avro", "json", "text")]
    if options.json:
        print(json.dumps(lines))
        return
    for line in lines:
        columns = "general path {general:6.2f} us   python {python:5.2f} us   native {native:5.2f} us".format(**line)
        print("{payload:20} {bytes:5} bytes   {value:5} ".format(**line) + columns)


if __name__ == "__main__":
    main()
