"""Many random worlds of `recover`, on all cores."""

import multiprocessing
import os
import time

from tests.simulation.recovery.plan import plan
from tests.simulation.recovery.world import RecoveryRun


def world(seed: int) -> tuple[int, str | None, int, int]:
    """Run one; return its seed, what was violated, how often the recovery was started, and how many rows there were."""
    run = RecoveryRun(plan(seed), str(seed))
    violation = run.go()
    return seed, violation, len(run.world.counts), run.judge.rows


def main(seeds: int, first: int) -> int:
    """Run so many from a seed on; return how many violations there were."""
    began, violations, starts, rows = time.monotonic(), 0, 0, 0
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        for seed, violation, lives, count in pool.imap_unordered(world, range(first, first + seeds), chunksize=16):
            starts, rows = starts + lives, rows + count
            if violation:
                violations += 1
                print(f"VIOLATION recovery, seed {seed}: {violation}", flush=True)
    seconds = time.monotonic() - began
    print(
        f"recoveries: {seeds:,} worlds in {seconds:.0f} s, {rows:,} rows, {starts:,} starts of recover,"
        f" {violations} violations",
        flush=True,
    )
    return violations
