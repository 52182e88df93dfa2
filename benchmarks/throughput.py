"""Events per second, CPU and memory on one backlog: every contestant once per round, in rotated order."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from benchmarks import ceiling, contestants, figures
from benchmarks.backlog import Backlog, backlog
from benchmarks.contestants import CEILING, EXACTLY_ONCE, NATIVE, PUBLISHERS, PYTHON
from benchmarks.runs import Run
from benchmarks.screen import Screen
from benchmarks.servers import Servers
from benchmarks.workload import Workload

TRIES: Final = 2  # of each wait of the ceiling,
HOPEFUL: Final = 0.8  # unless it was slower than that share of the best
STEADY: Final = 1.25
"""The best round of the ceiling over its worst, from which on the machine was not quiet enough for a judgement."""
MEASURES: Final = ("rate", "whole_rate", "cpu_us", "peak_mb", "walsender_us", "broker_us", "first_seconds")


def measure(
    servers: Servers, screen: Screen, shape: str, workload: Workload, names: Sequence[str], rounds: int
) -> dict[str, Any]:
    """Measure one shape, in the form of results.json. Raises Unverified if one run is invalid."""
    with screen.bar(f"{shape}: {workload.events:,} rows") as bar, backlog(servers, workload, bar) as rows:
        size = rows.payload_bytes()
        screen.say(f"{shape}: {workload.events:,} events, payloads of {size:.0f} bytes")
        wait_us = best_wait(rows, screen) if CEILING in names else 0
        warm_up(rows, screen, names)
        runs = alternate(rows, screen, names, rounds, wait_us)
    doubts = doubtful(runs)
    for doubt in doubts:
        screen.say(f"  doubtful: {doubt}")
    return {
        "workload": asdict(workload),
        "payload_bytes": size,
        "ceiling_wait_us": wait_us,
        "contestants": {name: summary(runs[name]) for name in names},
        "ratios": ratios(runs),
        "doubts": doubts,
    }


def best_wait(rows: Backlog, screen: Screen) -> int:
    """Find the wait with which the discarding reader is fastest: a low ceiling would flatter the publisher."""
    rates = dict.fromkeys(ceiling.WAITS_US, 0.0)
    for number in range(TRIES):
        for wait_us in [wait_us for wait_us in rates if rates[wait_us] >= HOPEFUL * max(rates.values())]:
            with screen.bar(f"the ceiling with {wait_us} us between reads, try {number + 1} of {TRIES}"):
                run = contestants.run(CEILING, rows, lambda _: None, wait_us=wait_us)
            rates[wait_us] = max(rates[wait_us], run.rate or 0.0)
    best = max(rates, key=lambda wait_us: rates[wait_us])
    tried = ", ".join(f"{wait_us} us {rate:,.0f}/s" for wait_us, rate in rates.items())
    screen.say(f"ceiling by wait between reads: {tried}; taken: {best} us")
    return best


def warm_up(rows: Backlog, screen: Screen, names: Sequence[str]) -> None:
    """Run each publisher once without counting it, so that Kafka's JVM compiles its code first."""
    for name in names:
        if name in PUBLISHERS:
            with screen.bar(f"warm-up: {name}") as bar:
                run = contestants.run(name, rows, bar)
            screen.say(f"  warm-up, not counted: {line(run)}")


def alternate(
    rows: Backlog, screen: Screen, names: Sequence[str], rounds: int, wait_us: int = 0
) -> dict[str, list[Run]]:
    """Run each contestant once per round."""
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for number in range(rounds):
        for name in figures.rotated(names, number):
            with screen.bar(f"round {number + 1} of {rounds}: {name}") as bar:
                runs[name].append(contestants.run(name, rows, bar, wait_us=wait_us))
            screen.say(f"  {number + 1}/{rounds} {line(runs[name][-1])}")
    return runs


def line(run: Run) -> str:
    """Format one run as a line."""
    parts = [f"{run.contestant:12}"]
    for value, text in (
        (run.rate, "{:>9,.0f}/s"),
        (run.whole_rate, "whole {:>9,.0f}/s"),
        (run.cpu_us, "cpu {:5.2f} us"),
        (run.peak_mb, "peak {:4.0f} MB"),
        (run.walsender_us, "walsender {:5.2f} us"),
        (run.broker_us, "broker {:5.2f} us"),
    ):
        parts += [] if value is None else [text.format(value)]
    return "  ".join(parts)


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the spread of each figure that all runs of one contestant have."""
    columns = {name: [getattr(run, name) for run in runs] for name in MEASURES}
    return {name: spread(values) for name, values in columns.items() if None not in values}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return the spread of a figure, with the figure of each run."""
    found = figures.spread(values)
    return {**{name: round(value, 4) for name, value in found._asdict().items()}, "runs": values}


def ratios(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Return ratios of the rates, paired within rounds."""
    default = contestants.default_accelerator()
    pairs = [(PYTHON, CEILING), (NATIVE, CEILING), (EXACTLY_ONCE, CEILING), (EXACTLY_ONCE, default)]
    rate: Callable[[Run], float] = lambda run: run.rate or math.nan  # noqa: E731
    return {
        f"{over}/{under}": figures.paired(list(map(rate, runs[over])), list(map(rate, runs[under])))._asdict()
        for over, under in pairs
        if over in runs and under in runs
    }


def doubtful(runs: dict[str, list[Run]]) -> list[str]:
    """Return why the ratios are unreliable: the ceiling was exceeded, or varied because the machine was busy."""
    found = []
    limit = [run.rate or math.nan for run in runs.get(CEILING, [])]
    if limit and max(limit) > STEADY * min(limit):
        found.append(f"the ceiling went from {min(limit):,.0f} to {max(limit):,.0f}/s: the machine was not quiet")
    for name in (name for name in runs if limit and name != CEILING):
        best = max(run.rate or run.whole_rate for run in runs[name])
        if best > max(limit):
            found.append(f"{name} reached {best:,.0f}/s, which is above the ceiling")
    return found
