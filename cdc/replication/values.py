"""Cells of a row to text: what PostgreSQL's binary and text output formats mean for the types an outbox uses.

`binary 'true'` is requested only when every needed column has a decoder here today. Both formats give the same text.
<https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-FORMAT-CODES>
"""

import binascii
from collections.abc import Callable
from typing import Final

from cdc.errors import ProtocolError
from cdc.replication.messages import Type

BOOL, BYTEA, INT8, INT2, INT4, TEXT, JSON = 16, 17, 20, 21, 23, 25, 114
BPCHAR, VARCHAR, UUID, JSONB = 1042, 1043, 2950, 3802
DATE, TIMESTAMP, TIMESTAMPTZ, TIMETZ = 1082, 1114, 1184, 1266

JSONB_VERSION: Final = 1

_BUILT_IN: Final = {
    "bool": BOOL,
    "bytea": BYTEA,
    "int8": INT8,
    "int2": INT2,
    "int4": INT4,
    "text": TEXT,
    "json": JSON,
    "bpchar": BPCHAR,
    "varchar": VARCHAR,
    "uuid": UUID,
    "jsonb": JSONB,
    "timestamp": TIMESTAMP,
    "timestamptz": TIMESTAMPTZ,
    "timetz": TIMETZ,
}


def base_type(message: Type) -> int:
    """Return the oid by which values of a user-defined type are read: of a domain that of its base type.

    A Type message names a domain's base type, to the bottom, as it was when the row was written; other types name
    themselves. PostgreSQL sends an empty namespace for `pg_catalog`.
    """
    return message.oid if message.namespace else _BUILT_IN.get(message.name, message.oid)


def _text(cell: bytes) -> str:
    return cell.decode()


def _padded(cell: bytes) -> str:
    return cell.rstrip(b" ").decode()  # char(n) is padded with blanks, which `::text` removes too


def _bool_text(cell: bytes) -> str:
    return "true" if cell[:1] == b"t" else "false"  # `t` in the stream, `true` of a cast


def _uuid(cell: bytes) -> str:
    if len(cell) != 16:
        raise ProtocolError(f"a binary uuid of {len(cell)} bytes")
    digits = cell.hex()
    # Slicing costs 0.34 us, str(uuid.UUID(bytes=cell)) 1.17.
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _integer(cell: bytes) -> str:
    return str(int.from_bytes(cell, "big", signed=True))


def _bool(cell: bytes) -> str:
    return "true" if cell == b"\x01" else "false"


def _jsonb(cell: bytes) -> str:
    return jsonb_text(cell).decode()


def jsonb_text(cell: bytes) -> bytes:
    """The JSON text within binary jsonb. Raises ProtocolError for a version other than 1."""
    if cell[:1] != b"\x01":
        raise ProtocolError(f"binary jsonb of version {cell[:1].hex() or '(empty)'}, not {JSONB_VERSION}")
    return cell[1:]


def bytea_from_text(cell: bytes) -> bytes:
    """bytea in its text format `\\x6d69`. Raises ProtocolError for another `bytea_output`."""
    if cell[:2] != b"\\x":
        raise ProtocolError("bytea came as text, but not in hex format")
    try:
        return binascii.unhexlify(cell[2:])
    except binascii.Error as error:
        raise ProtocolError(f"bytea came as malformed hex: {error}") from None


BINARY_TO_TEXT: Final[dict[int, Callable[[bytes], str]]] = {
    BOOL: _bool,
    INT2: _integer,
    INT4: _integer,
    INT8: _integer,
    TEXT: _text,
    VARCHAR: _text,
    BPCHAR: _padded,
    JSON: _text,
    JSONB: _jsonb,
    UUID: _uuid,
}

SAME_AS_TEXT: Final = frozenset({TEXT, VARCHAR, JSON})
"""Types whose binary format is their text, in the connection's encoding: UTF-8."""

PAYLOAD_TYPES: Final = frozenset({TEXT, VARCHAR, BPCHAR, JSON, JSONB, BYTEA})
"""Types of the payload column: JSON text to be encoded by contract, or bytea that is Avro already."""


def has_binary_decoder(type_oid: int) -> bool:
    """Whether cells of this type can be read in binary format."""
    return type_oid in BINARY_TO_TEXT or type_oid == BYTEA


_TEXT_TO_TEXT: Final = {BOOL: _bool_text, BPCHAR: _padded}


def to_text(type_oid: int, binary: bool) -> Callable[[bytes], str] | None:
    """Return the decoder of a cell to text; None for bytea, and when there is none for the binary format."""
    if binary or type_oid == BYTEA:
        return BINARY_TO_TEXT.get(type_oid)
    return _TEXT_TO_TEXT.get(type_oid, _text)


def iso_timestamp(cell: bytes) -> str:
    """A timestamp as ISO 8601, from PostgreSQL's text in DateStyle ISO; infinity and years BC as they are."""
    text = cell.decode()
    return text if text[-2:] == "BC" else text.replace(" ", "T", 1)


def iso_timestamptz(cell: bytes) -> str:
    """A timestamp with time zone likewise."""
    text = iso_timestamp(cell)
    return iso_offset(text) if "T" in text else text


def iso_timetz(cell: bytes) -> str:
    """A time with time zone likewise."""
    return iso_offset(cell.decode())


def iso_offset(text: str) -> str:
    """Complete the offset of a time: `+00` becomes `Z`, and `+05` becomes `+05:00`."""
    if text[-3] not in "+-":
        return text
    return f"{text[:-3]}Z" if text[-2:] == "00" else f"{text}:00"


def base64(cell: bytes) -> str:
    """Binary bytea in base64, with padding and without line breaks."""
    return binascii.b2a_base64(cell, newline=False).decode()


def base64_of_text(cell: bytes) -> str:
    """bytea in its text format likewise. Raises ProtocolError as `bytea_from_text`."""
    return base64(bytea_from_text(cell))


ISO_TEXT: Final[dict[int, Callable[[bytes], str]]] = {
    TIMESTAMP: iso_timestamp,
    TIMESTAMPTZ: iso_timestamptz,
    TIMETZ: iso_timetz,
}
"""Types whose header is not PostgreSQL's text with `[outbox] header_format = "iso"`, beside bytea."""


def to_iso(type_oid: int, binary: bool) -> Callable[[bytes], str] | None:
    """The decoder of a cell to a header's text with `header_format = "iso"`, or None as `to_text`."""
    if type_oid == BYTEA:
        return base64 if binary else base64_of_text
    return (None if binary else ISO_TEXT.get(type_oid)) or to_text(type_oid, binary)


def to_utf8(type_oid: int, binary: bool) -> Callable[[bytes], bytes] | None:
    """Return the decoder of a cell to UTF-8 text, or None as `to_text` does."""
    if type_oid in SAME_AS_TEXT:
        return _utf8
    text = to_text(type_oid, binary)
    return text and (lambda cell: text(cell).encode())


def _utf8(cell: bytes) -> bytes:
    cell.decode()  # a database of the encoding SQL_ASCII may hold anything
    return cell


def to_payload(type_oid: int, binary: bool) -> Callable[[bytes], bytes] | None:
    """Return the decoder of the payload column to JSON text or, from bytea, to the record's value."""
    if type_oid == BYTEA:
        return bytes if binary else bytea_from_text
    if type_oid in SAME_AS_TEXT:
        return bytes  # the encoder judges its UTF-8
    return jsonb_text if type_oid == JSONB and binary else to_utf8(type_oid, binary)
