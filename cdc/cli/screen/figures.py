"""Numbers as people read them, bars and charts made of characters."""

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from rich.filesize import decimal
from rich.text import Text

UNKNOWN: Final = "-"
EIGHTHS: Final = " ▁▂▃▄▅▆▇█"
ASCII: Final = " .:-=+*%#"
"""In place of EIGHTHS where the terminal has no such characters."""

Shown = Callable[[float | None], str]

_STEPS: Final = 8
_SPANS: Final = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def size(value: float | None) -> str:
    """Bytes in powers of ten."""
    return UNKNOWN if value is None else decimal(max(int(value), 0)).replace(" bytes", " B").replace(" byte", " B")


def count(value: float | None) -> str:
    """A whole number."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def plural(value: int | None, noun: str) -> str:
    """A whole number with what it counts."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def rate(value: float | None) -> str:
    """How many a second."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def span(seconds: float | None) -> str:
    """A time that passed, in its two largest units."""
    if seconds is None:
        return UNKNOWN
    for unit, name, smaller, small_name in _SPANS:
        if seconds >= unit:
            rest = int(seconds % unit // smaller)
            return f"{int(seconds // unit)} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def milliseconds(value: float | None) -> str:
    """A latency."""
    if value is None:
        return UNKNOWN
    if value >= 10_000:
        return span(value / 1000)
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms"


def age(moment: str | None, now: str) -> float | None:
    """Seconds between two times of a report; None when one of them is not a time."""
    try:
        return max(0.0, (datetime.fromisoformat(now) - datetime.fromisoformat(moment or "")).total_seconds())
    except (TypeError, ValueError):
        return None


def bar(part: int, whole: int, width: int, *, glyphs: str = EIGHTHS) -> Text:
    """How much of something is used, the fuller the redder."""
    share = min(1.0, max(0.0, part / whole)) if whole > 0 else 1.0
    filled = min(width, math.ceil(share * width))
    colour = "green" if share < 0.5 else "yellow" if share < 0.8 else "red"
    full, empty = ("━", "─") if glyphs == EIGHTHS else ("#", "-")
    return Text.assemble((full * filled, colour), (empty * (width - filled), "bright_black"))


def chart(values: Sequence[float | None], width: int, height: int, *, glyphs: str = EIGHTHS) -> list[str]:
    """The newest values as columns, from the top line to the bottom line; each line is `width` characters.

    The highest value fills the height; nothing is drawn for None, and at least a trace for anything above zero.
    """
    shown = list(values)[-width:] if width > 0 else []
    top = max((value for value in shown if value is not None), default=0.0)
    levels = [_level(value, top, height) for value in shown]
    empty = width - len(shown)
    return [
        " " * empty + "".join(glyphs[min(_STEPS, max(0, level - _STEPS * row))] for level in levels)
        for row in reversed(range(height))
    ]


def _level(value: float | None, top: float, height: int) -> int:
    """How many eighths of a line a column is high."""
    if value is None:
        return 0
    if top <= 0 or value <= 0:
        return 1  # the ground line: it was looked at, and there was nothing
    return max(1, round(value / top * height * _STEPS))
