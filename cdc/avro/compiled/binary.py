"""Functions that compiled encoders call: Avro's binary encoding of single values, fast for common values.

Small whole numbers come from a table; all other values, including invalid ones, go through a function here. A value
that does not match raises Misfit without a reason: the caller then runs the mapping, which reports path and reason.
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
    """The compiled code does not accept a value; the mapping then reports why, or accepts it."""


def misfit() -> bytes:
    """Raise Misfit, in places of the generated source where only an expression is allowed."""
    raise Misfit


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


_LAST: Final = [bytes((number,)) for number in range(128)]
_CONTINUED: Final = [bytes((number | 128,)) for number in range(128)]
# Indexed by the zigzag-encoded number, so that SMALL, the even ones, has 0 to 8191. A pair is two continued bytes. The
# parts are joined instead of computed for each number: 5 ms less at each start.
_ENDS: Final = (*_LAST, *(low + high for high in _LAST[1:] for low in _CONTINUED))
_PAIRS: Final = tuple([low + high for high in _CONTINUED for low in _CONTINUED])
SMALL: Final = _ENDS[::2]
LOW: Final = _PAIRS[::2]
IN_TABLES: Final = len(LOW) * len(_ENDS)  # a whole number below it is in SMALL, or a pair of LOW and an end


def size(count: int) -> bytes:
    """Encode a length or a count, which must not be negative, as a long."""
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
    """Encode an int. Raises Misfit, also for bool and out of 32 bits."""
    if type(value) is not int or not -0x80000000 <= value <= 0x7FFFFFFF:
        raise Misfit
    return _zigzagged(value << 1 ^ value >> 63)


def long(value: Json) -> bytes:
    """Encode a long. Raises Misfit, also for bool and out of 64 bits."""
    if type(value) is not int or not -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        raise Misfit
    return _zigzagged(value << 1 ^ value >> 63)


_pack_double = struct.Struct("<d").pack
_pack_float = struct.Struct("<f").pack


def double(value: Json) -> bytes:
    """Encode a double: 8 bytes, little-endian. Raises Misfit or OverflowError."""
    return _pack_double(number(value))


def single(value: Json) -> bytes:
    """Encode a float: 4 bytes, little-endian. Raises Misfit or OverflowError."""
    return _pack_float(number(value))


def number(value: Json) -> float:
    """Convert a number to a finite float. Raises Misfit or OverflowError."""
    converted = float(value) if type(value) is int or isinstance(value, Decimal) else value
    if type(converted) is not float or not math.isfinite(converted):
        raise Misfit
    return converted


def logical_bytes(schema: DictSchema, *, truncates: bool = False) -> Callable[[Json], bytes] | None:
    """Return an encoder of the logical type's values, without a length prefix; None if no logical type applies."""
    convert = (logical.truncating(schema) if truncates else None) or logical.mapper(schema)
    if convert is None:
        return None
    if schema["logicalType"] == "decimal":
        return _decimal(schema)
    if schema["type"] == "string":
        return lambda value: convert(value).encode()
    if schema["type"] == "fixed":
        return convert
    return lambda value: long(convert(value))  # int and long have the same encoding


def _decimal(schema: DictSchema) -> Callable[[Json], bytes]:
    whole, width = logical.unscaled(schema), schema.get("size")

    def decimal(value: Json) -> bytes:
        number = whole(value)
        # One sign bit more than the number needs, as fastavro does.
        return number.to_bytes(width or (number.bit_length() + 8) // 8, "big", signed=True)

    return decimal


NAMES: Final[dict[str, object]] = {
    "Misfit": Misfit, "misfit": misfit, "SMALL": SMALL, "LOW": LOW, "HIGH": _ENDS, "size": size,
    "integer": integer, "long": long,
    "double": double, "single": single, "pack_double": _pack_double, "pack_float": _pack_float,
    "isfinite": math.isfinite, "base64_bytes": base64_bytes,
}  # fmt: skip
