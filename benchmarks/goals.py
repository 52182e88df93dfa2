"""Performance goals of the publisher, and whether the results meet them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple


class Goal(NamedTuple):
    """A figure's path in the results, with a lower or upper limit."""

    name: str
    path: Sequence[str]
    at_least: float | None = None
    at_most: float | None = None


class Outcome(NamedTuple):
    goal: Goal
    value: float

    @property
    def met(self) -> bool:
        low, high = self.goal.at_least, self.goal.at_most
        return (low is None or self.value >= low) and (high is None or self.value <= high)

    @property
    def limit(self) -> str:
        low, high = self.goal.at_least, self.goal.at_most
        return f"at least {low:g}" if low is not None else f"at most {high:g}"


MEANT_EVENTS: Final = 1_000_000
_BASE: Final = "throughput 200B"
_THOUSAND: Final = ("latency", "rates", "1000", "ms")


def _measured(contestant: str, measure: str) -> list[str]:
    return [_BASE, "contestants", contestant, measure, "median"]


GOALS: Final = (
    Goal("native, events/s over the ceiling's", [_BASE, "ratios", "native/ceiling", "median"], at_least=0.8),
    Goal("plain Python, events/s over the ceiling's", [_BASE, "ratios", "python/ceiling", "median"], at_least=0.65),
    Goal("exactly once over at least once", [_BASE, "ratios", "exactly-once/native", "median"], at_least=0.92),
    Goal("exactly once over at least once (Python)", [_BASE, "ratios", "exactly-once/python", "median"], at_least=0.92),
    Goal("native, CPU us/event", _measured("native", "cpu_us"), at_most=4),
    Goal("plain Python, CPU us/event", _measured("python", "cpu_us"), at_most=8),
    Goal("native, peak MB", _measured("native", "peak_mb"), at_most=55),
    Goal("plain Python, peak MB", _measured("python", "peak_mb"), at_most=55),
    Goal("peak MB, one transaction", ["memory one transaction", "peak_mb"], at_most=100),
    Goal("peak MB, backlog", ["memory backlog", "peak_mb"], at_most=100),
    Goal("latency at 1,000/s, p50 ms", [*_THOUSAND, "p50"], at_most=2),
    Goal("latency at 1,000/s, p99 ms", [*_THOUSAND, "p99"], at_most=7),
    Goal("warm start to the first event, s", ["startup", "warm", "first_event", "median"], at_most=0.5),
    Goal("fleet, events/s of a unit over a single publisher's", ["fleet", "ratio", "median"], at_least=0.97),
    Goal("fleet, MB per further unit", ["fleet", "idle", "fleet", "further_mb"], at_most=25),
)


def short(results: Mapping[str, Any]) -> int:
    """Return the size of the main backlog if it is too small to judge, because startup dominates; else 0."""
    events: int = results.get(_BASE, {}).get("workload", {}).get("events", MEANT_EVENTS)
    return events if events < MEANT_EVENTS else 0


def outcomes(results: Mapping[str, Any]) -> list[Outcome]:
    """Return the outcome of each goal whose figure was measured."""
    found = []
    for goal in GOALS:
        value: Any = results
        for key in goal.path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, int | float):
            found.append(Outcome(goal, float(value)))
    return found
