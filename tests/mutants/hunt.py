"""Looks for a violation with the core that is on the path: scenarios, crash schedules, then random seeds."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cdc
from tests.simulation import fleet as fleets
from tests.simulation import swarm, sweep
from tests.simulation.polling import world as polling
from tests.simulation.recovery import world as recovery
from tests.simulation.recovery.campaign import sweep as sweep_recoveries
from tests.simulation.run import Outcome, Run
from tests.simulation.scenarios import SCENARIOS

CRASHES: Final = 2000
SEEDS: Final = 2000
RECOVERIES: Final = 400
FLEETS: Final = 400
RELAYS: Final = 1500


def recoveries() -> Iterator[tuple[str, str | None]]:
    """Worlds of `recover`."""
    yield from recovery.worlds(range(40))
    yield from sweep_recoveries()
    yield from recovery.worlds(range(40, RECOVERIES))


def fleet() -> Iterator[tuple[str, str | None]]:
    """Worlds of a fleet."""
    return ((f"seed {seed}", fleets.run(seed)) for seed in range(FLEETS))


def worlds() -> Iterator[tuple[str, str | None]]:
    """Worlds of the publisher, the cheapest first."""
    return ((name, outcome.violation) for name, outcome in _worlds())


def _worlds() -> Iterator[tuple[str, Outcome]]:
    for scenario, plan in enumerate(SCENARIOS):
        yield plan.name, sweep.run((scenario, ()))
    counts = [sweep.calls(plan) for plan in SCENARIOS]
    step = max(1, 2 * sum(counts) // CRASHES)
    for schedule in itertools.islice(sweep.singles(counts), 0, None, step | 1):
        yield f"{SCENARIOS[schedule[0]].name}, {schedule[1]}", sweep.run(schedule)
    for seed in range(SEEDS):
        yield f"seed {seed}", Run(swarm.plan(seed), str(seed)).go()


def relays() -> Iterator[tuple[str, str | None]]:
    """Worlds of a relay."""
    return polling.worlds(range(RELAYS))


KINDS: Final = {"publisher": worlds, "recovery": recoveries, "fleet": fleet, "polling": relays}


def main(package: str, *kinds: str) -> int:
    """Run worlds of these kinds; print how many it took, where, and what was violated; 1 when something was."""
    assert cdc.__file__
    if Path(cdc.__file__).parents[1] != Path(package):
        print(f"the core is {cdc.__file__}, not the copy in {package}")
        return 2
    tried = 0
    for kind in kinds:
        for where, violation in KINDS[kind]():
            tried += 1
            if violation:
                print(tried, where, violation, sep="\t")
                return 1
    print(tried, "", "", sep="\t")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
