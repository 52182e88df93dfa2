"""Contracts with a msgspec parser: it accepts only values that orjson and the mapping accept, with the same result."""

from collections.abc import Callable
from typing import Any

import fastavro
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.avro.compiled import compiler, structs
from cdc.avro.contracts import Contract
from cdc.avro.mapping.rules import STRICT, Rules
from tests.examples import examples
from tests.unit.avro.test_compiler_properties import cases, rules
from tests.unit.schemas import Typed, disturbed, records
from tests.unit.spellings import FORMS, KINDS, SPELLINGS, dumped, made, spoiled

HEADER = b"header"
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
TREE = {"type": "record", "name": "T", "fields": [{"name": "down", "type": ["null", "T"]}]}


def parsed(*fields: dict[str, Any]) -> Any:
    return fastavro.parse_schema({"type": "record", "name": "R", "fields": list(fields)}, named_schemas={})


class Left(Exception):
    """A payload was left to the general encoder."""


def leave(payload: bytes, header: bytes = b"") -> bytes:  # noqa: ARG001 - has the general encoder's signature
    raise Left


def typed(schema: Any, how: Rules = STRICT) -> Callable[[bytes], bytes | None]:
    """The typed encoder's result for a text; None if it leaves the text to the general encoder."""
    encode = compiler.compile_text_encoder(schema, how, leave, HEADER)

    def attempt(payload: bytes) -> bytes | None:
        try:
            return encode(payload) if encode else None
        except Left:
            return None

    return attempt


def general(contract: Contract, payload: bytes) -> bytes | None:
    """The result of orjson and the encoder of values; None if they reject the text."""
    try:
        return contract.encode_value(orjson.loads(payload), HEADER)
    except (ValueError, ArithmeticError, RecursionError):
        return None


def check(contract: Contract, attempt: Callable[[bytes], bytes | None], payload: bytes) -> bool:
    """Compare both encoders; return whether the typed one accepted the payload."""
    got = attempt(payload)
    if got is not None:
        assert got == general(contract, payload)
    return got is not None


def decimals(schema: Any) -> bool:
    """Whether the schema has decimals, so that numbers are parsed exactly."""
    return "decimal" in str(schema)


@given(cases(), rules, st.data())
@examples(1000)
def test_accepted_texts_have_the_bytes_of_the_general_encoder(
    case: tuple[Any, Any], how: Rules, data: st.DataObject
) -> None:
    schema, value = case
    contract = made(schema, how)
    if contract is None or decimals(schema):
        return
    attempt = typed(schema, how)
    payload = data.draw(st.composite(dumped)(value))
    check(contract, attempt, payload)
    check(contract, attempt, data.draw(spoiled(payload)))


@given(records(), st.data())
@examples(500)
def test_plain_payloads_are_accepted(drawn: Typed, data: st.DataObject) -> None:
    value, _ = data.draw(drawn.values)
    schema: Any = fastavro.parse_schema(drawn.schema, named_schemas={})
    contract = made(schema, STRICT)
    assert contract is not None
    attempt = typed(schema)
    assert check(contract, attempt, data.draw(st.composite(dumped)(value)))
    check(contract, attempt, orjson.dumps(data.draw(st.composite(disturbed)(value)), option=orjson.OPT_NON_STR_KEYS))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not decimals(kind)], ids=str)
def test_every_spelling_is_read_as_by_the_general_encoder_or_left_to_it(kind: Any) -> None:
    for more in ({}, {"default": None} if isinstance(kind, list) and kind[0] == "null" else {}):
        schema = parsed({"name": "v", "type": kind, **more})
        contract = made(schema, STRICT)
        assert contract is not None
        attempt = typed(schema)
        for text in SPELLINGS:
            for form in FORMS:
                payload = form % ((text,) * form.count(b"%s"))
                check(contract, attempt, payload)
                check(contract, attempt, b" " + payload + b"\n")


NUMBERS = [
    (Contract(schema, "test.avsc"), typed(schema))
    for schema in (parsed({"name": "v", "type": kind}) for kind in ("float", "double", "long"))
]


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(), st.sampled_from("egfr"))
@examples(2000)
def test_numbers_are_rounded_as_by_the_general_encoder(number: float, form: str) -> None:
    text = repr(number) if form == "r" or isinstance(number, int) else f"{number:.20{form}}"
    for contract, attempt in NUMBERS:
        check(contract, attempt, f'{{"v":{text}}}'.encode())


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("int", Rules(unknown_fields="ignore")),
        (["int", "string"], STRICT),
        (["null", "int", "long"], STRICT),
        ({"type": "fixed", "name": "F", "size": 12, "logicalType": "duration"}, STRICT),
        (TREE, STRICT),
    ],
    ids=str,
)
def test_schema_without_an_exact_type_has_no_parser(kind: Any, how: Rules) -> None:
    assert structs.parser(parsed({"name": "v", "type": kind}), how) is None


def test_header_defaults_to_the_contracts_own() -> None:
    contract = Contract(parsed({"name": "v", "type": "int"}), "test.avsc")
    assert contract.encode(b'{"v": 1}') == contract.header + b"\2"
    assert contract.encode(b'{"v": 1}', b"h") == b"h\2"


def test_schema_with_decimals_is_parsed_without_floats() -> None:
    contract = Contract(parsed({"name": "v", "type": MONEY}, {"name": "w", "type": "int"}), "test.avsc")
    assert contract.encode(b'{"v": 9007199.93, "w": 1}', b"")[-5:-1] == (900719993).to_bytes(4, "big")


def test_text_is_rejected_with_the_message_of_the_general_encoder() -> None:
    contract = Contract(parsed({"name": "v", "type": "int"}), "test.avsc")
    with pytest.raises(ValueError, match="3000000000 is out of range for int"):
        contract.encode(b'{"v": 3000000000}')
    with pytest.raises(ValueError, match="is not JSON"):
        contract.encode(b"[" * 100_000)


def test_fields_may_have_any_name() -> None:
    names = ["class", "__init__", "f1", "f0", "self", "mro"]
    schema = parsed(*({"name": name, "type": "int"} for name in names))
    text = orjson.dumps({name: number for number, name in enumerate(names)})
    assert typed(schema)(text) == HEADER + bytes(range(0, 12, 2))
