"""Latency from the commit in PostgreSQL to the append in Kafka, at steady rates, with synchronous_commit = on."""

import secrets
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from benchmarks import commits, contestants, figures, records
from benchmarks.backlog import Backlog, backlog
from benchmarks.commits import Commit
from benchmarks.program import program
from benchmarks.runs import between, per_event
from benchmarks.screen import Screen
from benchmarks.servers import Servers
from benchmarks.workload import PARTITIONS, Workload
from cdc.lsn import LSN

RATES: Final = (100, 1_000, 10_000)
WARM_UP_SECONDS: Final = 2.0
HALF_MS: Final = 0.5
"""Kafka keeps the time of an append in whole milliseconds, rounded down: the middle of that millisecond is taken."""


def measure(
    servers: Servers, screen: Screen, rates: Sequence[int], seconds: float, name: str
) -> dict[str, dict[str, Any]]:
    """Measure each rate: percentiles in ms, the rate reached, and the publisher's CPU time."""
    found = {}
    with backlog(servers, Workload(0)) as rows:
        commits.prepare(rows)
        contestants.idle_cpu(rows, name)
        for rate in rates:
            with screen.bar(f"latency at {rate:,} events/s"):
                found[str(rate)] = at_rate(rows, rate, seconds, contestants.environment(name))
            screen.say(line(rate, found[str(rate)]))
    return found


Meanwhile = Callable[[], AbstractContextManager[object]]


def at_rate(
    rows: Backlog, rate: int, seconds: float, extra: Mapping[str, str], meanwhile: Meanwhile = nullcontext
) -> dict[str, Any]:
    """Measure one rate on a new slot and a new topic, within `meanwhile`. Raises Unverified if an event is missing."""
    servers, prefix = rows.servers, f"bench-{rows.token}-{secrets.token_hex(4)}"
    topic = records.create_topic(servers.kafka, prefix, PARTITIONS)
    try:
        with rows.slot(empty=True) as slot, program(rows, slot, prefix, extra) as running:
            running.streaming_after()
            with meanwhile():
                before, postgres = running.cpu_so_far(), rows.postgres_seconds()
                written = commits.write(rows, rate, seconds)
                cpu = running.cpu_so_far() - before
                running.wait_until(LSN.parse(rows.query("select pg_current_wal_flush_lsn()::text")[0][0]))
                postgres = between(postgres, rows.postgres_seconds())
                running.stop()
        found = records.read_back(servers.kafka, topic, PARTITIONS, by_id=True)
    finally:
        records.delete_topic(servers.kafka, topic)
    records.verify_numbers(found, rows.workload.keys, len(written))
    return {**summary(written, found.times, cpu), "postgres_us": per_event(postgres, len(written))}


def summary(written: Sequence[Commit], appended: Mapping[str, int], cpu_seconds: float) -> dict[str, Any]:
    """Summarize latencies after the warm-up, from PostgreSQL's commit timestamp if available, else from the return."""
    begin, end = min(commit.returned for commit in written), max(commit.returned for commit in written)
    counted = [commit for commit in written if commit.returned >= begin + WARM_UP_SECONDS] or list(written)
    stamped = all(commit.stamped is not None for commit in counted)
    after = _percentiles([appended[commit.id] + HALF_MS - commit.returned * 1000 for commit in counted])
    stamps = [appended[commit.id] + HALF_MS - (commit.stamped or 0) * 1000 for commit in counted]
    return {
        "from": "the commit timestamp" if stamped else "the return of COMMIT",
        "reached": len(written) / (end - begin) if end > begin else float(len(written)),
        "events": len(counted),
        "late_ms": statistics.median(commit.late for commit in counted) * 1000,
        "ms": _percentiles(stamps) if stamped else after,
        "ms_after_return": after,
        "cpu_us": cpu_seconds / len(written) * 1e6,
        "cpu_share": cpu_seconds / (end - begin) if end > begin else 0.0,
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    found = {f"p{share}": figures.percentile(ordered, share) for share in figures.PERCENTILES}
    return {name: round(value, 2) for name, value in {**found, "max": ordered[-1]}.items()}


def line(rate: int, result: Mapping[str, Any]) -> str:
    """Format one rate as a line."""
    told = "  ".join(f"{name} {value:.1f}" for name, value in result["ms"].items())
    after = "  ".join(f"{name} {value:.1f}" for name, value in result["ms_after_return"].items())
    return (
        f"  {rate:>6,}/s asked, {result['reached']:,.0f}/s reached: {told} ms from {result['from']};"
        f" from the return of COMMIT {after}; cpu {result['cpu_us']:.1f} us/event"
    )
