"""Contracts: one `.avsc` per event type, found by record name, full name, or an explicit map."""

import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from fastavro.types import DictSchema

from cdc.avro import files, framing, json_schema
from cdc.avro.byte_texts import ByteTexts, has_bytes
from cdc.avro.compiled import compiler
from cdc.avro.compiled.json_encoder import JsonEncoder
from cdc.avro.compiled.payloads import text_encoder
from cdc.avro.compiled.plan import plan
from cdc.avro.files import Definition
from cdc.avro.json_values import JsonForm
from cdc.avro.mapping.rules import STRICT, Rules
from cdc.errors import ConfigError


class Contract:
    """The Avro schema of one event type, compiled to encoders of its payloads.

    `name` is the record's full name, `header` the ten bytes before each body, `text` the schema as written in its file,
    and `references` the full names of types in other files that `text` uses; `schema` contains all of them.
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
        self._json: dict[JsonForm, JsonEncoder] = {}
        self.header = framing.header(schema)
        self.encode_value = compiler.compile_encoder(schema, rules)
        """Encode a parsed JSON value: `(value, header)` to header and Avro body. Raises Mismatch."""
        self.encode = text_encoder(schema, rules, self.encode_value, self.header)
        """Encode JSON text: `(payload, header)` to header and Avro body. The header defaults to single-object encoding.

        Raises Mismatch with the JSON path of the mismatch, or another ValueError.
        """

    @functools.cached_property
    def plan(self) -> bytes | None:
        """The instructions that the native accelerator compiles; None if it would decline every payload."""
        return plan(self.schema, self._rules)

    def json_encoder(self, form: JsonForm) -> JsonEncoder:
        """Return the encoder of JSON, compiled once. Raises Mismatch if JSON cannot have the value of a default."""
        if form not in self._json:
            self._json[form] = JsonEncoder(self.schema, self._rules, form)
        return self._json[form]

    def json_schema(self, form: JsonForm) -> dict[str, object]:
        """Return the JSON Schema of what `json_encoder` writes."""
        return json_schema.of(self.schema, self._rules, form)

    @functools.cached_property
    def byte_texts(self) -> ByteTexts | None:
        """What the bytes of its values look like; None if it has none, or they are base64 in JSON."""
        return ByteTexts(self.schema) if self._rules.bytes_as == "avro-json" and has_bytes(self.schema) else None

    @classmethod
    def of(cls, definition: Definition, rules: Rules = STRICT) -> Self:
        """Compile the definition of a file or a registry's subject. Raises Mismatch if a default does not match."""
        return cls(definition.schema, str(definition.path), definition.text, definition.references, rules)

    @property
    def fingerprint(self) -> str:
        """The schema's CRC-64-AVRO as 16 hexadecimal digits, in the byte order of the wire (little-endian)."""
        return self.header[len(framing.MARKER) :].hex()


class Contracts(Mapping[str, Contract]):
    """All contracts by event type, which is a full name, an unambiguous short name or a key of `[avro] types`.

    `definitions` maps full names to the types of all files, including those that are not contracts. `passed_over` maps
    subjects of a registry that are not used to the reason. `ambiguous` are the short names of several contracts.
    """

    def __init__(
        self,
        contracts: list[Contract],
        types: Mapping[str, str],
        origin: str,
        definitions: Sequence[Definition] = (),
        passed_over: Mapping[str, str] | None = None,
    ) -> None:
        self.passed_over = passed_over or {}
        self.definitions = {definition.name: definition for definition in definitions}
        self._by_type: dict[str, Contract] = {contract.name: contract for contract in contracts}
        self._origin = origin
        short: dict[str, list[Contract]] = {}
        for contract in contracts:
            short.setdefault(contract.name.rpartition(".")[2], []).append(contract)
        self.ambiguous = {name: found for name, found in short.items() if len(found) > 1}
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
        """Return why there is no contract for `event_type`, and the most similar name that has one."""
        if event_type in self.ambiguous:
            names = ", ".join(contract.name for contract in self.ambiguous[event_type])
            return f"event type {event_type!r} matches several contracts ({names}): use a full name or [avro] types"
        near = difflib.get_close_matches(event_type, self._by_type, n=1)
        advice = f"; did you mean {near[0]!r}?" if near else ""
        for subject, reason in self.passed_over.items():
            if event_type in subject:
                advice += f"; subject {subject} was passed over: {reason}"
        return f"no contract for event type {event_type!r} in {self._origin}{advice}"


def load(folder: Path, types: Mapping[str, str] | None = None, rules: Rules = STRICT) -> Contracts:
    """Read every `.avsc` file below `folder`. Raises ConfigError with a problem for each unusable file."""
    definitions = files.read(folder)
    return Contracts(compiled(definitions, rules), types or {}, str(folder), definitions)


def compiled(definitions: Sequence[Definition], rules: Rules = STRICT) -> list[Contract]:
    """Compile the definitions that are contracts. Raises ConfigError with a problem for each that is unusable."""
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
    return contracts
