"""Many worlds on all cores: `python -m tests.simulation --seeds 20000`."""

import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from tests.simulation import swarm, sweep
from tests.simulation.polling import __main__ as relays
from tests.simulation.recovery import campaign as recoveries
from tests.simulation.run import Outcome, Run
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.tapes import Tape

_PROGRESS_SECONDS: Final = 10.0
_FAILURES_SHOWN: Final = 10
_RECOVERIES: Final = 10  # random worlds of the publisher for each one of recover
Task = TypeVar("Task")


@dataclass
class Tally:
    """What many worlds came to."""

    worlds: int = 0
    events: int = 0
    virtual: float = 0.0
    rows: int = 0
    duplicates: int = 0
    crashes: int = 0
    failures: list[Tape] = field(default_factory=list)

    def add(self, tape: Tape, outcome: Outcome) -> None:
        self.worlds += 1
        self.events += outcome.events
        self.virtual += outcome.seconds
        self.rows += outcome.rows
        self.duplicates += outcome.duplicates
        self.crashes += outcome.lives - 1
        if outcome.violation:
            self.failures.append(tape)


def seed_world(seed: int) -> tuple[Tape, Outcome]:
    """Run one random world."""
    outcome = Run(swarm.plan(seed), str(seed)).go()
    return Tape(outcome.violation or "", seed=seed), outcome


def crash_world(schedule: sweep.Schedule) -> tuple[Tape, Outcome]:
    """Run one crash schedule."""
    outcome = sweep.run(schedule)
    scenario, crashes = schedule
    return Tape(outcome.violation or "", scenario=SCENARIOS[scenario].name, crashes=crashes), outcome


def campaign(name: str, work: Callable[[Task], tuple[Tape, Outcome]], tasks: Iterable[Task], processes: int) -> Tally:
    """Run all tasks on a pool of processes, and say how it goes."""
    tally, began = Tally(), time.monotonic()
    say_at = began + _PROGRESS_SECONDS
    with _pool(processes) as run:
        for tape, outcome in run(work, tasks):
            tally.add(tape, outcome)
            if outcome.violation and len(tally.failures) <= _FAILURES_SHOWN:
                print(f"VIOLATION {_shown(tape)}: {outcome.violation}", flush=True)
            if time.monotonic() >= say_at:
                say_at += _PROGRESS_SECONDS
                print(f"  {name}: {tally.worlds:,} worlds, {len(tally.failures)} violations", flush=True)
    seconds = time.monotonic() - began
    print(
        f"{name}: {tally.worlds:,} worlds in {seconds:.0f} s ({tally.worlds / max(seconds, 0.001):,.0f}/s), "
        f"{tally.rows:,} rows, {tally.crashes:,} restarts, {tally.duplicates:,} duplicates, {tally.events:,} events, "
        f"{tally.virtual / 86400:,.1f} virtual days, {len(tally.failures)} violations",
        flush=True,
    )
    return tally


class _pool:  # noqa: N801 - a context manager, used as a function
    def __init__(self, processes: int) -> None:
        self._pool = multiprocessing.get_context("spawn").Pool(processes) if processes > 1 else None

    def __enter__(
        self,
    ) -> "Callable[[Callable[[Task], tuple[Tape, Outcome]], Iterable[Task]], Iterator[tuple[Tape, Outcome]]]":
        pool = self._pool
        if pool is None:
            return lambda work, tasks: map(work, tasks)
        return lambda work, tasks: pool.imap_unordered(work, tasks, chunksize=64)

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()


def _shown(tape: Tape) -> str:
    if tape.seed is not None:
        return f"seed {tape.seed}"
    return f"{tape.scenario!r}, dies in " + ", ".join(f"{'after' if a else 'before'} call {c}" for c, a in tape.crashes)


def sample() -> str:
    """The trace of a few worlds, as one hash: the same in every process, on every machine."""
    digests = [Run(swarm.plan(seed), str(seed)).go(digest=True).digest or "" for seed in range(20)]
    return "-".join(digest[:6] for digest in digests)


def replay(seed: int) -> int:
    """Show the world of one seed; the exit code."""
    plan = swarm.plan(seed)
    print(plan)
    outcome = Run(plan, str(seed)).go(trace=True, digest=True)
    for entry in outcome.trace:
        print(*entry)
    print(f"trace {outcome.digest}")
    print(outcome.violation or "no violation")
    return 1 if outcome.violation else 0


def main(seeds: int, crashes: int, first: int, *, keep: bool) -> int:
    """Sweep, swarm, and the proof that both are deterministic; the exit code."""
    processes = os.cpu_count() or 1
    once, again = sample(), sample()
    print(f"sample of 20 worlds, twice: {'equal' if once == again else 'DIFFERENT'} {once[:41]}")
    schedules = list(itertools.islice(sweep.schedules(crashes), crashes))
    swept = campaign("crash schedules", crash_world, schedules, processes)
    swarmed = campaign("random seeds", seed_world, range(first, first + seeds), processes)
    recovered = recoveries.main(seeds // _RECOVERIES, first)
    relayed = relays.main(seeds // _RECOVERIES, first)
    failures = swept.failures + swarmed.failures
    if keep:
        for tape in failures[:_FAILURES_SHOWN]:
            print(f"kept {tape.save()}", file=sys.stderr)
    return 1 if failures or recovered or relayed or once != again else 0
