"""Records that 0.1.0 left in Kafka are read by the code of today, which still writes the same bytes."""

import json
from pathlib import Path
from typing import Any

import pytest

from cdc.audit.range import Range
from cdc.audit.reading import RecordReader
from cdc.audit.verdicts import PUBLISHED, REPAIRED, REPLAYED
from cdc.consumer import Decoder, Event, Position
from cdc.delivery.positions import AT_LEAST_ONCE, EXACTLY_ONCE, SlotRecord, latest
from cdc.lsn import LSN
from cdc.lsn import EventPosition as Place
from cdc.records.dead_letters import DeadLetter, Marker, read
from cdc.status.document import parse
from tests import golden
from tests.golden import Golden, Message, load
from tests.unit import shop

FILES = sorted(path.stem for path in golden.FOLDER.glob("*.json") if path.stem != "status")


@pytest.fixture(scope="module")
def written() -> dict[str, Golden]:
    return golden.written()


def letter(name: str) -> DeadLetter:
    found = load(name)
    decoded = read(found.key, found.value, found.timestamp, found.headers)
    assert isinstance(decoded, DeadLetter)
    return decoded


def consumed(name: str, schemas: Path = golden.SCHEMAS / "shop") -> Event:
    return Event.of(Message(load(name)), Decoder(folder=schemas))


def audited(name: str) -> Any:
    found = load(name)
    return RecordReader([shop.STREAM], Range()).record(
        1, (found.topic, 0, 0), found.key, found.timestamp, found.headers
    )


def but_wording(record: Golden) -> Golden:
    """A record without the sentence about an error, which may improve."""
    return record._replace(headers=[(name, value) for name, value in record.headers if name != "cdc-error-message"])


def test_every_kind_of_record_has_a_golden_file(written: dict[str, Golden]) -> None:
    assert sorted(written) == FILES


@pytest.mark.parametrize("name", FILES)
def test_todays_code_writes_the_same_record(name: str, written: dict[str, Golden]) -> None:
    assert but_wording(written[name]) == but_wording(load(name))


@pytest.mark.parametrize("name", FILES)
def test_a_golden_file_keeps_its_form(name: str) -> None:
    assert load(name).dump() == (golden.FOLDER / f"{name}.json").read_text()


def test_a_position_of_at_least_once_is_read() -> None:
    found = load("position-at-least-once")
    assert (found.topic, found.key) == ("cdc.positions", b"7300000000000000001/cdc_publisher")
    mark = latest([found.value])
    assert mark == SlotRecord(
        "7300000000000000001",
        1,
        "cdc_publisher",
        LSN.parse("0/16B3748"),
        {"table": "public.outbox", "table oid": "16449", "publication": "outbox", "publication oid": "16460"},
        {"[topics] name": "outbox.event.{aggregatetype}", "[outbox] columns.key": "aggregateid"},
        None,
        AT_LEAST_ONCE,
        caught_up=False,
    )
    assert found.key == mark.key.encode()


def test_a_position_of_exactly_once_names_the_last_visible_event() -> None:
    mark = latest([load("position-exactly-once").value])
    assert mark is not None
    assert (mark.guarantee, mark.position, mark.caught_up) == (EXACTLY_ONCE, Place(LSN(0x16B3748), 3), True)
    assert mark.key == "7300000000000000001/cdc_publisher"


def test_a_dead_letter_is_read() -> None:
    assert letter("dead-letter") == DeadLetter(
        position="0badcafe-00000000000000C8-00000000",
        id="00112233-4455-6677-8899-aabbccddeeff",
        type="OrderPlaced",
        topic="outbox.event.order",
        aggregate="order",
        key=b"o-1",
        timestamp=1_785_542_400_123,
        error="payload-mismatch",
        message="OrderPlaced $.n: is bad",
        payload=b'{"n": 1}',
        payload_kind="json",
        headers=[("tenant", "acme"), ("traceparent", "00-ab")],
    )


def test_a_dead_letter_of_bytes_is_read_as_avro() -> None:
    found = letter("dead-letter-of-bytes")
    assert (found.payload, found.payload_is_avro, found.error) == (b"\xc3\x01\xff", True, "payload-mismatch")


def test_a_dead_letter_of_a_broken_row_is_read_without_its_type() -> None:
    found = letter("dead-letter-of-broken-row")
    assert (found.error, found.type, found.payload) == ("unreadable-row", "", b'{"n": 1}')


def test_a_replay_marker_is_read() -> None:
    found = load("replay-marker")
    marker = read(found.key, found.value, found.timestamp, found.headers)
    assert marker == Marker("0badcafe-00000000000000C8-00000000", "2026-08-01T12:00:00.000Z")


def test_an_event_is_decoded_by_the_consumer_library() -> None:
    event = consumed("event")
    assert (event.id, event.type, event.key) == ("00112233-4455-6677-8899-aabbccddeeff", "OrderPlaced", b"o-1")
    assert (event.position, event.sequence) == (Position("0badcafe", 200, 0), 42)
    assert (event.timestamp, event.header("tenant")) == (1_785_542_400_123, b"acme")
    assert (str(event.value["order_id"]), event.value["currency"]) == (shop.EVENT_ID, "EUR")
    assert event.value["customer"] == {"id": 7, "name": "Zoë", "email": None}
    assert str(event.value["total"]) == "19.90"


def test_an_envelope_is_decoded_by_the_shipped_contract() -> None:
    value = consumed("event-in-envelope", golden.SCHEMAS / "cdc").value
    assert (value["type"], value["aggregate"], value["key"], value["payload"]) == (
        "Unknown",
        "order",
        "o-1",
        '{"n": 1}',
    )
    assert value["headers"] == {"tenant": "acme", "traceparent": "00-ab"}


def test_a_tombstone_has_no_value() -> None:
    assert (consumed("tombstone").raw, consumed("tombstone").value, consumed("tombstone").key) == (None, None, b"o-1")


@pytest.mark.parametrize(
    ("name", "kind", "lsn"),
    [("event", PUBLISHED, 200), ("replayed-event", REPLAYED, 200), ("repaired-event", REPAIRED, 0)],
)
def test_an_audit_knows_how_an_event_was_sent(name: str, kind: int, lsn: int) -> None:
    record = audited(name)
    assert (record.kind, record.lsn, record.id) == (kind, lsn, "00112233-4455-6677-8899-aabbccddeeff")
    assert record.sequence == (42 if name == "event" else None)


def test_a_dead_letter_of_a_consumer_keeps_the_event_and_the_reason() -> None:
    event = consumed("consumer-dead-letter")
    assert (event.id, event.position, event.sequence) == (shop.EVENT_ID, Position("0badcafe", 200, 0), 42)
    assert event.value == consumed("event").value
    assert event.header("cdc-error-message") == b"cannot be  handled"
    assert event.header("cdc-error-group") == b"billing"


def test_the_status_of_an_earlier_publisher_is_read() -> None:
    text = (golden.FOLDER / "status.json").read_bytes()
    found = parse(text, "http://127.0.0.1:8080")
    assert (found.version, found.state, found.ready, found.exit_code) == ("0.1.0", "streaming", True, 0)
    assert (found.slot.name, found.slot.confirmed, found.lag.bytes) == ("cdc_publisher", "0/1388", 2000)
    assert (found.totals.events, found.latency.p50_ms, len(found.history.times)) == (30_010, 3.0, 2)
    assert found.last_error is not None
    assert found.last_error.kind == "KafkaUnavailable"


def test_todays_status_is_the_same_document() -> None:
    assert golden.status() == json.loads((golden.FOLDER / "status.json").read_text())
