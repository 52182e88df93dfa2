"""Random schemas and values: compiled JSON has the bytes or the message of the mapping and the generic writer."""

import contextlib
import importlib
import json
from typing import Any

import fastavro
import jsonschema
import orjson
from hypothesis import given
from hypothesis import strategies as st

from cdc.avro import json_schema, json_values
from cdc.avro.compiled import compiler
from cdc.avro.compiled.json_encoder import JsonEncoder
from cdc.avro.json_values import JsonForm
from cdc.avro.mapping import convert
from cdc.avro.mapping.mismatch import Mismatch
from cdc.avro.mapping.rules import STRICT, Rules
from tests.examples import examples
from tests.unit.avro.test_compiler_properties import cases, rules
from tests.unit.schemas import Typed, disturbed, records
from tests.unit.spellings import dumped, made, spoiled

native: Any = None
with contextlib.suppress(ModuleNotFoundError):
    native = importlib.import_module("cdc_native")

forms = st.builds(JsonForm, st.sampled_from(["number", "string"]), st.sampled_from(["string", "number"]))


def compiled_of(schema: Any, how: Rules, form: JsonForm, value: Any) -> bytes | str | None:
    """The bytes, or the type and text of the error; None if JSON cannot have the value of a default."""
    try:
        encode = compiler.compile_encoder(schema, how, form)
    except Mismatch:
        return None
    try:
        return encode(value, b"")
    except RecursionError:
        return "RecursionError"
    except (ValueError, ArithmeticError) as error:
        return f"{type(error).__name__}: {error}"


def written(schema: Any, how: Rules, form: JsonForm, value: Any) -> bytes | str:
    """The same without compiled code."""
    named = schema["__named_schemas"]
    try:
        write = json_values.writer(schema, named, how, form)
        return write(convert.mapper(schema, how)(value)).encode()
    except RecursionError:
        return "RecursionError"
    except (ValueError, ArithmeticError) as error:
        return f"{type(error).__name__}: {error}"


@given(cases(), rules, forms)
@examples(3000)
def test_compiled_json_matches_the_generic_writer_in_bytes_and_messages(
    case: tuple[Any, Any], how: Rules, form: JsonForm
) -> None:
    schema, value = case
    assert compiled_of(schema, how, form, value) in (None, written(schema, how, form, value))


def judged(encode: compiler.TextEncode, payload: bytes) -> bytes | None:
    try:
        return encode(payload, b"")
    except ValueError:
        return None


@given(cases(), rules, forms, st.data())
@examples(2000)
def test_json_is_accepted_as_avro_is_and_fits_its_json_schema(
    case: tuple[Any, Any], how: Rules, form: JsonForm, data: st.DataObject
) -> None:
    schema, value = case
    contract = made(schema, how)
    if contract is None:
        return
    try:
        encoder = JsonEncoder(contract.schema, how, form)
    except Mismatch:  # a default is a date that JSON cannot have
        return
    validator = jsonschema.Draft202012Validator(json_schema.of(contract.schema, how, form))
    payload = data.draw(st.composite(dumped)(value))
    for text in (payload, data.draw(spoiled(payload))):
        try:
            rendered: bytes | None = encoder.encode(text)
        except ValueError as error:
            rendered = None
            if "not within the years" in str(error):
                continue
        assert (rendered is None) == (judged(contract.encode, text) is None)
        if native and encoder.plan:
            by_plan = native.encode(encoder.plan, text)
            assert by_plan in (None, rendered)
        if rendered is not None:
            parsed = orjson.loads(rendered)
            validator.validate(parsed)


@given(records(), forms, st.data())
@examples(1000)
def test_json_of_a_value_means_the_same_value(typed: Typed, form: JsonForm, data: st.DataObject) -> None:
    value, _ = data.draw(typed.values)
    contract = made(fastavro.parse_schema(typed.schema, named_schemas={}), STRICT)
    assert contract is not None
    encoder = contract.json_encoder(form)
    payload = data.draw(st.composite(dumped)(value))
    rendered = encoder.encode(payload)
    assert not native or native.encode(encoder.plan, payload) == rendered
    assert contract.encode(rendered) == contract.encode(payload)
    assert encoder.encode(rendered) == rendered
    spoilt = json.dumps(data.draw(st.composite(disturbed)(value))).encode()
    assert judged(encoder.encode, spoilt) is None or judged(contract.encode, spoilt) is not None


@given(st.text(st.characters(exclude_categories=["Cs"])))
@examples(1000)
def test_texts_escape_quotes_backslashes_and_control_characters_only(text: str) -> None:
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
    escaped = [short.get(char, f"\\u{ord(char):04x}" if char < " " else char) for char in text]
    assert json_values.quote(text) == f'"{"".join(escaped)}"'
