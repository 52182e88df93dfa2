"""Encoders compiled from a schema to Python: JSON value in, header and Avro body out, as the mapping demands.

fastavro's generic writer costs more than all else that is done with an event. The compiled code knows the schema, and
leaves everything unusual to the mapping and fastavro's writer, which so are the judge of what is refused, and why:
it stops at whatever does not fit, and the value starts again there. That is a whole value in doubt, or a part of it
where more than one branch of a union may take that part.

An encoder of JSON text knows the schema when it parses, too, where `cdc.avro.compiled.structs` has a type for it.
"""

import io
import textwrap
from collections.abc import Callable
from typing import Any, Protocol

import fastavro
from fastavro.types import Schema

from cdc.avro.compiled import structs
from cdc.avro.compiled.emitter import Emitter
from cdc.avro.mapping import convert as mapping
from cdc.avro.mapping.rules import STRICT, Rules

Json = object
Encode = Callable[[Json, bytes], bytes]


class TextEncode(Protocol):
    """JSON text to header and body."""

    def __call__(self, payload: bytes, header: bytes = ...) -> bytes: ...


def compile_encoder(schema: Schema, rules: Rules = STRICT) -> Encode:
    """A function from a JSON value and a header to the header and the Avro body.

    It raises Mismatch, and what else `mapping.mapper` raises. So does this, for a schema that cannot be right.
    """
    encode: Encode = _executed(*_compiled(schema, rules))
    return encode


def compile_text_encoder(schema: Schema, rules: Rules, general: TextEncode, header: bytes) -> TextEncode | None:
    """A function from JSON text and a header, which is `header` unless given, to the header and the Avro body.

    What it does not take goes to `general`. None when no parser can know the schema; it must not have decimals.
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
    """The encoder's Python source, to be read."""
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
    return header + reference(value)  # says what does not fit, and where; or takes it
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
    reference = _reference(schema, rules)  # first: it refuses what is no schema

    def part(schema: Schema) -> Callable[[Json], bytes]:
        # A union cannot carry the named types that it refers to; a record of one field has the bytes of that field.
        field = {"name": "value", "type": schema}
        carrier = {"type": "record", "name": "Carrier", "fields": [field]}
        encode = _reference({**carrier, "__fastavro_parsed": True, "__named_schemas": schemas}, rules)
        return lambda value: encode({"value": value})

    emitter = Emitter(schemas, rules, part, typed=typed)
    statements, functions = emitter.source(schema)
    within = textwrap.indent("\n".join(statements), " " * 8)
    text = (_ENCODE_TEXT if typed else _ENCODE).format(statements=within) + functions
    return text, {**emitter.names, "reference": reference}


def _reference(schema: Schema, rules: Rules) -> Callable[[Json], bytes]:
    """The mapping and fastavro's writer."""
    convert = mapping.mapper(schema, rules)

    def reference(value: Json) -> bytes:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, convert(value))
        return buffer.getvalue()

    return reference
