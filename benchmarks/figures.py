"""Arithmetic on measurements, without clocks and servers."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

PERCENTILES = (50, 95, 99)

Item = TypeVar("Item")


class Spread(NamedTuple):
    """The median, lowest and highest value of some runs."""

    median: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of values. Raises ValueError without values."""
    if not values:
        raise ValueError("nothing was measured")
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile by nearest rank: the smallest value that at least `share` percent do not exceed.

    `values` must be sorted. Raises ValueError without values.
    """
    if not values:
        raise ValueError("nothing was measured")
    return values[max(0, math.ceil(share / 100 * len(values)) - 1)]


def steady_rate(appended: Mapping[int, int], share: float = 0.05) -> float:
    """Return events/s from the time when `share` of all events were appended until the last append.

    `appended` maps times in ms to numbers of events. Nan if all were appended within one millisecond.
    """
    total, before = sum(appended.values()), 0
    last = max(appended, default=0)
    for moment in sorted(appended):
        before += appended[moment]
        if before >= share * total:
            return (total - before) / (last - moment) * 1000 if last > moment else math.nan
    return math.nan


def paired(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """Return the ratio within each round, since a disturbance affects both runs of a round."""
    return spread([over / under for over, under in zip(numerator, denominator, strict=True)])


def rotated(items: Sequence[Item], by: int) -> list[Item]:
    """Rotate the items by `by` places, so that no item is always first or always after the same one."""
    start = by % len(items) if items else 0
    return [*items[start:], *items[:start]]


def exponent(x: tuple[float, float], y: tuple[float, float]) -> float:
    """Return the exponent of y's growth with x between two points: 0 constant, 1 linear, above 1 superlinear."""
    if min(*x, *y) <= 0 or x[0] == x[1]:
        return math.nan
    return math.log(y[1] / y[0]) / math.log(x[1] / x[0])
