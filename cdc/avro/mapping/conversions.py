"""Convert values in another notation of the same value, as serialisers of other languages write them.

Numbers may be `1.0` or `1e3` (doubles of Java, Go and Python), 64-bit integers strings (proto3 JSON), `NaN` a string
(Jackson, proto3, PostgreSQL), times may have a lower-case `t` or `z`, a comma, or an offset with seconds (PostgreSQL
for times before time zones), dates a time of midnight (.NET), dates and local times may be arrays (Jackson), and UUIDs
may have no hyphens. A value is converted only if exactly one value of the type can be meant; else it is rejected, and
the message names a type that accepts it. With `[avro] timestamps = "truncate"`, excess digits of a second are dropped.

Conversions are tried after a value was rejected as it is: see `cdc.avro.mapping.unions`. docs/mapping.md lists them.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from fastavro.types import DictSchema

from cdc.avro.mapping import logical
from cdc.avro.mapping.mismatch import Mismatch, shown
from cdc.avro.mapping.rules import STRICT, Rules

Mapper = Callable[[object], Any]

_NOT_FINITE: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_LONGEST: Final = 19  # digits of a 64-bit integer
_WIDEST: Final = 76  # digits of a decimal that is proposed
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # of the years 1 to 9999

_SECONDS_BELOW: Final = {"timestamp": 10**11, "local-timestamp": 10**11, "time": 86_400}
"""A number with a fraction or an exponent below this may be in seconds (the year 5138, or a day), and not in units."""

_number_text = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d{1,6})?", re.ASCII)
_clock = r"(\d\d:\d\d(?::\d\d)?)(?:(?<=:\d\d:\d\d)[.,](\d+))?"
_time_text = re.compile(_clock, re.ASCII)
_offset = r"Z|UTC|([+-])(\d\d)(?::?(\d\d)(?::?(\d\d))?)?"
_moment_text = re.compile(rf"(\d{{4}}-\d\d-\d\d)[T ]{_clock}(?: ?({_offset}))?", re.ASCII | re.IGNORECASE)
# A year, month, day, hour, minute, second and fraction without separators, as far as written.
_compact_clock = r"[0-2]\d(?:[0-5]\d(?:[0-5]\d(?:\d{3}|\d{6})?)?)?"
_compact_text = re.compile(rf"\d{{4}}(?:(?:0[1-9]|1[0-2])(?:(?:0[1-9]|[12]\d|3[01])(?:{_compact_clock})?)?)?", re.ASCII)
_uuid_digits = re.compile(r"[0-9a-fA-F]{32}")


def mapper(schema: DictSchema, as_it_is: Mapper, rules: Rules) -> Mapper:
    """Return `as_it_is`, the mapping of a type without parts, with conversions and advice for what it rejects."""
    convert = _converting(schema, as_it_is, rules)

    def advising(value: object) -> Any:
        try:
            return convert(value)
        except Mismatch as mismatch:
            advice = "; ".join(filter(None, [_accepting(schema, value), _truncating(schema, as_it_is, value)]))
            mismatch.reason += f"; {advice}" if advice else ""
            raise

    return advising


def _converting(schema: DictSchema, as_it_is: Mapper, rules: Rules) -> Mapper:
    convert = _conversion(schema, as_it_is, rules)

    def converting(value: object) -> Any:
        try:
            return as_it_is(value)
        except Mismatch as mismatch:
            rejected = mismatch
        datum = convert(value)
        if datum is None:
            raise rejected
        return datum

    return converting


def _conversion(schema: DictSchema, as_it_is: Mapper, rules: Rules) -> Mapper:
    """Return a function from a rejected value to its datum, or None; it may raise Mismatch with a better reason."""
    logical_type = schema.get("logicalType") if logical.mapper(schema) else None
    family, _, unit = str(logical_type).rpartition("-")
    if family in _SECONDS_BELOW:
        return _Moments(family, logical.DIGITS[unit], as_it_is, truncate=rules.timestamps == "truncate").convert
    if logical_type is None and schema["type"] in {"int", "long"}:
        return lambda value: None if (number := _whole(_number(value))) is None else as_it_is(number)
    if logical_type is None and schema["type"] in {"float", "double"}:
        return lambda value: _NOT_FINITE.get(value) if isinstance(value, str) else None
    if logical_type == "date":
        return lambda value: None if (day := _day(value)) is None else as_it_is(day)
    if logical_type == "uuid":
        return lambda value: None if (hyphenated := _uuid(value)) is None else as_it_is(hyphenated)
    if logical_type == "duration":
        return lambda value: as_it_is(_amounts(value)) if isinstance(value, dict) else None
    return lambda _: None


def _number(value: object) -> Decimal | None:
    """Return a number, or a number in a string, exactly. A float is none: it may have been rounded from its text."""
    if isinstance(value, str) and _number_text.fullmatch(value):
        return Decimal(value)
    return value if isinstance(value, Decimal) and value.is_finite() else None


def _whole(number: Decimal | None) -> int | None:
    """Return the integer that equals a number; None if there is none, or none of reasonable length."""
    if number is None or (number and number.adjusted() > _LONGEST) or number != number.to_integral_value():
        return None
    return int(number) if number else 0


def _amounts(value: dict[str, object]) -> dict[str, object]:
    whole = {unit: _whole(_number(amount)) for unit, amount in value.items()}
    return {unit: amount if whole[unit] is None else whole[unit] for unit, amount in value.items()}


def _uuid(value: object) -> str | None:
    """Return the canonical text of a UUID without hyphens, in braces, or as a URN."""
    if not isinstance(value, str):
        return None
    text = value[1:-1] if value[:1] == "{" and value[-1:] == "}" else value
    text = text[9:] if text[:9].lower() == "urn:uuid:" else text
    if _uuid_digits.fullmatch(text):
        text = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
    return None if text == value else text.lower()


def _day(value: object) -> int | str | None:
    """Return the text or number of a day that is written as midnight in UTC or without an offset, or as `1.0`."""
    if isinstance(value, list):
        return _text_of_array(value, dated=True) if len(value) == 3 else None
    if isinstance(value, str):
        found = _moment_text.fullmatch(value)
        midnight = found is not None and not re.sub("[:0]", "", found[2]) and not (found[3] or "").strip("0")
        return found[1] if found and midnight and not _seconds(found) else None
    day = _whole(_number(value))
    return day if day is not None and _FIRST_DAY <= day <= _LAST_DAY else None


def _seconds(found: re.Match[str]) -> int:
    """Return the offset from UTC of `_moment_text` in seconds. Raises Mismatch for one of a day or more."""
    sign, hours, minutes, seconds = found[5], int(found[6] or 0), int(found[7] or 0), int(found[8] or 0)
    if hours > 23 or minutes > 59 or seconds > 59:
        raise Mismatch(f"{shown(found[0])}: {found[4]} is not an offset from UTC")
    return (hours * 3600 + minutes * 60 + seconds) * (-1 if sign == "-" else 1)


def _text_of_array(value: list[object], *, dated: bool) -> str | None:
    """Return ISO 8601 text for Jackson's array: year, month, day, hour, minute, second, nanoseconds, as far as given.

    Fewer than 1000 nanoseconds may be milliseconds, by a setting of Jackson, and are not accepted.
    """
    parts = [part for part in value if type(part) is int and part >= 0]
    if len(parts) < len(value):
        return None
    date, clock = (parts[:3], parts[3:]) if dated else ([], parts)
    nanos = clock[3] if len(clock) == 4 else 0
    if 0 < nanos < 1000 or nanos > 999_999_999 or len(clock) > 4 or len(clock) == 1:
        return None
    texts = ["{:04}-{:02}-{:02}".format(*date)] if dated else []
    texts += [":".join(f"{part:02}" for part in clock[:3]) + (f".{nanos:09}" if nanos else "")] if clock else []
    return "T".join(texts)


class _Moments:
    """Conversions to times of day and timestamps: `digits` are the decimal places of a second that the type has."""

    def __init__(self, family: str, digits: int, as_it_is: Mapper, *, truncate: bool) -> None:
        self._family = family
        self._digits = digits
        self._as_it_is = as_it_is
        self._truncate = truncate

    def convert(self, value: object) -> int | None:
        """Return the datum of a rejected value, None if it has no conversion. Raises Mismatch."""
        if isinstance(value, list):
            dated = self._family == "local-timestamp"
            text = _text_of_array(value, dated=dated) if len(value) > 3 * dated else None
            return None if text is None else self._from_text(text)
        if isinstance(value, Decimal) and value.is_finite():
            return self._from_number(value)
        if not isinstance(value, str):
            return None
        if self._family != "time" and (number := _whole(_number(value))) is not None:
            return None if _compact_text.fullmatch(value) else self._from_number(Decimal(number))
        return self._from_text(value)

    def _from_number(self, number: Decimal) -> int | None:
        if number and abs(number) < _SECONDS_BELOW[self._family]:
            raise Mismatch(f"{shown(number)} may be in seconds: expected an integer, or text")
        whole = _whole(number.to_integral_value("ROUND_FLOOR") if self._truncate else number)
        return None if whole is None else int(self._as_it_is(whole))

    def _from_text(self, text: str) -> int | None:
        local = self._family != "timestamp"
        found = (_time_text if self._family == "time" else _moment_text).fullmatch(text)
        if found is None:
            return None
        date, clock, fraction = ("", *found.groups()) if self._family == "time" else found.groups()[:3]
        offset = None if self._family == "time" else found[4]
        if (offset is None) != local:
            return None
        fraction = (fraction or "").rstrip("0")
        if len(fraction) > self._digits and not self._truncate:
            raise Mismatch(f"{shown(text)} is more precise than {self._digits} decimal places of a second")
        fraction = f".{fraction[: self._digits]}" if fraction else ""
        plain = f"{date}T{clock}" if date else clock
        ticks = int(self._as_it_is(f"{plain}{fraction}{'' if local else 'Z'}"))
        if offset is not None:
            ticks -= _seconds(found) * 10**self._digits
        return int(self._as_it_is(ticks))  # checks the range


def _truncating(schema: DictSchema, as_it_is: Mapper, value: object) -> str:
    """Return the setting with which a time that is too precise is accepted; else an empty text."""
    if not isinstance(value, (str, Decimal)) or logical.mapper(schema) is None:
        return ""
    accepts = _accepts(_converting(schema, as_it_is, Rules(timestamps="truncate")), value)
    return '[avro] timestamps = "truncate" drops the excess digits' if accepts else ""


def _accepts(convert: Mapper, value: object) -> bool:
    try:
        convert(value)
    except Mismatch:
        return False
    return True


def _accepting(schema: DictSchema, value: object) -> str:
    """Return which type accepts a rejected value, as a part of the message; empty if that is not known."""
    name = schema["logicalType"] if logical.mapper(schema) else schema["type"]
    temporal = (schema["type"], name) in logical.TIMES
    if isinstance(value, str) and temporal:
        return next((f"{other} accepts it" for other, convert in _TIMES.items() if _accepts(convert, value)), "")
    number = Decimal(value) if type(value) is int else _number(value)
    if name == "decimal":
        return _accepting_decimal(schema, number)
    whole = _whole(number)
    if name != "long" and not temporal and whole is not None and -(1 << 63) <= whole < 1 << 63:
        return "long accepts it"
    if isinstance(value, str):
        accepting = "decimal and string accept it" if number is not None else "string accepts it"
        return "" if name in {"string", "fixed"} else accepting
    if type(value) is int and not temporal:
        return "decimal accepts it"
    if isinstance(value, (float, Decimal)) and name != "double":
        return "double accepts it" if name == "float" else "double and decimal accept it"
    return ""


def _accepting_decimal(schema: DictSchema, number: Decimal | None) -> str:
    if not number:
        return ""
    significant = "".join(map(str, number.as_tuple().digits)).strip("0")
    lowest = number.adjusted() - len(significant) + 1  # the exponent of the last digit
    scale = max(schema.get("scale", 0), -lowest)
    precision = max(schema["precision"], scale + max(number.adjusted() + 1, 0))
    fits = (precision, scale) == (schema["precision"], schema.get("scale", 0))
    return "" if fits or precision > _WIDEST else f"decimal({precision}, {scale}) accepts it"


def _by_name(kind: str, logical_type: str) -> Mapper:
    return _converting({"type": kind, "logicalType": logical_type}, logical.TIMES[kind, logical_type], STRICT)


_TIMES: Final = {logical_type: _by_name(kind, logical_type) for kind, logical_type in logical.TIMES}
