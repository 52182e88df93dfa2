"""The contract of the events, and the bytes that a value must have: by fastavro, which the publisher does not use."""

import io
import json
from pathlib import Path
from typing import Any, Final

import fastavro
import fastavro.schema

SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Noted",
    "namespace": "tests",
    "fields": [{"name": "seq", "type": "long"}, {"name": "text", "type": ["null", "string"], "default": None}],
}


class Contract:
    """Makes the values that records must have, in single-object encoding."""

    def __init__(self) -> None:
        self._schema = fastavro.parse_schema(SCHEMA)
        canonical = fastavro.schema.to_parsing_canonical_form(SCHEMA)
        # The fingerprint is printed with its lowest byte first, as it stands in the header.
        self._header = b"\xc3\x01" + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))

    def value(self, seq: int, text: str | None) -> bytes:
        """A record's value."""
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, self._schema, {"seq": seq, "text": text})
        return self._header + buffer.getvalue()


def write(folder: Path) -> None:
    """Write the contract where the publisher looks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Noted.avsc").write_text(json.dumps(SCHEMA))
