"""Random schemas and values: encoded values are read back equal, and values that fastavro rejects are rejected."""

import json
from decimal import Context, Decimal
from typing import Any

import fastavro.validation
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.contract import contract, read_back, seen
from tests.unit.schemas import Typed, disturbed, records


@given(records(), st.data())
@examples(300)
def test_matching_value_is_read_back_equal(typed: Typed, data: st.DataObject) -> None:
    value, expected = data.draw(typed.values)
    assert read_back(contract(typed.schema), json.dumps(value)) == expected


@st.composite
def almost(draw: st.DrawFn) -> tuple[Any, Any]:
    """A schema, and a value that matches except for one part."""
    typed = draw(records(with_bytes=False))
    return typed.schema, disturbed(draw, draw(typed.values)[0])


@given(almost())
@examples(500)
def test_value_that_fastavro_validation_rejects_is_rejected(case: tuple[Any, Any]) -> None:
    schema, value = case
    target = contract(schema)
    valid = fastavro.validation.validate(value, target.schema, raise_errors=False)
    try:
        target.encode(json.dumps(value).encode())
        encoded = True
    except ValueError:
        encoded = False
    assert valid or not encoded


@given(almost())
@examples(300)
def test_encoded_value_decodes_to_the_given_value(case: tuple[Any, Any]) -> None:
    schema, value = case
    target = contract(schema)
    try:
        got = read_back(target, json.dumps(value))
    except ValueError:
        return
    assert _rounded(schema, got) == _rounded(schema, value)


def _rounded(schema: Any, value: Any) -> Any:
    """Round floats to their binary type; all other values must be exact."""
    if isinstance(schema, list):
        return None if value is None else _rounded(next(b for b in schema if b != "null"), value)
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        return {field["name"]: _rounded(field["type"], value[field["name"]]) for field in schema["fields"]}
    if kind == "array":
        return [_rounded(schema["items"], item) for item in value]
    if kind == "map":
        return {key: _rounded(schema["values"], item) for key, item in value.items()}
    if kind in ("float", "double"):
        return pytest.approx(value, rel=1e-6, abs=1e-37)
    return type(value), value


@given(st.integers(1, 40), st.data())
def test_decimal_is_exact_or_rejected(precision: int, data: st.DataObject) -> None:
    scale = data.draw(st.integers(0, precision))
    digits = data.draw(st.integers(-(10**42), 10**42))
    places = data.draw(st.integers(0, 42))
    number = Decimal(digits).scaleb(-places, context=_WIDE)
    schema = {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
    scaled = number.scaleb(scale, context=_WIDE)
    fits = scaled == int(scaled) and abs(int(scaled)) < 10**precision
    for text in (f"{number:f}", f'"{number}"'):
        try:
            got = seen(schema, text)
        except ValueError:
            assert not fits
        else:
            assert fits
            assert got == number


_WIDE = Context(prec=200)


@given(st.datetimes())
def test_a_timestamp_as_python_prints_it_is_read_back_equal(moment: Any) -> None:
    local = {"type": "long", "logicalType": "local-timestamp-micros"}
    assert seen(local, f'"{moment.isoformat()}"') == moment
    assert seen(local, f'"{moment}"') == moment
