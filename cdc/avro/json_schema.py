"""The JSON Schema of what `cdc.avro.json_values` writes for a contract.

<https://json-schema.org/draft/2020-12/schema>
"""

from typing import Any, Final

from fastavro.types import DictSchema, Schema

from cdc.avro.json_values import JsonForm
from cdc.avro.mapping import logical
from cdc.avro.mapping.convert import NAMED, resolved
from cdc.avro.mapping.rules import Rules

Node = dict[str, Any]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DATE: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK: Final = r"[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{%d}"
_BYTE: Final = r"[\u0000-\u00ff]"
_BASE64: Final = "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_HEX: Final = "[0-9a-f]"
_RANGES: Final = {"int": 1 << 31, "long": 1 << 63}
_NOT_FINITE: Final = ("NaN", "Infinity", "-Infinity")


def of(schema: DictSchema, rules: Rules, form: JsonForm) -> Node:
    """Return the JSON Schema for data of a schema parsed by fastavro, with named types in `$defs` by full name."""
    definitions: dict[str, Node] = {}
    root = _Translator(schema.get("__named_schemas", {}), rules, form, definitions).node(schema)
    return {"$schema": _DIALECT, **root, "$defs": definitions}


class _Translator:
    """Translates one schema, and collects its named types in `definitions`."""

    def __init__(
        self, schemas: dict[str, DictSchema], rules: Rules, form: JsonForm, definitions: dict[str, Node]
    ) -> None:
        self._schemas = schemas
        self._rules = rules
        self._form = form
        self._definitions = definitions

    def node(self, schema: Schema) -> Node:
        definition = resolved(schema, self._schemas)
        if isinstance(definition, list):
            return {"anyOf": [self.node(branch) for branch in definition]}
        if definition["type"] not in NAMED:
            return self._node(definition)
        name = definition["name"]
        if name not in self._definitions:
            self._definitions[name] = {}  # the type may contain itself
            doc = {"description": definition["doc"]} if definition.get("doc") else {}
            self._definitions[name] |= doc | self._node(definition)
        return {"$ref": f"#/$defs/{name}"}

    def _node(self, definition: DictSchema) -> Node:
        kind = definition["type"]
        if logical.mapper(definition):
            return self._logical(definition)
        if kind in {"record", "error"}:
            return self._record(definition)
        if kind == "array":
            return {"type": "array", "items": self.node(definition["items"])}
        if kind == "map":
            return {"type": "object", "additionalProperties": self.node(definition["values"])}
        if kind == "enum":
            return {"enum": list(definition["symbols"])}
        if kind in {"bytes", "fixed"}:
            return self._bytes(definition.get("size"))
        if kind == "long" and self._form.longs == "string":
            return _text("(0|-?[1-9][0-9]{0,18})")
        if kind in _RANGES:
            return {"type": "integer", "minimum": -_RANGES[kind], "maximum": _RANGES[kind] - 1}
        if kind in {"float", "double"}:
            return {"anyOf": [{"type": "number"}, {"enum": list(_NOT_FINITE)}]}
        return {"type": kind}  # null, boolean and string have the same names

    def _record(self, definition: DictSchema) -> Node:
        properties: dict[str, Node] = {}
        for field in definition["fields"]:
            doc = {"description": field["doc"]} if field.get("doc") else {}
            properties[field["name"]] = doc | self.node(field["type"])
        return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}

    def _bytes(self, size: int | None) -> Node:
        if self._rules.bytes_as == "avro-json":
            return _text(f"{_BYTE}{'*' if size is None else f'{{{size}}}'}")
        length = -(-(size or 0) // 3) * 4
        sized = {} if size is None else {"minLength": length, "maxLength": length}
        return {**_text(_BASE64), **sized, "contentEncoding": "base64"}

    def _logical(self, definition: DictSchema) -> Node:
        name: str = definition["logicalType"]
        if name == "decimal":
            return self._decimal(definition["precision"], definition.get("scale", 0))
        if name == "uuid":
            return {**_text(f"{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"), "format": "uuid"}
        if name == "duration":
            amount = {"type": "integer", "minimum": 0, "maximum": (1 << 32) - 1}
            units = ("months", "days", "millis")
            properties = dict.fromkeys(units, amount)
            return {
                "type": "object",
                "properties": properties,
                "required": [*units],
                "additionalProperties": False,
            }
        if name == "date":
            return {**_text(_DATE), "format": "date"}
        family, _, unit = name.rpartition("-")
        clock = _CLOCK % logical.DIGITS[unit]
        if family == "time":
            return _text(clock)
        if family == "timestamp":
            return {**_text(f"{_DATE}T{clock}Z"), "format": "date-time"}
        return _text(f"{_DATE}T{clock}")

    def _decimal(self, precision: int, scale: int) -> Node:
        if self._form.decimals == "number":
            return {
                "type": "number",
                "exclusiveMinimum": -(10 ** (precision - scale)),
                "exclusiveMaximum": 10 ** (precision - scale),
            }
        whole = precision - scale
        digits = f"(0|[1-9][0-9]{{0,{whole - 1}}})" if whole else "0"
        return _text(f"-?{digits}" + (rf"\.[0-9]{{{scale}}}" if scale else ""))


def _text(pattern: str) -> Node:
    return {"type": "string", "pattern": f"^{pattern}$"}
