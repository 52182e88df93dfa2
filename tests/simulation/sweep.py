"""Crash schedules: every call of a scenario, before and after its effect, then pairs of calls."""

from collections.abc import Iterator
from random import Random
from typing import Final

from tests.simulation.plan import Plan
from tests.simulation.run import Outcome, Run
from tests.simulation.scenarios import SCENARIOS

SEED: Final = "0"

Schedule = tuple[int, tuple[tuple[int, bool], ...]]
"""The number of a scenario, and the calls in which its processes die, one after the other."""


def run(schedule: Schedule, *, trace: bool = False) -> Outcome:
    """Run one."""
    scenario, crashes = schedule
    return Run(SCENARIOS[scenario], SEED, crashes).go(trace=trace, digest=trace)


def calls(plan: Plan) -> int:
    """How many calls the first process of a scenario makes in which it may die."""
    if not plan.swept:
        return 0
    return Run(plan, SEED).go().calls[0]


def singles(counts: list[int]) -> Iterator[Schedule]:
    """One crash at each call."""
    for scenario, count in enumerate(counts):
        for call in range(1, count + 1):
            yield scenario, ((call, False),)
            yield scenario, ((call, True),)


def pairs(counts: list[int], wanted: int) -> Iterator[Schedule]:
    """Two crashes: so many pairs, spread over the scenarios, each at another place."""
    random = Random("pairs")
    swept = [(scenario, count) for scenario, count in enumerate(counts) if count]
    each = -(-wanted // len(swept))
    for scenario, count in swept:
        for _ in range(each):
            first = random.randint(1, count), random.random() < 0.5
            second = random.randint(1, min(count, 200)), random.random() < 0.5
            yield scenario, (first, second)


def schedules(wanted: int) -> Iterator[Schedule]:
    """All single crashes, then pairs until there are as many as wanted."""
    counts = [calls(plan) for plan in SCENARIOS]
    yield from singles(counts)
    yield from pairs(counts, max(0, wanted - 2 * sum(counts)))
