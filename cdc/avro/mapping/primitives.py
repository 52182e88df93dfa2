"""Convert single JSON values: null, booleans, numbers in range, text, bytes in both forms, enum symbols."""

import binascii
import math
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from fastavro.types import DictSchema

from cdc.avro.mapping.mismatch import Mismatch, shown

Json = object
Mapper = Callable[[Json], object]


def symbol(schema: DictSchema) -> Mapper:
    """Return the mapping of an enum that ignores its default."""
    symbols = frozenset(schema["symbols"])
    by_lower_case = {name.lower(): name for name in schema["symbols"]}

    def known(value: Json) -> str:
        if isinstance(value, str) and value in symbols:
            return value
        near = by_lower_case.get(value.lower()) if isinstance(value, str) else None
        raise Mismatch(f"{shown(value)} is not a symbol of {schema['name']}{f'; {near} is' if near else ''}")

    return known


def _null(value: Json) -> None:
    if value is not None:
        raise Mismatch(f"{shown(value)} is not null")


def _boolean(value: Json) -> bool:
    if value is True or value is False:
        return bool(value)
    raise Mismatch(f"{shown(value)} is not a boolean")


def _integer(name: str, bits: int) -> Mapper:
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1

    def integer(value: Json) -> int:
        if type(value) is not int:  # bool is an int to Python, not to Avro
            raise Mismatch(f"{shown(value)} is not {'an int' if name == 'int' else 'a long'}")
        if not low <= value <= high:
            raise Mismatch(f"{value} is out of range for {name}")
        return value

    return integer


def _double(value: Json) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int or isinstance(value, Decimal):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isinf(number):
            return number
        raise Mismatch(f"{shown(value)} is out of range for double")
    raise Mismatch(f"{shown(value)} is not a number")


def _float(value: Json) -> float:
    number = _double(value)
    try:
        struct.pack("<f", number)
    except OverflowError:
        raise Mismatch(f"{shown(value)} is out of range for float") from None
    return number


def _string(value: Json) -> str:
    if not isinstance(value, str):
        raise Mismatch(f"{shown(value)} is not a string")
    return text(value)


def text(value: str) -> str:
    """Return the text. Raises Mismatch for half a surrogate pair, which JSON can escape but UTF-8 cannot encode."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Mismatch(f"contains half a surrogate pair (U+{ord(value[error.start]):04X}), which is not text") from None
    return value


def avro_json_bytes(value: Json) -> bytes:
    """Convert Avro's JSON encoding of bytes: one character of code 0 to 255 for each byte."""
    if not isinstance(value, str):
        raise Mismatch(f"{shown(value)} is not a string of bytes")
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        raise Mismatch(f"{shown(value)} contains characters above U+00FF, which are not bytes") from None


def base64_bytes(value: Json) -> bytes:
    """Convert base64 in its canonical form only: standard alphabet, padded, without white space."""
    if not isinstance(value, str):
        raise Mismatch(f"{shown(value)} is not a string of bytes")
    try:
        data = binascii.a2b_base64(value)
    except ValueError:
        data = b""
    if binascii.b2a_base64(data, newline=False).decode() != value:
        raise Mismatch(f"{shown(value)} is not base64 (standard alphabet, padded)")
    return data


PRIMITIVES: Final[dict[str, Mapper]] = {
    "null": _null,
    "boolean": _boolean,
    "int": _integer("int", 32),
    "long": _integer("long", 64),
    "float": _float,
    "double": _double,
    "string": _string,
    "bytes": avro_json_bytes,
}
