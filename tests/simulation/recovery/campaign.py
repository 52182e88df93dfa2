"""Many random worlds of `recover`, on all cores."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from tests.simulation.recovery.plan import Plan, plan
from tests.simulation.recovery.world import RecoveryRun


def world(seed: int) -> tuple[int, str | None, int, int]:
    """Run one; return its seed, what was violated, how often the recovery was started, and how many rows there were."""
    run = RecoveryRun(plan(seed), str(seed))
    violation = run.go()
    return seed, violation, len(run.world.counts), run.judge.rows


_SWEPT: Final = Plan(keys=2)


def sweep() -> Iterator[tuple[str, str | None]]:
    """Run one small world, in which the process dies in each call, before its effect and after it."""
    run = RecoveryRun(_SWEPT, "sweep")
    run.go()
    for call in range(1, run.world.counts[0] + 1):
        for after in (False, True):
            crashes = ((call, after),)
            yield f"recovery, {crashes}", RecoveryRun(replace(_SWEPT, crashes=crashes), "sweep").go()


def main(seeds: int, first: int) -> int:
    """Run so many from a seed on; return how many violations there were."""
    began, violations, starts, rows = time.monotonic(), 0, 0, 0
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        for seed, violation, lives, count in pool.imap_unordered(world, range(first, first + seeds), chunksize=16):
            starts, rows = starts + lives, rows + count
            if violation:
                violations += 1
                print(f"VIOLATION recovery, seed {seed}: {violation}", flush=True)
    for where, violation in sweep():
        seeds += 1
        if violation:
            violations += 1
            print(f"VIOLATION {where}: {violation}", flush=True)
    seconds = time.monotonic() - began
    print(
        f"recoveries: {seeds:,} worlds in {seconds:.0f} s, {rows:,} rows, {starts:,} starts of recover,"
        f" {violations} violations",
        flush=True,
    )
    return violations
