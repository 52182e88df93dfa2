"""Polling beside the slot, and messages beside rows: rates, latency, and what both cost PostgreSQL.

Each run has a database of its own, since a relay deletes the rows that it has sent.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import psycopg

from benchmarks import commits, contestants, figures, latency, results, throughput
from benchmarks.backlog import ROWS, Backlog, Source, backlog
from benchmarks.contestants import EXACTLY_ONCE
from benchmarks.runs import between, per_event
from benchmarks.screen import Screen
from benchmarks.servers import Servers
from benchmarks.workload import PREFIX, Workload

STEADY_KEYS: Final = 1_600
"""A multiple of each number of sessions that write at a steady rate, so that one session writes all rows of a key."""
FLUSH_SECONDS: Final = 1.5
"""PostgreSQL's processes report what they did to pg_stat_user_tables at times, and when they end."""
OPEN: Final = "a transaction open"
WRITERS: Final = "writers alone"
STAMPED: Final = "writers alone, polling"
"""Their table has the trigger and the indexes of polling: the difference is what these cost writers."""
OF_A_RUN: Final = ("rate", "cpu_us", "postgres_us", "first_seconds")
OF_A_BACKLOG: Final = (*OF_A_RUN, "written_us", "dead", "vacuum_us")

_POLLING: Final = {"CDC_POSTGRES__SOURCE": "polling"}
_POLLED: Final = Source("--polling", _POLLING)
_MARKED: Final = Source("--polling", {**_POLLING, "CDC_OUTBOX__PUBLISHED": "mark"})
_MESSAGES: Final = Source("--messages", {"CDC_OUTBOX__MESSAGES": PREFIX})
_TABLES: Final = "from pg_stat_user_tables where relname <> 'bench_commits'"


class Contestant(NamedTuple):
    """Where the events are, and a variant of the publisher; None: no publisher runs."""

    source: Source
    variant: str | None


def known() -> dict[str, Contestant]:
    """Return the contestants by name."""
    default = contestants.default_accelerator()
    return {
        "slot": Contestant(ROWS, default),
        "slot, exactly-once": Contestant(ROWS, EXACTLY_ONCE),
        "polling": Contestant(_POLLED, default),
        "polling, mark": Contestant(_MARKED, default),
        "polling, exactly-once": Contestant(_POLLED, EXACTLY_ONCE),
        "messages": Contestant(_MESSAGES, default),
    }


def steady() -> dict[str, tuple[Contestant, bool]]:
    """Return the contestants of steady rates, which write rows, and whether another transaction stays open."""
    rows = {
        WRITERS: Contestant(ROWS, None),
        STAMPED: Contestant(_POLLED, None),
        **{name: one for name, one in known().items() if not one.source.messages},
    }
    once = {STAMPED, *(name for name, one in rows.items() if one.variant == EXACTLY_ONCE)}
    return {
        **{name: (one, False) for name, one in rows.items()},
        **{f"{name}, {OPEN}": (one, True) for name, one in rows.items() if name not in once},
    }


def measure(
    servers: Servers,
    screen: Screen,
    workload: Workload,
    rounds: int,
    rate: int,
    seconds: float,
    open_seconds: float,
    only: Sequence[str],
) -> dict[str, Any]:
    """Measure backlogs in alternation, and each steady rate once; `only` those of these names, where there are some.

    Raises Unverified if one run is invalid.
    """
    everyone = {name: one for name, one in known().items() if not only or name in only}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in everyone}
    if everyone:
        first = next(iter(everyone))
        screen.say(f"  warm-up, not counted: {line(first, drained(servers, screen, workload, first, everyone[first]))}")
    for number in range(rounds):
        for name in figures.rotated(list(everyone), number):
            runs[name].append(drained(servers, screen, workload, name, everyone[name]))
            screen.say(f"  {number + 1}/{rounds} {line(name, runs[name][-1])}")
    found = {}
    for name, (one, held) in steady().items():
        if only and name not in only:
            continue
        with screen.bar(f"{name}: {rate:,} events/s"):
            length = open_seconds if held else seconds
            found[name] = {"seconds": length, **at_rate(servers, one, rate, length, held=held)}
        screen.say(f"  {rate:,}/s {line(name, found[name])}")
    return {
        "workload": asdict(workload),
        "rounds": rounds,
        "backlog": {name: summary(runs[name]) for name in everyone},
        "asked": rate,
        "steady": found,
        results.ADDED_TO: ["backlog", "steady"] if only else [],
    }


def drained(servers: Servers, screen: Screen, workload: Workload, name: str, one: Contestant) -> dict[str, Any]:
    """Measure one backlog, from building it to a vacuum behind the publisher; CPU times are per event."""
    events = workload.events
    with screen.bar(f"{name}: {events:,} events") as bar, backlog(servers, workload, bar, source=one.source) as rows:
        written = per_event(rows.written_seconds, events)
        run = contestants.run_publisher(one.variant or "", rows, bar)
        return {**{each: getattr(run, each) for each in OF_A_RUN}, "written_us": written, **left_behind(rows, events)}


def at_rate(servers: Servers, one: Contestant, rate: int, seconds: float, *, held: bool) -> dict[str, Any]:
    """Measure a steady rate, `held` while another transaction is open from before the first event to the vacuum."""
    found: dict[str, Any] = {}

    @contextlib.contextmanager
    def meanwhile() -> Iterator[None]:
        with psycopg.connect(rows.dsn) if held else contextlib.nullcontext() as other:
            if other:
                other.execute("select pg_current_xact_id()")
            yield
            found.update(left_behind(rows, round(rate * seconds)))

    with backlog(servers, Workload(0, keys=STEADY_KEYS), source=one.source) as rows:
        commits.prepare(rows)
        rows.query("alter table outbox reset (autovacuum_enabled, toast.autovacuum_enabled)")
        if one.variant:
            extra = contestants.environment(one.variant)
            return {**latency.at_rate(rows, rate, seconds, extra, meanwhile), **found}
        with meanwhile():
            before = rows.postgres_seconds()
            count = len(commits.write(rows, rate, seconds))
            found["postgres_us"] = per_event(between(before, rows.postgres_seconds()), count)
        return found


def left_behind(rows: Backlog, events: int) -> dict[str, Any]:
    """Return the dead rows, the CPU time of a vacuum, and the dead rows that it could not remove."""
    time.sleep(FLUSH_SECONDS)
    ((dead, vacuums, tables),) = rows.query(
        "select sum(n_dead_tup)::int8, sum(autovacuum_count)::int8,"
        f" string_agg(relid::regclass::text, ', ' order by relname) {_TABLES}"
    )
    before = rows.postgres_seconds()
    rows.query(f"vacuum {tables}")
    vacuum = per_event(between(before, rows.postgres_seconds()), events)
    ((kept,),) = rows.query(f"select sum(n_dead_tup)::int8 {_TABLES}")
    return {"dead": dead, "autovacuums": vacuums, "vacuum_us": vacuum, "kept": kept}


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the spread of each figure that all runs of one contestant have."""
    columns = {each: [run[each] for run in runs] for each in OF_A_BACKLOG}
    return {each: throughput.spread(values) for each, values in columns.items() if None not in values}


def line(name: str, found: Mapping[str, Any]) -> str:
    """Format one run as a line."""
    times = found.get("ms", {})
    parts = [
        ("{:>9,.0f}/s", found.get("rate")),
        ("p50 {:.1f} ms", times.get("p50")),
        ("p99 {:.1f} ms", times.get("p99")),
        ("cpu {:.2f} us", found.get("cpu_us")),
        ("PostgreSQL {:.2f} us", found.get("postgres_us")),
        ("writing {:.2f} us", found.get("written_us")),
        ("{:,} dead rows", found["dead"]),
        ("{:,} behind a vacuum", found["kept"]),
        ("of {:.2f} us", found["vacuum_us"]),
    ]
    return "  ".join([f"{name:42}", *(form.format(value) for form, value in parts if value is not None)])
