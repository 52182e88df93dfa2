"""Looks for a violation with the core that is on the path: scenarios, crash schedules, then random seeds."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cdc
from tests.simulation import swarm, sweep
from tests.simulation.run import Outcome, Run
from tests.simulation.scenarios import SCENARIOS

CRASHES: Final = 2000
SEEDS: Final = 2000


def worlds() -> Iterator[tuple[str, Outcome]]:
    """The cheapest first."""
    for scenario, plan in enumerate(SCENARIOS):
        yield plan.name, sweep.run((scenario, ()))
    counts = [sweep.calls(plan) for plan in SCENARIOS]
    step = max(1, 2 * sum(counts) // CRASHES)
    for schedule in itertools.islice(sweep.singles(counts), 0, None, step | 1):
        yield f"{SCENARIOS[schedule[0]].name}, {schedule[1]}", sweep.run(schedule)
    for seed in range(SEEDS):
        yield f"seed {seed}", Run(swarm.plan(seed), str(seed)).go()


def main(package: str) -> int:
    """Print how many worlds it took, where, and what was violated; 1 when something was."""
    assert cdc.__file__
    if Path(cdc.__file__).parents[1] != Path(package):
        print(f"the core is {cdc.__file__}, not the copy in {package}")
        return 2
    tried = 0
    for where, outcome in worlds():
        tried += 1
        if outcome.violation:
            print(tried, where, outcome.violation, sep="\t")
            return 1
    print(tried, "", "", sep="\t")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
