"""The accelerator's encoder: a payload has the bytes of `Contract.encode`, or is declined."""

import json
from typing import Any

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdc.avro.compiled.plan import plan
from cdc.avro.contracts import Contract
from cdc.avro.json_values import JsonForm
from cdc.avro.mapping.rules import STRICT, Rules
from tests.examples import examples
from tests.unit.avro.test_compiler_properties import cases, rules
from tests.unit.schemas import Typed, disturbed, records
from tests.unit.spellings import FORMS, KINDS, SPELLINGS, dumped, made, spoiled

native = pytest.importorskip("cdc_native", reason="the accelerator is not installed: see native/README.md")


def judged(contract: Contract, payload: bytes) -> bytes | None:
    """The body, or None if Python rejects the payload."""
    try:
        return contract.encode(payload, b"")
    except ValueError:
        return None


def check(contract: Contract, compiled: bytes | None, payload: bytes) -> bool:
    """Compare both encoders; return whether the accelerator accepted the payload."""
    got = native.encode(compiled, payload) if compiled else None
    if got is not None:
        assert got == judged(contract, payload)
    return got is not None


@given(cases(), rules, st.data())
@examples(2000)
def test_accepted_payloads_have_the_bytes_of_the_contract(
    case: tuple[Any, Any], how: Rules, data: st.DataObject
) -> None:
    schema, value = case
    contract = made(schema, how)
    if contract is None:
        return
    compiled = plan(contract.schema, how)
    payload = data.draw(st.composite(dumped)(value))
    check(contract, compiled, payload)
    check(contract, compiled, data.draw(spoiled(payload)))


DURATION = {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}
AMOUNTS = st.sampled_from(["0", "1", "4294967295", "4294967296", "-1", "1.0", '"1"', "null", "-0"])
MEMBERS = st.sampled_from(["months", "days", "millis", "months", "days", "millis", "weeks"])


@given(st.lists(st.tuples(MEMBERS, AMOUNTS), max_size=4), st.sampled_from(["strict", "optional"]))
@example([("millis", "3"), ("months", "1"), ("days", "4294967295")], "strict")
@examples(1000)
def test_durations_match_python_or_are_declined(members: list[tuple[str, str]], kind: str) -> None:
    field = {"name": "v", "type": DURATION if kind == "strict" else ["null", "long", DURATION]}
    contract = made(fastavro.parse_schema({"type": "record", "name": "T", "fields": [field]}, named_schemas={}), STRICT)
    assert contract is not None
    payload = f'{{"v": {{{", ".join(f"{json.dumps(name)}: {amount}" for name, amount in members)}}}}}'.encode()
    accepted = check(contract, plan(contract.schema, STRICT), payload)
    usual = {name: amount for name, amount in members if amount.isdigit() and int(amount) < 1 << 32}
    assert accepted == (len(members) == 3 and usual.keys() == {"months", "days", "millis"})
    encoder = contract.json_encoder(JsonForm())
    written = native.encode(encoder.plan, payload)
    assert written is None or written == encoder.encode(payload, b"")


@given(records(), st.data())
@examples(1000)
def test_plain_payloads_are_accepted(typed: Typed, data: st.DataObject) -> None:
    value, _ = data.draw(typed.values)
    contract = made(fastavro.parse_schema(typed.schema, named_schemas={}), STRICT)
    assert contract is not None
    assert check(contract, plan(contract.schema, STRICT), data.draw(st.composite(dumped)(value)))
    spoilt = data.draw(st.composite(disturbed)(value))
    check(contract, plan(contract.schema, STRICT), json.dumps(spoilt).encode())


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("how", [Rules(u, b) for u in ("reject", "ignore") for b in ("avro-json", "base64")], ids=str)
def test_every_spelling_is_read_as_by_python_or_declined(kind: Any, how: Rules) -> None:
    beside = {
        "name": "w",
        "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 3}],
        "default": None,
    }
    for more in ([], [beside]):
        fields = [{"name": "v", "type": kind}, *more]
        contract = made(fastavro.parse_schema({"type": "record", "name": "R", "fields": fields}, named_schemas={}), how)
        assert contract is not None
        compiled = plan(contract.schema, how)
        for text in SPELLINGS:
            for form in FORMS:
                check(contract, compiled, form % ((text,) * form.count(b"%s")))
                check(contract, compiled, b" " + form % ((text,) * form.count(b"%s")) + b"\n")


decimal_texts = st.from_regex(r"[+-]?[0-9]{0,40}\.?[0-9]{0,6}([eE][+-]?[0-9]{1,7})?", fullmatch=True)


@given(st.one_of(decimal_texts, st.decimals().map(str)), st.integers(1, 40), st.integers(0, 40), st.booleans())
@examples(2000)
@example("9" * 38, 38, 0, False)
@example("-128", 3, 0, True)
def test_decimals_are_exact_or_declined(text: str, precision: int, scale: int, quoted: bool) -> None:
    kind = {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
    schema = {"type": "record", "name": "R", "fields": [{"name": "v", "type": kind}]}
    try:
        contract = made(fastavro.parse_schema(schema, named_schemas={}), STRICT)
    except fastavro.schema.SchemaParseException:
        return
    if contract:
        payload = f'{{"v":"{text}"}}' if quoted else f'{{"v":{text}}}'
        check(contract, plan(contract.schema, STRICT), payload.encode())


CLOCK = r"[0-2][0-9]:[0-6][0-9](:[0-6][0-9](\.[0-9]{1,10})?)?"
moments = st.one_of(
    st.datetimes().map(str),
    st.from_regex(
        rf"[0-9]{{4}}-[01][0-9]-[0-3][0-9]([T ]{CLOCK}(Z|[+-][0-2][0-9]:?[0-6][0-9])?)?",
        fullmatch=True,
    ),
    st.from_regex(CLOCK, fullmatch=True),
)


@given(moments, st.sampled_from([kind for kind in KINDS if isinstance(kind, dict) and kind["type"] in ("int", "long")]))
@examples(3000)
def test_dates_and_times_match_python_or_are_declined(text: str, kind: Any) -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "v", "type": kind}]}
    contract = made(fastavro.parse_schema(schema, named_schemas={}), STRICT)
    assert contract is not None
    check(contract, plan(contract.schema, STRICT), json.dumps({"v": text}).encode())


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["float", "double"]), st.sampled_from("egfr"))
@examples(2000)
def test_floats_are_rounded_as_by_python(number: float, kind: str, form: str) -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "v", "type": kind}]}
    contract = made(fastavro.parse_schema(schema, named_schemas={}), STRICT)
    assert contract is not None
    text = repr(number) if form == "r" else f"{number:.20{form}}"
    check(contract, plan(contract.schema, STRICT), f'{{"v":{text}}}'.encode())


@pytest.mark.parametrize("wrong", [b"", b"{}", b'{"nodes":[]}', b'{"nodes":[{"kind":"array","items":1}]}', b"\xff"])
def test_invalid_plan_declines_everything(wrong: bytes) -> None:
    assert native.encode(wrong, b"[]") is None


def test_no_plan_or_payload_crashes_the_process() -> None:
    deep = json.dumps({"nodes": [{"kind": "array", "items": 0}]}).encode()
    assert native.encode(deep, b"[" * 64 + b"]" * 64) is not None
    assert native.encode(deep, b"[" * 100_000 + b"]" * 100_000) is None
    assert native.encode(b"[" * 100_000, b"1") is None
