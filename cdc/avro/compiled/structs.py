"""Translate contracts to msgspec types, which makes parsing specific to the schema.

orjson returns dicts, whose fields and types the encoder must check. msgspec returns structs, and checks fields and
types while it parses, which is faster (docs/speed.md). It rejects nothing itself: a payload that it does not accept is
parsed again by orjson, and the mapping reports the reason. So it must never accept more than they do, nor interpret a
value differently. It is as strict about JSON as orjson; a whole number of more than 64 bits, which orjson parses as a
float, is out of range for int and long. Schemas for which the two could differ raise `Untyped`.
"""

from collections.abc import Callable
from typing import Any, Final, Union

import msgspec
from fastavro.types import DictSchema, Schema

from cdc.avro.compiled import source
from cdc.avro.mapping import branches
from cdc.avro.mapping.convert import resolved, type_name
from cdc.avro.mapping.rules import Rules

ABSENT: Final = msgspec.UNSET
"""The value of an absent field that has a default."""

Unparsed = msgspec.DecodeError  # raised for payloads that do not match the type

_LEAVES: Final = frozenset({type(None), bool, int, str})  # types that JSON and Python share exactly


class Untyped(Exception):
    """No msgspec type accepts exactly the JSON values that the mapping accepts for a schema."""


def attribute(number: int) -> str:
    """Return the attribute of a record's field by its index from 0, since field names may be any text."""
    return f"f{number}"


def parser(schema: Schema, rules: Rules) -> Callable[[bytes], object] | None:
    """Return a function from JSON text to structs, which raises Unparsed and ValueError; None if no type is exact.

    The schema must not have decimals, because msgspec would parse their numbers as float.
    """
    if rules.unknown_fields == "ignore":
        return None  # msgspec does not validate the fields that it skips, so it would accept invalid JSON
    schemas = schema.get("__named_schemas", {}) if isinstance(schema, dict) else {}
    try:
        return msgspec.json.Decoder(_Types(schemas).of(schema)).decode
    except (Untyped, TypeError, ValueError):  # msgspec raises the last two for types that it does not support
        return None


class _Types:
    """Builds the types of one schema, with one struct per record."""

    def __init__(self, schemas: dict[str, DictSchema]) -> None:
        self._schemas = schemas
        self._structs: dict[str, Any] = {}

    def of(self, schema: Schema) -> Any:
        """Return the msgspec type of a schema's values. Raises Untyped."""
        definition = resolved(schema, self._schemas)
        if isinstance(definition, list):
            return self._union(definition)
        kind = definition["type"]
        if kind in {"record", "error"}:
            return self._record(definition)
        if kind == "array":
            return list[self.of(definition["items"])]  # type: ignore[misc]  # a type created at run time
        if kind == "map":
            return dict[str, self.of(definition["values"])]  # type: ignore[misc]  # likewise
        if kind in {"float", "double"}:
            return float
        found = branches.takes(definition, self._schemas)
        if not found <= _LEAVES:
            raise Untyped
        return Union[tuple(found)]  # noqa: UP007 - the types are known at run time only

    def _union(self, schema: list[Schema]) -> Any:
        others = [branch for branch in schema if type_name(branch) != "null"]
        if len(others) != 1:
            raise Untyped  # only the mapping chooses between branches
        return self.of(others[0]) if len(schema) == 1 else self.of(others[0]) | None

    def _record(self, schema: DictSchema) -> Any:
        name = schema["name"]
        if name not in self._structs:
            self._structs[name] = None  # marks a record as being built: one that contains itself is Untyped
            fields = [self._field(number, field) for number, field in enumerate(schema["fields"])]
            # Structs contain no reference cycles, so the garbage collector need not track them.
            self._structs[name] = msgspec.defstruct(
                source.word(name), fields, forbid_unknown_fields=True, kw_only=True, gc=False
            )
        if self._structs[name] is None:
            raise Untyped
        return self._structs[name]

    def _field(self, number: int, field: DictSchema) -> tuple[str, Any, Any]:
        name, kind = field["name"], self.of(field["type"])
        if "default" in field:
            kind = Union[kind, msgspec.UnsetType]  # noqa: UP007 - `|` does not support all of these types
            return attribute(number), kind, msgspec.field(name=name, default=ABSENT)
        return attribute(number), kind, msgspec.field(name=name)
