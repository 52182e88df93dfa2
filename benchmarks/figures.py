"""Arithmetic on what was measured; no clock, no server."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

PERCENTILES = (50, 95, 99)

Item = TypeVar("Item")


class Spread(NamedTuple):
    """The median of some runs, and the lowest and highest of them."""

    median: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError when there are no values."""
    if not values:
        raise ValueError("nothing was measured")
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below `share` percent of all (nearest rank: it was really measured).

    `values` are sorted. Raises ValueError when there are none.
    """
    if not values:
        raise ValueError("nothing was measured")
    return values[max(0, math.ceil(share / 100 * len(values)) - 1)]


def steady_rate(appended: Mapping[int, int], share: float = 0.05) -> float:
    """Events/s from the moment when `share` of all had been appended until the last one was.

    `appended` is the number of events by time in ms. Nan when all of them came within one of those milliseconds.
    """
    total, before = sum(appended.values()), 0
    last = max(appended, default=0)
    for moment in sorted(appended):
        before += appended[moment]
        if before >= share * total:
            return (total - before) / (last - moment) * 1000 if last > moment else math.nan
    return math.nan


def paired(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """The ratios within each round: what slows a whole round slows both."""
    return spread([over / under for over, under in zip(numerator, denominator, strict=True)])


def rotated(items: Sequence[Item], by: int) -> list[Item]:
    """The same items, begun at another: nobody is always first, or always behind the same one."""
    start = by % len(items) if items else 0
    return [*items[start:], *items[:start]]


def exponent(x: tuple[float, float], y: tuple[float, float]) -> float:
    """How y grows with x between two points: 0 not at all, 1 in proportion, above 1 faster than that."""
    if min(*x, *y) <= 0 or x[0] == x[1]:
        return math.nan
    return math.log(y[1] / y[0]) / math.log(x[1] / x[0])
