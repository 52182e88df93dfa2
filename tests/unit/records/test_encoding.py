"""Events to records: exactly the record that the README promises."""

import pytest

from cdc.errors import PoisonEvent
from cdc.records.encoding import Encoding
from cdc.records.record import Record
from cdc.replication.values import TIMESTAMPTZ
from tests.unit import frames, shop
from tests.unit.shop import BYTEA, COLUMNS, COMMIT_TIME_MS, EVENT_ID, TEXT, Encoders, Framing, outbox


def test_a_record_is_laid_out_as_promised() -> None:
    relation = frames.relation(shop.OID, "outbox", [*COLUMNS, ("traceparent", TEXT), ("source", TEXT)])
    row = shop.row(
        EVENT_ID, "order", "o-é", "OrderPlaced", '{"n":1}', "00-ab", "web", relation=relation, commit_lsn=0x1_0000000A
    )
    read = outbox(headers=["source"])
    record = Encoding(read, Encoders(), Framing()).record(read.event(row))
    assert record == Record.to(
        topic="outbox.event.order",
        key="o-é".encode(),
        value=b'{"N":1}',
        timestamp=COMMIT_TIME_MS,
        headers=[
            ("id", EVENT_ID),
            ("eventType", "OrderPlaced"),
            ("cdc-position", "0badcafe-000000010000000A-00000000"),
            ("source", "web"),
            ("traceparent", "00-ab"),
        ],
        on_delivery=row.transaction.report,
    )


def test_case_g4_iso_headers_of_a_row_and_a_null_as_a_header_without_a_value() -> None:
    relation = frames.relation(
        shop.OID, "outbox", [*COLUMNS, ("at", TIMESTAMPTZ), ("raw", BYTEA), ("none", TEXT), ("traceparent", TEXT)]
    )
    cells = (EVENT_ID, "order", "o-1", "OrderPlaced", "{}", "2026-01-31 08:00:00.5+00", r"\x6869", None, None)
    read = outbox(headers=["at", "raw", "none"], iso=True)
    event = read.event(shop.row(*cells, relation=relation))
    assert event.headers == [("at", "2026-01-31T08:00:00.5Z"), ("raw", "aGk="), ("none", None)]
    assert Encoding(read, Encoders(), Framing()).record(event).headers[3:] == event.headers


def test_the_delivery_report_of_a_record_goes_to_its_transaction() -> None:
    row = shop.row(EVENT_ID, "order", "o-1", "OrderPlaced", "{}")
    row.transaction.add_event()
    read = outbox()
    Encoding(read, Encoders(), Framing()).record(read.event(row)).on_delivery(None, None)
    assert row.transaction.undelivered == 0


def test_bytea_is_the_value_as_it_is_whatever_the_type() -> None:
    relation = frames.relation(shop.OID, "outbox", [*COLUMNS[:4], ("payload", BYTEA)])
    read = outbox()
    event = read.event(shop.row(EVENT_ID, "order", "o-1", "Unknown", r"\x6261", relation=relation))
    assert Encoding(read, Encoders(), Framing()).record(event).value == b"ba"


@pytest.mark.parametrize(
    ("event_type", "payload", "reason"),
    [("Unknown", "{}", "no contract for event type 'Unknown' in schemas"), ("OrderPlaced", "bad", "$.n: is bad")],
)
def test_an_event_without_a_fitting_contract_is_poison_c8(event_type: str, payload: str, reason: str) -> None:
    read = outbox()
    row = shop.row(EVENT_ID, "order", "o-1", event_type, payload, commit_lsn=0x99, index=2)
    with pytest.raises(PoisonEvent) as caught:
        Encoding(read, Encoders(), Framing()).record(read.event(row))
    assert reason in caught.value.reason
    assert caught.value.position == "0badcafe-0000000000000099-00000002"
    assert caught.value.event_id == EVENT_ID
