"""Encoders of JSON text, made of a parser and an encoder of JSON values. They raise one reason for all invalid text."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import NoReturn

import orjson
from fastavro.types import Schema

from cdc.avro.compiled import compiler
from cdc.avro.json_values import JsonForm
from cdc.avro.mapping.mismatch import Mismatch
from cdc.avro.mapping.rules import Rules


def text_encoder(
    schema: Schema, rules: Rules, encode_value: compiler.Encode, header: bytes, form: JsonForm | None = None
) -> compiler.TextEncode:
    """Return a function from JSON text and a header (default: `header`) to what `encode_value` returns for its value.

    It raises Mismatch with the JSON path of the mismatch, or another ValueError.
    """
    if has_decimal(schema):
        return _from_text(parse_exactly, encode_value, header)
    general = _from_text(orjson.loads, encode_value, header, exactly=True)
    return compiler.compile_text_encoder(schema, rules, general, header, form) or general


def has_decimal(schema: Schema) -> bool:
    """Return whether a schema has a decimal anywhere, even one that does not apply; numbers are then read exactly."""
    if isinstance(schema, dict):
        return schema.get("logicalType") == "decimal" or any(
            has_decimal(part) for key, part in schema.items() if key in {"type", "fields", "items", "values"}
        )
    return isinstance(schema, list) and any(has_decimal(part) for part in schema)


def _from_text(
    parse: Callable[[bytes], object], encode: compiler.Encode, own: bytes, *, exactly: bool = False
) -> compiler.TextEncode:
    """Return an encoder of JSON text. With `exactly`, a mismatch is tried again with exact numbers.

    `parse` may round a number with a fraction, so the mapping does not convert it to an integer.
    """

    def encode_text(payload: bytes, header: bytes = own) -> bytes:
        try:
            try:
                return encode(parse(payload), header)
            except Mismatch:
                if not exactly:
                    raise
            return encode(parse_exactly(payload), header)
        except RecursionError:
            raise ValueError("the payload is nested too deeply") from None
        except ArithmeticError:
            raise ValueError("the payload contains a number that is out of range for any decimal") from None
        except (orjson.JSONDecodeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"the payload is not JSON: {error}") from None

    return encode_text


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Numbers for decimals must not be parsed as float: 0.1 has no exact binary representation.
_exact: Callable[[str], object] = json.JSONDecoder(parse_float=Decimal, parse_constant=_reject_constant).decode


def parse_exactly(payload: bytes) -> object:
    """Parse JSON text; numbers with a point or an exponent are Decimal.

    Raises ValueError for text that is not JSON, RecursionError or ArithmeticError for what Python cannot hold.
    """
    return _exact(payload.decode())
