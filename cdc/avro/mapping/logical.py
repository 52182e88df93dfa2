"""Convert JSON values to logical types: ISO 8601 text to dates and times, exact numbers or text to decimals.

Nothing is rounded: a decimal with more places than the scale, or a time more precise than its unit, is a mismatch.
<https://avro.apache.org/docs/1.12.0/specification/#logical-types>
"""

import datetime
import re
import struct
from collections.abc import Callable
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Final

from fastavro.types import DictSchema

from cdc.avro.mapping.mismatch import Mismatch, shown

Mapper = Callable[[object], Any]

_DATE = r"(\d{4})-(\d\d)-(\d\d)"
_TIME = r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?"
_date_text = re.compile(_DATE, re.ASCII)
_time_text = re.compile(_TIME, re.ASCII)
_timestamp_text = re.compile(rf"{_DATE}[T ]{_TIME}(Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII)
_uuid_text = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_decimal_text = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,6})?", re.ASCII)

# Texts that datetime.fromisoformat, which is faster, reads exactly as the code below; other texts are read by parts.
_HOUR, _MINUTE = r"(?:[01]\d|2[0-3])", r"[0-5]\d"
_quick_text = {
    digits: re.compile(
        rf"\d{{4}}-\d\d-\d\d[T ]{_HOUR}:{_MINUTE}:{_MINUTE}(?:\.\d{{1,{digits}}})?(Z|[+-]{_HOUR}(?::?{_MINUTE})?)?",
        re.ASCII,
    )
    for digits in (3, 6)
}
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LOCAL_EPOCH: Final = datetime.datetime(1970, 1, 1)

_EPOCH_DAY: Final = datetime.date(1970, 1, 1).toordinal()
DIGITS: Final = {"millis": 3, "micros": 6, "nanos": 9}  # decimal places of a second


def mapper(schema: DictSchema) -> Mapper | None:
    """Return the mapping for a schema's logical type; None if none applies, which the specification says to ignore."""
    kind, logical_type = schema["type"], schema.get("logicalType")
    if logical_type == "decimal" and kind in {"bytes", "fixed"}:
        return _decimal(schema)
    if logical_type == "uuid" and kind == "string":
        return _uuid
    if logical_type == "uuid" and kind == "fixed" and schema["size"] == 16:
        return lambda value: bytes.fromhex(_uuid(value).replace("-", ""))
    if logical_type == "duration" and kind == "fixed" and schema["size"] == 12:
        return _duration
    return TIMES.get((kind, logical_type)) if isinstance(logical_type, str) else None


def truncating(schema: DictSchema) -> Mapper | None:
    """Return the mapping of a time or timestamp that drops excess digits of the usual text; None for another type.

    It accepts nothing else that the mapping does not accept.
    """
    exact, name = mapper(schema), str(schema.get("logicalType"))
    if exact is None or (schema["type"], name) not in TIMES or name == "date":
        return None
    too_precise = re.compile(rf"([^.]*\.\d{{{DIGITS[name.rpartition('-')[2]]}}})\d+([^.]*)", re.ASCII).fullmatch

    def time(value: object) -> Any:
        found = too_precise(value) if type(value) is str else None
        return exact(found[1] + found[2] if found else value)

    return time


def _decimal(schema: DictSchema) -> Mapper:
    whole, scale = unscaled(schema), schema.get("scale", 0)
    wide = Context(prec=schema["precision"])
    return lambda value: Decimal(whole(value)).scaleb(-scale, context=wide)


def unscaled(schema: DictSchema) -> Callable[[object], int]:
    """Return the mapping to the whole number that Avro stores for a decimal: its value times 10**scale."""
    precision, scale = schema["precision"], schema.get("scale", 0)
    size = schema.get("size")
    unit, limit = Decimal((0, (1,), -scale)), Decimal((0, (1,), precision - scale))
    context = Context(prec=precision)

    def whole(value: object) -> int:
        if (
            (isinstance(value, str) and _decimal_text.fullmatch(value))
            or type(value) is int
            or isinstance(value, Decimal)
        ):
            number = Decimal(value)
        else:
            raise Mismatch(f"{shown(value)} is not a decimal number")
        if number.is_zero():
            return 0
        if not -limit < number < limit:
            raise Mismatch(f"{shown(value)} is out of range for decimal({precision}, {scale})")
        try:
            exact = number.quantize(unit, context=context)
        except InvalidOperation:
            exact = Decimal(0)
        if exact != number:
            raise Mismatch(f"{shown(value)} has more than {scale} decimal places")
        scaled = int(exact.scaleb(scale, context=context))
        if size is not None and not -(1 << 8 * size - 1) <= scaled < 1 << 8 * size - 1:
            raise Mismatch(f"{shown(value)} does not fit in {size} bytes")
        return scaled

    return whole


def _uuid(value: object) -> str:
    if not isinstance(value, str) or not _uuid_text.fullmatch(value):
        raise Mismatch(f"{shown(value)} is not a uuid")
    return value


def _duration(value: object) -> bytes:
    """Encode months, days and milliseconds, each as an unsigned 32-bit little-endian number."""
    if not isinstance(value, dict) or value.keys() != {"months", "days", "millis"}:
        raise Mismatch(f"{shown(value)} is not a duration: an object of months, days and millis")
    for unit, amount in value.items():
        if type(amount) is not int or not 0 <= amount < 1 << 32:
            raise Mismatch(f"{shown(amount)} is out of range for a duration").within(f".{unit}")
    return struct.pack("<III", value["months"], value["days"], value["millis"])


def _days(year: str, month: str, day: str) -> int:
    return datetime.date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY


def _ticks(digits: int, hour: str, minute: str, second: str | None, fraction: str | None) -> int:
    """Return the time of day in units of 10**-digits seconds. Raises ValueError for leap seconds, as Avro has none."""
    time = datetime.time(int(hour), int(minute), int(second or 0))
    fraction = (fraction or "").rstrip("0")
    if len(fraction) > digits:
        raise Mismatch(f"is more precise than {digits} decimal places of a second")
    seconds = time.hour * 3600 + time.minute * 60 + time.second
    return int(seconds * 10**digits) + int(fraction.ljust(digits, "0"))


def _number(value: object, bits: int) -> int | None:
    """Return a whole number as it is: days, or units since midnight or the epoch; None for any other value."""
    if type(value) is not int:
        return None
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise Mismatch(f"{value} is out of range for {'int' if bits == 32 else 'long'}")
    return value


def _parsed(text: re.Pattern[str], value: object, expected: str) -> re.Match[str]:
    match = text.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Mismatch(f"{shown(value)} is not {expected}")
    return match


def _date(value: object) -> int:
    number = _number(value, 32)
    if number is not None:
        return number
    match = _parsed(_date_text, value, "a date such as 2026-01-31")
    try:
        return _days(*match.groups())
    except ValueError as error:
        raise Mismatch(f"{shown(value)}: {error}") from None


def _time(digits: int, bits: int) -> Mapper:
    day = 86_400 * 10**digits

    def time(value: object) -> int:
        number = _number(value, bits)
        if number is None:
            match = _parsed(_time_text, value, "a time such as 17:45:00.5")
            try:
                return _ticks(digits, *match.groups())
            except Mismatch as mismatch:
                raise Mismatch(f"{shown(value)} {mismatch.reason}") from None
            except ValueError as error:
                raise Mismatch(f"{shown(value)}: {error}") from None
        if not 0 <= number < day:
            raise Mismatch(f"{value} is not within a day")
        return number

    return time


def _timestamp(digits: int, *, local: bool) -> Mapper:
    example = "2026-01-31T17:45:00.5" + ("" if local else "Z")
    expected = f"a {'local ' if local else ''}timestamp such as {example}"

    quick = _quick_text[min(digits, 6)].fullmatch
    epoch = _LOCAL_EPOCH if local else _EPOCH
    unit = 10 ** (6 - digits) if digits <= 6 else 0

    def timestamp(value: object) -> int:
        if unit and type(value) is str and (found := quick(value)) and (found[1] is None) == local:
            try:
                since = datetime.datetime.fromisoformat(value) - epoch
            except ValueError:
                return by_parts(value)  # raises Mismatch with a reason
            return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) // unit
        return by_parts(value)

    def by_parts(value: object) -> int:
        number = _number(value, 64)
        if number is not None:
            return number
        match = _parsed(_timestamp_text, value, expected)
        *parts, offset = match.groups()
        if (offset is None) != local:
            raise Mismatch(f"{shown(value)} {'has an' if local else 'has no'} offset from UTC: expected {expected}")
        try:
            seconds = _days(*parts[:3]) * 86_400 - _offset_seconds(offset)
            ticks = int(seconds * 10**digits) + _ticks(digits, *parts[3:])
        except Mismatch as mismatch:
            raise Mismatch(f"{shown(value)} {mismatch.reason}") from None
        except ValueError as error:
            raise Mismatch(f"{shown(value)}: {error}") from None
        if not -(1 << 63) <= ticks < 1 << 63:
            raise Mismatch(f"{shown(value)} is out of range for long")
        return ticks

    return timestamp


def _offset_seconds(offset: str | None) -> int:
    if offset is None or offset == "Z":
        return 0
    hours, minutes = int(offset[1:3]), int(offset[3:].lstrip(":") or 0)
    if hours > 23 or minutes > 59:
        raise ValueError(f"{offset} is not an offset from UTC")
    return (hours * 3600 + minutes * 60) * (-1 if offset[0] == "-" else 1)


TIMES: Final[dict[tuple[str, str], Mapper]] = {
    ("int", "time-millis"): _time(3, 32),
    ("long", "time-micros"): _time(6, 64),
    **{("long", f"timestamp-{unit}"): _timestamp(digits, local=False) for unit, digits in DIGITS.items()},
    **{("long", f"local-timestamp-{unit}"): _timestamp(digits, local=True) for unit, digits in DIGITS.items()},
    ("int", "date"): _date,
}
