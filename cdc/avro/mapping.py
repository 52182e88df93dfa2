"""JSON values to Avro data, strictly: what does not fit the schema exactly is refused, never bent.

fastavro's writer alone is not strict: it writes 3,000,000,000 as an int, 1.5 into a long as 1 and true as 1, and
`validate` lets unknown fields pass. So the rules live here, and the writer only sees what has passed them.

`mapper(schema)` turns a schema parsed by fastavro into a function from a JSON value to the datum that
`fastavro.schemaless_writer` takes. It raises Mismatch with the JSON path of the first value that does not fit.
Schemas: <https://avro.apache.org/docs/1.12.0/specification/>
"""

import math
import struct
from collections.abc import Callable
from decimal import Decimal
from itertools import chain
from typing import Any, Final

from cdc.avro import logical
from cdc.avro.mismatch import Mismatch, shown

Json = Any  # None, bool, int, float or Decimal, str, list or dict, as a JSON parser makes them
Schema = Any  # what fastavro.parse_schema returns: str, list (union) or dict
Mapper = Callable[[Json], Any]

NAMED: Final = frozenset({"record", "enum", "fixed", "error"})
_ABSENT: Final = object()


def mapper(schema: Schema) -> Mapper:
    """The mapping of JSON values to `schema`. Raises Mismatch when a field's default does not fit its type."""
    return _Builder(schema.get("__named_schemas", {}) if isinstance(schema, dict) else {}).build(schema)


def type_name(schema: Schema) -> str:
    """What a union calls this branch: the full name of a named type, else the type."""
    if isinstance(schema, dict):
        return str(schema["name"] if schema["type"] in NAMED else type_name(schema["type"]))
    return str(schema)


class _Builder:
    """Builds mappers, each named type once and references when they are first met, so that recursion ends."""

    def __init__(self, schemas: dict[str, Schema], *, logical_types: bool = True) -> None:
        self._schemas = schemas
        self._logical_types = logical_types
        self._named: dict[str, Mapper] = {}

    def build(self, schema: Schema) -> Mapper:
        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            return PRIMITIVES.get(schema) or self._reference(schema)
        kind = schema["type"]
        if isinstance(kind, (dict, list)):
            return self.build(kind)
        complex_types = {
            "record": self._record,
            "error": self._record,
            "enum": self._enum,
            "fixed": self._fixed,
            "array": self._array,
            "map": self._map,
        }
        underlying = complex_types[kind](schema) if kind in complex_types else self.build(kind)
        if self._logical_types:
            return logical.mapper(schema) or underlying
        return underlying

    def _reference(self, name: str) -> Mapper:
        def reference(value: Json) -> Any:
            if name not in self._named:
                self.build(self._schemas[name])
            return self._named[name](value)

        return reference

    def _record(self, schema: Schema) -> Mapper:
        fields = [(field["name"], self.build(field["type"]), self._default(field)) for field in schema["fields"]]
        names = {name for name, _, _ in fields}

        def record(value: Json) -> dict[str, Any]:
            if not isinstance(value, dict):
                raise Mismatch(f"{shown(value)} is not an object ({schema['name']})")
            datum = {}
            for name, convert, default in fields:
                given = value.get(name, _ABSENT)
                if given is not _ABSENT:
                    try:
                        datum[name] = convert(given)
                    except Mismatch as mismatch:
                        raise mismatch.within(f".{name}") from None
                elif default is _ABSENT:
                    raise Mismatch("is missing and has no default").within(f".{name}")
                else:
                    datum[name] = default
            if len(value) > len(fields) or not names.issuperset(value):
                unknown = next(name for name in value if name not in names)
                raise Mismatch(f"is not a field of {schema['name']}").within(f".{unknown}")
            return datum

        self._named[schema["name"]] = record
        return record

    def _enum(self, schema: Schema) -> Mapper:
        symbols = frozenset(schema["symbols"])
        default = schema.get("default")

        def enum(value: Json) -> str:
            if isinstance(value, str):
                if value in symbols:
                    return value
                if default is not None:
                    return str(default)
            raise Mismatch(f"{shown(value)} is not a symbol of {schema['name']}")

        self._named[schema["name"]] = enum
        return enum

    def _fixed(self, schema: Schema) -> Mapper:
        def fixed(value: Json) -> bytes:
            data = _bytes(value)
            if len(data) != schema["size"]:
                raise Mismatch(f"{len(data)} bytes are not the {schema['size']} of {schema['name']}")
            return data

        self._named[schema["name"]] = logical.mapper(schema) or fixed if self._logical_types else fixed
        return fixed

    def _array(self, schema: Schema) -> Mapper:
        convert = self.build(schema["items"])

        def array(value: Json) -> list[Any]:
            if not isinstance(value, list):
                raise Mismatch(f"{shown(value)} is not an array")
            items: list[Any] = []
            try:
                items.extend(map(convert, value))
            except Mismatch as mismatch:
                raise mismatch.within(f"[{len(items)}]") from None
            return items

        return array

    def _map(self, schema: Schema) -> Mapper:
        convert = self.build(schema["values"])

        def mapping(value: Json) -> dict[str, Any]:
            if not isinstance(value, dict):
                raise Mismatch(f"{shown(value)} is not an object")
            datum = {}
            for key, item in value.items():
                try:
                    datum[key] = convert(item)
                except Mismatch as mismatch:
                    raise mismatch.within(f"[{key!r}]") from None
            return datum

        return mapping

    def _union(self, schema: Schema) -> Mapper:
        """Natural values first, the first branch that takes one; then Avro's tagged form `{"branch": value}`."""
        # A default of an enum must not take a value that another branch fits, so it is tried last.
        branches = [
            (type_name(branch), self.build(self._without_default(branch))) for branch in schema if branch != "null"
        ]
        lenient = [
            (type_name(branch), self.build(branch)) for branch in schema if self._without_default(branch) is not branch
        ]
        nullable = len(branches) < len(schema)
        tags = dict(branches)

        def union(value: Json) -> tuple[str, Any] | None:
            if value is None and nullable:
                return None
            refusal = Mismatch("a union of nothing")
            for name, convert in chain(branches, lenient):
                try:
                    return name, convert(value)
                except Mismatch as mismatch:
                    refusal = mismatch
            if isinstance(value, dict) and len(value) == 1:
                ((tag, tagged),) = value.items()
                if tag in tags:
                    try:
                        return tag, tags[tag](tagged)
                    except Mismatch as mismatch:
                        raise mismatch.within(f".{tag}") from None
            if len(branches) == 1:
                raise refusal
            raise Mismatch(f"{shown(value)} fits no branch of the union of {', '.join(tags)}")

        return union

    def _without_default(self, branch: Schema) -> Schema:
        """An enum without its default; any other branch as it is."""
        schema = self._schemas.get(branch, branch) if isinstance(branch, str) else branch
        if isinstance(schema, dict) and schema["type"] == "enum" and "default" in schema:
            return {name: value for name, value in schema.items() if name != "default"}
        return branch

    def _default(self, field: Schema) -> Any:
        """A field's default as a datum: Avro's own JSON encoding, so without the mapping of logical types."""
        if "default" not in field:
            return _ABSENT
        try:
            return _Builder(self._schemas, logical_types=False).build(field["type"])(field["default"])
        except Mismatch as mismatch:
            raise mismatch.within(f".{field['name']} (default)") from None


def _null(value: Json) -> None:
    if value is not None:
        raise Mismatch(f"{shown(value)} is not null")


def _boolean(value: Json) -> bool:
    if value is True or value is False:
        return bool(value)
    raise Mismatch(f"{shown(value)} is not a boolean")


def _integer(name: str, bits: int) -> Mapper:
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1

    def integer(value: Json) -> int:
        if type(value) is not int:  # bool is an int to Python, not to Avro
            raise Mismatch(f"{shown(value)} is not {'an int' if name == 'int' else 'a long'}")
        if not low <= value <= high:
            raise Mismatch(f"{value} is out of range for {name}")
        return value

    return integer


def _double(value: Json) -> float:
    if type(value) is float:
        return value
    if type(value) is int or isinstance(value, Decimal):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isinf(number):
            return number
        raise Mismatch(f"{shown(value)} is out of range for double")
    raise Mismatch(f"{shown(value)} is not a number")


def _float(value: Json) -> float:
    number = _double(value)
    try:
        struct.pack("<f", number)
    except OverflowError:
        raise Mismatch(f"{shown(value)} is out of range for float") from None
    return number


def _string(value: Json) -> str:
    if not isinstance(value, str):
        raise Mismatch(f"{shown(value)} is not a string")
    return value


def _bytes(value: Json) -> bytes:
    """Avro's JSON encoding of bytes: one character of code 0 to 255 for each."""
    if not isinstance(value, str):
        raise Mismatch(f"{shown(value)} is not a string of bytes")
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        raise Mismatch(f"{shown(value)} holds characters above U+00FF, which are no bytes") from None


PRIMITIVES: Final[dict[str, Mapper]] = {
    "null": _null,
    "boolean": _boolean,
    "int": _integer("int", 32),
    "long": _integer("long", 64),
    "float": _float,
    "double": _double,
    "string": _string,
    "bytes": _bytes,
}
