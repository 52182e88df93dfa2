"""CPU per event of walsenders and publishers, with an outbox in one part and in several, on the same rows."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import contestants, figures, throughput
from benchmarks.backlog import Backlog, backlog
from benchmarks.runs import Run
from benchmarks.screen import Screen
from benchmarks.servers import Servers
from benchmarks.workload import Workload


def measure(
    servers: Servers, screen: Screen, workload: Workload, parts: Sequence[int], names: Sequence[str], rounds: int
) -> dict[str, Any]:
    """Measure each number of parts with each publisher, in the form of results.json; one part is a table not split.

    Raises Unverified if one run is invalid.
    """
    found = {}
    for number in parts:
        title = f"{workload.events:,} rows for {number} publisher{'s' if number > 1 else ''}"
        with screen.bar(f"building {title}") as bar, backlog(servers, workload, bar, parts=number) as rows:
            screen.say(title)
            throughput.warm_up(rows, screen, names)
            runs = throughput.alternate(rows, screen, names, rounds)
            found[str(number)] = {name: summary(runs[name], number * _start(rows, name, rounds)) for name in names}
    return {"workload": asdict(workload), "parts": found}


def _start(rows: Backlog, name: str, rounds: int) -> float:
    """Return the CPU seconds that one publisher needs to start and to stop."""
    return figures.spread([contestants.idle_cpu(rows, name) for _ in range(rounds)]).median


def summary(runs: Sequence[Run], start_seconds: float) -> dict[str, Any]:
    """Return the figures of one publisher. Its CPU time is without that of all starts: a start is not of the events."""
    found = throughput.summary(runs)
    start_us = start_seconds / runs[0].events * 1e6
    without = {"cpu_us": figures.spread([(run.cpu_us or 0) - start_us for run in runs])._asdict()}
    return {**found, **without, "start_cpu_seconds": start_seconds}
