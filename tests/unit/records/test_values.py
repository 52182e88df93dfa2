"""Records whose values are JSON or text: value, headers, and what is poison."""

import json
from typing import Any

import fastavro
import pytest

from cdc.avro.contracts import Contract
from cdc.config.settings import Record as Settings
from cdc.errors import PoisonEvent
from cdc.records.encoding import Encoding
from cdc.records.fastpath.generated import Unrolled
from cdc.records.fastpath.layout import layout, room
from cdc.records.record import Record
from cdc.records.router import Encoder, Pending
from cdc.replication.messages import Insert, Relation
from cdc.replication.values import JSON as JSON_OID
from cdc.replication.values import VARCHAR
from tests.unit import frames, shop
from tests.unit.shop import BYTEA, COLUMNS, EVENT_ID, JSONB, TEXT, Framing

JSON, PLAIN = ("content-type", "application/json"), ("content-type", "text/plain")
FIELDS = [
    {"name": "n", "type": "long"},
    {"name": "note", "type": ["null", "string"], "default": None},
    {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": None},
]
SCHEMA = {"type": "record", "name": "Placed", "fields": FIELDS}
CONTRACT = Contract(fastavro.parse_schema(SCHEMA, named_schemas={}), "Placed.avsc")
FRAMED = Framing(**{"outbox.event.order": b"framing"})


class Encoders:
    """One contract, for a kind of value; `late`: it is looked for once."""

    def __init__(self, settings: Settings, *, late: bool = False) -> None:
        self._settings = settings
        self._late = late

    def get(self, event_type: str, /) -> Encoder | None:
        if event_type != "Placed" or self._late:
            return None
        return CONTRACT.json_encoder(self._settings.form) if self._settings.of(event_type) == "json" else CONTRACT

    def asks_again(self, event_type: str) -> bool:  # noqa: ARG002 - a registry's would look
        late, self._late = self._late, False
        return late

    def missing(self, event_type: str) -> str:
        return f"no contract for {event_type}"


def relation(payload: int) -> Relation:
    return frames.relation(shop.OID, "outbox", [*COLUMNS[:4], ("payload", payload), ("tenant", TEXT)])


def record(
    settings: Settings,
    payload: str | bytes | None,
    *,
    kind: int = JSONB,
    event_type: str = "Placed",
    tombstones: bool = False,
    frame_bytea: bool = False,
    late: bool = False,
) -> Record:
    """The record of a row, which runs make alike if they take it."""
    outbox = shop.outbox(headers=["tenant"], tombstones=tombstones)
    encoders = Encoders(settings, late=late)
    encoding = Encoding(outbox, encoders, FRAMED, frame_bytea=frame_bytea, values=settings)
    row = shop.row(EVENT_ID, "order", "o-1", event_type, payload, "acme", relation=relation(kind))
    event = outbox.event(row)
    made = encoding.record(event)
    described = layout(row.relation, outbox, binary=False)
    route = encoding.shared(event)
    if described and route:
        runs = Unrolled(described)
        runs.learn(event_type.encode(), (b"order",), route, room(described, route, 1_000_000))
        frame = frames.xlog(Insert(shop.OID, row.data), 100)
        prefix = f"{shop.STREAM}-{row.transaction.commit_lsn:016X}-"
        taken = runs.take([frame], 0, prefix, 0, made.timestamp, made.on_delivery)
        assert taken in ([made], [])
        assert len(taken) == ((bool(payload) and bool(payload.strip() if payload else b"")) or not tombstones)
    return made


def content_type(made: Record) -> list[tuple[str, Any]]:
    """The headers between the publisher's first three and those of columns."""
    assert [name for name, _ in made.headers[:3]] == ["id", "eventType", "cdc-position"]
    assert made.headers[-1] == ("tenant", "acme")
    return made.headers[3:-1]


TEXTS = Settings(value="text")


@pytest.mark.parametrize(
    ("kind", "payload", "header"),
    [
        (JSONB, '{"b": 1, "aa": "\u00e9"}', JSON),
        (JSON_OID, ' {"n" : 1, "n" : 2}\n', JSON),
        (TEXT, "anything \u20ac", PLAIN),
        (VARCHAR, '{"n": 1}', PLAIN),
        (TEXT, "", PLAIN),
        (TEXT, " \n", PLAIN),
    ],
)
def test_text_is_the_payload_as_it_is_with_the_type_of_its_column(kind: int, payload: str, header: Any) -> None:
    made = record(TEXTS, payload, kind=kind, event_type="Unknown")
    assert (made.value, content_type(made)) == (payload.encode(), [header])


@pytest.mark.parametrize("tombstones", [False, True])
def test_a_null_text_is_a_record_without_a_value(tombstones: bool) -> None:
    made = record(TEXTS, None, tombstones=tombstones)
    assert (made.value, content_type(made)) == (None, [])


@pytest.mark.parametrize("payload", ["", " \n\t"])
def test_a_blank_text_is_a_record_without_a_value_if_tombstones_are_set(payload: str) -> None:
    made = record(TEXTS, payload, kind=TEXT, tombstones=True)
    assert (made.value, content_type(made)) == (None, [])


@pytest.mark.parametrize("kind", ["avro", "json"])
def test_a_null_payload_is_poison_without_tombstones(kind: Any) -> None:
    with pytest.raises(PoisonEvent, match=r"column 'payload' is null; set \[outbox\] tombstones = true") as caught:
        record(Settings(value=kind), None)
    assert caught.value.kind == "unreadable-row"
    assert caught.value.event_id == EVENT_ID
    assert record(Settings(value=kind), None, tombstones=True).value is None


def test_text_that_is_not_utf8_is_poison() -> None:
    with pytest.raises(PoisonEvent, match="column 'payload' is not UTF-8") as caught:
        record(TEXTS, b"\xff", kind=TEXT)
    assert caught.value.kind == "unreadable-row"


def test_text_is_checked_against_a_contract_if_that_is_set_and_there_is_one() -> None:
    checked = Settings(value="text", check=True)
    assert record(checked, '{"n": 1}').value == b'{"n": 1}'
    assert record(checked, "{}", event_type="Unknown").value == b"{}"
    assert record(TEXTS, "{}").value == b"{}"
    with pytest.raises(PoisonEvent, match=r"Placed \$\.n: is missing") as caught:
        record(checked, "{}")
    assert caught.value.kind == "payload-mismatch"
    with pytest.raises(Pending):
        record(checked, "{}", late=True)


def test_json_has_the_form_of_the_contract() -> None:
    made = record(Settings(value="json"), '{"at": "2026-01-31T17:45:00Z", "n": 12345678901}')
    assert made.value == b'{"n":12345678901,"note":null,"at":"2026-01-31T17:45:00.000Z"}'
    assert content_type(made) == [JSON]
    strings = Settings(value="json", longs="string")
    assert record(strings, '{"n": 5}', kind=TEXT).value == b'{"n":"5","note":null,"at":null}'


@pytest.mark.parametrize(
    ("payload", "event_type", "kind", "reason"),
    [
        ('{"n": 1.5}', "Placed", "payload-mismatch", r"Placed \$\.n: 1\.5 is not a long"),
        ('{"n": 1, "m": 2}', "Placed", "payload-mismatch", r"Placed \$\.m: is not a field"),
        ('{"n": 1, "note": "\\udc00"}', "Placed", "payload-mismatch", "surrogate"),
        ('{"n": 1, "at": 253402300800000}', "Placed", "payload-mismatch", "not within the years 1 to 9999"),
        ("{}", "Unknown", "contract-missing", "no contract for Unknown"),
    ],
)
def test_json_that_does_not_match_its_contract_is_poison(payload: str, event_type: str, kind: str, reason: str) -> None:
    with pytest.raises(PoisonEvent, match=reason) as caught:
        record(Settings(value="json"), payload, kind=JSON_OID, event_type=event_type)
    assert caught.value.kind == kind


def test_each_event_type_may_have_a_value_of_its_own() -> None:
    settings = Settings(value="text", values={"Placed": "json", "Paid": "avro"})
    assert record(settings, '{"n": 1}').value == b'{"n":1,"note":null,"at":null}'
    assert record(settings, '{"n": 1}', event_type="Other").value == b'{"n": 1}'
    with pytest.raises(PoisonEvent, match="no contract for Paid"):
        record(settings, '{"n": 1}', event_type="Paid")


def test_avro_records_have_a_content_type_only_where_it_is_set() -> None:
    made = record(Settings(), '{"n": 1}')
    assert (made.value, content_type(made)) == (b"framing\x02\x00\x00", [])
    made = record(Settings(content_type=True), '{"n": 1}')
    assert (made.value, content_type(made)) == (b"framing\x02\x00\x00", [("content-type", "avro/binary")])


@pytest.mark.parametrize("kind", ["avro", "json", "text"])
@pytest.mark.parametrize("frame_bytea", [False, True])
def test_bytea_passes_as_it_is_without_a_content_type(kind: Any, frame_bytea: bool) -> None:
    settings = Settings(value=kind, content_type=True, check=True)
    made = record(settings, r"\x00ff", kind=BYTEA, frame_bytea=frame_bytea)
    framed = frame_bytea and kind == "avro"
    assert (made.value, content_type(made)) == ((b"framing" if framed else b"") + b"\x00\xff", [])


def test_the_accelerator_has_a_plan_for_text_that_is_checked() -> None:
    checked = Settings(value="text", check=True)
    outbox = shop.outbox()
    event = outbox.event(shop.row(EVENT_ID, "order", "o-1", "Placed", '{"n": 1}'))
    route = Encoding(outbox, Encoders(checked), FRAMED, values=checked).shared(event)
    assert route
    plan = json.loads(route.plan or b"{}")
    assert CONTRACT.plan
    assert plan == {"form": "text", **json.loads(CONTRACT.plan)}
    native = pytest.importorskip("cdc_native", reason="the accelerator is not installed: see native/README.md")
    assert native.encode(route.plan, b' {"n": 1}') == b' {"n": 1}'
    assert native.encode(route.plan, b'{"n": "one"}') is None
