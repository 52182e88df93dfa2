"""Encoders compiled from a schema to Python: JSON value in, header and Avro body out, as the mapping demands.

fastavro's generic writer costs more than all else that is done with an event. The compiled code knows the schema, and
leaves everything unusual to the mapping and fastavro's writer, which so are the judge of what is refused, and why:
it stops at whatever does not fit, and the value starts again there. That is a whole value in doubt, or a part of it
where more than one branch of a union may take that part.
"""

import io
import textwrap
from collections.abc import Callable
from typing import Any

import fastavro

from cdc.avro import mapping
from cdc.avro.emitter import Emitter
from cdc.avro.rules import STRICT, Rules

Json = Any
Schema = Any  # what fastavro.parse_schema returns
Encode = Callable[[Json, bytes], bytes]


def compile_encoder(schema: Schema, rules: Rules = STRICT) -> Encode:
    """A function from a JSON value and a header to the header and the Avro body.

    It raises Mismatch, and what else `mapping.mapper` raises. So does this, for a schema that cannot be right.
    """
    text, names = _compiled(schema, rules)
    exec(compile(text, "<compiled encoder>", "exec"), names)
    encode: Encode = names["encode"]
    return encode


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


def _compiled(schema: Schema, rules: Rules) -> tuple[str, dict[str, Any]]:
    schemas = schema.get("__named_schemas", {}) if isinstance(schema, dict) else {}
    reference = _reference(schema, rules)  # first: it refuses what is no schema

    def part(schema: Schema) -> Callable[[Json], bytes]:
        # A union cannot carry the named types that it refers to; a record of one field has the bytes of that field.
        field = {"name": "value", "type": schema}
        carrier = {"type": "record", "name": "Carrier", "fields": [field]}
        encode = _reference({**carrier, "__fastavro_parsed": True, "__named_schemas": schemas}, rules)
        return lambda value: encode({"value": value})

    emitter = Emitter(schemas, rules, part)
    statements, functions = emitter.source(schema)
    text = _ENCODE.format(statements=textwrap.indent("\n".join(statements), " " * 8)) + functions
    return text, {**emitter.names, "reference": reference}


def _reference(schema: Schema, rules: Rules) -> Callable[[Json], bytes]:
    """The mapping and fastavro's writer."""
    convert = mapping.mapper(schema, rules)

    def reference(value: Json) -> bytes:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, convert(value))
        return buffer.getvalue()

    return reference
