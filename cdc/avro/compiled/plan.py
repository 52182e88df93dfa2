"""Translate a contract's schema to the plan that the accelerator (`native/`) compiles.

The plan is a JSON table of nodes, the root first; nodes refer to each other by index, so that a type may contain
itself. A type without a node of its own gets one that declines: the accelerator leaves such values to
`Contract.encode`, which alone rejects values. So a plan may be incomplete, but it must never accept more than the
mapping does, nor produce other bytes.
"""

import base64
import json
from decimal import Decimal
from typing import Final

from fastavro.types import DictSchema, Schema

from cdc.avro.compiled import compiler
from cdc.avro.compiled.payloads import has_decimal
from cdc.avro.json_values import JsonForm
from cdc.avro.mapping import logical
from cdc.avro.mapping.branches import plain_integers, taking, truncates
from cdc.avro.mapping.convert import aliases, resolved
from cdc.avro.mapping.rules import Rules

Node = dict[str, object]

_SAME: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "string"})
_DECLINED: Final[Node] = {"kind": "decline"}
# A union's entry for a kind of JSON value, and the Python type that a parser returns for it.
_ENTRIES: Final[dict[str, type]] = {
    "null": type(None),
    "boolean": bool,
    "text": str,
    "array": list,
    "object": dict,
}
_BITS: Final = {"int": 32, "long": 64}
_PRECISION: Final = 38  # decimal digits that fit in 128 bits
_WIDEST: Final = 4096  # bytes of a fixed decimal


def plan(schema: Schema, rules: Rules, form: JsonForm | None = None) -> bytes | None:
    """Return the plan of a contract's schema, parsed by fastavro, as JSON; None if it would decline every payload.

    With `form`, values are written as JSON.
    """
    named = schema.get("__named_schemas", {}) if isinstance(schema, dict) else {}
    planner = _Planner(named, rules, form, has_decimal(schema), truncates=truncates(schema, rules))
    planner.node(schema)
    if planner.nodes[0] == _DECLINED:
        return None
    target: dict[str, object] = {}
    if form:
        strings = {"string_longs": form.longs == "string", "string_decimals": form.decimals == "string"}
        target = {"form": "json", **strings}
    return json.dumps({**target, "nodes": planner.nodes}).encode()


class _Planner:
    """Collects the nodes of one schema, with one node per record."""

    def __init__(
        self, schemas: dict[str, DictSchema], rules: Rules, form: JsonForm | None, exact: bool, *, truncates: bool
    ) -> None:
        self._form = form
        self._times: Node = {"truncate": True} if truncates else {}
        self.nodes: list[Node] = []
        self._schemas = schemas
        self._rules = rules
        self._exact = exact  # numbers with a fraction or an exponent are parsed as Decimal, not as float
        self._records: dict[str, int] = {}

    def node(self, schema: Schema) -> int:
        """Return the index of a schema's node, and add the node unless it exists."""
        definition = resolved(schema, self._schemas)
        is_record = isinstance(definition, dict) and definition["type"] in {"record", "error"}
        if is_record and definition["name"] in self._records:
            return self._records[definition["name"]]
        number = len(self.nodes)
        self.nodes.append(_DECLINED)  # reserves its index while the nodes that it refers to are added
        if is_record:
            self._records[definition["name"]] = number
        self.nodes[number] = self._node(definition)
        return number

    def _node(self, definition: list[Schema] | DictSchema) -> Node:
        if isinstance(definition, list):
            return self._union(definition)
        kind = definition["type"]
        if logical.mapper(definition):
            return self._decimal(definition) if definition["logicalType"] == "decimal" else self._logical(definition)
        if kind in {"record", "error"}:
            return self._record(definition)
        if kind == "array":
            return {"kind": kind, "items": self.node(definition["items"])}
        if kind == "map":
            return {"kind": kind, "values": self.node(definition["values"])}
        return self._single(kind, definition)

    def _single(self, kind: str, definition: DictSchema) -> Node:
        if kind in _SAME:
            return {"kind": kind}
        if kind == "enum":
            symbols, default = definition["symbols"], definition.get("default")
            return {"kind": kind, "symbols": symbols, "default": None if default is None else symbols.index(default)}
        if kind == "bytes":
            return {"kind": kind, "form": self._rules.bytes_as}
        if kind == "fixed":
            return {"kind": kind, "form": self._rules.bytes_as, "size": definition["size"]}
        return _DECLINED

    def _decimal(self, definition: DictSchema) -> Node:
        precision, scale, size = definition["precision"], definition.get("scale", 0), definition.get("size")
        if not 0 <= scale <= precision <= _PRECISION or not 1 <= (1 if size is None else size) <= _WIDEST:
            return _DECLINED
        return {"kind": "decimal", "precision": precision, "scale": scale, "size": size, "fractions": self._exact}

    def _record(self, record: DictSchema) -> Node:
        return {
            "kind": "record",
            "fields": [
                {"name": field["name"], "node": self.node(field["type"]), "default": self._default(field)}
                for field in record["fields"]
            ],
            "ignore_unknown": self._rules.unknown_fields == "ignore",
            "aliases": sorted(aliases(record)),
        }

    def _default(self, field: DictSchema) -> str | None:
        """Return the encoded default of a field in base64, in JSON with a comma and its key; None without default."""
        if "default" not in field:
            return None
        carrier = {"type": "record", "name": "Default", "fields": [field]}
        parsed = {**carrier, "__fastavro_parsed": True, "__named_schemas": self._schemas}
        encoded = compiler.compile_encoder(parsed, self._rules, self._form)({}, b"")
        return base64.b64encode(encoded if self._form is None else b"," + encoded[1:-1]).decode()

    def _union(self, branches: list[Schema]) -> Node:
        node: Node = {"kind": "union", "touched": self._rules.unknown_fields == "ignore"}
        for entry, python_type in {**_ENTRIES, "float": Decimal if self._exact else float}.items():
            found = taking(branches, python_type, self._schemas)
            node[entry] = self._branch(branches, found[0]) if len(found) == 1 else None
        return {**node, "whole": self._whole(branches)}

    def _whole(self, branches: list[Schema]) -> list[Node]:
        """Return the candidate branches of a whole number: int before long; the mapping handles all other cases."""
        found = taking(branches, int, self._schemas)
        if len(found) == 1:
            return [{"branch": self._branch(branches, found[0]), "bits": 64}]
        return [
            {"branch": self._branch(branches, index), "bits": _BITS[name]}
            for name, index in plain_integers(branches, found, self._schemas)
        ]

    def _branch(self, branches: list[Schema], index: int) -> Node:
        return {"index": index, "node": self.node(branches[index])}

    def _logical(self, definition: DictSchema) -> Node:
        kind, logical_type = definition["type"], definition["logicalType"]
        if logical_type == "uuid":
            return {"kind": "uuid", "fixed": kind == "fixed"}
        if logical_type in {"date", "duration"}:
            return {"kind": logical_type}
        name, _, unit = logical_type.rpartition("-")
        if name == "time":
            return {"kind": "time", "digits": logical.DIGITS[unit], **self._times}
        if name in {"timestamp", "local-timestamp"}:
            local = name == "local-timestamp"
            return {"kind": "timestamp", "digits": logical.DIGITS[unit], "local": local, **self._times}
        return _DECLINED
