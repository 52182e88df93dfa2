"""Forms of keys: the bytes that Kafka Connect's converters make of the same values."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import PoisonEvent
from cdc.outbox.keys import Form, Keys
from cdc.replication.values import BOOL, BPCHAR, INT2, INT4, INT8, JSONB, TEXT, UUID, VARCHAR
from tests.examples import examples
from tests.unit import frames, shop
from tests.unit.shop import COLUMNS, EVENT_ID, OID, outbox

STRING = '{"schema":{"type":"string","optional":false},"payload":"o-1"}'
OPTIONAL = '{"schema":{"type":"string","optional":true},"payload":"o-1"}'
NAMED = '{"schema":{"type":"string","optional":false,"name":"io.debezium.data.Uuid","version":1},"payload":"%s"}'
NUMBER = '{"schema":{"type":"%s","optional":false},"payload":-7}'


@pytest.mark.parametrize(
    ("keys", "type_oid", "text", "key"),
    [
        (Keys(), TEXT, 'o-1"', 'o-1"'),
        (Keys("json"), TEXT, "o-1", '"o-1"'),
        (Keys("json"), VARCHAR, "", '""'),
        (Keys("json"), BPCHAR, "a", '"a"'),
        (Keys("json"), UUID, EVENT_ID, f'"{EVENT_ID}"'),
        (Keys("json"), INT8, "-7", "-7"),
        (Keys("json"), BOOL, "true", "true"),
        (Keys("json-schema"), TEXT, "o-1", STRING),
        (Keys("json-schema", optional=True), TEXT, "o-1", OPTIONAL),
        (Keys("json-schema"), UUID, EVENT_ID, NAMED % EVENT_ID),
        (Keys("json-schema"), INT2, "-7", NUMBER % "int16"),
        (Keys("json-schema"), INT4, "-7", NUMBER % "int32"),
        (Keys("json-schema"), INT8, "-7", NUMBER % "int64"),
        (Keys("json-schema"), BOOL, "false", '{"schema":{"type":"boolean","optional":false},"payload":false}'),
    ],
)
def test_a_key_is_what_the_converter_writes(keys: Keys, type_oid: int, text: str, key: str) -> None:
    frame = keys.frame(type_oid)
    assert frame
    assert frame.key(text) == key.encode()


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ('"\\/', '\\"\\\\/'),
        ("\b\t\n\f\r", "\\b\\t\\n\\f\\r"),
        ("\x00\x1f\x7f", "\\u0000\\u001F\x7f"),
        ("é\u2028\uffff", "é\u2028\uffff"),
        ("😀\U0010ffff", "\\uD83D\\uDE00\\uDBFF\\uDFFF"),
    ],
)
def test_strings_are_escaped_as_jackson_does(text: str, escaped: str) -> None:
    frame = Keys("json").frame(TEXT)
    assert frame
    assert frame.key(text) == f'"{escaped}"'.encode()


@given(st.text(st.characters(exclude_categories=["Cs"])))
@examples(200)
def test_every_text_is_a_json_string(text: str) -> None:
    frame = Keys("json").frame(TEXT)
    assert frame
    assert json.loads(frame.key(text)) == text


@pytest.mark.parametrize("form", ["json", "json-schema"])
@pytest.mark.parametrize("type_oid", [JSONB, 1700, 1114, 1184, 701, 17, 19])
def test_a_column_of_another_type_makes_no_such_key(form: Form, type_oid: int) -> None:
    assert Keys(form).frame(type_oid) is None
    columns = [(name, type_oid if name == "aggregateid" else kind) for name, kind in COLUMNS]
    row = shop.row(EVENT_ID, "order", "1", "OrderPlaced", "{}", relation=frames.relation(OID, "outbox", columns))
    with pytest.raises(PoisonEvent, match=f'with oid {type_oid}, of which .record. key = "{form}" makes no key'):
        outbox(keys=Keys(form)).event(row)


def test_a_null_has_no_key_in_any_form() -> None:
    row = shop.row(EVENT_ID, "order", None, "OrderPlaced", "{}")
    for form in ("text", "json", "json-schema"):
        assert outbox(keys=Keys(form)).event(row).key is None


def test_the_key_of_an_event_has_the_form() -> None:
    row = shop.row(EVENT_ID, "order", "o-1", "OrderPlaced", "{}")
    assert outbox(keys=Keys("json")).event(row).key == b'"o-1"'
    assert outbox(keys=Keys("json-schema")).event(row).key == STRING.encode()
