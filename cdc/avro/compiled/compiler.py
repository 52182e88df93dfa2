"""Compile a schema to Python encoders: JSON value in, header and Avro body or JSON text out, by the mapping's rules.

fastavro's generic writer takes more time than all other work on an event. Compiled code is specific to its schema, and
leaves unusual values to the mapping and a generic writer, fastavro's or that of `cdc.avro.json_values`, which alone
decide what is rejected, and why: if a value does not match, it is encoded again by them. The same applies to a part of
a value for which a union has several candidate branches.

An encoder of JSON text also parses by the schema, if `cdc.avro.compiled.structs` has a type for it.
"""

import io
import textwrap
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import fastavro
from fastavro.types import DictSchema, Schema

from cdc.avro import json_values
from cdc.avro.compiled import structs
from cdc.avro.compiled.avro_emitter import AvroEmitter
from cdc.avro.compiled.emitter import Emitter
from cdc.avro.compiled.json_emitter import JsonEmitter
from cdc.avro.json_values import JsonForm
from cdc.avro.mapping import convert
from cdc.avro.mapping.rules import STRICT, Rules

Json = object
Encode = Callable[[Json, bytes], bytes]


class TextEncode(Protocol):
    """A function from JSON text, and optionally a header, to header and encoded value."""

    def __call__(self, payload: bytes, header: bytes = ...) -> bytes: ...


def compile_encoder(schema: Schema, rules: Rules = STRICT, form: JsonForm | None = None) -> Encode:
    """Return a function from a JSON value and a header to header and Avro body, or JSON with `form`.

    It raises Mismatch. Raises Mismatch itself for an invalid schema, as `convert.mapper` does, and for defaults that
    JSON cannot have.
    """
    encode: Encode = _executed(*_compiled(schema, rules, form))
    return encode


def compile_text_encoder(
    schema: Schema, rules: Rules, general: TextEncode, header: bytes, form: JsonForm | None = None
) -> TextEncode | None:
    """Return a function from JSON text and a header (default: `header`) to what `compile_encoder` returns.

    It passes text that it does not accept to `general`. None if `structs` has no parser for the schema, which must not
    contain decimals.
    """
    parse = structs.parser(schema, rules)
    if parse is None:
        return None
    text, names = _compiled(schema, rules, form, typed=True)
    names |= {"HEADER": header, "parse": parse, "general": general, "Unparsed": structs.Unparsed}
    encode: TextEncode = _executed(text, names)
    return encode


def _executed(text: str, names: dict[str, object]) -> Any:
    exec(compile(text, "<compiled encoder>", "exec"), names)
    return names["encode"]


def source(schema: Schema, rules: Rules = STRICT, form: JsonForm | None = None) -> str:
    """Return the encoder's Python source, for display."""
    return _compiled(schema, rules, form)[0]


_ENCODE = """\
def encode(value, header):
    v = value
    try:
        {start}
{statements}
        return {result}
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        pass
    return header + reference(value)  # raises Mismatch with path and reason, or accepts the value
"""


_ENCODE_TEXT = """\
def encode(payload, header=HEADER):
    try:
        v = parse(payload)
        {start}
{statements}
        return {result}
    except (Unparsed, LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        pass
    return general(payload, header)
"""


def _compiled(
    schema: Schema, rules: Rules, form: JsonForm | None, *, typed: bool = False
) -> tuple[str, dict[str, object]]:
    schemas = schema.get("__named_schemas", {}) if isinstance(schema, dict) else {}
    emitter: Emitter
    if form is None:
        reference = _avro(schema, rules)  # first: it rejects an invalid schema
        emitter = AvroEmitter(schemas, rules, partial(_avro_part, schemas=schemas, rules=rules), typed=typed)
        start, result = "out = [header]", 'b"".join(out)'
    else:
        part = partial(_json, schemas=schemas, rules=rules, form=form)
        text_of = part(schema)
        reference = lambda value: text_of(value).encode()  # noqa: E731 - as the other one is a function, too
        emitter = JsonEmitter(schemas, rules, part, form=form, typed=typed)
        start, result = "out = []", 'header + "".join(out).encode()'
    statements, functions = emitter.generate(schema)
    within = textwrap.indent("\n".join(statements), " " * 8)
    text = (_ENCODE_TEXT if typed else _ENCODE).format(start=start, statements=within, result=result) + functions
    return text, {**emitter.names, "reference": reference}


def _avro(schema: Schema, rules: Rules) -> Callable[[Json], bytes]:
    """Return the reference encoder of Avro, made of the mapping and fastavro's writer."""
    to_datum = convert.mapper(schema, rules)

    def reference(value: Json) -> bytes:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, to_datum(value))
        return buffer.getvalue()

    return reference


def _avro_part(schema: Schema, schemas: dict[str, DictSchema], rules: Rules) -> Callable[[Json], bytes]:
    # A union cannot contain the named types that it refers to; a record of one field is encoded as that field.
    carrier = {"type": "record", "name": "Carrier", "fields": [{"name": "value", "type": schema}]}
    encode = _avro({**carrier, "__fastavro_parsed": True, "__named_schemas": schemas}, rules)
    return lambda value: encode({"value": value})


def _json(schema: Schema, schemas: dict[str, DictSchema], rules: Rules, form: JsonForm) -> Callable[[Json], str]:
    """Return the reference encoder of JSON, made of the mapping and the writer of `json_values`."""
    to_datum = convert.mapper(schema, rules, schemas)
    write = json_values.writer(schema, schemas, rules, form)
    return lambda value: write(to_datum(value))
