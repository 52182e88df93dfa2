"""Decode record values: Avro in both framings, written with any version of a contract, JSON, and text.

    decoder = Decoder(folder="schemas")                        # single-object framing: by fingerprint
    decoder = Decoder(registry_url="http://registry:8081")     # Confluent's framing: by the registry's id
    decoder = Decoder()                                        # JSON and text, which need no contracts
    event = Event.of(message)                                  # reads headers that confluent-kafka cannot read
    order = decoder(event.raw, event.headers)                  # None for a tombstone

The folder may contain several versions of a contract; a consumer needs those of all records in the topic. With
`reader`, values of all versions are resolved to that schema.

The first bytes of a value show its framing: 00 is Confluent's, C3 01 is single-object, and neither begins a text. The
header `content-type` decides about all other values. Without that header, as in Debezium's records, a value is JSON if
it can be parsed, else text, else bytes. So one decoder reads a topic whose records have several forms.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import orjson

from cdc.avro import files, framing
from cdc.avro.decode import Reading, parsed
from cdc.errors import CdcError, Temporary
from cdc.records.headers import CONTENT_TYPE, ID, POSITION, TYPE

if TYPE_CHECKING:
    from cdc.registry.client import Registry

Headers = Iterable[tuple[str, str | bytes | None]] | Mapping[str, str | bytes | None] | None
Schemas = Callable[[int], object]
"""Maps a registry's schema id to a schema, as JSON text or parsed.

Raises LookupError for an unknown id; other exceptions count as a temporary failure to look it up.
"""

_ID_MARKER: Final = b"\x00"
_ID_SIZE: Final = 5


class Undecodable(ValueError):
    """A value cannot be decoded; the message names the event if its headers do."""


class UnknownFraming(Undecodable):
    """The value should be Avro, and has neither Avro's single-object framing nor Confluent's."""


class Unreadable(Undecodable):
    """The body does not match its schema, or the value its header `content-type`."""


class UnusableSchema(Undecodable):
    """The schema of the value is not known or not usable: all values of that schema fail alike."""


class UnknownFingerprint(UnusableSchema):
    """No contract in the folder has the fingerprint of the value."""


class UnknownId(UnusableSchema):
    """The registry has no schema with the id of the value."""


class NoRegistry(UnknownId):
    """The value needs a registry, and the decoder has none."""


class Unresolvable(UnusableSchema, Unreadable):
    """The schema of the value is not valid, or cannot be resolved to the reader's."""


class Decoder:
    """Decodes values; reuse one instance, because it caches schemas.

    `folder` contains the contracts for single-object framing; `registry_url`, `registry` or `schemas` provides them for
    Confluent's framing. `reader` is a schema, or a mapping of full or short record names to schemas.
    """

    def __init__(
        self,
        *,
        folder: Path | str | None = None,
        registry_url: str | None = None,
        registry: "Registry | None" = None,
        schemas: Schemas | None = None,
        reader: object = None,
    ) -> None:
        self._writers = _by_header(Path(folder)) if folder is not None else {}
        if registry_url is not None:
            registry = _registry(registry_url)
        self._schemas = _from_registry(registry) if registry is not None else schemas
        self._reader = _readers(reader)
        self._readings: dict[bytes, Reading] = {}

    def __call__(self, value: bytes | None, headers: Headers = None) -> Any:
        """Return the decoded value, or None for a tombstone.

        Raises Undecodable, errors of the registry, and Temporary if `schemas` failed.
        """
        if value is None:
            return None
        try:
            if not value.startswith((_ID_MARKER, framing.MARKER)):
                headers = _by_name(headers)
                return _unframed(value, headers.get(CONTENT_TYPE))
            size = framing.HEADER_SIZE if value.startswith(framing.MARKER) else _ID_SIZE
            reading = self._readings.get(value[:size])
            if reading is None:
                reading = self._readings[value[:size]] = self._reading(value)
            try:
                return reading.value(value[size:])
            except ValueError as error:
                raise Unreadable(str(error)) from None
        except Undecodable as error:
            raise type(error)(f"{_event(headers)}{error}") from None

    def _reading(self, value: bytes) -> Reading:
        if value.startswith(framing.MARKER) and len(value) >= framing.HEADER_SIZE:
            writer = self._by_fingerprint(value[: framing.HEADER_SIZE])
        elif value.startswith(_ID_MARKER) and len(value) >= _ID_SIZE:
            writer = self._by_id(int.from_bytes(value[1:_ID_SIZE], "big"))
        else:
            raise UnknownFraming(f"{value.hex()} is too short for a framing")
        try:
            return Reading(writer, self._reader_of(writer))
        except ValueError as error:
            raise Unresolvable(str(error)) from None

    def _by_fingerprint(self, header: bytes) -> Any:
        if header not in self._writers:
            fingerprint = header[len(framing.MARKER) :].hex()
            raise UnknownFingerprint(f"no contract has the fingerprint {fingerprint}; {len(self._writers)} are known")
        return self._writers[header]

    def _by_id(self, number: int) -> Any:
        if self._schemas is None:
            raise NoRegistry(f"schema id {number} needs a registry, and none was given")
        try:
            found = self._schemas(number)
        except LookupError:
            raise UnknownId(f"no schema has the id {number}") from None
        except CdcError:
            raise
        except Exception as error:
            raise Temporary(f"schema id {number} could not be looked up: {type(error).__name__} {error}") from error
        try:
            return _schema(found)
        except ValueError as error:
            raise Unresolvable(f"schema id {number}: {error}") from None

    def _reader_of(self, writer: Any) -> Any:
        name = writer.get("name", "") if isinstance(writer, dict) else ""
        return self._reader.get("") or self._reader.get(name) or self._reader.get(name.rpartition(".")[2])


def decode(
    value: bytes | None,
    headers: Headers = None,
    *,
    schemas: Decoder | Path | str | Schemas | None = None,
    reader: object = None,
) -> Any:
    """Decode one value with a folder of contracts or a function from id to schema; JSON and text need neither.

    For many values, use a Decoder.
    """
    if isinstance(schemas, Decoder):
        return schemas(value, headers)
    if isinstance(schemas, (Path, str)):
        return Decoder(folder=schemas, reader=reader)(value, headers)
    return Decoder(schemas=schemas, reader=reader)(value, headers)


def _unframed(value: bytes, content_type: str | bytes | None) -> Any:
    """Decode a value that is not framed Avro. Raises Undecodable if it does not match its content type."""
    if isinstance(content_type, bytes):
        content_type = content_type.decode(errors="replace")
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind == "application/octet-stream":
        return value
    if "avro" in kind:
        raise UnknownFraming(f"{value[: framing.HEADER_SIZE].hex() or 'an empty value'} is not a known framing")
    try:
        text = value.decode()
        return text if kind.startswith("text/") else _parse_json(text)
    except (ValueError, RecursionError) as error:
        if kind == "application/json" or kind.endswith("+json") or kind.startswith("text/"):
            raise Unreadable(f"the value is not {kind}: {error}") from None
        return value if isinstance(error, UnicodeDecodeError) else text


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_parse_json: Final[Callable[[str], Any]] = json.JSONDecoder(parse_constant=_no_json).decode
"""Parse JSON with whole numbers of any size, which orjson would round."""


def _by_header(folder: Path) -> dict[bytes, Any]:
    contracts = (each for versions in files.versions(folder).values() for each in versions if each.is_contract)
    return {framing.header(each.schema): each.schema for each in contracts}


def _schema(schema: Any) -> Any:
    if isinstance(schema, tuple):
        text, named = schema
        return parsed(orjson.loads(text), [orjson.loads(other) for other in named])
    return parsed(orjson.loads(schema) if isinstance(schema, (str, bytes)) else schema)


def _readers(reader: object) -> dict[str, Any]:
    """Return reader schemas by record name; a schema for all records has the empty name."""
    if reader is None:
        return {}
    if isinstance(reader, Mapping) and "type" not in reader:
        return {name: _schema(schema) for name, schema in reader.items()}
    return {"": _schema(reader)}


def _registry(url: str) -> "Registry":
    from cdc.config.settings import SchemaRegistry
    from cdc.registry.opening import opened

    return opened(SchemaRegistry(url=url))


def _from_registry(registry: "Registry") -> Schemas:
    from cdc.registry.errors import UNKNOWN, RegistryError

    def schema(number: int) -> tuple[str, list[str]]:
        try:
            return registry.with_references(number)
        except RegistryError as error:
            if error.code in UNKNOWN:
                raise LookupError(number) from None
            raise

    return schema


def _event(headers: Headers) -> str:
    known = _by_name(headers)
    parts = [(name, known.get(name)) for name in (TYPE, ID, POSITION)]
    event = " ".join(part.decode(errors="replace") if isinstance(part, bytes) else part for _, part in parts if part)
    return f"{event}: " if event else ""


def _by_name(headers: Headers) -> Mapping[str, str | bytes | None]:
    """Return the first value of each header."""
    return headers if isinstance(headers, Mapping) else dict(reversed([*(headers or ())]))
