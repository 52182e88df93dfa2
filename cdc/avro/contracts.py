"""Contracts: one `.avsc` per event type, found by record name, full name, or an explicit map."""

import difflib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn, Self

import orjson
from fastavro.types import DictSchema

from cdc.avro import files, framing
from cdc.avro.compiled import compiler
from cdc.avro.compiled.plan import has_decimal, plan
from cdc.avro.files import Definition
from cdc.avro.mapping.rules import STRICT, Rules
from cdc.errors import ConfigError


class Contract:
    """How the payloads of one event type are encoded.

    `name` is the record's full name, `header` what stands before each body, `text` the schema as its file has it and
    `references` the full names of the types of other files which that text uses; `schema` holds them all.
    """

    def __init__(
        self, schema: Any, source: str, text: str = "", references: tuple[str, ...] = (), rules: Rules = STRICT
    ) -> None:
        self.schema: DictSchema = schema
        self.source = source
        self.text = text
        self.references = references
        self.name: str = schema["name"]
        self._rules = rules
        self.header = framing.header(schema)
        self.encode_value = compiler.compile_encoder(schema, rules)
        """A JSON value that is parsed already, and a header, to header and body. Raises Mismatch."""
        self.encode = self._text_encoder()
        """JSON text to header and Avro body; the header is that of single-object encoding unless given.

        Raises Mismatch or another ValueError that says where it does not fit.
        """

    def _text_encoder(self) -> compiler.TextEncode:
        if has_decimal(self.schema):
            return _from_text(_parse_exactly, self.encode_value, self.header)
        general = _from_text(orjson.loads, self.encode_value, self.header)
        return compiler.compile_text_encoder(self.schema, self._rules, general, self.header) or general

    @functools.cached_property
    def plan(self) -> bytes | None:
        """The same for the native accelerator, in so far as it can do it."""
        return plan(self.schema, self._rules)

    @classmethod
    def of(cls, definition: Definition, rules: Rules = STRICT) -> Self:
        """The contract that a file or a registry's subject defines. Raises Mismatch for wrong defaults."""
        return cls(definition.schema, str(definition.path), definition.text, definition.references, rules)

    @property
    def fingerprint(self) -> str:
        """The schema's CRC-64-AVRO, 16 hex digits in the order of the wire."""
        return self.header[len(framing.MARKER) :].hex()


class Contracts(Mapping[str, Contract]):
    """All contracts by event type, as the `type` column names it.

    `definitions` has the types of all files by full name, those that are no contracts included.
    """

    def __init__(
        self, contracts: list[Contract], types: Mapping[str, str], origin: str, definitions: Sequence[Definition] = ()
    ) -> None:
        self.definitions = {definition.name: definition for definition in definitions}
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


def load(folder: Path, types: Mapping[str, str] | None = None, rules: Rules = STRICT) -> Contracts:
    """Read every `.avsc` below `folder`. Raises ConfigError that lists every file that cannot be used."""
    definitions = files.read(folder)
    contracts: list[Contract] = []
    problems: list[str] = []
    for definition in definitions:
        if not definition.is_contract:
            continue
        try:
            contract = Contract.of(definition, rules)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            problems.append(f"contract {definition.path}: {files.reason(error)}")
        else:
            contracts.append(contract)
    if problems:
        raise ConfigError(*problems)
    return Contracts(contracts, types or {}, str(folder), definitions)


def _from_text(parse: Callable[[bytes], object], encode: compiler.Encode, own: bytes) -> compiler.TextEncode:
    def from_text(payload: bytes, header: bytes = own) -> bytes:
        try:
            return encode(parse(payload), header)
        except RecursionError:
            raise ValueError("the payload is nested too deeply") from None
        except ArithmeticError:
            raise ValueError("the payload holds a number that is out of range for any decimal") from None
        except (orjson.JSONDecodeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"the payload is not JSON: {error}") from None

    return from_text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Numbers bound for a decimal must not pass through a float: 0.1 has no exact binary form.
_exact: Callable[[str], object] = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant).decode


def _parse_exactly(payload: bytes) -> object:
    return _exact(payload.decode())
