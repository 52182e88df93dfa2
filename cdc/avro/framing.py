"""Single-object encoding: bytes C3 01, the schema's little-endian CRC-64-AVRO fingerprint, then the Avro body.

<https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding>
"""

from collections.abc import Mapping
from typing import Final

from fastavro.schema import fingerprint, to_parsing_canonical_form
from fastavro.types import Schema

MARKER: Final = b"\xc3\x01"
HEADER_SIZE: Final = 10


def header(schema: Schema) -> bytes:
    """Return the ten bytes that precede each body of `schema`."""
    # fastavro prints the fingerprint in wire order (little-endian), unlike the number in the specification.
    return MARKER + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


class SingleObject:
    """Headers of single-object encoding by the contract's full name; they do not depend on topic or registry."""

    def __init__(self, headers: Mapping[str, bytes]) -> None:
        self._headers = headers

    def header(self, topic: str, contract: str) -> bytes:  # noqa: ARG002 - Confluent framing depends on the topic
        """Return the header for bodies of `contract`. Raises KeyError for an unknown contract."""
        return self._headers[contract]

    def close(self) -> None:
        """Do nothing: no connection is open, unlike with Confluent framing."""
