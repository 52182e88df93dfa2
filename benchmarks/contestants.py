"""The contestants on one backlog, and one run of each: ceiling, pg_recvlogical, and variants of the publisher."""

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Final

from benchmarks import figures, processes, readers, records, recvlogical
from benchmarks.backlog import Backlog
from benchmarks.program import POLL_SECONDS, Program, program, wait_until
from benchmarks.records import Records
from benchmarks.runs import Run, between, per_event
from cdc.config.settings import Delivery

CEILING: Final = "ceiling"
RECVLOGICAL: Final = "recvlogical"
PYTHON: Final = "python"
NATIVE: Final = "native"
EXACTLY_ONCE: Final = "exactly-once"
NAMES: Final = (CEILING, RECVLOGICAL, PYTHON, NATIVE, EXACTLY_ONCE)
PUBLISHERS: Final = (PYTHON, NATIVE, EXACTLY_ONCE)
_ACCELERATOR: Final = "CDC_DELIVERY__ACCELERATOR"
_NATIVE_MODULE: Final = "cdc_native"

Seen = Callable[[float], None]
Start = Callable[..., contextlib.AbstractContextManager[Program]]
"""Starts a publisher by a backlog, a slot, a prefix of topics, the environment and a unit, as `program` does."""


def has_accelerator_setting() -> bool:
    return "accelerator" in Delivery.model_fields


def absent(name: str) -> str:
    """Return why a contestant cannot run here; empty if it can."""
    if name == NATIVE and not has_accelerator_setting():
        return "the program has no setting [delivery] accelerator"
    if name == NATIVE and find_spec(_NATIVE_MODULE) is None:
        return f"the module {_NATIVE_MODULE} is not installed"
    if name == RECVLOGICAL and recvlogical.program() is None:
        return "there is no program pg_recvlogical"
    return ""


def environment(name: str) -> dict[str, str]:
    """Return the settings, as environment variables, of a publisher variant; all others have their defaults."""
    if name == EXACTLY_ONCE:
        return {"CDC_DELIVERY__GUARANTEE": "exactly-once"}
    return {_ACCELERATOR: name} if has_accelerator_setting() and name in (PYTHON, NATIVE) else {}


def default_accelerator() -> str:
    """Return the contestant that default settings select on this machine."""
    return PYTHON if absent(NATIVE) else NATIVE


def run(name: str, backlog: Backlog, seen: Seen, *, wait_us: int = 20_000) -> Run:
    """Measure one run. `seen` is called with the progress from 0 to 1; `wait_us` applies to the ceiling.

    Raises Unverified or RuntimeError if the run is invalid.
    """
    if name == CEILING:
        return readers.run_ceiling(name, backlog, wait_us)
    if name == RECVLOGICAL:
        return readers.run_recvlogical(name, backlog)
    return run_publisher(name, backlog, seen)


def run_publisher(name: str, backlog: Backlog, seen: Seen, start: Start = program) -> Run:
    """Measure a publisher, or one for each part of the outbox, from an empty topic to the last confirmation, and verify
    the records in Kafka.
    """
    servers, partitions = backlog.servers, backlog.workload.partitions
    prefix = f"bench-{backlog.token}-{secrets.token_hex(4)}"
    topic = records.create_topic(servers.kafka, prefix, partitions)
    try:
        before = processes.cpu_seconds(servers.broker), backlog.postgres_seconds()
        with contextlib.ExitStack() as stack:
            slots = [stack.enter_context(backlog.slot()) for _ in backlog.units]
            running = [
                stack.enter_context(start(backlog, slot, prefix, environment(name), unit))
                for slot, unit in zip(slots, backlog.units, strict=True)
            ]
            length = backlog.end - backlog.start
            wait_until(running, backlog.end, lambda at: seen(min(1.0, (at - backlog.start) / length)))
            after = processes.cpu_seconds(servers.broker), backlog.postgres_seconds()
            for one in running:
                one.stop()
        # Positions are those of one slot or relay: only ids show that parts share a row, or that a relay sent it twice.
        by_id = backlog.parts > 1 or backlog.source.polls
        found = records.read_back(servers.kafka, topic, partitions, by_id=by_id)
        records.verify(found, backlog)
    finally:
        records.delete_topic(servers.kafka, topic)
    broker, postgres = map(between, before, after)
    return _run(name, found, running, broker, postgres)


def _run(name: str, found: Records, running: Sequence[Program], broker: float | None, postgres: float | None) -> Run:
    events, started = found.count, running[0].started
    first, last = min(found.appended) / 1000, max(found.appended) / 1000
    walsenders = [one.walsender_seconds for one in running if one.walsender_seconds is not None]
    return Run(
        name,
        events,
        figures.steady_rate(found.appended),
        events / (last - started),
        per_event(sum(one.cpu_seconds for one in running), events),
        sum(one.peak_bytes for one in running) / 1e6,
        per_event(sum(walsenders) if len(walsenders) == len(running) else None, events),
        per_event(broker, events),
        first - started,
        per_event(postgres, events),
        running[0].resident,
    )


def idle_cpu(backlog: Backlog, name: str) -> float:
    """Return the CPU seconds of a publisher that starts, finds no events and is stopped: the fixed cost of a run.

    It also warms up the file cache and Kafka's internal topics for the first run.
    """
    prefix = f"bench-{backlog.token}-{secrets.token_hex(4)}"
    unit = backlog.units[0]
    with backlog.slot(empty=True) as slot, program(backlog, slot, prefix, environment(name), unit) as running:
        running.streaming_after()
        time.sleep(2 * POLL_SECONDS)
        running.stop()
    return running.cpu_seconds
