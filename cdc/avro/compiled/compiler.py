"""Compile a schema to Python encoders: JSON value in, header and Avro body out, by the rules of the mapping.

fastavro's generic writer takes more time than all other work on an event. Compiled code is specific to its schema, and
leaves unusual values to the mapping and fastavro's writer, which alone decide what is rejected, and why: if a value
does not match, it is encoded again by them. The same applies to a part of a value for which a union has several
candidate branches.

An encoder of JSON text also parses by the schema, if `cdc.avro.compiled.structs` has a type for it.
"""

import io
import textwrap
from collections.abc import Callable
from typing import Any, Protocol

import fastavro
from fastavro.types import Schema

from cdc.avro.compiled import structs
from cdc.avro.compiled.emitter import Emitter
from cdc.avro.mapping import convert
from cdc.avro.mapping.rules import STRICT, Rules

Json = object
Encode = Callable[[Json, bytes], bytes]


class TextEncode(Protocol):
    """A function from JSON text, and optionally a header, to header and Avro body."""

    def __call__(self, payload: bytes, header: bytes = ...) -> bytes: ...


def compile_encoder(schema: Schema, rules: Rules = STRICT) -> Encode:
    """Return a function from a JSON value and a header to header and Avro body; it raises Mismatch.

    Raises Mismatch itself for an invalid schema, as `convert.mapper` does.
    """
    encode: Encode = _executed(*_compiled(schema, rules))
    return encode


def compile_text_encoder(schema: Schema, rules: Rules, general: TextEncode, header: bytes) -> TextEncode | None:
    """Return a function from JSON text and a header (default: `header`) to header and Avro body.

    It passes text that it does not accept to `general`. None if `structs` has no parser for the schema, which must not
    contain decimals.
    """
    parse = structs.parser(schema, rules)
    if parse is None:
        return None
    text, names = _compiled(schema, rules, typed=True)
    names |= {"HEADER": header, "parse": parse, "general": general, "Unparsed": structs.Unparsed}
    encode: TextEncode = _executed(text, names)
    return encode


def _executed(text: str, names: dict[str, object]) -> Any:
    exec(compile(text, "<compiled encoder>", "exec"), names)
    return names["encode"]


def source(schema: Schema, rules: Rules = STRICT) -> str:
    """Return the encoder's Python source, for display."""
    return _compiled(schema, rules)[0]


_ENCODE = """\
def encode(value, header):
    v = value
    out = [header]
    try:
{statements}
        return b"".join(out)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        pass
    return header + reference(value)  # raises Mismatch with path and reason, or accepts the value
"""


_ENCODE_TEXT = """\
def encode(payload, header=HEADER):
    try:
        v = parse(payload)
        out = [header]
{statements}
        return b"".join(out)
    except (Unparsed, LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        pass
    return general(payload, header)
"""


def _compiled(schema: Schema, rules: Rules, *, typed: bool = False) -> tuple[str, dict[str, object]]:
    schemas = schema.get("__named_schemas", {}) if isinstance(schema, dict) else {}
    reference = _reference(schema, rules)  # first: it rejects an invalid schema

    def part(schema: Schema) -> Callable[[Json], bytes]:
        # A union cannot contain the named types that it refers to; a record of one field is encoded as that field.
        field = {"name": "value", "type": schema}
        carrier = {"type": "record", "name": "Carrier", "fields": [field]}
        encode = _reference({**carrier, "__fastavro_parsed": True, "__named_schemas": schemas}, rules)
        return lambda value: encode({"value": value})

    emitter = Emitter(schemas, rules, part, typed=typed)
    statements, functions = emitter.generate(schema)
    within = textwrap.indent("\n".join(statements), " " * 8)
    text = (_ENCODE_TEXT if typed else _ENCODE).format(statements=within) + functions
    return text, {**emitter.names, "reference": reference}


def _reference(schema: Schema, rules: Rules) -> Callable[[Json], bytes]:
    """Return the reference encoder, made of the mapping and fastavro's writer."""
    to_datum = convert.mapper(schema, rules)

    def reference(value: Json) -> bytes:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, to_datum(value))
        return buffer.getvalue()

    return reference
