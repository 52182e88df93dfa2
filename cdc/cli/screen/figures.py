"""Bars and charts drawn with characters."""

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from rich.text import Text

EIGHTHS: Final = " ▁▂▃▄▅▆▇█"
ASCII: Final = " .:-=+*%#"
"""In place of EIGHTHS where the terminal has no such characters."""

Shown = Callable[[float | None], str]

_STEPS: Final = 8


def age(moment: str | None, now: str) -> float | None:
    """Return the seconds between two times of a document; None when one of them is not a time."""
    try:
        return max(0.0, (datetime.fromisoformat(now) - datetime.fromisoformat(moment or "")).total_seconds())
    except (TypeError, ValueError):
        return None


def bar(part: int, whole: int, width: int, *, glyphs: str = EIGHTHS) -> Text:
    """Draw the share of `whole` that is used, in a colour that turns red."""
    share = min(1.0, max(0.0, part / whole)) if whole > 0 else 1.0
    filled = min(width, math.ceil(share * width))
    colour = "green" if share < 0.5 else "yellow" if share < 0.8 else "red"
    full, empty = ("━", "─") if glyphs == EIGHTHS else ("#", "-")
    return Text.assemble((full * filled, colour), (empty * (width - filled), "bright_black"))


def chart(values: Sequence[float | None], width: int, height: int, *, glyphs: str = EIGHTHS) -> list[str]:
    """Draw the newest values as columns, from the top line to the bottom line; each line is `width` characters.

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
    """Return the height of a column in eighths of a line."""
    if value is None:
        return 0
    if top <= 0 or value <= 0:
        return 1  # the ground line: the value is known, and zero
    return max(1, round(value / top * height * _STEPS))
