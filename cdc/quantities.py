"""Formats quantities and times for operators: sizes, counts, rates, times. None, an unknown value, is a dash."""

from datetime import UTC, datetime
from typing import Final, Literal

UNKNOWN: Final = "-"

_SPANS: Final = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def size(value: float | None) -> str:
    """Format bytes in powers of ten: 12.3 MB; a negative value is 0 B."""
    if value is None:
        return UNKNOWN
    amount, unit = float(max(int(value), 0)), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB", "EB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} B" if unit == "B" else f"{amount:,.1f} {unit}"


def count(value: float | None) -> str:
    """Format a whole number: 1,200."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def plural(value: int | None, noun: str) -> str:
    """Format a whole number with the noun that it counts: 1 row, 1,200 rows."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def rate(value: float | None) -> str:
    """Format a number per second, with one decimal below ten."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def span(seconds: float | None) -> str:
    """Format a duration in its two largest units: 1 min 15 s."""
    if seconds is None:
        return UNKNOWN
    for unit, name, smaller, small_name in _SPANS:
        if seconds >= unit:
            rest = int(seconds % unit // smaller)
            return f"{int(seconds // unit)} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def milliseconds(value: float | None) -> str:
    """Format a latency in milliseconds, from ten seconds on like a duration."""
    if value is None:
        return UNKNOWN
    if value >= 10_000:
        return span(value / 1000)
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms"


def moment(unix_time: float, unit: Literal["milliseconds", "seconds"] = "milliseconds") -> str:
    """Format a time as ISO 8601 in UTC, down to a unit. Raises ValueError or OverflowError beyond the year 9999."""
    return datetime.fromtimestamp(unix_time, UTC).isoformat(timespec=unit).replace("+00:00", "Z")
