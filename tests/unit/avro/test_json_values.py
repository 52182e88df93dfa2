"""JSON of contracts: the form of each type's values."""

from typing import Any

import fastavro
import jsonschema
import orjson
import pytest

from cdc.avro.contracts import Contract
from cdc.avro.json_values import JsonForm
from cdc.avro.mapping.mismatch import Mismatch
from cdc.avro.mapping.rules import STRICT, Rules

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
PLAIN = JsonForm()
UUID = "00112233-4455-6677-8899-aabbccddeeff"


def record(*fields: dict[str, Any], rules: Rules = STRICT) -> Contract:
    schema = {"type": "record", "name": "a.R", "fields": list(fields)}
    return Contract(fastavro.parse_schema(schema, named_schemas={}), "test.avsc", rules=rules)


def rendered(contract: Contract, payload: str | bytes, form: JsonForm = PLAIN) -> str:
    """The JSON of a payload, which fits the contract's JSON Schema."""
    json = contract.json_encoder(form).encode(payload if isinstance(payload, bytes) else payload.encode())
    jsonschema.Draft202012Validator(contract.json_schema(form)).validate(orjson.loads(json))
    return json.decode()


def value(kind: Any, text: str, *, rules: Rules = STRICT, form: JsonForm = PLAIN) -> str:
    """The JSON of a field's value."""
    return rendered(record({"name": "v", "type": kind}, rules=rules), f'{{"v": {text}}}', form)[5:-1]


def logical(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


def fixed(size: int, name: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": "F", "size": size, **({"logicalType": name} if name else {}), **more}


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("null", "null", "null"),
        ("boolean", "true", "true"),
        ("boolean", "false", "false"),
        ("int", "-2147483648", "-2147483648"),
        ("int", '"5"', "5"),
        ("long", "9223372036854775807", "9223372036854775807"),
        ("long", "1e3", "1000"),
        ("double", "0.1", "0.1"),
        ("double", "1", "1.0"),
        ("double", "-0.0", "-0.0"),
        ("double", "0.0001", "0.0001"),
        ("double", "0.00001", "1e-05"),
        ("double", "9999999999999998", "9999999999999998.0"),
        ("double", "1e16", "1e+16"),
        ("double", "4.9e-324", "5e-324"),
        ("double", "1.5e300", "1.5e+300"),
        ("double", '"NaN"', '"NaN"'),
        ("double", '"Infinity"', '"Infinity"'),
        ("float", '"-Infinity"', '"-Infinity"'),
        ("float", "0.1", "0.10000000149011612"),
        ("float", "16777217", "16777216.0"),
        ("string", '"\\u00e9\\u20ac\\ud83d\\ude00\\u2028\\u007f/"', '"é€😀\u2028\x7f/"'),
        ("string", '"\\"\\\\\\b\\t\\n\\f\\r\\u0000\\u001f"', '"\\"\\\\\\b\\t\\n\\f\\r\\u0000\\u001f"'),
        ("bytes", '"\\u00e9A\\u0000"', '"éA\\u0000"'),
        (fixed(2), '"\\u00ffA"', '"ÿA"'),
        (DECIMAL, "12.5", '"12.50"'),
        (DECIMAL, '"-0.05"', '"-0.05"'),
        (DECIMAL, "-0", '"0.00"'),
        (DECIMAL, "1e3", '"1000.00"'),
        (logical("bytes", "decimal", precision=3), "-7", '"-7"'),
        (fixed(3, "decimal", precision=5, scale=5), ".5".join(("0", "")), '"0.50000"'),
        (logical("string", "uuid"), f'"{UUID.upper()}"', f'"{UUID}"'),
        (logical("string", "uuid"), f'"{UUID.replace("-", "")}"', f'"{UUID}"'),
        (fixed(16, "uuid"), f'"{UUID.upper()}"', f'"{UUID}"'),
        (logical("int", "date"), '"2026-01-31"', '"2026-01-31"'),
        (logical("int", "date"), "-719162", '"0001-01-01"'),
        (logical("int", "time-millis"), '"17:45"', '"17:45:00.000"'),
        (logical("int", "time-millis"), '"17:45:00.5"', '"17:45:00.500"'),
        (logical("long", "time-micros"), '"23:59:59.999999"', '"23:59:59.999999"'),
        (logical("long", "timestamp-millis"), '"2026-01-31T17:45:00.5+01:00"', '"2026-01-31T16:45:00.500Z"'),
        (logical("long", "timestamp-millis"), "-1", '"1969-12-31T23:59:59.999Z"'),
        (logical("long", "timestamp-micros"), '"2026-01-31 17:45:00Z"', '"2026-01-31T17:45:00.000000Z"'),
        (logical("long", "timestamp-nanos"), '"2026-01-31T17:45:00.123456789Z"', '"2026-01-31T17:45:00.123456789Z"'),
        (logical("long", "local-timestamp-millis"), '"2026-01-31T17:45:00"', '"2026-01-31T17:45:00.000"'),
        (logical("string", "nothing known"), '"x"', '"x"'),
        (fixed(12, "duration"), '{"days": 2, "months": 1, "millis": 3}', '{"months":1,"days":2,"millis":3}'),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, '"B"', '"B"'),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"], "default": "A"}, '"Z"', '"A"'),
        ({"type": "array", "items": "int"}, "[ 1, 2 ]", "[1,2]"),
        ({"type": "array", "items": "int"}, "[]", "[]"),
        ({"type": "array", "items": {"type": "array", "items": "string"}}, '[["a"], []]', '[["a"],[]]'),
        ({"type": "map", "values": "int"}, '{"z": 1, "a\\n": 2, "z": 3}', '{"z":3,"a\\n":2}'),
        ({"type": "map", "values": ["null", "long"]}, '{"z": 1, "a": null}', '{"z":1,"a":null}'),
        ({"type": "map", "values": "int"}, "{}", "{}"),
        (["null", "long"], "5", "5"),
        (["null", "long"], "null", "null"),
        (["long", "string"], '{"long": 5}', "5"),
        (["string", DECIMAL], "5", '"5.00"'),
    ],
    ids=str,
)
def test_each_type_has_one_form(kind: Any, text: str, expected: str) -> None:
    assert value(kind, text) == expected


def test_fields_have_the_order_and_names_of_the_contract_with_nulls_and_defaults() -> None:
    contract = record(
        {"name": "z", "type": ["null", "int"], "default": None},
        {"name": "b", "type": "int", "aliases": ["old"]},
        {"name": "price", "type": DECIMAL, "default": "\x01"},
        {"name": "note", "type": ["string", "null"], "default": 'a "b"'},
        {"name": "at", "type": logical("long", "timestamp-millis"), "default": 0},
    )
    expected = '{"z":null,"b":1,"price":"0.01","note":"a \\"b\\"","at":"1970-01-01T00:00:00.000Z"}'
    assert rendered(contract, '{"b": 1}') == expected
    assert rendered(contract, '{"old": 1, "z": null}') == expected
    assert rendered(contract, '{"b": 1, "b": 2, "note": null}').startswith('{"z":null,"b":2,')
    assert rendered(record(), "{}") == "{}"


def test_unknown_fields_are_rejected_or_left_out() -> None:
    fields = {"name": "v", "type": "int"}
    with pytest.raises(Mismatch, match=r"\$\.w: is not a field of a\.R"):
        rendered(record(fields), '{"v": 1, "w": 2}')
    assert rendered(record(fields, rules=Rules(unknown_fields="ignore")), '{"v": 1, "w": 2}') == '{"v":1}'


def test_longs_are_strings_where_that_is_set_and_ints_never() -> None:
    strings = JsonForm(longs="string")
    assert value("long", "9007199254740993", form=strings) == '"9007199254740993"'
    assert value("int", "5", form=strings) == "5"
    assert value(["null", "long"], "-5", form=strings) == '"-5"'
    assert value({"type": "array", "items": "long"}, "[1]", form=strings) == '["1"]'


def test_decimals_are_bare_digits_where_that_is_set() -> None:
    numbers = JsonForm(decimals="number")
    assert value(DECIMAL, "12.5", form=numbers) == "12.50"
    assert value(DECIMAL, '"-0.5"', form=numbers) == "-0.50"


def test_bytes_are_base64_where_payloads_have_it() -> None:
    base64 = Rules(bytes_as="base64")
    assert value("bytes", '"QUI="', rules=base64) == '"QUI="'
    assert value("bytes", '""', rules=base64) == '""'
    assert value(fixed(2), '"QUI="', rules=base64) == '"QUI="'
    with pytest.raises(Mismatch, match="1 bytes instead of the 2"):
        value(fixed(2), '"QQ=="', rules=base64)


def test_excess_digits_of_times_are_dropped_where_that_is_set() -> None:
    kind = logical("long", "timestamp-millis")
    truncate = Rules(timestamps="truncate")
    assert value(kind, '"2026-01-31T17:45:00.9999Z"', rules=truncate) == '"2026-01-31T17:45:00.999Z"'


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("string", '"\\ud800"', "surrogate"),
        ("int", "2147483648", r"\$\.v: 2147483648 is out of range for int"),
        ("boolean", "1", r"\$\.v: 1 is not a boolean"),
        (logical("int", "date"), "-719163", r"\$\.v: -719163 is not within the years 1 to 9999"),
        ({"type": "array", "items": logical("int", "date")}, "[0, 2932897]", r"\$\.v\[1\]: 2932897 is not within"),
        ({"type": "map", "values": logical("int", "date")}, '{"a": 2932897}', r"\$\.v\['a'\]: 2932897 is not within"),
        (logical("long", "timestamp-millis"), "253402300800000", r"\$\.v: 253402300800000 is not within the years"),
    ],
    ids=str,
)
def test_a_value_that_does_not_match_names_its_path(kind: Any, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        value(kind, text)


def test_a_record_that_contains_itself_is_written_as_deep_as_it_is() -> None:
    contract = record({"name": "down", "type": ["null", "a.R"], "default": None}, {"name": "n", "type": "int"})
    assert rendered(contract, '{"n": 1, "down": {"n": 2}}') == '{"down":{"down":null,"n":2},"n":1}'


def test_a_default_that_json_cannot_have_is_refused_when_the_contract_is_compiled() -> None:
    contract = record({"name": "day", "type": logical("int", "date"), "default": 2_932_897})
    with pytest.raises(Mismatch, match=r"\.day: 2932897 is not within the years 1 to 9999"):
        contract.json_encoder(JsonForm())
    contract = record({"name": "id", "type": logical("string", "uuid"), "default": ""})
    with pytest.raises(Mismatch, match=r'\.id: "" is not a uuid'):
        contract.json_encoder(JsonForm())


def test_the_json_schema_describes_the_contract() -> None:
    contract = record({"name": "at", "type": logical("long", "timestamp-millis"), "doc": "When."})
    schema = contract.json_schema(JsonForm())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$ref"] == "#/$defs/a.R"
    assert schema["$defs"] == {
        "a.R": {
            "type": "object",
            "properties": {
                "at": {
                    "description": "When.",
                    "type": "string",
                    "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z$",
                    "format": "date-time",
                }
            },
            "required": ["at"],
            "additionalProperties": False,
        }
    }
    jsonschema.Draft202012Validator.check_schema(schema)
