"""Contracts as msgspec's types: a parser of payloads that knows the schema.

Where orjson makes dicts, of which the encoder must ask everything, msgspec makes structs, and has asked for the fields
and their types when it is done: together 0.8 us less for an order of 200 bytes. It judges nothing: what it does not
take is parsed by orjson, and the mapping says why. So it must never take more than they do, or as something else.
It reads JSON as strictly as orjson, and a whole number of more than 64 bits, which orjson makes a float of, is in the
range of no int or long. What it cannot have in common with the mapping is `Untyped`.
"""

from collections.abc import Callable
from typing import Any, Final, Union

import msgspec
from fastavro.types import DictSchema, Schema

from cdc.avro.compiled import source as lines
from cdc.avro.mapping import branches
from cdc.avro.mapping.convert import resolved, type_name
from cdc.avro.mapping.rules import Rules

ABSENT: Final = msgspec.UNSET
"""The value of a field that is not there, and has a default."""

Unparsed = msgspec.DecodeError  # whatever the payload has that its type has not

_LEAVES: Final = frozenset({type(None), bool, int, str})  # what JSON has as Python has it


class Untyped(Exception):
    """No type of msgspec takes what the mapping takes of a schema, or only that."""


def attribute(number: int) -> str:
    """Where a struct has the field of a record, counted from 0: names of fields may be anything."""
    return f"f{number}"


def parser(schema: Schema, rules: Rules) -> Callable[[bytes], object] | None:
    """A function from JSON text to structs; it raises Unparsed and ValueError. None where there is no such type.

    A schema must not have decimals: their numbers would pass through floats.
    """
    if rules.unknown_fields == "ignore":
        return None  # msgspec does not read what it passes over, and so would take what is no JSON
    schemas = schema.get("__named_schemas", {}) if isinstance(schema, dict) else {}
    try:
        return msgspec.json.Decoder(_Types(schemas).of(schema)).decode
    except (Untyped, TypeError, ValueError):  # the last two are msgspec's: it has no such type either
        return None


class _Types:
    """The types of one schema; each record has one struct."""

    def __init__(self, schemas: dict[str, DictSchema]) -> None:
        self._schemas = schemas
        self._structs: dict[str, Any] = {}

    def of(self, schema: Schema) -> Any:
        """The type of a value. Raises Untyped."""
        definition = resolved(schema, self._schemas)
        if isinstance(definition, list):
            return self._union(definition)
        kind = definition["type"]
        if kind in {"record", "error"}:
            return self._record(definition)
        if kind == "array":
            return list[self.of(definition["items"])]  # type: ignore[misc]  # a type made here
        if kind == "map":
            return dict[str, self.of(definition["values"])]  # type: ignore[misc]  # likewise
        if kind in {"float", "double"}:
            return float
        found = branches.takes(definition, self._schemas)
        if not found <= _LEAVES:
            raise Untyped
        return Union[tuple(found)]  # noqa: UP007 - of types that are found here

    def _union(self, schema: list[Schema]) -> Any:
        others = [branch for branch in schema if type_name(branch) != "null"]
        if len(others) != 1:
            raise Untyped  # which branch it is, is not for a parser to say
        return self.of(others[0]) if len(schema) == 1 else self.of(others[0]) | None

    def _record(self, schema: DictSchema) -> Any:
        name = schema["name"]
        if name not in self._structs:
            self._structs[name] = None  # until it is made: a record within itself is Untyped
            fields = [self._field(number, field) for number, field in enumerate(schema["fields"])]
            # A struct holds no cycle: the collector need not know of it.
            self._structs[name] = msgspec.defstruct(
                lines.word(name), fields, forbid_unknown_fields=True, kw_only=True, gc=False
            )
        if self._structs[name] is None:
            raise Untyped
        return self._structs[name]

    def _field(self, number: int, field: DictSchema) -> tuple[str, Any, Any]:
        name, kind = field["name"], self.of(field["type"])
        if "default" in field:
            kind = Union[kind, msgspec.UnsetType]  # noqa: UP007 - `|` is not of all types that are made
            return attribute(number), kind, msgspec.field(name=name, default=ABSENT)
        return attribute(number), kind, msgspec.field(name=name)
