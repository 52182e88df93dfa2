"""Records of 0.1.0 as they are in Kafka, one file each, and the same records written by the code of today.

The files are never rewritten: a later version reads what this one left in Kafka.
"""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from cdc.avro import contracts
from cdc.consumer import Event as Received
from cdc.consumer.dead_letters import headers as dead_letter_headers
from cdc.dead_letters.replays import Replays, marker
from cdc.delivery.positions import EXACTLY_ONCE, SlotRecord
from cdc.delivery.reports import Batch, Positions
from cdc.delivery.sequence import Sequences
from cdc.errors import PoisonEvent
from cdc.lsn import LSN, EventPosition
from cdc.outbox.events import Event
from cdc.records.dead_letters import DeadLetter, DeadLetters
from cdc.records.encoding import Encoding
from cdc.records.record import Headers, Record
from cdc.records.router import Encoder
from cdc.recovery.repair import MissingEvents
from cdc.replication.transactions import Row
from cdc.status.from_metrics import describe
from tests import ROOT, specimen
from tests.unit import frames, shop

FOLDER: Final = Path(__file__).parent
SCHEMAS: Final = ROOT / "schemas"

LETTERS: Final = "cdc.dead-letter"
POSITION: Final = "0badcafe-00000000000000C8-00000000"
AT: Final = "2026-08-01T12:00:00.000Z"
NOON: Final = 1_785_585_600.0
PAYLOAD: Final = {
    "order_id": shop.EVENT_ID,
    "customer": {"id": 7, "name": "Zoë", "email": None},
    "lines": [{"sku": "A-1", "qty": 2, "unit_price": 9.95}],
    "total": 19.90,
    "currency": "EUR",
    "note": None,
    "placed_at": "2026-08-01T00:00:00Z",
}
MARK: Final = SlotRecord(
    "7300000000000000001",
    1,
    "cdc_publisher",
    LSN(0x16B3748),
    {"table": "public.outbox", "table oid": "16449", "publication": "outbox", "publication oid": "16460"},
    {"[topics] name": "outbox.event.{aggregatetype}", "[outbox] columns.key": "aggregateid"},
)
TRANSACTIONAL: Final = replace(MARK, guarantee=EXACTLY_ONCE, position=EventPosition(LSN(0x16B3748), 3), caught_up=True)


class Golden(NamedTuple):
    """One record; `headers` have bytes for values, as a consumer reads them."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: list[tuple[str, bytes | None]]

    @classmethod
    def of(cls, record: Record) -> "Golden":
        """Return what Kafka holds after `record` was sent."""
        return cls(record.topic, record.key, record.value, record.timestamp, _received(record.headers))

    def dump(self) -> str:
        """Return the text of a golden file."""
        parts = {**self._asdict(), "key": _text(self.key), "value": _text(self.value)}
        lines = [f' "{name}": {_json(value)}' for name, value in parts.items() if name != "headers"]
        headers = ",".join(f"\n  {_json([name, _text(value)])}" for name, value in self.headers)
        return "{\n" + ",\n".join([*lines, f' "headers": [{headers}]']) + "\n}\n"


class Message:
    """A golden record as confluent-kafka hands it to a consumer, of partition 2 and offset 17."""

    def __init__(self, golden: Golden) -> None:
        self._golden = golden

    def topic(self) -> str:
        return self._golden.topic

    def partition(self) -> int:
        return 2

    def offset(self) -> int:
        return 17

    def timestamp(self) -> tuple[int, int]:
        return 1, self._golden.timestamp

    def key(self) -> bytes | None:
        return self._golden.key

    def value(self) -> bytes | None:
        return self._golden.value

    def headers(self) -> list[tuple[str, bytes | None]]:
        return self._golden.headers


def load(name: str) -> Golden:
    """Read a golden file."""
    read = json.loads((FOLDER / f"{name}.json").read_text())
    headers = [(header, _bytes(value)) for header, value in read["headers"]]
    return Golden(read["topic"], _bytes(read["key"]), _bytes(read["value"]), read["timestamp"], headers)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _text(value: bytes | None) -> Any:
    """Return text, or the digits of bytes that no text has."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"hex": value.hex()}


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"])
    return None if value is None else str(value).encode()


def _received(headers: Headers) -> list[tuple[str, bytes | None]]:
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in headers]


def written() -> dict[str, Golden]:
    """Make every record that the program writes, by the name of its file."""
    event = _encoding(headers=["tenant"]).record(_event(json.dumps(PAYLOAD)))
    return {
        "event": Golden.of(_Numbers.of(event)),
        "event-in-envelope": Golden.of(_encoding().record(_event('{"n": 1}', "Unknown"))),
        "tombstone": Golden.of(_encoding(tombstones=True).record(_event(None))),
        "position-at-least-once": Golden.of(_told(Positions("cdc.positions", MARK, _never, 0.0))),
        "position-exactly-once": Golden.of(_transactional()),
        "dead-letter": Golden.of(_dead_letter('{"n": 1}', "OrderPlaced")),
        "dead-letter-of-bytes": Golden.of(_dead_letter(b"\xc3\x01\xff", "OrderPlaced", payload_type=shop.BYTEA)),
        "dead-letter-of-broken-row": Golden.of(_dead_letter('{"n": 1}', b"\xff")),
        "replay-marker": Golden.of(marker(LETTERS, letter(), AT, int(NOON * 1000))),
        "replayed-event": Golden.of(_replays().record(letter(), AT)),
        "repaired-event": Golden.of(_repaired()),
        "consumer-dead-letter": _consumer_dead_letter(),
    }


def letter() -> DeadLetter:
    """Return a dead letter whose payload fits its contract today."""
    payload = json.dumps(PAYLOAD).encode()
    return DeadLetter(
        position=POSITION,
        id=shop.EVENT_ID,
        type="OrderPlaced",
        topic="outbox.event.order",
        aggregate="order",
        key=b"o-1",
        timestamp=shop.COMMIT_TIME_MS,
        error="payload-mismatch",
        message="OrderPlaced $.n: is bad",
        payload=payload,
        payload_kind="json",
        headers=[("tenant", "acme")],
    )


def _encoding(headers: list[str] | None = None, *, tombstones: bool = False) -> Encoding:
    loaded = contracts.load(SCHEMAS / "shop", {})
    envelope = contracts.load(SCHEMAS / "cdc", {})["cdc.Envelope"]
    known = {one.name: one.header for one in (*loaded.values(), envelope)}
    outbox = shop.outbox(headers=headers or [], tombstones=tombstones)
    return Encoding(outbox, _Contracts(loaded), _Framing(known), envelope=envelope)


class _Contracts(shop.Encoders):
    """The contracts of the shop."""

    def __init__(self, loaded: contracts.Contracts) -> None:
        self._loaded = loaded

    def get(self, event_type: str, /) -> Encoder | None:
        return self._loaded.get(event_type)


class _Framing(shop.Framing):
    """Single-object framing."""

    def __init__(self, known: dict[str, bytes]) -> None:
        super().__init__()
        self._known = known

    def header(self, topic: str, contract: str) -> bytes | None:  # noqa: ARG002 - the port's signature
        return self._known[contract]


def _row(payload: str | None, event_type: str = "OrderPlaced") -> Row:
    relation = frames.relation(shop.OID, "outbox", [*shop.COLUMNS, ("tenant", shop.TEXT), ("traceparent", shop.TEXT)])
    return shop.row(shop.EVENT_ID, "order", "o-1", event_type, payload, "acme", "00-ab", relation=relation)


def _event(payload: str | None, event_type: str = "OrderPlaced") -> Event:
    return shop.outbox(headers=["tenant"], tombstones=True).event(_row(payload, event_type))


class _Numbers:
    """The tail of a partition that holds 41 numbered records."""

    def ask(self, topic: str, timestamp: int) -> "_Numbers":  # noqa: ARG002 - the port's signature
        return self

    def sequence(self, partition: int) -> int:  # noqa: ARG002 - likewise
        return 41

    @classmethod
    def of(cls, record: Record) -> Record:
        """Number a record."""
        tails: Any = cls()
        return Sequences(tails, lambda _: 1).numbered(record)


def _never(failure: object) -> None:
    raise AssertionError(failure)


def _told(positions: Positions) -> Record:
    record = positions.report(LSN(0x16B3748), 1.0, NOON)
    assert record
    return record


def _transactional() -> Record:
    begun = replace(MARK, guarantee=EXACTLY_ONCE)
    positions = Positions("cdc.positions", begun, _never, 0.0, Batch(100, 1000, 1.0))
    positions.caught_up()
    positions.handed_on(EventPosition(LSN(0x16B3748), 3), [])
    return _told(positions)


def _dead_letter(payload: str | bytes, event_type: str | bytes, *, payload_type: int = shop.JSONB) -> Record:
    columns = [*shop.COLUMNS[:4], ("payload", payload_type), ("tenant", shop.TEXT), ("traceparent", shop.TEXT)]
    relation = frames.relation(shop.OID, "outbox", columns)
    cell = b"\x01" + payload.encode() if isinstance(payload, str) else payload
    row = shop.row(shop.EVENT_ID, "order", "o-1", event_type, cell, "acme", "00-ab", relation=relation)
    outbox = shop.outbox(headers=["tenant"])
    why = PoisonEvent("OrderPlaced $.n: is bad", position=POSITION, event_id=shop.EVENT_ID, kind="payload-mismatch")
    try:
        event = outbox.event(row)
    except PoisonEvent as error:
        event, why = None, error
    return DeadLetters(LETTERS, outbox).record(row, event, why)


def _replays() -> Replays:
    return Replays(lambda _: _encoding(), tombstones=False)


def _repaired() -> Record:
    """Make the record of a missing event without the servers that a repair needs."""
    source: Any = MissingEvents.__new__(MissingEvents)
    source._outbox = shop.outbox(headers=["tenant"])
    source._encoding = _encoding()
    source._maker = SimpleNamespace(make=lambda _, encode: encode())
    missing: Any = SimpleNamespace(id=shop.EVENT_ID, committed=shop.COMMIT_TIME_MS * 1000)
    row = _row(json.dumps(PAYLOAD))
    record: Record = source._record(missing, row.relation, row.data, None, AT)
    return record


def _consumer_dead_letter() -> Golden:
    """Make the record of a consumer that cannot handle an event."""
    event = load("event")
    received = Received.of(Message(event))
    headers = _received(dead_letter_headers(received, ValueError("cannot be\0 handled"), "billing"))
    return Golden("billing.dead-letter", event.key, event.value, int(NOON * 1000), headers)


def status() -> dict[str, Any]:
    """Make the document of /status for a publisher whose time stands still."""
    found = specimen.metrics(NOON)
    for _ in range(len(found.history) - 3):
        found.history.popleft()
    document: dict[str, Any] = json.loads(json.dumps(describe(found, specimen.IDENTITY, NOON).served()))
    return document
