"""JSON to Avro, type by type: accepted values as a consumer decodes them, and rejected values."""

from typing import Any

import pytest

from cdc.avro.mapping.mismatch import Mismatch
from tests.unit.contract import contract, of, read_back, seen

COLOUR = {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}
COLOUR_DEFAULT = {**COLOUR, "default": "RED"}
PAIR = {"type": "fixed", "name": "Pair", "size": 2}
POINT = {"type": "record", "name": "Point", "fields": [{"name": "x", "type": "int"}]}
INTS = {"type": "array", "items": "int"}
MAP = {"type": "map", "values": "int"}

TAKEN: list[tuple[Any, str, Any]] = [
    ("null", "null", None),
    ("boolean", "true", True),
    ("boolean", "false", False),
    ("int", "2147483647", 2147483647),
    ("int", "-2147483648", -2147483648),
    ("long", "9223372036854775807", 9223372036854775807),
    ("long", "-9223372036854775808", -9223372036854775808),
    ("float", "1.5", 1.5),
    ("float", "2", 2.0),
    ("float", "-0.0", -0.0),
    ("double", "0.1", 0.1),
    ("double", "3", 3.0),
    ("double", "1e308", 1e308),
    ("double", "18446744073709551616", 18446744073709551616.0),
    ("string", '""', ""),
    ("string", '"é\\u0000😀"', "é\0😀"),
    ("bytes", '"a\\u00ff"', b"a\xff"),
    ("bytes", '""', b""),
    (COLOUR, '"BLUE"', "BLUE"),
    (COLOUR_DEFAULT, '"GREEN"', "RED"),
    (PAIR, '"\\u0000ÿ"', b"\x00\xff"),
    (INTS, "[]", []),
    (INTS, "[1, 2]", [1, 2]),
    (MAP, "{}", {}),
    (MAP, '{"a": 1, "": 2}', {"a": 1, "": 2}),
    (POINT, '{"x": 1}', {"x": 1}),
    (["null", "int"], "null", None),
    (["null", "int"], "7", 7),
    (["int", "string"], '"7"', "7"),
    (["null", "int", "long"], "3000000000", 3000000000),
    (["null", POINT, MAP], '{"x": 1}', {"x": 1}),
    (["null", POINT, MAP], '{"y": 1}', {"y": 1}),
    (["null", "long"], '{"long": 5}', 5),
    (["null", "string", "bytes"], '{"bytes": "a"}', b"a"),
    (["null", POINT], '{"Point": {"x": 1}}', {"x": 1}),
    (["null", COLOUR, "string"], '"BLUE"', "BLUE"),
    (["null", COLOUR, "string"], '"GREEN"', "GREEN"),
    (["null", COLOUR_DEFAULT, "string"], '"GREEN"', "GREEN"),  # bent into RED by the branch that fits anything
    (["null", INTS], "[1]", [1]),
    ({"type": "array", "items": ["null", "string"]}, '[null, "a"]', [None, "a"]),
    ({"type": "map", "values": {"type": "map", "values": "long"}}, '{"a": {"b": 1}}', {"a": {"b": 1}}),
]

REFUSED: list[tuple[Any, str, str]] = [
    ("null", "0", "0 is not null"),
    ("boolean", "1", "1 is not a boolean"),
    ("boolean", '"true"', '"true" is not a boolean'),
    ("boolean", "null", "null is not a boolean"),
    ("int", "2147483648", "2147483648 is out of range for int"),
    ("int", "3000000000", "3000000000 is out of range for int"),
    ("int", "-2147483649", "-2147483649 is out of range for int"),
    ("int", "true", "true is not an int"),
    ("int", "1.5", "1.5 is not an int"),
    ("int", '"01"', '"01" is not an int'),
    ("int", "null", "null is not an int"),
    ("long", "1.5", "1.5 is not a long"),
    ("long", "true", "true is not a long"),
    ("long", "9223372036854775808", "9223372036854775808 is out of range for long"),
    ("long", "1e-3", "0.001 is not a long"),
    ("float", "true", "true is not a number"),
    ("float", '"1"', '"1" is not a number'),
    ("float", "3.5e38", "3.5E+38 is out of range for float"),
    ("double", "null", "null is not a number"),
    ("double", "[1]", "an array is not a number"),
    ("string", "1", "1 is not a string"),
    ("string", "null", "null is not a string"),
    ("string", "{}", "an object is not a string"),
    ("bytes", "[1, 2]", "an array is not a string of bytes"),
    ("bytes", '"€"', '"€" contains characters above U+00FF, which are not bytes'),
    (COLOUR, '"GREEN"', '"GREEN" is not a symbol of Colour'),
    (COLOUR, '"red"', '"red" is not a symbol of Colour'),
    (COLOUR_DEFAULT, "5", "5 is not a symbol of Colour"),
    (PAIR, '"a"', "1 bytes instead of the 2 of Pair"),
    (PAIR, '"abc"', "3 bytes instead of the 2 of Pair"),
    (INTS, "{}", "an object is not an array"),
    (INTS, '"ab"', '"ab" is not an array'),
    (MAP, "[]", "an array is not an object"),
    (POINT, "[]", "an array is not an object (Point)"),
    (POINT, "null", "null is not an object (Point)"),
    (["null", "int"], '"x"', '"x" is not an int'),
    (["null", "int"], "3000000000", "3000000000 is out of range for int"),
    (["int", "string"], "null", "null matches no branch of the union of int, string"),
    (["int", "string"], "1.5", "1.5 matches no branch of the union of int, string"),
    (["null", "int"], '{"string": "a"}', "an object is not an int"),
]


def label(value: Any) -> str:
    return str(value).replace(" ", "")[:60]


@pytest.mark.parametrize(("kind", "text", "expected"), TAKEN, ids=label)
def test_matching_value_is_decoded_as_expected(kind: Any, text: str, expected: Any) -> None:
    got = seen(kind, text)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(("kind", "text", "reason"), REFUSED, ids=label)
def test_mismatching_value_is_rejected_with_its_path(kind: Any, text: str, reason: str) -> None:
    with pytest.raises(Mismatch) as caught:
        seen(kind, text)
    assert str(caught.value).partition("; ")[0] == f"$.v: {reason}"  # test_conversions.py has the advice behind it


@pytest.mark.parametrize("text", ["1.5", "true", "3000000000000000000000", '"x"', "1e400"])
@pytest.mark.parametrize("kind", ["int", "long"])
def test_number_is_rejected_equally_if_numbers_are_parsed_exactly(kind: str, text: str) -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
    exact = contract({
        "type": "record",
        "name": "R",
        "fields": [{"name": "v", "type": kind}, {"name": "d", "type": decimal, "default": ""}],
    })  # fmt: skip
    with pytest.raises(ValueError, match=r"\$\.v|not JSON"):
        exact.encode(f'{{"v": {text}}}'.encode())


def test_unknown_field_is_rejected() -> None:
    with pytest.raises(Mismatch, match=r"^\$\.w: is not a field of R$"):
        of("int").encode(b'{"v": 1, "w": null}')


def test_missing_field_without_default_is_rejected() -> None:
    with pytest.raises(Mismatch, match=r"^\$\.v: is missing and has no default$"):
        of("int").encode(b"{}")


def test_misspelt_optional_field_is_rejected_and_not_defaulted() -> None:
    with pytest.raises(Mismatch, match=r"^\$\.V: is not a field of R$"):
        of(["null", "int"], default=None).encode(b'{"V": 1}')


def test_last_of_two_equal_fields_counts() -> None:
    assert seen("int", '1, "v": 2') == 2


@pytest.mark.parametrize(("kind", "default", "expected"), [
    ("int", 5, 5),
    ("string", "é", "é"),
    ("bytes", "\u00ff", b"\xff"),
    (["null", "int"], None, None),
    (["int", "null"], 7, 7),
    (COLOUR, "BLUE", "BLUE"),
    (PAIR, "ab", b"ab"),
    (INTS, [1, 2], [1, 2]),
    (MAP, {"a": 1}, {"a": 1}),
    (POINT, {"x": 3}, {"x": 3}),
    ("double", 1, 1.0),
])  # fmt: skip
def test_a_missing_field_takes_its_default(kind: Any, default: Any, expected: Any) -> None:
    assert read_back(of(kind, default=default), "{}") == {"v": expected}


@pytest.mark.parametrize(("kind", "default"), [("int", 1 << 31), (COLOUR, "GREEN"), (PAIR, "a")])
def test_mismatching_default_is_found_when_the_contract_is_loaded(kind: Any, default: Any) -> None:
    with pytest.raises(Mismatch, match=r"^\$\.v \(default\): "):
        of(kind, default=default)


@pytest.mark.parametrize(
    "payload", ["", "{", "nul", "{'v': 1}", '{"v": NaN}', '{"v": 01}', '{"v": 1} x', b'{"v": "\xff"}']
)
def test_payload_that_is_not_json_is_rejected(payload: str | bytes) -> None:
    data = payload.encode() if isinstance(payload, str) else payload
    with pytest.raises(ValueError, match="the payload is not JSON"):
        of("int").encode(data)


@pytest.mark.parametrize("payload", ["[]", "5", '"x"', "null"])
def test_payload_that_is_not_an_object_is_rejected(payload: str) -> None:
    with pytest.raises(Mismatch, match=r"^\$: .* is not an object \(R\)$"):
        of("int").encode(payload.encode())


def test_rejected_value_is_truncated_in_the_message() -> None:
    with pytest.raises(Mismatch) as caught:
        seen("int", f'"{"secret " * 1000}"')
    assert len(str(caught.value)) < 120
