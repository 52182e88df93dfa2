"""Messages as rows: their members are columns, and the payload is cut out of them as it stands."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import PoisonEvent
from cdc.outbox.columns import Columns
from cdc.outbox.events import Event
from cdc.outbox.keys import Keys
from cdc.replication.messages import TupleData
from cdc.replication.transactions import MESSAGE
from tests.unit import shop
from tests.unit.shop import EVENT_ID, content


def read(held: bytes | str, **options: Any) -> Event:
    row = shop.row("", relation=MESSAGE)
    row.data = TupleData(b"b", [held.encode() if isinstance(held, str) else held])
    return shop.outbox(**options).event(row)


def refused(held: bytes | str, **options: Any) -> PoisonEvent:
    with pytest.raises(PoisonEvent) as caught:
        read(held, **options)
    return caught.value


def test_a_message_becomes_the_event_that_a_row_of_its_members_would_be() -> None:
    event = read(content('{"n": 1}'))
    assert event[1:9] == (
        EVENT_ID, "outbox.event.order", b"o-1", "OrderPlaced", "order", b'{"n": 1}', "json", [],
    )  # fmt: skip


@pytest.mark.parametrize(
    "payload",
    [
        '{"a": 1.0e400, "b":12345678901234567890.10,\n\t"c" : [ ] }',
        '"text, \\u00e4 and \\ud83d\\ude00"',
        "-0.0E+10",
        f"[{'9' * 5000}]",
        "true",
        '{"same": 1, "same": 2, "": {"payload": {}}}',
        '"ä😀"',
    ],
)
def test_a_payload_is_sent_as_it_stands(payload: str) -> None:
    assert read(content(payload)).payload == payload.encode()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
SPACES = st.text(" \t\r\n", max_size=3)


@given(payload=VALUES, before=SPACES, behind=SPACES, members=st.permutations(["id", "aggregateid", "type", "payload"]))
def test_any_json_payload_in_any_place_is_cut_out_exactly(
    payload: object, before: str, behind: str, members: list[str]
) -> None:
    text = json.dumps(payload, ensure_ascii=False)
    values = {"id": '"a"', "aggregateid": '"k"', "type": '"T"', "payload": text}
    body = ",".join(f'{before}"{name}"{behind}:{before}{values[name]}{behind}' for name in members)
    found = read(f'{before}{{{body},"aggregatetype":"order"}}{behind}')
    assert found.payload == (None if payload is None else text.encode(errors="surrogatepass"))


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_content_does_more_than_to_be_poison(held: bytes) -> None:
    assert refused(held).kind == "unreadable-row"


@given(at=st.integers(0, 150), character=st.sampled_from('{}[]":,\\ x0\x01'))
def test_a_message_of_one_wrong_character_is_read_just_when_it_is_json(at: int, character: str) -> None:
    text = content('{"n":[1,"a"]}').decode()
    at = min(at, len(text))
    held = text[:at] + character + text[at:]
    try:
        event = read(held)
    except PoisonEvent:
        return
    assert orjson.loads(event.payload or b"null") == orjson.loads(held)["payload"]


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        ("", "expected an object"),
        ("[1]", "expected an object"),
        (content() + b"x", "expected nothing behind the object"),
        (content("NaN"), "NaN is no JSON"),
        (content("{"), "is not JSON"),
        (content(""), "a value is missing"),
        (content("[" * 100_000), "nested too deeply"),
        (b'{"id":"a"}', "no member 'aggregatetype'"),
        (content(id=None), "column 'id' is null"),
        (content(type=None), "column 'type' is null"),
        (content(aggregateid={}), "member 'aggregateid' of the message is neither text nor a number"),
        (content(id=True), "member 'id' of the message is neither text nor a number"),
        (content(aggregatetype="a b"), "'outbox.event.a b' is not a valid topic name"),
        (b'{"id":"a","id":"b"}', "the member 'id' twice"),
        (b'{"id":"\\ud800"}', "half of a surrogate pair"),
        ('{"id":"ä"}'.encode("latin-1"), "the message is not UTF-8"),
        (content(headers=[1]), "'headers' of the message is not an object"),
        (content(headers={"cdc-position": "x"}), "header 'cdc-position' of the message"),
        (content(headers={"": "x"}), "it has no name"),
    ],
)
def test_what_cannot_be_read_is_poison_with_its_reason_and_the_way_past_it(held: bytes, reason: str) -> None:
    poison = refused(held)
    assert reason in poison.reason
    assert str(poison).endswith(f"cdc-publisher start --skip {poison.position}") or reason.startswith(("col", "'outb"))


def test_a_number_is_text_and_a_null_key_is_none() -> None:
    assert read(content(aggregateid=42, id=7))[1:4] == ("7", "outbox.event.order", b"42")
    assert read(content(aggregateid=None)).key is None
    assert read(content(aggregateid=42), keys=Keys("json")).key == b'"42"'


def test_a_null_payload_is_a_tombstone_only_where_that_is_asked_for() -> None:
    assert read(content("null"), tombstones=True).payload is None
    assert read(content("null")).payload is None  # the encoding refuses it


def test_columns_of_headers_are_members_of_the_object_or_of_its_headers() -> None:
    headers = ["tenant", "region:where"]
    assert read(content(tenant="acme", region=None), headers=headers).headers == [("tenant", "acme")]
    nested = content(headers={"tenant": "acme", "where": "eu", "more": 1.5, "no": None, "deep": {"a": 1}})
    assert read(nested, headers=headers).headers == [
        ("tenant", "acme"), ("where", "eu"), ("more", "1.5"), ("deep", '{"a": 1}'),
    ]  # fmt: skip
    both = content(tenant="outer", headers={"tenant": "inner", "region": "eu"})
    assert read(both, headers=headers).headers == [("tenant", "outer"), ("where", "eu")]


def test_white_space_may_follow_each_member_of_a_message() -> None:
    spaced = content()[:-1] + b' , "headers" : { "tenant" : "acme" } }'
    assert read(spaced).headers == [("tenant", "acme")]


def test_a_header_may_have_the_name_of_a_column() -> None:
    assert read(content(headers={"type": "x"}))[4:9] == ("OrderPlaced", "order", b"{}", "json", [("type", "x")])


def test_null_headers_are_headers_without_a_value_in_iso_format() -> None:
    assert read(content(), headers=["tenant"], iso=True).headers == [("tenant", None)]


def test_a_trace_context_is_taken_without_being_set() -> None:
    for held in (content(traceparent="00-1"), content(headers={"traceparent": "00-1"})):
        assert read(held).headers == [("traceparent", "00-1")]


def test_members_have_the_names_of_the_columns_that_are_set() -> None:
    columns = Columns(id="event_id", aggregate="kind", key="subject", type="name", payload="body")
    held = b'{"event_id":"a","kind":"order","subject":"k","name":"T","body":[1 ],"id":"other"}'
    assert read(held, columns=columns)[1:7] == ("a", "outbox.event.order", b"k", "T", "order", b"[1 ]")


def test_the_topic_may_depend_on_any_member() -> None:
    assert read(content(region="eu"), template="{aggregatetype}.{region}").topic == "order.eu"
    assert "no member 'region'" in refused(content(), template="{aggregatetype}.{region}").reason


@pytest.mark.parametrize(
    ("given", "time"),
    [
        ("2026-08-01T00:00:00.123456Z", 1_785_542_400_123),
        ("2026-08-01 02:00:00.123+02", 1_785_542_400_123),
        (1_785_542_400_123, 1_785_542_400_123),
        (None, None),
    ],
)
def test_a_member_may_be_the_time_of_the_record(given: object, time: int | None) -> None:
    for held in (content(at=given), content(headers={"at": given})):
        assert read(held, time="at").time == time
    assert read(content(), time="at").time is None


@pytest.mark.parametrize("given", ["yesterday", "infinity", -1, 1.5])
def test_what_is_no_time_of_a_record_is_poison(given: object) -> None:
    assert "time" in refused(content(at=given), time="at").reason


def test_messages_with_many_kinds_of_headers_take_no_memory_for_good() -> None:
    outbox, row = shop.outbox(), shop.row("", relation=MESSAGE)
    for number in range(2500):
        row.data = TupleData(b"b", [content(headers={f"h{number}": "x"})])
        assert outbox.event(row).headers == [(f"h{number}", "x")]
    assert len(outbox._shapes) <= 1000
