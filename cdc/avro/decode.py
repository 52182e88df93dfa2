"""Decode Avro bodies with the writer's schema, or resolve them to a reader's schema.

fastavro resolves the schemas, but returns defaults of the reader's fields as the JSON in the schema file, and the same
list or object for every record. This module converts defaults to the types of decoded values, and copies them.
<https://avro.apache.org/docs/1.12.0/specification/#schema-resolution>
"""

import copy
import io
from collections.abc import Iterator, Sequence
from typing import Any

import fastavro
from fastavro.read import LOGICAL_READERS
from fastavro.types import DictSchema, NamedSchemas, Schema

from cdc.avro import compatibility, files


def parsed(schema: Schema, named: Sequence[Schema] = ()) -> Schema:
    """Parse a JSON schema after the schemas `named` that it refers to. Raises ValueError if one is not valid."""
    names: NamedSchemas = {}
    try:
        for other in named:
            fastavro.parse_schema(other, named_schemas=names)
        return fastavro.parse_schema(schema, named_schemas=names)
    except files.NO_SCHEMA as error:
        raise ValueError(files.reason(error)) from None


class Reading:
    """A decoder of one writer's schema. Raises ValueError with every reason if `reader` cannot read its data."""

    def __init__(self, writer: Schema, reader: Schema | None = None) -> None:
        self.name = str(writer["name"]) if isinstance(writer, dict) and "name" in writer else str(writer)
        self._writer = writer
        self._reader = None
        self._shared = False
        if reader is not None:
            problems = compatibility.problems(reader, writer)
            if problems:
                raise ValueError(f"{self.name} cannot be read with the reader's schema: {'; '.join(problems)}")
            self._reader = copy.deepcopy(reader)
            for field, default in list(_defaults(self._reader, dict(compatibility.named(reader)))):
                field["default"] = default
                self._shared |= isinstance(default, (list, dict))

    def value(self, body: bytes) -> Any:
        """Decode one body. Raises ValueError if it does not match the writer's schema, or bytes are left over."""
        source = io.BytesIO(body)
        try:
            value = fastavro.schemaless_reader(source, self._writer, self._reader)
        except (ValueError, EOFError, IndexError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
            raise ValueError(f"the body does not match {self.name}: {type(error).__name__} {error}") from None
        left = len(body) - source.tell()
        if left:
            raise ValueError(f"the body does not match {self.name}: {left} bytes are left over")
        return copy.deepcopy(value) if self._shared else value


def _defaults(schema: Schema, named: dict[str, DictSchema]) -> Iterator[tuple[DictSchema, object]]:
    """Yield each field that has a default, with the default converted to a decoded value."""
    for record in {id(each): each for _, each in compatibility.named(schema)}.values():
        for field in record.get("fields", ()):
            if "default" in field:
                yield field, _value(field["type"], field["default"], named)


def _value(schema: Any, default: Any, named: dict[str, DictSchema]) -> Any:
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    if isinstance(schema, list):
        return _value(next(branch for branch in schema if _takes(branch, default, named)), default, named)
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind in ("bytes", "fixed"):
        default = default.encode("latin-1")
    elif kind in ("float", "double"):
        default = float(default)
    elif kind == "array":
        return [_value(schema["items"], item, named) for item in default]
    elif kind == "map":
        return {key: _value(schema["values"], item, named) for key, item in default.items()}
    elif kind in ("record", "error"):
        return {
            field["name"]: _value(field["type"], default.get(field["name"], field.get("default")), named)
            for field in schema["fields"]
        }
    logical = LOGICAL_READERS.get(f"{kind}-{schema.get('logicalType')}") if isinstance(schema, dict) else None
    return logical(default, schema, None) if logical else default


def _takes(branch: Any, default: Any, named: dict[str, DictSchema]) -> bool:
    """Return whether the JSON type of a union's default matches this branch."""
    branch = named.get(branch, branch) if isinstance(branch, str) else branch
    kind = branch["type"] if isinstance(branch, dict) else branch
    types: dict[str, type | tuple[type, ...]] = {
        "null": type(None), "boolean": bool, "int": int, "long": int, "float": (int, float), "double": (int, float),
        "array": list, "map": dict, "record": dict, "error": dict,
    }  # fmt: skip
    return isinstance(default, types.get(kind, str)) and (kind == "boolean" or not isinstance(default, bool))
