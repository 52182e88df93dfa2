"""Compatibility of two Avro schemas, decided without a registry.

The rules are the specification's: <https://avro.apache.org/docs/1.12.0/specification/#schema-resolution>. Two rules
are stricter. Every branch of a writer's union must be readable, since any of them may have been written. A time that
changes its unit (timestamp-millis to timestamp-micros) is a problem, although the numbers resolve: each would be read
as another instant.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import fastavro
from fastavro.types import DictSchema, Schema

MODES: Final = ("BACKWARD", "FORWARD", "FULL", "BACKWARD_TRANSITIVE", "FORWARD_TRANSITIVE", "FULL_TRANSITIVE")

_NAMED: Final = ("record", "error", "enum", "fixed")
_PROMOTIONS: Final = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}
_TIMES: Final = ("date", "time", "timestamp", "local-timestamp", "duration")


def problems(reader_schema: Schema, writer_schema: Schema) -> list[str]:
    """Return the reasons, each with its path, why the reader's schema cannot read the writer's data; empty if it can.

    Both may be parsed by fastavro, or JSON values as in a schema file.
    """
    return _Resolution(_parsed(reader_schema), _parsed(writer_schema)).problems()


def check(mode: str, new: Schema, olds: Sequence[tuple[str, Schema]]) -> list[str]:
    """Return the problems that violate `mode` if `new` follows `olds`: pairs of name and schema, the oldest first.

    BACKWARD: new reads old. FORWARD: old reads new. FULL: both. Without _TRANSITIVE only the newest of `olds` counts.
    """
    if mode not in MODES:
        raise ValueError(f"{mode!r} is not one of {', '.join(MODES)}")
    found = []
    for name, old in olds if mode.endswith("_TRANSITIVE") else olds[-1:]:
        if not mode.startswith("FORWARD"):
            found += [f"cannot read what {name} wrote: {problem}" for problem in problems(new, old)]
        if not mode.startswith("BACKWARD"):
            found += [f"cannot be read by {name}: {problem}" for problem in problems(old, new)]
    return found


def _parsed(schema: Schema) -> Schema:
    return fastavro.parse_schema(schema, named_schemas={})


class _Resolution:
    """A comparison of two schemas, which may be recursive: each pair of named types is compared once."""

    def __init__(self, reader: Schema, writer: Schema) -> None:
        self._reader, self._writer = reader, writer
        self._readers, self._writers = dict(named(reader)), dict(named(writer))
        self._compared: set[tuple[str, str]] = set()

    def problems(self) -> list[str]:
        return list(dict.fromkeys(self._resolve(self._reader, self._writer, "$")))

    def _resolve(self, reader: Schema, writer: Schema, path: str) -> Iterator[str]:
        reader, writer = self._reader_type(reader), self._writer_type(writer)
        if isinstance(writer, list):
            for branch in writer:
                where = path if _shown(branch) == "null" else f"{path}({_shown(branch)})"
                yield from self._resolve(reader, branch, where)
        elif isinstance(reader, list):
            branch = self._branch(reader, writer)
            if branch is None:
                yield f"{path}: {_shown(writer)} matches no branch of [{', '.join(map(_shown, reader))}]"
            else:
                yield from self._resolve(branch, writer, path)
        elif problem := _mismatch(reader, writer):
            yield f"{path}: {problem}"
        else:
            yield from self._within(reader, writer, path)

    def _within(self, reader: Any, writer: Any, path: str) -> Iterator[str]:
        kind = _kind(writer)
        if kind in _NAMED:
            pair = reader["name"], writer["name"]
            if pair in self._compared:
                return
            self._compared.add(pair)
        parts: dict[str, Callable[[DictSchema, DictSchema, str], Iterator[str]]] = {
            "record": self._fields,
            "error": self._fields,
            "enum": _symbols,
        }
        if kind in parts:
            yield from parts[kind](reader, writer, path)
        elif kind == "array":
            yield from self._resolve(reader["items"], writer["items"], f"{path}[]")
        elif kind == "map":
            yield from self._resolve(reader["values"], writer["values"], f"{path}{{}}")

    def _fields(self, reader: DictSchema, writer: DictSchema, path: str) -> Iterator[str]:
        written = {field["name"]: field for field in writer["fields"]}
        names = [{field["name"], *field.get("aliases", ())} & written.keys() for field in reader["fields"]]
        claims = Counter(source for sources in names for source in sources)
        for field, sources in zip(reader["fields"], map(sorted, names), strict=True):
            name = field["name"]
            if len(sources) > 1:
                yield f"{path}.{name}: matches several fields of the writer: {', '.join(sources)}"
            elif sources and claims[sources[0]] > 1:
                yield f"{path}.{name}: is not the only field that matches the writer's {sources[0]}"
            elif sources:
                yield from self._resolve(field["type"], written[sources[0]]["type"], f"{path}.{name}")
            elif "default" not in field:
                yield f"{path}.{name}: is not written, and has no default"

    def _branch(self, reader: list[Schema], writer: Schema) -> Schema | None:
        """The branch that reads the writer's values: one of the same type, else the first that matches; else None."""
        branches = [self._reader_type(branch) for branch in reader]
        fitting = [branch for branch in branches if not _mismatch(branch, writer)]
        same = [branch for branch in fitting if _kind(branch) == _kind(writer)]
        return next(iter(same or fitting), None)

    def _reader_type(self, schema: Schema) -> Schema:
        return self._readers.get(schema, schema) if isinstance(schema, str) else schema

    def _writer_type(self, schema: Schema) -> Schema:
        return self._writers.get(schema, schema) if isinstance(schema, str) else schema


def _mismatch(reader: Any, writer: Any) -> str:
    """Why two schemas other than unions do not match, apart from their fields or items; empty if they match."""
    ours, theirs = _kind(reader), _kind(writer)
    if ours != theirs:
        if ours not in _PROMOTIONS.get(theirs, ()):
            return f"{_shown(writer)} cannot be read as {_shown(reader)}"
    elif ours in _NAMED:
        if not _same_name(reader, writer):
            return f"{_shown(writer)} is neither {_shown(reader)} nor one of its aliases"
        if ours == "fixed" and reader["size"] != writer["size"]:
            return f"fixed {_shown(writer)} has {writer['size']} bytes, not {reader['size']}"
    return _logical_mismatch(_logical(reader), _logical(writer))


def _same_name(reader: DictSchema, writer: DictSchema) -> bool:
    theirs, space = writer["name"], reader["name"].rpartition(".")[0]
    aliases = [alias if "." in alias or not space else f"{space}.{alias}" for alias in reader.get("aliases", ())]
    return _short(reader["name"]) == _short(theirs) or theirs in aliases


def _symbols(reader: DictSchema, writer: DictSchema, path: str) -> Iterator[str]:
    unknown = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
    if unknown and "default" not in reader:
        yield f"{path}: {_shown(reader)} has no default and lacks {', '.join(unknown)}"


def _logical_mismatch(reader: DictSchema | None, writer: DictSchema | None) -> str:
    """Why the reader's logical type would change the value; empty if it would not."""
    if reader is None or writer is None:
        return ""
    ours, theirs = str(reader["logicalType"]), str(writer["logicalType"])
    if ours == theirs == "decimal":
        mine, other = _decimal(reader), _decimal(writer)
        return f"decimal{other} is not decimal{mine}" if mine != other else ""
    if ours != theirs and {_time(ours), _time(theirs)} <= set(_TIMES):
        return f"{theirs} would be read as {ours}, which changes the time"
    return ""


def _decimal(schema: DictSchema) -> tuple[int, int]:
    return schema.get("precision", 0), schema.get("scale", 0)


def _time(logical_type: str) -> str:
    return logical_type.removesuffix("-millis").removesuffix("-micros").removesuffix("-nanos")


def _logical(schema: Schema) -> DictSchema | None:
    return schema if isinstance(schema, dict) and "logicalType" in schema else None


def _kind(schema: Schema) -> str:
    return str(schema["type"] if isinstance(schema, dict) else schema)


def _shown(schema: Schema) -> str:
    if isinstance(schema, list):
        return f"[{', '.join(map(_shown, schema))}]"
    return str(schema.get("name", schema["type"])) if isinstance(schema, dict) else str(schema)


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def named(schema: Schema) -> Iterator[tuple[str, DictSchema]]:
    """Yield the named types, with their full names, that a parsed schema defines or refers to."""
    if isinstance(schema, dict):
        yield from schema.get("__named_schemas", {}).items()
    yield from _within(schema)


def _within(schema: Schema | None) -> Iterator[tuple[str, DictSchema]]:
    if isinstance(schema, list):
        for branch in schema:
            yield from _within(branch)
    elif isinstance(schema, dict):
        if schema["type"] in _NAMED:
            yield schema["name"], schema
        for part in (schema.get("items"), schema.get("values")):
            yield from _within(part)
        for field in schema.get("fields", ()):
            yield from _within(field["type"])
