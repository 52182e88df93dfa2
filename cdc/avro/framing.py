"""Single-object encoding: the two bytes C3 01, the schema's CRC-64-AVRO fingerprint, little-endian, then the body.

<https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding>
"""

from collections.abc import Mapping
from typing import Final

from fastavro.schema import fingerprint, to_parsing_canonical_form
from fastavro.types import Schema

MARKER: Final = b"\xc3\x01"
HEADER_SIZE: Final = 10


def header(schema: Schema) -> bytes:
    """The ten bytes before each body of `schema`."""
    # fastavro prints this fingerprint in the order of the wire, unlike the number in the specification.
    return MARKER + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


class SingleObject:
    """Headers by the contract's full name; the topic does not matter, and nobody has to be asked."""

    def __init__(self, headers: Mapping[str, bytes]) -> None:
        self._headers = headers

    def header(self, topic: str, contract: str) -> bytes:  # noqa: ARG002 - confluent framing asks by topic
        """The header for bodies of `contract`."""
        return self._headers[contract]

    def close(self) -> None:
        """Nothing is open."""
