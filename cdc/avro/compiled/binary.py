"""What compiled encoders call: Avro's binary encoding of single values, fast for what is common.

Small whole numbers come from a table; everything else, and everything that is wrong, goes through a function here. A
value that does not fit raises Misfit and no reason: the mapping, which knows the path, is then asked for it.
<https://avro.apache.org/docs/1.12.0/specification/#binary-encoding>
"""

import math
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from fastavro.types import DictSchema

from cdc.avro.mapping import logical
from cdc.avro.mapping.primitives import base64_bytes

Json = object


class Misfit(ValueError):
    """The compiled code does not take this value; the mapping says why, or takes it."""


def misfit() -> bytes:
    """For where only an expression can stand."""
    raise Misfit


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


# By number after zig-zag, so that SMALL, the even ones, has 0 to 8191. A pair is two bytes that more bytes follow.
_ENDS: Final = tuple(map(_varint, range(1 << 14)))
_PAIRS: Final = tuple(bytes((low & 127 | 128, low >> 7 | 128)) for low in range(1 << 14))
SMALL: Final = _ENDS[::2]
LOW: Final = _PAIRS[::2]
IN_TABLES: Final = len(LOW) * len(_ENDS)  # a whole number below it is in SMALL, or a pair of LOW and an end


def size(count: int) -> bytes:
    """A length or a count as a long."""
    return _zigzagged(count << 1)


def _zigzagged(number: int) -> bytes:
    if number < 1 << 14:
        return _ENDS[number]
    if number < 1 << 28:
        return _PAIRS[number & 16383] + _ENDS[number >> 14]
    if number < 1 << 42:
        return _PAIRS[number & 16383] + _PAIRS[number >> 14 & 16383] + _ENDS[number >> 28]
    return _PAIRS[number & 16383] + _PAIRS[number >> 14 & 16383] + _PAIRS[number >> 28 & 16383] + _varint(number >> 42)


def integer(value: Json) -> bytes:
    """An int. Raises Misfit."""
    if type(value) is not int or not -0x80000000 <= value <= 0x7FFFFFFF:
        raise Misfit
    return _zigzagged(value << 1 ^ value >> 63)


def long(value: Json) -> bytes:
    """A long. Raises Misfit."""
    if type(value) is not int or not -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        raise Misfit
    return _zigzagged(value << 1 ^ value >> 63)


_pack_double = struct.Struct("<d").pack
_pack_float = struct.Struct("<f").pack


def double(value: Json) -> bytes:
    """A double. Raises Misfit or OverflowError."""
    return _pack_double(_number(value))


def single(value: Json) -> bytes:
    """A float. Raises Misfit or OverflowError."""
    return _pack_float(_number(value))


def _number(value: Json) -> float:
    number = float(value) if type(value) is int or isinstance(value, Decimal) else value
    if type(number) is not float or not math.isfinite(number):
        raise Misfit
    return number


def logical_bytes(schema: DictSchema) -> Callable[[Json], bytes] | None:
    """The bytes of a value of a logical type, without their length; None when there is no logical type that applies."""
    convert = logical.mapper(schema)
    if convert is None:
        return None
    if schema["logicalType"] == "decimal":
        return _decimal(schema)
    if schema["type"] == "string":
        return lambda value: convert(value).encode()
    if schema["type"] == "fixed":
        return convert
    return lambda value: long(convert(value))  # an int has the bytes of the long


def _decimal(schema: DictSchema) -> Callable[[Json], bytes]:
    whole, width = logical.unscaled(schema), schema.get("size")

    def decimal(value: Json) -> bytes:
        number = whole(value)
        # A sign bit more than the number needs, as fastavro has it.
        return number.to_bytes(width or (number.bit_length() + 8) // 8, "big", signed=True)

    return decimal


NAMES: Final[dict[str, object]] = {
    "Misfit": Misfit, "misfit": misfit, "SMALL": SMALL, "LOW": LOW, "HIGH": _ENDS, "size": size,
    "integer": integer, "long": long,
    "double": double, "single": single, "pack_double": _pack_double, "pack_float": _pack_float,
    "isfinite": math.isfinite, "base64_bytes": base64_bytes,
}  # fmt: skip
