"""What cannot be published is kept as it stands, can be read back, and becomes the record that it should have been."""

import json
import logging
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.cli import letters
from cdc.cli.params import Moment
from cdc.dead_letters.replays import Replays, marker
from cdc.dead_letters.topic import Entry
from cdc.errors import PoisonEvent
from cdc.outbox.events import Outbox
from cdc.records.dead_letters import DeadLetter, DeadLetters, Marker, Wanted, read
from cdc.records.encoding import Encoding
from cdc.records.record import Record
from cdc.records.router import Pending
from cdc.replication.messages import Column, Relation, TupleData
from cdc.replication.transactions import Row
from cdc.replication.values import TIMESTAMPTZ
from tests.unit import frames, shop
from tests.unit.frames import Cell
from tests.unit.shop import (
    BOOL,
    BYTEA,
    COLUMNS,
    COMMIT_TIME_MS,
    EVENT_ID,
    INT4,
    INT8,
    JSONB,
    TEXT,
    UUID,
    Encoders,
    Framing,
)

TOPIC = "cdc.dead-letter"
POSITION = "0badcafe-00000000000000C8-00000000"
AT = "2026-08-01T12:00:00.000Z"


def poison(kind: str = "payload-mismatch", reason: str = "OrderPlaced $.n: is bad") -> PoisonEvent:
    return PoisonEvent(reason, position=POSITION, event_id=EVENT_ID, kind=kind)


def dead_letter(row: Row, outbox: Outbox | None = None, why: PoisonEvent | None = None) -> Record:
    """As the session makes it: with the event, where there is one."""
    outbox = outbox or shop.outbox()
    event = None
    try:
        event = outbox.event(row)
        if event.payload is None:
            Encoding(outbox, Encoders(), Framing()).record(event)
    except PoisonEvent as error:
        why = error
    return DeadLetters(TOPIC, outbox).record(row, event, why or poison())


def received(record: Record) -> Any:
    """What a consumer reads of a record."""
    headers = [(name, value.encode() if isinstance(value, str) else value) for name, value in record.headers]
    return read(record.key, record.value, record.timestamp, headers)


def texts(record: Record) -> dict[str, Any]:
    return dict(record.headers)


def with_columns(*more: tuple[str, int], payload: int = JSONB) -> Relation:
    return frames.relation(shop.OID, "outbox", [*COLUMNS[:4], ("payload", payload), *more])


def test_a_dead_letter_holds_the_event_and_the_reason_c8() -> None:
    relation = with_columns(("tenant", TEXT), ("traceparent", TEXT))
    row = shop.row(
        EVENT_ID, "order", "o-é", "OrderPlaced", b'\x01{"n": 1}', "acme", "00-ab", relation=relation, commit_lsn=200
    )
    record = dead_letter(row, shop.outbox(headers=["tenant"]))
    assert record == Record.to(
        topic=TOPIC,
        key="o-é".encode(),
        value=b'{"n": 1}',
        timestamp=COMMIT_TIME_MS,
        headers=[
            ("id", EVENT_ID),
            ("eventType", "OrderPlaced"),
            ("cdc-position", POSITION),
            ("cdc-topic", "outbox.event.order"),
            ("cdc-aggregate", "order"),
            ("cdc-payload", "json"),
            ("cdc-error-class", "payload-mismatch"),
            ("cdc-error-message", "OrderPlaced $.n: is bad"),
            ("cdc-header-tenant", "acme"),
            ("cdc-header-traceparent", "00-ab"),
        ],
        on_delivery=row.transaction.report,
    )


def test_a_dead_letter_has_the_headers_by_their_aliases() -> None:
    relation = with_columns(("tenant", TEXT))
    row = shop.row(EVENT_ID, "order", "o-1", "OrderPlaced", "{}", "acme", relation=relation)
    broken = shop.row(EVENT_ID, "order", "o-1", None, "{}", "acme", relation=relation)
    for one in (row, broken):
        assert dead_letter(one, shop.outbox(headers=["tenant:customer"])).headers[-1] == ("cdc-header-customer", "acme")


@pytest.mark.parametrize(
    ("cells", "key", "payload", "empty"),
    [
        ((None, "order", "o-1", "T", "{}"), b"o-1", b"{}", {"id"}),
        ((EVENT_ID, None, "o-1", "T", "{}"), b"o-1", b"{}", {"cdc-topic", "cdc-aggregate"}),
        ((EVENT_ID, "order", None, None, "{}"), None, b"{}", {"eventType"}),
        ((EVENT_ID, "order", "o-1", None, "{}"), b"o-1", b"{}", {"eventType"}),
        ((EVENT_ID, "order", "o-1", "T", None), b"o-1", None, set()),
        ((EVENT_ID, "no topic!", "o-1", "T", "{}"), b"o-1", b"{}", {"cdc-topic"}),
        ((EVENT_ID, "order", "o-1", b"\xff", "{}"), b"o-1", b"{}", {"eventType"}),
        ((EVENT_ID, b"\xff", b"\xfe", "T", "{}"), None, b"{}", {"cdc-topic", "cdc-aggregate"}),
    ],
)
def test_what_can_be_read_of_a_broken_row_is_kept_and_the_rest_is_empty_c8(
    cells: tuple[Cell, ...], key: bytes | None, payload: bytes | None, empty: set[str]
) -> None:
    record = dead_letter(shop.row(*cells))
    assert (record.key, record.value) == (key, payload)
    assert {name for name, value in record.headers if value == ""} == empty
    assert texts(record)["cdc-error-class"] == "unreadable-row"
    assert texts(record)["cdc-payload"] == ("null" if payload is None else "json")
    letter = received(record)
    assert (letter.position, letter.key, letter.payload) == (POSITION, key, payload)


@pytest.mark.parametrize("payload", [b"\xc3\x01\x00", r"\xc30100"])
def test_a_bytea_payload_is_kept_as_bytes_c8(payload: Cell) -> None:
    row = shop.row(EVENT_ID, "order", "o-1", "T", payload, relation=with_columns(payload=BYTEA))
    record = dead_letter(row, why=poison("too-large"))
    assert (record.value, texts(record)["cdc-payload"]) == (b"\xc3\x01\x00", "avro")
    assert received(record).payload_is_avro


def test_an_unreadable_header_column_is_no_reason_to_lose_the_rest_c8() -> None:
    row = shop.row(EVENT_ID, "order", "o-1", "T", "{}", b"\xff", relation=with_columns(("tenant", TEXT)))
    record = dead_letter(row, shop.outbox(headers=["tenant"]))
    assert record.headers[-1] == ("cdc-header-tenant", None)
    assert received(record).headers == [("tenant", None)]


def test_case_g4_a_dead_letter_has_iso_headers_and_none_for_nulls() -> None:
    relation = with_columns(("at", TIMESTAMPTZ), ("tenant", TEXT), ("raw", BYTEA))
    outbox = shop.outbox(headers=["at", "tenant", "raw"], iso=True)
    expected = [("cdc-header-at", "2026-01-31T08:00:00Z"), ("cdc-header-raw", "aGk=")]
    for key in ("o-1", None):  # without a key the row cannot become an event
        cells = (EVENT_ID, "order", key, "T", "{}", "2026-01-31 08:00:00+00", None, "\\x6869")
        record = dead_letter(shop.row(*cells, relation=relation), outbox, why=poison("payload-mismatch"))
        assert record.headers[-2:] == expected
        assert [name for name, _ in received(record).headers] == ["at", "raw"]


def test_a_long_reason_is_cut_and_has_no_lone_surrogates_c8() -> None:
    row = shop.row(EVENT_ID, "order", "o-1", "T", "{}")
    message = texts(dead_letter(row, why=poison(reason="\ud800" + "x" * 5000)))["cdc-error-message"]
    assert len(message.encode()) < 1100
    assert message.startswith("?xxx")


names = st.sampled_from(["id", "aggregatetype", "aggregateid", "type", "payload", "tenant", "traceparent", "other"])
oids = st.sampled_from([UUID, TEXT, JSONB, BYTEA, BOOL, INT4, 114, 1184, 0xFFFFFFFF])
cell_bytes = st.one_of(st.binary(max_size=30), st.sampled_from([b"order", b"\x01{}", rb"\x00", b"t", bytes(16)]))


@st.composite
def rows(draw: st.DrawFn) -> Row:
    columns = draw(st.lists(st.tuples(names, oids), max_size=8, unique_by=lambda column: column[0]))
    sent = draw(st.lists(st.tuples(st.sampled_from(b"tbnu"), cell_bytes), max_size=9))
    relation = Relation(shop.OID, "public", "outbox", "d", tuple(Column(0, name, oid, -1) for name, oid in columns))
    data = TupleData(bytes(kind for kind, _ in sent), [cell if kind in b"tb" else b"" for kind, cell in sent])
    return Row(shop.row().transaction, draw(st.integers(0, 1 << 31)), relation, data)


@given(rows(), st.text(max_size=30), st.sampled_from(["outbox.event.{aggregatetype}", "all", "{tenant}.{type}"]))
def test_whatever_a_row_holds_its_dead_letter_is_made_and_can_be_read_back_c8(
    row: Row, reason: str, template: str
) -> None:
    outbox = shop.outbox(template, headers=["tenant"])
    record = DeadLetters(TOPIC, outbox).record(row, None, poison("unreadable-row", reason))
    letter = received(record)
    assert isinstance(letter, DeadLetter)
    assert letter.position == outbox.position(row)
    assert (letter.key, letter.timestamp) == (record.key, COMMIT_TIME_MS)
    assert letter.payload == record.value
    orjson.loads(letters.line(letters.facts(letter)))
    assert record.on_delivery == row.transaction.report


@given(st.binary(max_size=20), st.text(max_size=20), st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=9))))
def test_records_of_others_in_the_topic_are_passed_over(
    value: bytes, error: str, headers: list[tuple[str, bytes]]
) -> None:
    assert read(b"k", value, 0, headers) is None
    assert read(b"k", value, 0, [("cdc-error-class", error.encode(errors="replace")), *headers]) is None


def test_a_row_is_told_once_while_its_topic_is_waited_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("cdc.records.dead_letters"), "filters", [])
    dead = DeadLetters(TOPIC, shop.outbox())
    row, other = (shop.row(EVENT_ID, "order", "o-1", "T", "{}", index=index) for index in (0, 1))
    with caplog.at_level(logging.WARNING, "cdc.records.dead_letters"):
        for one in (row, row, other):
            dead.record(one, shop.outbox().event(one), poison())
    assert len(caplog.records) == 2
    told = caplog.records[0]
    assert told.getMessage() == "an event became a dead letter: OrderPlaced $.n: is bad"
    assert vars(told)["position"] == POSITION
    assert vars(told)["error"] == "payload-mismatch"


def replays(*, tombstones: bool = False, framing: Framing | None = None, times: bool = False) -> Replays:
    return Replays(
        lambda outbox: Encoding(outbox, Encoders(), framing or Framing(), frame_bytea=False),
        tombstones=tombstones,
        times=times,
    )


def test_a_replay_is_the_record_as_it_should_have_been_with_one_header_more() -> None:
    relation = with_columns(("tenant", TEXT))
    row = shop.row(EVENT_ID, "order", "o-1", "OrderPlaced", '{"n":1}', "acme", relation=relation, index=3)
    outbox = shop.outbox(headers=["tenant"])
    should = Encoding(outbox, Encoders(), Framing()).record(outbox.event(row))
    again = replays().record(received(dead_letter(row, outbox)), AT)
    assert again[:4] == should[:4]
    assert again.headers == [*should.headers, ("cdc-replayed", AT)]


@pytest.mark.parametrize("at", ["1000000000000", None])
def test_a_dead_letter_has_the_commit_time_and_keeps_that_of_the_column_for_its_replay(at: str | None) -> None:
    outbox = shop.outbox(time="at")
    row = shop.row(EVENT_ID, "order", "o-1", "OrderPlaced", '{"n":1}', at, relation=with_columns(("at", INT8)))
    letter = dead_letter(row, outbox)
    assert (letter.timestamp, texts(letter).get("cdc-timestamp")) == (COMMIT_TIME_MS, at)
    times = [replays(times=times).record(received(letter), AT).timestamp for times in (True, False)]
    assert times == [int(at or COMMIT_TIME_MS), COMMIT_TIME_MS]


def test_a_replay_of_bytea_is_the_same_bytes() -> None:
    row = shop.row(EVENT_ID, "order", "o-1", "Unknown", b"\xc3\x01\x00", relation=with_columns(payload=BYTEA))
    assert replays().record(received(dead_letter(row, why=poison("too-large"))), AT).value == b"\xc3\x01\x00"


def test_what_still_does_not_fit_is_poison_again_c8() -> None:
    row = shop.row(EVENT_ID, "order", "o-1", "Unknown", "{}")
    with pytest.raises(PoisonEvent, match="no contract for event type 'Unknown'") as caught:
        replays().record(received(dead_letter(row, why=poison("contract-missing"))), AT)
    assert (caught.value.kind, caught.value.position) == ("contract-missing", POSITION)


def test_a_schema_id_that_is_not_known_yet_is_waited_for() -> None:
    row = shop.row(EVENT_ID, "order", "o-1", "OrderPlaced", "{}")
    waiting = Framing()
    waiting.headers = {"outbox.event.order": None}
    with pytest.raises(Pending):
        replays(framing=waiting).record(received(dead_letter(row)), AT)


@pytest.mark.parametrize(
    "cells",
    [
        (None, "order", "o-1", "T", "{}"),
        (EVENT_ID, None, "o-1", "T", "{}"),
        (EVENT_ID, "order", b"\xfe", "T", "{}"),
        (EVENT_ID, "order", "o-1", None, "{}"),
        (EVENT_ID, "order", "o-1", "T", None),
        (EVENT_ID, "order", None, "T", None),
        (EVENT_ID, "no topic!", "o-1", "T", "{}"),
    ],
)
def test_a_row_that_is_broken_itself_is_never_made_up_c8(cells: tuple[Cell, ...]) -> None:
    with pytest.raises(PoisonEvent, match="the row itself is broken"):
        replays().record(received(dead_letter(shop.row(*cells))), AT)


def test_case_g3_a_letter_of_an_event_without_a_key_is_replayed_without_one() -> None:
    letter = received(dead_letter(shop.row(EVENT_ID, "order", None, "OrderPlaced", "{}")))
    assert replays().record(letter, AT).key is None


def test_a_null_payload_becomes_a_tombstone_once_these_are_asked_for() -> None:
    letter = received(dead_letter(shop.row(EVENT_ID, "order", "o-1", "T", None)))
    assert replays(tombstones=True).record(letter, AT).value is None
    broken = received(dead_letter(shop.row(EVENT_ID, "order", None, "T", None)))
    with pytest.raises(PoisonEvent):
        replays(tombstones=True).record(broken, AT)


def test_a_row_with_a_header_that_cannot_be_read_is_not_replayed_without_it_c8() -> None:
    row = shop.row(EVENT_ID, "order", "o-1", "T", "{}", b"\xff", relation=with_columns(("tenant", TEXT)))
    letter = received(dead_letter(row, shop.outbox(headers=["tenant"])))
    with pytest.raises(PoisonEvent, match="the row itself is broken"):
        replays().record(letter, AT)


def test_a_marker_says_which_letter_was_replayed_and_when() -> None:
    letter = received(dead_letter(shop.row(EVENT_ID, "order", "o-1", "T", "{}")))
    record = marker(TOPIC, letter, AT, 77)
    assert (record.topic, record.key, record.value, record.timestamp) == (TOPIC, b"o-1", None, 77)
    assert received(record) == Marker(POSITION, AT)


LETTER: DeadLetter = received(dead_letter(shop.row(EVENT_ID, "order", "o-1", "OrderPlaced", '{"n": 1}')))


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (Wanted(), True),
        (Wanted(frozenset([EVENT_ID, "x"])), True),
        (Wanted(frozenset([POSITION])), True),
        (Wanted(frozenset(["x"])), False),
        (Wanted(since=COMMIT_TIME_MS), True),
        (Wanted(since=COMMIT_TIME_MS + 1), False),
        (Wanted(until=COMMIT_TIME_MS), True),
        (Wanted(until=COMMIT_TIME_MS - 1), False),
        (Wanted(type="OrderPlaced", key="o-1", topic="outbox.event.order"), True),
        (Wanted(type="OrderPlaced", key="o-2"), False),
        (Wanted(type="Order"), False),
        (Wanted(topic="outbox.event"), False),
        (Wanted(error="payload-mismatch"), True),
        (Wanted(error="payload"), False),
        (Wanted(error="IS BAD"), True),
    ],
)
def test_letters_are_chosen_by_what_they_say(wanted: Wanted, matches: bool) -> None:
    assert wanted.matches(LETTER) == matches


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"a":1e400,"b":[],"c":{"d":0.10}}', '{\n  "a": 1e400,\n  "b": [],\n  "c": {\n    "d": 0.10\n  }\n}'),
        ('[1, {"x": "a,]\\"{"}]', '[\n  1,\n  {\n    "x": "a,]\\"{"\n  }\n]'),
        ('"\x7f"', '"\\x7f"'),
        ("{broken", "{broken"),
        ("\x1b[31m", "\\x1b[31m"),
    ],
)
def test_a_payload_is_shown_as_it_is_written_and_harmless_for_a_terminal(text: str, shown: str) -> None:
    assert letters.pretty(text) == shown


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_a_pretty_payload_is_the_same_json(value: Any) -> None:
    text = json.dumps(value)
    assert json.loads(letters.pretty(text)) == value


ENTRY = Entry(*LETTER[:4], LETTER.key, COMMIT_TIME_MS, LETTER.error, LETTER.message, 8, 0, 0, None)


def test_the_reason_stands_beside_the_rest_below_it_or_cut_as_the_terminal_has_room() -> None:
    widths = {"id": 36, "type": 11, "key": 3, "topic": 18}

    def shown(columns: int | None) -> list[str]:
        return list(letters.table([ENTRY], widths, replayed=False, columns=columns))

    row = f"2026-08-01T00:00:00Z  {EVENT_ID}  OrderPlaced  o-1  outbox.event.order"
    reason = "payload-mismatch: OrderPlaced $.n: is bad"
    titles, beside = shown(None)
    assert beside == f"{row}  {reason}"
    assert titles.index("error") == beside.index(reason)
    assert shown(200) == shown(None)
    assert shown(138)[1] == f"{row}  {reason[:39]}…"
    assert shown(80)[1] == f"{row}\n  {reason}"
    assert shown(30)[1] == f"{row}\n  {reason[:27]}…"
    assert list(letters.table([], widths, replayed=False, columns=80)) == []


def test_what_is_in_a_row_moves_no_cursor() -> None:
    entry = ENTRY._replace(key=b"\x1b[2J\n", message="a\nb")
    (_, line) = letters.table([entry], {"id": 1, "type": 1, "key": 1, "topic": 1}, replayed=True, columns=None)
    assert line.isprintable()


def test_ages_and_times_are_read_as_utc() -> None:
    read_time = Moment().convert
    before = int(time.time() * 1000) - 1  # for rounding
    assert before <= read_time("90m", None, None) + 90 * 60_000 <= time.time() * 1000
    assert read_time("1970-01-01T00:00:01", None, None) == 1000
    assert read_time("1970-01-01T01:00:01+01:00", None, None) == 1000
    assert read_time("1970-01-02", None, None) == 86_400_000
    assert letters.moment(1) == "1970-01-01T00:00:00.001Z"
    assert letters.moment(1 << 60) == str(1 << 60)
