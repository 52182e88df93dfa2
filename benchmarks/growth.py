"""Measure how the cost of one event changes as the work grows, one dimension at a time, on small backlogs.

The cost is the publisher's CPU time without that of starting, which is measured in each cell with an empty slot.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Final

from benchmarks import commits, contestants, figures, latency
from benchmarks.backlog import backlog
from benchmarks.screen import Screen
from benchmarks.servers import Servers
from benchmarks.workload import SHAPES, Workload

TOLERANCE: Final = 0.1  # of an exponent: less is noise
TRANSACTIONS: Final = "transactions per second"
LIVE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Dimension:
    """Workloads by a growing number; `allowed` is the exponent of the cost per event that linear work may have.

    An event that is ten times larger may cost ten times more; the ten-millionth must not cost more than the first.
    """

    name: str
    cells: Mapping[int, Workload]
    allowed: float


def dimensions(events: int, largest: int) -> list[Dimension]:
    """Return the dimensions to vary; `largest` is the number of events in the longest backlog."""
    base = Workload(events)
    sizes = {
        200: base,
        1_000: replace(SHAPES["1kB"], events=events // 2),
        10_000: replace(SHAPES["10kB"], events=events // 5),
    }
    lengths = [number for number in (100_000, 1_000_000, 10_000_000) if number <= max(largest, 100_000)]
    return [
        Dimension("payload bytes", sizes, 1.0),
        Dimension("columns", {6 + more: replace(base, columns=more) for more in (0, 10, 100)}, 1.0),
        Dimension("event types", {number: replace(base, types=number) for number in (1, 10, 1_000)}, 0.0),
        Dimension("keys", {number: replace(base, keys=number) for number in (100, 10_000, 100_000)}, 0.0),
        Dimension("partitions", {number: replace(base, partitions=number) for number in (4, 64, 512)}, 0.0),
        Dimension("rows per transaction", {number: replace(base, rows=number) for number in (1, 5, 100, 10_000)}, 0.0),
        Dimension("backlog", {number: replace(base, events=number) for number in lengths}, 0.0),
    ]


def measure(
    servers: Servers, screen: Screen, wanted: Sequence[Dimension], rounds: int, name: str, rates: Sequence[int]
) -> dict[str, Any]:
    """Measure each dimension: its cells, exponents between neighbours, and superlinear steps."""
    known: dict[Workload, dict[str, Any]] = {}
    found = {}
    for dimension in wanted:
        for value, workload in dimension.cells.items():
            if workload not in known:
                known[workload] = _cell(servers, screen, workload, rounds, name)
            screen.say(f"  {dimension.name} {value:,}: {line(known[workload])}")
        found[dimension.name] = judged(
            {value: known[cell] for value, cell in dimension.cells.items()}, dimension.allowed
        )
    if rates:
        found[TRANSACTIONS] = judged(_live(servers, screen, rates, name), 0.0, paced=True)
    return found


def _cell(servers: Servers, screen: Screen, workload: Workload, rounds: int, name: str) -> dict[str, Any]:
    with screen.bar("growth: building") as bar, backlog(servers, workload, bar) as rows:
        idle = [contestants.idle_cpu(rows, name) for _ in range(rounds + 1)][1:]  # the first one warms up
        with screen.bar("growth: publishing") as moved:
            runs = [contestants.run(name, rows, moved) for _ in range(rounds)]
    costs = [(run.cpu_us or 0) - start / workload.events * 1e6 for run, start in zip(runs, idle, strict=True)]
    rates = [run.rate or math.nan for run in runs]
    return {
        "workload": asdict(workload),
        "cpu_us": figures.spread(costs).median,
        "rate": figures.spread(rates).median,
        "start_cpu_seconds": figures.spread(idle).median,
        "peak_mb": max(run.peak_mb or 0 for run in runs),
    }


def _live(servers: Servers, screen: Screen, rates: Sequence[int], name: str) -> dict[int, dict[str, Any]]:
    """Measure single-row transactions at steady rates, keyed by the rate actually reached."""
    extra, found = contestants.environment(name), {}
    with backlog(servers, Workload(0)) as rows:
        commits.prepare(rows)
        for rate in rates:
            with screen.bar(f"growth: {rate:,} transactions/s"):
                result = latency.at_rate(rows, rate, LIVE_SECONDS, extra)
            found[round(result["reached"])] = {"cpu_us": result["cpu_us"], "rate": result["reached"]}
            screen.say(f"  {TRANSACTIONS} {result['reached']:,.0f}: cpu {result['cpu_us']:.2f} us")
    return found


def judged(cells: Mapping[int, Mapping[str, Any]], allowed: float, *, paced: bool = False) -> dict[str, Any]:
    """Return cells with exponents of the cost from each to the next, and the steps with superlinear growth.

    The cost of an event is the publisher's CPU time and elapsed time; for `paced` events, only CPU time.
    """
    found = {value: dict(cells[value]) for value in sorted(cells)}
    steps = [_step(one, other, found, paced=paced) for one, other in pairwise(found)]
    return {
        "cells": {str(value): cell for value, cell in found.items()},
        "steps": steps,
        "faster_than_linear": [
            {**step, "in": kind} for step in steps for kind in ("cpu", "time") if step[kind] > allowed + TOLERANCE
        ],
    }


def _step(one: int, other: int, cells: Mapping[int, Mapping[str, Any]], *, paced: bool) -> dict[str, Any]:
    cpu = cells[one]["cpu_us"], cells[other]["cpu_us"]
    seconds = math.nan
    if not paced:
        seconds = figures.exponent((one, other), (1 / cells[one]["rate"], 1 / cells[other]["rate"]))
    return {"from": one, "to": other, "cpu": figures.exponent((one, other), cpu), "time": seconds}


def line(cell: Mapping[str, Any]) -> str:
    return (
        f"cpu {cell['cpu_us']:.2f} us/event, {cell['rate']:,.0f}/s, start {cell['start_cpu_seconds']:.2f} s of CPU,"
        f" peak {cell['peak_mb']:.0f} MB"
    )
