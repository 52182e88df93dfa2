"""Read schema files: every `.avsc` below a folder, in any order, with references between files.

A file contains one named type. It may use the types of other files by their full names, or by short names of the same
namespace, as Avro defines; types that are defined inside a file belong to that file. `Definition.schema` is
self-contained: each type is inlined where it is first used, so that encoding and fingerprints do not depend on files.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import fastavro
import orjson
from fastavro.schema import SchemaParseException
from fastavro.types import DictSchema, Schema

from cdc.avro import soundness
from cdc.avro.mapping.mismatch import Mismatch
from cdc.errors import ConfigError

NAMED: Final = frozenset({"record", "error", "enum", "fixed"})
PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "string", "bytes"})
NO_SCHEMA: Final = (SchemaParseException, ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError)


def shipped(name: str) -> Path:
    """Return the folder of shipped contracts `schemas/{name}`: `cdc`, or `shop` for the demo.

    A wheel contains `schemas` inside the package, a clone beside it. Raises ConfigError if neither exists.
    """
    package = Path(str(resources.files("cdc")))
    folders = [package / "schemas" / name, package.parent / "schemas" / name]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise ConfigError(f"the contracts of cdc-publisher are missing from {folders[0]}", hint="reinstall it")


@dataclass(frozen=True, slots=True)
class Definition:
    """The named type of one file.

    `text` is the file's content, `references` the full names of the types in other files that it uses directly, and
    `schema` the schema parsed by fastavro, with those types inlined.
    """

    name: str
    path: Path
    text: str
    references: tuple[str, ...]
    schema: DictSchema

    @property
    def is_contract(self) -> bool:
        """Whether the type is a record. An enum or a fixed can only be used by contracts."""
        return str(self.schema["type"]) == "record"

    @property
    def whole(self) -> str:
        """`schema` as JSON text, self-contained for a registry that does not have the types of other files."""
        parts = {name: part for name, part in self.schema.items() if not name.startswith("__")}
        return orjson.dumps(parts).decode()


@dataclass(slots=True)
class _File:
    path: Path
    text: str
    written: DictSchema
    name: str
    references: dict[str, None] = field(default_factory=dict)


_Find = Callable[[str, _File], _File | None]


def read(folder: Path) -> list[Definition]:
    """Read one definition per file. Raises ConfigError with a problem for each unusable file."""
    return _unique(*_files(folder))


def _unique(files: list[_File], problems: list[str]) -> list[Definition]:
    by_name: dict[str, _File] = {}
    for file in files:
        if file.name in by_name:
            problems.append(f"contract {file.path}: {file.name} is also defined in {by_name[file.name].path}")
        else:
            by_name[file.name] = file
    for file in files:
        problems += [
            f"contract {file.path}: {name} is also defined in {by_name[name].path}"
            for name in list(dict(defined(file.written, "")))[1:]
            if name in by_name and by_name[name] is not file
        ]
    return _definitions(list(by_name.values()), problems, lambda name, _: by_name.get(name))


def parse(texts: Mapping[str, str]) -> list[Definition]:
    """Parse one definition per text; keys name the texts in messages. Raises ConfigError as `read` does."""
    files: list[_File] = []
    problems: list[str] = []
    for origin, text in texts.items():
        try:
            files.append(_file(Path(origin), text))
        except NO_SCHEMA as error:
            problems.append(f"contract {origin}: {reason(error)}")
    return _unique(files, problems)


def versions(folder: Path) -> dict[str, list[Definition]]:
    """Read all versions of each type below `folder`, oldest first: sorted by path, with numbers compared by value.

    A file uses the version of a type that shares most folders with it. Raises ConfigError as `read` does.
    """
    files, problems = _files(folder)
    files.sort(key=lambda file: _natural(str(file.path)))
    by_name: dict[str, list[_File]] = {}
    for file in files:
        by_name.setdefault(file.name, []).append(file)

    def nearest(name: str, user: _File) -> _File | None:
        found = sorted(by_name.get(name, ()), key=lambda other: -_shared(other.path, user.path))
        if len(found) > 1 and _shared(found[0].path, user.path) == _shared(found[1].path, user.path):
            raise ValueError(
                f"{name} has several versions ({found[0].path}, {found[1].path}): put files that belong together into"
                " one folder"
            )
        return found[0] if found else None

    ordered: dict[str, list[Definition]] = {}
    for definition in _definitions(files, problems, nearest):
        ordered.setdefault(definition.name, []).append(definition)
    return ordered


def _files(folder: Path) -> tuple[list[_File], list[str]]:
    if not folder.is_dir():
        raise ConfigError(
            f"[avro] schemas: {folder} is not a folder", hint="create it with one .avsc file per event type"
        )
    files: list[_File] = []
    problems: list[str] = []
    for path in sorted(folder.rglob("*.avsc")):
        # Kubernetes keeps each version of a mounted volume in a hidden folder, with links to its files beside it.
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            files.append(_file(path, path.read_text(encoding="utf-8")))
        except NO_SCHEMA as error:
            problems.append(f"contract {path}: {reason(error)}")
    return files, problems


def _file(path: Path, text: str) -> _File:
    written = orjson.loads(text)
    if not isinstance(written, dict) or written.get("type") not in ("record", "enum", "fixed"):
        raise ValueError("neither a contract (an Avro record) nor a type for contracts (an enum or a fixed)")
    return _File(path, text, written, full_name(written, ""))


def _definitions(files: list[_File], problems: list[str], find: _Find) -> list[Definition]:
    definitions = []
    for file in files:
        try:
            whole = _Inlining(find, file).whole()
            schema: Any = fastavro.parse_schema(whole, named_schemas={})
            soundness.check(whole, schema)
        except NO_SCHEMA as error:
            problems.append(f"contract {file.path}: {reason(error)}")
            continue
        definitions.append(Definition(file.name, file.path, file.text, tuple(file.references), schema))
    if problems:
        raise ConfigError(*problems)
    return definitions


class _Inlining:
    """Inlines the types of other files into one file's schema, each at its first use."""

    def __init__(self, find: _Find, file: _File) -> None:
        self._find = find
        self._files = [file]  # a stack: the last one is being inlined into the others
        self._homes: dict[str, Path] = {}  # the file of each type defined so far
        self._own = dict(defined(file.written, "")).keys()

    def whole(self) -> DictSchema:
        return self._dict(self._files[0].written, "")

    def _schema(self, schema: Schema, namespace: str) -> Schema:
        if isinstance(schema, list):
            return [self._schema(branch, namespace) for branch in schema]
        if isinstance(schema, dict):
            return self._dict(schema, namespace)
        return schema if not isinstance(schema, str) or schema in PRIMITIVES else self._use(_full(schema, namespace))

    def _dict(self, schema: DictSchema, namespace: str) -> DictSchema:
        kind = schema["type"]
        if isinstance(kind, str) and kind in NAMED:
            name = full_name(schema, namespace)
            if name in self._homes and self._homes[name] != self._files[-1].path:
                raise ValueError(f"{name} is defined in {self._files[-1].path} and in {self._homes[name]}")
            self._homes[name] = self._files[-1].path
            namespace = name.rpartition(".")[0]
            schema = {**schema, "name": name, "namespace": namespace}
        elif not isinstance(kind, str):
            return {**schema, "type": self._schema(kind, namespace)}
        for part in ("items", "values"):
            if part in schema:
                schema = {**schema, part: self._schema(schema[part], namespace)}
        if "fields" in schema:
            fields = [{**part, "type": self._schema(part["type"], namespace)} for part in schema["fields"]]
            schema = {**schema, "fields": fields}
        return schema

    def _use(self, name: str) -> Schema:
        user = self._files[-1]
        if self._homes.get(name) == user.path:
            return name
        if name in self._own and len(self._files) == 1:
            raise ValueError(f"{name} is used before it is defined")
        file = self._find(name, user)
        if file is None:
            where = "" if user is self._files[0] else f" in {user.path}"
            raise ValueError(f"{name} is not defined{where} and no file defines it")
        if file in self._files:
            way = " → ".join(str(each.path) for each in [*self._files[self._files.index(file) :], file])
            raise ValueError(f"files refer to each other in a circle: {way}; merge them into one file")
        user.references[name] = None
        if name in self._homes:
            return name
        self._files.append(file)
        whole = self._dict(file.written, "")
        self._files.pop()
        return whole


def _full(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def full_name(schema: DictSchema, namespace: str) -> str:
    """Return the full name of a named type that is defined within a namespace. Raises ValueError."""
    name, within = schema["name"], schema.get("namespace", namespace)
    if not isinstance(name, str) or not isinstance(within, str):
        raise ValueError(f"not an Avro schema: {name!r} is not a name")
    return _full(name, within)


def defined(schema: Schema | None, namespace: str) -> Iterator[tuple[str, DictSchema]]:
    """Yield the full names and definitions of all types that a schema defines, its own first."""
    if isinstance(schema, list):
        for branch in schema:
            yield from defined(branch, namespace)
    elif isinstance(schema, dict):
        if isinstance(schema.get("name"), str) and schema.get("type") in tuple(NAMED):
            name = full_name(schema, namespace)
            namespace = name.rpartition(".")[0]
            yield name, schema
        yield from defined([schema.get("type"), schema.get("items"), schema.get("values")], namespace)
        fields = schema.get("fields")
        for part in fields if isinstance(fields, list) else ():
            yield from defined(part.get("type") if isinstance(part, dict) else None, namespace)


def reason(error: Exception) -> str:
    """Describe why a file cannot be used, for messages."""
    if isinstance(error, (orjson.JSONDecodeError, UnicodeDecodeError)):
        return f"not JSON: {error}"
    if isinstance(error, Mismatch) or type(error) is ValueError:
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"not an Avro schema: {type(error).__name__} {error}"


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def _shared(one: Path, other: Path) -> int:
    """The number of leading folders that two paths share."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one.parent.parts, other.parent.parts, strict=False))
    )
