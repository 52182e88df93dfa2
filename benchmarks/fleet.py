"""What a fleet costs over single publishers: memory and idle CPU of many units, and the rate of one."""

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException

from benchmarks import contestants, figures, processes, records, throughput
from benchmarks.backlog import Backlog, backlog
from benchmarks.program import START_SECONDS, Program, ended, program
from benchmarks.runs import Run
from benchmarks.screen import Screen
from benchmarks.servers import Servers
from benchmarks.workload import Workload

SINGLE: Final = "single publishers"
FLEET: Final = "fleet"
IDLE_SECONDS: Final = 20.0
_SETTLED_SECONDS: Final = 5.0  # from when all slots are read: what belongs to the start is over
_MEASURES: Final = ("rate", "whole_rate", "cpu_us", "walsender_us", "broker_us")


@contextlib.contextmanager
def instance(
    rows: Backlog, slot: str, prefix: str, environment: Mapping[str, str], _: Path | None = None
) -> Iterator[Program]:
    """Start an instance of a fleet of its own with one unit, and end it afterwards in any case."""
    _folder(rows, slot).mkdir()
    add(rows, slot, prefix, slot)
    settings = rows.folder / f"{slot}.fleet.toml"
    settings.write_text(
        f'[fleet]\nname = "{prefix}"\n[http]\nlisten = "127.0.0.1:0"\n'
        f'[kafka]\n"bootstrap.servers" = "{rows.servers.kafka}"\n'
    )
    arguments = ["--config", str(settings), "fleet", "start", str(_folder(rows, slot))]
    try:
        with ended(Program(rows, slot, arguments, environment)) as running:
            yield running
    finally:
        with contextlib.suppress(KafkaException):  # an instance that failed may not have made it
            records.delete_topic(rows.servers.kafka, f"cdc.fleet.{prefix}")


def _folder(rows: Backlog, first: str) -> Path:
    return rows.folder / f"{first}.units"


def add(rows: Backlog, first: str, prefix: str, slot: str) -> None:
    """Put the file of one more unit into the folder of the instance whose first unit reads the slot `first`."""
    rows.settings(f"{_folder(rows, first).name}/{slot}.toml", slot=slot, prefix=prefix)


def measure(servers: Servers, screen: Screen, workload: Workload, units: int, rounds: int, name: str) -> dict[str, Any]:
    """Measure so many idle units, and one unit on a backlog, in a fleet and as single publishers.

    Raises Unverified if one run is invalid.
    """
    starts: dict[str, contestants.Start] = {SINGLE: program, FLEET: instance}
    extra = contestants.environment(name)
    with screen.bar(f"building {workload.events:,} rows") as bar, backlog(servers, workload, bar) as rows:
        contestants.idle_cpu(rows, name)
        idle = {}
        for way in starts:
            with screen.bar(f"{units} idle units: {way}"):
                idle[way] = _idle(rows, units, extra, fleet=way == FLEET)
            screen.say(f"  {way}: {line(idle[way])}")
        runs = _alternate(rows, screen, starts, rounds, name)
    return {
        "workload": asdict(workload),
        "units": units,
        "idle": idle,
        "one unit": {way: summary(found) for way, found in runs.items()},
        "ratio": ratio(runs),
    }


def _idle(rows: Backlog, units: int, extra: Mapping[str, str], *, fleet: bool) -> dict[str, float]:
    """Measure idle units, in processes of their own or in a fleet that gets all but the first one while it runs."""
    prefix = f"bench-{rows.token}-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        slots = [stack.enter_context(rows.slot(empty=True)) for _ in range(units)]
        first, *others = slots
        start = instance if fleet else program
        running = [stack.enter_context(start(rows, first, prefix, extra))]
        _wait_for_readers(rows, [first], running)
        one = _memory(running)
        for slot in others:
            if fleet:
                add(rows, first, prefix, slot)
            else:
                running.append(stack.enter_context(program(rows, slot, prefix, extra)))
        if fleet:
            os.kill(running[0].pid, signal.SIGHUP)
        _wait_for_readers(rows, slots, running)
        everything = _memory(running)
        before, began = _cpu_seconds(running), time.monotonic()
        time.sleep(IDLE_SECONDS)
        share = (_cpu_seconds(running) - before) / (time.monotonic() - began)
        if _read(rows, slots) < units:
            raise RuntimeError("a unit ended by itself while it was idle")
        for each in running:
            each.stop()
    return idle_summary(units, one, everything, share)


def _wait_for_readers(rows: Backlog, slots: Sequence[str], running: Sequence[Program]) -> None:
    """Wait until all slots are read, and what belongs to the start is over. Raises RuntimeError after a minute."""
    deadline = time.monotonic() + START_SECONDS
    while _read(rows, slots) < len(slots):
        for each in running:
            each.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"{_read(rows, slots)} of {len(slots)} units began to stream within {START_SECONDS:g} s")
        time.sleep(0.2)
    time.sleep(_SETTLED_SECONDS)


def _read(rows: Backlog, slots: Sequence[str]) -> int:
    """Return how many of the slots are read."""
    active = "select count(*) from pg_replication_slots where active and slot_name = any(%s)"
    return int(rows.query(active, list(slots))[0][0])


def _memory(running: Sequence[Program]) -> float:
    """Return the memory of all processes in MB; pages that they share count once."""
    found = [processes.proportional_bytes(process) for each in running for process in processes.tree(each.pid)]
    return sum(found) / 1e6


def _cpu_seconds(running: Sequence[Program]) -> float:
    return sum(each.cpu_so_far() for each in running)


def idle_summary(units: int, one: float, everything: float, share: float) -> dict[str, float]:
    """Return memory, in MB of all and by unit, and the share of a core that all idle units need."""
    further = (everything - one) / (units - 1)
    return {"all_mb": everything, "further_mb": further, "instance_mb": one - further, "cpu_share": share}


def line(idle: Mapping[str, float]) -> str:
    return (
        f"{idle['all_mb']:.0f} MB in total, {idle['further_mb']:.1f} MB per further unit and {idle['instance_mb']:.1f}"
        f" MB besides, {idle['cpu_share'] * 100:.1f} % of a core while idle"
    )


def _alternate(
    rows: Backlog, screen: Screen, starts: Mapping[str, contestants.Start], rounds: int, name: str
) -> dict[str, list[Run]]:
    """Run one unit in each way once per round; the first round is a warm-up, and not counted."""
    runs: dict[str, list[Run]] = {way: [] for way in starts}
    for number in range(rounds + 1):
        for way in figures.rotated(list(starts), number):
            with screen.bar(f"round {number} of {rounds}, one unit: {way}") as bar:
                run = contestants.run_publisher(name, rows, bar, starts[way])
            runs[way] += [run] if number else []
            screen.say(f"  {number}/{rounds} {way:18}{throughput.line(run)}")
    return runs


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the figures that mean the same for a fleet: CPU is that of all its processes, the peak only of one."""
    return {measure: value for measure, value in throughput.summary(runs).items() if measure in _MEASURES}


def ratio(runs: Mapping[str, Sequence[Run]]) -> dict[str, float]:
    """Return the rate of a unit in a fleet over that of a single publisher, paired within rounds."""
    fleet, single = ([run.rate or run.whole_rate for run in runs[way]] for way in (FLEET, SINGLE))
    return figures.paired(fleet, single)._asdict()
