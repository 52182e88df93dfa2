"""Find bytes and fixed fields whose values are probably the text of an encoding, such as base64, instead of bytes.

With `[avro] bytes = "avro-json"` each character of a JSON string is a byte. Serialisers of other languages write
base64 (Jackson, Go, .NET, protobuf) or `\\x68656c6c6f` (PostgreSQL), which are valid there, and become wrong bytes.
"""

import re
from collections.abc import Iterator

from fastavro.types import Schema

from cdc.avro.decode import Reading
from cdc.avro.mapping import logical

_BASE64 = re.compile(rb"(?=.{4})(?:[A-Za-z0-9+/\r\n]*|[A-Za-z0-9_\r\n-]*)={0,2}[\r\n]*", re.DOTALL)
_FIELDS = 1000  # more are keys of a map
_HEX = re.compile(rb"\\x(?:[0-9a-fA-F]{2})+")

ADVICE = (
    "set [avro] bytes = \"base64\" if producers encode bytes in base64; PostgreSQL does with encode(column, 'base64')"
)


class ByteTexts:
    """Collects the bytes of encoded values of one contract, by field."""

    def __init__(self, schema: Schema) -> None:
        self._reading = Reading(schema)
        self._fields: dict[str, bool] = {}  # whether each value that is not empty looks encoded

    def add(self, body: bytes) -> bool:
        """Look at an Avro body; return whether it has bytes."""
        found = [(path, data) for path, data in _bytes(self._reading.value(body), "$") if data]
        for path, data in found:
            if path not in self._fields and len(self._fields) >= _FIELDS:
                continue
            self._fields[path] = self._fields.get(path, True) and looks_encoded(data)
        return bool(found)

    @property
    def doubtful(self) -> list[str]:
        """The fields of which every value so far looks encoded."""
        return [path for path, encoded in self._fields.items() if encoded]


def looks_encoded(data: bytes) -> bool:
    """Return whether bytes are at least four characters of base64 with complete groups, or PostgreSQL's hex."""
    complete = len(data.translate(None, b"\r\n")) % 4 == 0
    return bool((complete and _BASE64.fullmatch(data)) or _HEX.fullmatch(data))


def has_bytes(schema: Schema) -> bool:
    """Return whether a schema has bytes or fixed without a logical type."""
    if isinstance(schema, list):
        return any(map(has_bytes, schema))
    if isinstance(schema, str):
        return schema == "bytes"
    if schema["type"] in {"bytes", "fixed"}:
        return logical.mapper(schema) is None
    return any(has_bytes(schema[part]) for part in ("type", "items", "values") if part in schema) or any(
        has_bytes(field["type"]) for field in schema.get("fields", ())
    )


def _bytes(value: object, path: str) -> Iterator[tuple[str, bytes]]:
    if isinstance(value, bytes):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _bytes(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from _bytes(item, f"{path}[]")
