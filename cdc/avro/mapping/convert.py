"""Convert JSON values to Avro data: exactly, or the value is rejected.

fastavro's writer alone is not strict: it writes 3,000,000,000 as an int, 1.5 into a long as 1 and true as 1, and its
`validate` accepts unknown fields. So this module enforces the rules, and the writer only receives valid data.

`mapper(schema, rules)` turns a schema parsed by fastavro into a function from a JSON value to the datum that
`fastavro.schemaless_writer` takes. It raises Mismatch with the JSON path of the first value that does not fit.
A value in another notation of the same value, such as `"5"` for a long, is converted by `conversions`, but not where a
branch of a union accepts it as it is: so each union has its branches twice, the first time without conversions.
`compiler` produces the same bytes faster; docs/mapping.md lists how each JSON value is read.
Schemas: <https://avro.apache.org/docs/1.12.0/specification/>
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from fastavro.types import DictSchema, Schema

from cdc.avro.mapping import conversions, logical, unions
from cdc.avro.mapping.mismatch import Mismatch, shown
from cdc.avro.mapping.primitives import PRIMITIVES, avro_json_bytes, base64_bytes, symbol, text
from cdc.avro.mapping.rules import STRICT, Rules

Json = object  # None, bool, int, float or Decimal, str, list or dict, as a JSON parser makes them
Mapper = Callable[[Json], object]

NAMED: Final = frozenset({"record", "enum", "fixed", "error"})
_DEFINED: Final = NAMED | {"array", "map"} | PRIMITIVES.keys()
_ABSENT: Final = object()
_PENDING: Final = object()  # a default that is not converted yet


def mapper(schema: Schema, rules: Rules = STRICT, schemas: dict[str, DictSchema] | None = None) -> Mapper:
    """Return a function from a JSON value to the datum that fastavro writes; it raises Mismatch.

    `schemas` are the named types, for a schema that is a part of another one.

    Raises Mismatch itself if a field's default does not match its type, or a union has two branches that Avro cannot
    distinguish.
    """
    if schemas is None:
        schemas = schema.get("__named_schemas", {}) if isinstance(schema, dict) else {}
    return _Builder(schemas, rules, as_it_is=_Builder(schemas, rules)).build(schema)


def type_name(schema: Schema) -> str:
    """Return the name of a type as a branch of a union: the full name of a named type, else the type."""
    if isinstance(schema, dict):
        return str(schema["name"] if schema["type"] in NAMED else type_name(schema["type"]))
    return "union" if isinstance(schema, list) else str(schema)


def resolved(schema: Schema, schemas: dict[str, DictSchema]) -> Any:
    """Return the definition behind a reference or a nested `type`; a primitive becomes `{"type": name}`."""
    while True:
        if isinstance(schema, str):
            if schema in PRIMITIVES:
                return {"type": schema}
            schema = schemas[schema]
        elif isinstance(schema, list) or (isinstance(schema["type"], str) and schema["type"] in _DEFINED):
            return schema
        else:
            schema = schema["type"]


def aliases(record: DictSchema) -> dict[str, str]:
    """Map aliases to field names, without aliases that are ambiguous or another field's name."""
    names = {field["name"] for field in record["fields"]}
    times = Counter(alias for field in record["fields"] for alias in set(field.get("aliases", ())))
    return {
        alias: field["name"]
        for field in record["fields"]
        for alias in field.get("aliases", ())
        if times[alias] == 1 and alias not in names
    }


def renamed(value: dict[str, Json], by_alias: dict[str, str]) -> dict[str, Json]:
    """Replace aliases in an object by field names. Raises Mismatch if a field is given twice."""
    fields = {}
    for key, given in value.items():
        name = by_alias.get(key, key)
        if name in fields or (name != key and name in value):
            raise Mismatch(f"is given twice: {key!r} is an alias of {name!r}").within(f".{name}")
        fields[name] = given
    return fields


class _Builder:
    """Builds mappers: each named type once, and references when they are first called, so that recursion ends.

    With `as_it_is`, a builder without it, the mappers convert values that match in another notation only.
    """

    def __init__(
        self,
        schemas: dict[str, DictSchema],
        rules: Rules,
        *,
        logical_types: bool = True,
        as_it_is: "_Builder | None" = None,
    ) -> None:
        self._schemas = schemas
        self._rules = rules
        self._as_it_is = as_it_is
        self._bytes = avro_json_bytes if rules.bytes_as == "avro-json" else base64_bytes
        self._logical_types = logical_types
        self._named: dict[str, Mapper] = {}
        self._defaults = _Builder(schemas, STRICT, logical_types=False) if logical_types else self

    def build(self, schema: Schema) -> Mapper:
        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            return self._single({"type": schema}) if schema in PRIMITIVES else self._reference(schema)
        kind = schema["type"]
        if isinstance(kind, (dict, list)) or kind not in _DEFINED:
            return self.build(kind)
        if kind in NAMED and schema["name"] in self._named:
            return self._named[schema["name"]]
        complex_types = {
            "record": self._record,
            "error": self._record,
            "enum": self._enum,
            "fixed": self._fixed,
            "array": self._array,
            "map": self._map,
        }
        return complex_types[kind](schema) if kind in complex_types else self._single(schema)

    def _single(self, schema: DictSchema) -> Mapper:
        """Return the mapping of a type without parts, with its conversions and its logical type if they apply."""
        if schema["type"] == "fixed":
            plain = self._plain_fixed(schema)
        else:
            plain = self._bytes if schema["type"] == "bytes" else PRIMITIVES[schema["type"]]
        as_it_is = logical.mapper(schema) or plain if self._logical_types else plain
        return conversions.mapper(schema, as_it_is, self._rules) if self._as_it_is else as_it_is

    def _reference(self, name: str) -> Mapper:
        def reference(value: Json) -> object:
            if name not in self._named:
                self.build(self._schemas[name])
            return self._named[name](value)

        return reference

    def _record(self, schema: DictSchema) -> Mapper:
        fields: list[tuple[str, Mapper, object]] = []
        names = {field["name"] for field in schema["fields"]}
        by_alias = aliases(schema)
        strict = self._rules.unknown_fields == "reject"

        def record(value: Json) -> dict[str, object]:
            if not isinstance(value, dict):
                raise Mismatch(f"{shown(value)} is not an object ({schema['name']})")
            if by_alias and not by_alias.keys().isdisjoint(value):
                value = renamed(value, by_alias)
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
                elif default is _PENDING:
                    raise Mismatch("its default contains itself").within(f".{name}")
                else:
                    datum[name] = default
            if strict and not names.issuperset(value):
                unknown = next(name for name in value if name not in names)
                raise Mismatch(f"is not a field of {schema['name']}").within(f".{unknown}")
            return datum

        # Types first, because defaults may be of this type.
        self._named[schema["name"]] = record
        for field in schema["fields"]:
            pending = _PENDING if "default" in field else _ABSENT
            fields.append((field["name"], self.build(field["type"]), pending))
        for number, field in enumerate(schema["fields"]):
            fields[number] = (*fields[number][:2], self._default(field))
        return record

    def _enum(self, schema: DictSchema) -> Mapper:
        default = schema.get("default")
        strict = symbol(schema)
        if default is not None:
            strict(default)

        def enum(value: Json) -> str:
            known = not isinstance(value, str) or value in schema["symbols"]
            return str(strict(value) if known else default)

        self._named[schema["name"]] = strict if default is None else enum
        return self._named[schema["name"]]

    def _fixed(self, schema: DictSchema) -> Mapper:
        self._named[schema["name"]] = self._single(schema)
        return self._named[schema["name"]]

    def _plain_fixed(self, schema: DictSchema) -> Mapper:
        def fixed(value: Json) -> bytes:
            data = self._bytes(value)
            if len(data) != schema["size"]:
                raise Mismatch(f"{len(data)} bytes instead of the {schema['size']} of {schema['name']}")
            return data

        return fixed

    def _array(self, schema: DictSchema) -> Mapper:
        convert = self.build(schema["items"])

        def array(value: Json) -> list[object]:
            if not isinstance(value, list):
                raise Mismatch(f"{shown(value)} is not an array")
            items: list[object] = []
            try:
                items.extend(map(convert, value))
            except Mismatch as mismatch:
                raise mismatch.within(f"[{len(items)}]") from None
            return items

        return array

    def _map(self, schema: DictSchema) -> Mapper:
        convert = self.build(schema["values"])

        def mapping(value: Json) -> dict[str, object]:
            if not isinstance(value, dict):
                raise Mismatch(f"{shown(value)} is not an object")
            datum = {}
            for key, item in value.items():
                try:
                    datum[text(key)] = convert(item)
                except Mismatch as mismatch:
                    raise mismatch.within(f"[{key!r}]") from None
            return datum

        return mapping

    def _union(self, schema: list[Schema]) -> Mapper:
        for name, times in Counter(map(type_name, schema)).items():
            if times > 1 or name == "union":
                problem = f"has {times} branches of {name}" if times > 1 else "has a union as a branch"
                raise Mismatch(f"not an Avro schema: a union {problem}")
        branches = self._branches(schema)
        nullable = len(branches) < len(schema)
        if self._as_it_is:
            return unions.mapper(self._as_it_is._branches(schema), branches, nullable=nullable)
        return unions.mapper(branches, None, nullable=nullable)

    def _branches(self, schema: list[Schema]) -> list[unions.Branch]:
        convert = [(branch, self.build(branch)) for branch in schema]
        return [self._branch(branch, mapped) for branch, mapped in convert if type_name(branch) != "null"]

    def _branch(self, schema: Schema, convert: Mapper) -> unions.Branch:
        definition = resolved(schema, self._schemas)
        kind, name = definition["type"], type_name(schema)
        if kind == "enum":
            return unions.Branch(name, kind, None, symbol(definition), default=definition.get("default"))
        if kind in {"record", "error"}:
            ignoring = self._rules.unknown_fields == "ignore"
            names = {*aliases(definition), *(field["name"] for field in definition["fields"])}
            return unions.Branch(name, kind, None, convert, names=frozenset(names if ignoring else ()))
        applies = self._logical_types and logical.mapper(definition) is not None
        return unions.Branch(name, kind, definition["logicalType"] if applies else None, convert)

    def _default(self, field: DictSchema) -> object:
        """Convert a field's default, which is in Avro's JSON encoding and so without logical types, to a datum."""
        if "default" not in field:
            return _ABSENT
        try:
            return self._defaults.build(field["type"])(field["default"])
        except Mismatch as mismatch:
            raise mismatch.within(f".{field['name']} (default)") from None
