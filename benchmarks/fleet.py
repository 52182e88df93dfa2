"""What a fleet costs over single publishers: memory and idle CPU of many units, and the rate of one; takeovers."""

import contextlib
import os
import secrets
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import psutil
from confluent_kafka import KafkaException

from benchmarks import contestants, figures, processes, records, throughput
from benchmarks.backlog import Backlog, backlog
from benchmarks.program import POLL_SECONDS, START_SECONDS, Program, ended, program
from benchmarks.runs import Run
from benchmarks.screen import Screen
from benchmarks.servers import Servers
from benchmarks.workload import Workload

SINGLE: Final = "single publishers"
FLEET: Final = "fleet"
IDLE_SECONDS: Final = 20.0
_SETTLED_SECONDS: Final = 5.0  # from when all slots are read: what belongs to the start is over
_MEASURES: Final = ("rate", "whole_rate", "cpu_us", "walsender_us", "broker_us")


STARTED: Final = "the first instance starts"
STOPPED: Final = "one of two instances stops, with half of the units"
KILLED: Final = "one of two instances is killed, with half of the units"
REPLACED: Final = "the only instance is killed, and another one starts at once"
_EXACTLY_ONCE: Final = {"CDC_DELIVERY__GUARANTEE": "exactly-once"}
_SPARE_SLOTS: Final = 2  # those of the backlog
_TAKEOVER_SECONDS: Final = 300.0


@contextlib.contextmanager
def instance(
    rows: Backlog, slot: str, prefix: str, environment: Mapping[str, str], _: Path | None = None
) -> Iterator[Program]:
    """Start an instance of a fleet of its own with one unit, and end it afterwards in any case."""
    with _fleet(rows, prefix, [slot]) as start, ended(start(slot, environment)) as running:
        yield running


@contextlib.contextmanager
def _fleet(rows: Backlog, prefix: str, slots: Sequence[str]) -> Iterator[Callable[[str, Mapping[str, str]], Program]]:
    """Prepare a fleet with a unit for each slot; yield what starts an instance, with a name and an environment."""
    _folder(rows, slots[0]).mkdir()
    for slot in slots:
        add(rows, slots[0], prefix, slot)
    settings = rows.folder / f"{slots[0]}.fleet.toml"
    settings.write_text(
        f'[fleet]\nname = "{prefix}"\n[http]\nlisten = "127.0.0.1:0"\n'
        f'[kafka]\n"bootstrap.servers" = "{rows.servers.kafka}"\n'
    )
    arguments = ["--config", str(settings), "fleet", "start", str(_folder(rows, slots[0]))]
    try:
        yield lambda name, environment: Program(rows, name, arguments, environment)
    finally:
        with contextlib.suppress(KafkaException):  # an instance that failed may not have made it
            records.delete_topic(rows.servers.kafka, f"cdc.fleet.{prefix}")


def _folder(rows: Backlog, first: str) -> Path:
    return rows.folder / f"{first}.units"


def add(rows: Backlog, first: str, prefix: str, slot: str) -> None:
    """Put the file of one more unit into the folder of the instance whose first unit reads the slot `first`."""
    rows.settings(f"{_folder(rows, first).name}/{slot}.toml", slot=slot, prefix=prefix)


def measure(
    servers: Servers, screen: Screen, workload: Workload, units: int, rounds: int, takeovers: int, name: str
) -> dict[str, Any]:
    """Measure so many idle units, and one unit on a backlog, in a fleet and as single publishers; and takeovers.

    Raises Unverified if one run is invalid, and RuntimeError if the server allows for too few units.
    """
    _check_limits(servers, units)
    starts: dict[str, contestants.Start] = {SINGLE: program, FLEET: instance}
    extra = contestants.environment(name)
    with screen.bar(f"building {workload.events:,} rows") as bar, backlog(servers, workload, bar) as rows:
        contestants.idle_cpu(rows, name)
        idle = {}
        for way in starts:
            with screen.bar(f"{units} idle units: {way}"):
                idle[way] = _idle(rows, units, extra, fleet=way == FLEET)
            screen.say(f"  {way}: {line(idle[way])}")
        taken: defaultdict[str, list[float]] = defaultdict(list)
        for number in range(1, takeovers + 1):
            with screen.bar(f"takeovers of {units} units, {number} of {takeovers}"):
                for what, seconds in _takeovers(rows, units, extra):
                    taken[what].append(seconds)
                    screen.say(f"  {number}/{takeovers} {what}: {seconds:.1f} s")
        runs = _alternate(rows, screen, starts, rounds, name)
    return {
        "workload": asdict(workload),
        "units": units,
        "idle": idle,
        "takeovers": {what: figures.spread(seconds)._asdict() for what, seconds in taken.items()},
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


def _check_limits(servers: Servers, units: int) -> None:
    for setting in ("max_replication_slots", "max_wal_senders"):
        ((allowed,),) = servers.query("select current_setting(%s)::int", setting)
        if int(str(allowed)) < units + _SPARE_SLOTS:
            raise RuntimeError(f"{units} units need {setting} of {units + _SPARE_SLOTS} or more; it is {allowed}")


def _takeovers(rows: Backlog, units: int, extra: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """Yield each kind of takeover, and the seconds until all units are read again, in exactly-once mode."""
    prefix = f"bench-{rows.token}-{secrets.token_hex(4)}"
    environment = {**extra, **_EXACTLY_ONCE}
    with contextlib.ExitStack() as stack:
        slots = [stack.enter_context(rows.slot(empty=True)) for _ in range(units)]
        start = stack.enter_context(_fleet(rows, prefix, slots))

        def begin(name: str) -> Program:
            return stack.enter_context(ended(start(f"{slots[0]}-{name}", environment)))

        began = time.monotonic()
        first = begin("first")
        yield STARTED, _taken_over(rows, slots, set(), began)
        second = begin("second")
        _wait_for_share(rows, slots, second)
        began, before = time.monotonic(), _ports(second)
        second.stop()
        yield STOPPED, _taken_over(rows, slots, before, began)
        third = begin("third")
        _wait_for_share(rows, slots, third)
        began, before = time.monotonic(), _ports(third)
        third.kill()
        yield KILLED, _taken_over(rows, slots, before, began)
        time.sleep(_SETTLED_SECONDS)
        began, before = time.monotonic(), _ports(first)
        first.kill()
        fourth = begin("fourth")
        yield REPLACED, _taken_over(rows, slots, before, began)
        fourth.stop()


def _taken_over(rows: Backlog, slots: Sequence[str], before: set[int], began: float) -> float:
    """Wait until all slots are read through other ports than those of before; return the seconds since `began`."""
    while True:
        readers = _readers(rows, slots)
        if len(readers) == len(slots) and before.isdisjoint(readers.values()):
            return time.monotonic() - began
        if time.monotonic() - began > _TAKEOVER_SECONDS:
            raise RuntimeError(f"{len(readers)} of {len(slots)} units are read after {_TAKEOVER_SECONDS:g} s")
        time.sleep(POLL_SECONDS)


def _wait_for_share(rows: Backlog, slots: Sequence[str], running: Program) -> None:
    """Wait until an instance that has just started reads its share of the units, and nothing moves any more."""
    share, since = max(1, len(slots) // 2 - 1), time.monotonic()
    before: dict[str, int] = {}
    deadline = since + _TAKEOVER_SECONDS
    while time.monotonic() - since < _SETTLED_SECONDS or len(before) < len(slots):
        running.check()
        found = _readers(rows, slots)
        if found != before or len(_ports(running) & {*found.values()}) < share:
            before, since = found, time.monotonic()
        if time.monotonic() > deadline:
            raise RuntimeError(f"an instance did not get {share} of {len(slots)} units in {_TAKEOVER_SECONDS:g} s")
        time.sleep(POLL_SECONDS)


def _readers(rows: Backlog, slots: Sequence[str]) -> dict[str, int]:
    """Return the port of the client that reads each slot that is read."""
    reads = (
        "select s.slot_name::text, r.client_port from pg_replication_slots s"
        " join pg_stat_replication r on r.pid = s.active_pid where s.slot_name = any(%s)"
    )
    return dict(rows.query(reads, list(slots)))


def _ports(running: Program) -> set[int]:
    """Return the ports that an instance and its units are connected by."""
    found = set()
    for process in processes.tree(running.pid):
        with contextlib.suppress(psutil.Error):
            found |= {one.laddr.port for one in process.net_connections("tcp") if one.laddr}
    return found


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
