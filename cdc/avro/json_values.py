"""JSON text of Avro data: what `[record] value = "json"` sends. Each value has exactly one text, without white space.

A datum is what `cdc.avro.mapping` makes of a payload for fastavro's writer, so that JSON holds the values that Avro
would hold: conversions, defaults and branches of unions are decided there alone. docs/values.md lists the forms.
"""

import binascii
import datetime
import json.encoder
import math
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any, Final, Literal

from fastavro.types import DictSchema, Schema

from cdc.avro.mapping import logical
from cdc.avro.mapping.convert import resolved, type_name
from cdc.avro.mapping.mismatch import Mismatch
from cdc.avro.mapping.rules import Rules

Write = Callable[[Any], str]

_EPOCH_DAY: Final = datetime.date(1970, 1, 1).toordinal()
_LAST_DAY: Final = datetime.date.max.toordinal()


@dataclass(frozen=True)
class JsonForm:
    """`[record] longs` and `decimals`: whether these numbers are JSON numbers or strings."""

    longs: Literal["number", "string"] = "number"
    decimals: Literal["string", "number"] = "string"


quote: Final[Callable[[str], str]] = json.encoder.encode_basestring
"""Quote a text: only `"`, `\\` and control characters are escaped, these as `\\b \\t \\n \\f \\r` or `\\u001f`."""


def double(number: float) -> str:
    """Return the shortest digits that are read as the same number, as Python's `repr` writes them."""
    if math.isfinite(number):
        return repr(number)
    return '"NaN"' if number != number else '"Infinity"' if number > 0 else '"-Infinity"'


def single(number: float) -> str:
    """Return the digits of the double that equals a number of single precision. Raises OverflowError."""
    rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    return double(rounded)


def scalar(definition: DictSchema, rules: Rules, form: JsonForm) -> Write:
    """Return a function from a datum to its text, for a type without parts. It raises Mismatch for what has no text."""
    kind: str = definition["type"]
    if logical.mapper(definition):
        return logical_type(definition, form)
    if kind in {"bytes", "fixed"}:
        return _characters if rules.bytes_as == "avro-json" else _base64
    return _PLAIN["string long" if kind == "long" and form.longs == "string" else kind]


def logical_type(definition: DictSchema, form: JsonForm) -> Write:
    """Return the same for a logical type that applies. A decimal may be given as the whole number that Avro stores."""
    name: str = definition["logicalType"]
    if name == "decimal":
        return _decimal(definition, form)
    if name == "uuid":
        checked = logical.mapper(definition)  # also a default, which Avro takes as any string
        assert checked
        return _uuid_of_bytes if definition["type"] == "fixed" else lambda text: f'"{checked(text).lower()}"'
    if name == "duration":
        return _duration
    family, _, unit = name.rpartition("-")
    if family == "":
        return _date
    digits = logical.DIGITS[unit]
    return _time(digits) if family == "time" else _timestamp(digits, "Z" if family == "timestamp" else "")


def _decimal(definition: DictSchema, form: JsonForm) -> Write:
    scale, context = definition.get("scale", 0), Context(prec=definition["precision"])
    mark = '"' if form.decimals == "string" else ""

    def decimal(datum: Decimal | bytes | int) -> str:
        if isinstance(datum, Decimal):
            datum = int(datum.scaleb(scale, context=context))
        elif isinstance(datum, bytes):  # a default, which Avro's JSON encoding has as bytes
            datum = int.from_bytes(datum, "big", signed=True)
        digits = str(abs(datum)).zfill(scale + 1)
        point = len(digits) - scale
        return f"{mark}{'-' if datum < 0 else ''}{digits[:point]}{'.' if scale else ''}{digits[point:]}{mark}"

    return decimal


def _characters(datum: bytes) -> str:
    return quote(datum.decode("latin-1"))


def _base64(datum: bytes) -> str:
    return f'"{binascii.b2a_base64(datum, newline=False).decode()}"'


def _uuid_of_bytes(datum: bytes) -> str:
    return f'"{uuid.UUID(bytes=datum)}"'


def _duration(datum: bytes) -> str:
    months, days, millis = struct.unpack("<III", datum)
    return f'{{"months":{months},"days":{days},"millis":{millis}}}'


def _date(day: int) -> str:
    return f'"{_day(day, day)}"'


def _day(day: int, datum: int) -> str:
    ordinal = day + _EPOCH_DAY
    if not 0 < ordinal <= _LAST_DAY:
        raise Mismatch(f"{datum} is not within the years 1 to 9999")
    return datetime.date.fromordinal(ordinal).isoformat()


def _clock(ticks: int, digits: int) -> str:
    seconds, fraction = divmod(ticks, 10**digits)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:0{digits}}"


def _time(digits: int) -> Write:
    def time(datum: int) -> str:
        return f'"{_clock(datum, digits)}"'

    return time


def _timestamp(digits: int, zone: str) -> Write:
    day_ticks = 86_400 * 10**digits

    def timestamp(datum: int) -> str:
        day, ticks = divmod(datum, day_ticks)
        return f'"{_day(day, datum)}T{_clock(ticks, digits)}{zone}"'

    return timestamp


_PLAIN: Final[dict[str, Write]] = {
    "null": lambda _: "null",
    "boolean": lambda datum: "true" if datum else "false",
    "int": str,
    "long": str,
    "string long": lambda datum: f'"{datum}"',
    "float": single,
    "double": double,
    "string": quote,
    "enum": quote,
}


def writer(schema: Schema, schemas: dict[str, DictSchema], rules: Rules, form: JsonForm) -> Write:
    """Return a function from a datum of a schema parsed by fastavro to its text.

    It raises Mismatch with a path for dates that JSON cannot have. `schemas` are the named types.
    """
    return _Writers(schemas, rules, form).of(schema)


class _Writers:
    """The writers of one schema, with one for each record."""

    def __init__(self, schemas: dict[str, DictSchema], rules: Rules, form: JsonForm) -> None:
        self._schemas = schemas
        self._rules = rules
        self._form = form
        self._records: dict[str, Write] = {}

    def of(self, schema: Schema) -> Write:
        definition = resolved(schema, self._schemas)
        if isinstance(definition, list):
            return self._union(definition)
        kind = definition["type"]
        if kind in {"record", "error"}:
            return self._record(definition)
        if kind == "array":
            return self._array(self.of(definition["items"]))
        if kind == "map":
            return self._map(self.of(definition["values"]))
        return scalar(definition, self._rules, self._form)

    def _record(self, schema: DictSchema) -> Write:
        name = schema["name"]
        if name in self._records:
            return self._records[name]
        fields: list[tuple[str, str, Write]] = []

        def record(datum: dict[str, Any]) -> str:
            parts = []
            for name, label, write in fields:
                try:
                    parts.append(f"{label}{write(datum[name])}")
                except Mismatch as mismatch:
                    raise mismatch.within(f".{name}") from None
            return f"{{{','.join(parts)}}}"

        self._records[name] = record
        fields += [(field["name"], f"{quote(field['name'])}:", self.of(field["type"])) for field in schema["fields"]]
        return record

    def _array(self, write: Write) -> Write:
        def array(datum: list[Any]) -> str:
            parts: list[str] = []
            try:
                parts.extend(map(write, datum))
            except Mismatch as mismatch:
                raise mismatch.within(f"[{len(parts)}]") from None
            return f"[{','.join(parts)}]"

        return array

    def _map(self, write: Write) -> Write:
        def mapping(datum: dict[str, Any]) -> str:
            parts = []
            for key, item in datum.items():
                try:
                    parts.append(f"{quote(key)}:{write(item)}")
                except Mismatch as mismatch:
                    raise mismatch.within(f"[{key!r}]") from None
            return f"{{{','.join(parts)}}}"

        return mapping

    def _union(self, branches: list[Schema]) -> Write:
        writes = {type_name(branch): self.of(branch) for branch in branches}

        def union(datum: tuple[str, Any] | None) -> str:
            return "null" if datum is None else writes[datum[0]](datum[1])

        return union
