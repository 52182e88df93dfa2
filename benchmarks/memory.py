"""Resident memory over a backlog and over one huge transaction: the peak, and whether it keeps growing."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import contestants
from benchmarks.backlog import backlog as build
from benchmarks.screen import Screen
from benchmarks.servers import Servers
from benchmarks.workload import Workload


def workloads(backlog: int, transaction: int) -> dict[str, Workload]:
    """Return a long backlog and one huge transaction of the given numbers of events; 0 omits one."""
    found = {"backlog": Workload(backlog), "one transaction": Workload(transaction, rows=0)}
    return {name: workload for name, workload in found.items() if workload.events}


def measure(servers: Servers, screen: Screen, workload: Workload, name: str) -> dict[str, Any]:
    """Measure one verified run: peak, growth and samples in MB."""
    title = f"{workload.events:,} events {'in one transaction' if not workload.rows else 'of backlog'}"
    with screen.bar(f"building {title}") as bar, build(servers, workload, bar) as rows:
        contestants.idle_cpu(rows, name)
        with screen.bar(f"memory over {title}") as moved:
            run = contestants.run(name, rows, moved)
    found = {
        "workload": asdict(workload),
        "peak_mb": run.peak_mb,
        "growth_mb": growth([size for _, size in run.resident]),
        "rate": run.rate,
        "cpu_us": run.cpu_us,
        "samples": run.resident,
    }
    screen.say(
        f"  {title}: peak {run.peak_mb:.0f} MB, {found['growth_mb']:+.1f} MB from the second quarter to the last"
    )
    return found


def growth(samples: Sequence[float]) -> float:
    """Return the growth from the second to the last quarter of the samples; the first is the start."""
    quarter = len(samples) // 4
    if not quarter:
        return 0.0
    return statistics.median(samples[-quarter:]) - statistics.median(samples[quarter : 2 * quarter])
