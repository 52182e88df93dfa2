"""Contracts: one `.avsc` per event type, found by record name, full name, or an explicit map."""

import difflib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import orjson
from fastavro.schema import SchemaParseException

from cdc.avro import framing, mapping
from cdc.avro.mismatch import Mismatch
from cdc.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Contract:
    """How the payloads of one event type are encoded.

    `name` is the record's full name, `header` what stands before each body.
    """

    def __init__(self, schema: Any, source: str) -> None:
        self.schema = schema
        self.source = source
        self.name: str = schema["name"]
        self.header = framing.header(schema)
        self._map = mapping.mapper(schema)
        self._parse = _parse_exactly if _has_decimal(schema) else orjson.loads

    def encode(self, payload: bytes) -> bytes:
        """Encode JSON text. Raises Mismatch or another ValueError that says where it does not fit."""
        try:
            datum = self._map(self._parse(payload))
        except RecursionError:
            raise ValueError("the payload is nested too deeply") from None
        except ArithmeticError:
            raise ValueError("the payload holds a number that is out of range for any decimal") from None
        except (orjson.JSONDecodeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"the payload is not JSON: {error}") from None
        buffer = io.BytesIO(self.header)
        buffer.seek(0, io.SEEK_END)
        fastavro.schemaless_writer(buffer, self.schema, datum)
        return buffer.getvalue()


class Contracts(Mapping[str, Contract]):
    """All contracts by event type, as the `type` column names it."""

    def __init__(self, contracts: list[Contract], types: Mapping[str, str], origin: str) -> None:
        self._by_type: dict[str, Contract] = {contract.name: contract for contract in contracts}
        self._origin = origin
        short: dict[str, list[Contract]] = {}
        for contract in contracts:
            short.setdefault(contract.name.rpartition(".")[2], []).append(contract)
        self._ambiguous = {name: found for name, found in short.items() if len(found) > 1}
        for name, found in short.items():
            if len(found) == 1:
                self._by_type.setdefault(name, found[0])
        unknown = [
            f"[avro] types.{kind}: no contract is named {name!r}"
            for kind, name in types.items()
            if name not in self._by_type
        ]
        if unknown:
            raise ConfigError(
                *unknown,
                hint=f"contracts found in {origin}: {', '.join(sorted(self._by_type)) or 'none'}",
            )
        self._by_type.update({kind: self._by_type[name] for kind, name in types.items()})
        self.by_header = {contract.header: contract for contract in contracts}

    def __getitem__(self, event_type: str) -> Contract:
        return self._by_type[event_type]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_type)

    def __len__(self) -> int:
        return len(self._by_type)

    def missing(self, event_type: str) -> str:
        """Why there is no contract for `event_type`, and what comes nearest."""
        if event_type in self._ambiguous:
            names = ", ".join(contract.name for contract in self._ambiguous[event_type])
            return f"event type {event_type!r} fits several contracts ({names}): use a full name or [avro] types"
        near = difflib.get_close_matches(event_type, self._by_type, n=1)
        advice = f"; did you mean {near[0]!r}?" if near else ""
        return f"no contract for event type {event_type!r} in {self._origin}{advice}"

    def decode(self, value: bytes) -> dict[str, Any]:
        """Decode a value in single-object framing. Raises ValueError for an unknown schema or framing."""
        contract = self.by_header.get(value[: framing.HEADER_SIZE])
        if contract is None:
            raise ValueError(f"{value[: framing.HEADER_SIZE].hex()} is not the header of a known contract")
        body = io.BytesIO(value[framing.HEADER_SIZE :])
        datum: Any = fastavro.schemaless_reader(body, contract.schema, None)
        return dict(datum)


def load(folder: Path, types: Mapping[str, str] | None = None) -> Contracts:
    """Read every `.avsc` below `folder`. Raises ConfigError that lists every file that cannot be used."""
    if not folder.is_dir():
        raise ConfigError(f"[avro] schemas: {folder} is not a folder", hint="put one .avsc file per event type there")
    contracts: list[Contract] = []
    problems: list[str] = []
    for path in sorted(folder.rglob("*.avsc")):
        try:
            contract = _read(path)
        except (
            SchemaParseException, ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError
        ) as error:  # fmt: skip
            problems.append(f"contract {path}: {_reason(error)}")
            continue
        twin = next((other for other in contracts if other.name == contract.name), None)
        if twin:
            problems.append(f"contract {path}: {contract.name} is defined in {twin.source} too")
        else:
            contracts.append(contract)
    if problems:
        raise ConfigError(*problems)
    return Contracts(contracts, types or {}, str(folder))


def _read(path: Path) -> Contract:
    text = orjson.loads(path.read_bytes())
    schema = fastavro.parse_schema(text, named_schemas={})
    if not isinstance(schema, dict) or schema["type"] != "record":
        raise ValueError("a contract is an Avro record")
    for written, record in zip(_records(text), _records(schema), strict=True):
        if "fields" not in written:
            raise ValueError(f"not an Avro schema: record {record['name']} has no fields")
        _check(record)
    return Contract(schema, str(path))


def _records(schema: Any) -> Iterator[dict[str, Any]]:
    """Every record that is defined within a schema."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _records(branch)
    elif isinstance(schema, dict):
        if schema["type"] in {"record", "error"}:
            yield schema
        for part in (schema["type"], schema.get("items"), schema.get("values")):
            yield from _records(part)
        for field in schema.get("fields", ()):
            yield from _records(field["type"])


def _check(record: dict[str, Any]) -> None:
    """What fastavro lets pass. Raises ValueError."""
    name, fields = record["name"], record["fields"]
    if not all(_NAME.fullmatch(part) for part in name.split(".")):
        raise ValueError(f"not an Avro schema: {name!r} is not a name")
    for field, times in Counter(field["name"] for field in fields).items():
        if times > 1:
            raise ValueError(f"not an Avro schema: record {name} has field {field!r} {times} times")
        if not _NAME.fullmatch(field):
            raise ValueError(f"not an Avro schema: {field!r} is not a name of a field")


def _reason(error: Exception) -> str:
    if isinstance(error, orjson.JSONDecodeError):
        return f"not JSON: {error}"
    if isinstance(error, Mismatch) or type(error) is ValueError:
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"not an Avro schema: {type(error).__name__} {error}"


def _has_decimal(schema: Any) -> bool:
    if isinstance(schema, dict):
        return schema.get("logicalType") == "decimal" or any(
            _has_decimal(part) for key, part in schema.items() if key in {"type", "fields", "items", "values"}
        )
    return isinstance(schema, list) and any(_has_decimal(part) for part in schema)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Numbers bound for a decimal must not pass through a float: 0.1 has no exact binary form.
_exact: Callable[[str], Any] = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant).decode


def _parse_exactly(payload: bytes) -> Any:
    return _exact(payload.decode())
