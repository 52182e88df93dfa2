"""Runs of the publisher and of other programs on the same backlog: rate, cost, start, latency, and what a kill leaves.

Programs have nothing in common but the ids of events, wherever they put them: records are distinguished by these alone.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil
from confluent_kafka import Consumer, Message, TopicPartition

from benchmarks import commits, contestants, figures, latency, processes, records, throughput, workload
from benchmarks.backlog import Backlog, backlog
from benchmarks.contestants import CEILING
from benchmarks.peers import Peer, Task
from benchmarks.runs import Run, per_event
from benchmarks.screen import Screen
from benchmarks.servers import Servers
from benchmarks.workload import PARTITIONS, Workload

RATE: Final = 1_000
SECONDS: Final = 15.0
KILLED_EVENTS: Final = 200_000
_KILLED_AT: Final = 0.4  # of a backlog, and of the seconds at a steady rate
_LOOK_SECONDS: Final = 0.1
_QUIET_SECONDS: Final = 1.5  # without a further record, when all have come: nothing more will come
_QUIET_AFTER_KILL: Final = 8.0  # some programs wait for seconds before they connect again
_STUCK_SECONDS: Final = 90.0  # Connect alone takes 10 to start
_SETTLE_SECONDS: Final = 3.0  # between the start of the stream and the first commit of a measurement of latency
_STOP_SECONDS: Final = 30.0
T = TypeVar("T")

_UUID: Final = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(slots=True)
class Arrivals:
    """The records of a topic: how many there are, by the time of the append in ms, and each event's first one."""

    count: int = 0
    appended: Counter[int] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)  # by event id

    def add(self, message: Message) -> None:
        """Count a record. Raises Unverified for one without the id of an event."""
        moment = message.timestamp()[1]
        event_id = found_id(message)
        if event_id is None:
            raise records.Unverified(f"a record has no id of an event: {message.value()!r}")
        self.count += 1
        self.appended[moment] += 1
        self.first.setdefault(event_id, moment)

    @property
    def duplicates(self) -> int:
        """How many records are of an event that has another one."""
        return self.count - len(self.first)


def found_id(message: Message) -> str | None:
    """Return the id of a record's event, from its headers, its value or its key; None without one."""
    headers: Any = message.headers() or []
    for part in (*(value for _, value in headers), message.value(), message.key()):
        for text in _UUID.findall(part if isinstance(part, bytes) else str(part or "").encode()):
            event_id = str(text.decode())
            if workload.event_id(workload.number(event_id)) == event_id:
                return event_id
    return None


class Running:
    """A program that works on a task, with all processes that it started. `started` is Unix time."""

    def __init__(self, peer: Peer, task: Task) -> None:
        self._peer = peer
        self._task = task
        self._log = task.folder / "output"
        self._cpu: dict[int, float] = {}
        self._peaks: dict[int, int] = {}
        self.walsender_seconds: float | None = None
        self.start()

    def start(self) -> None:
        """Start it, also after a kill."""
        command = self._peer.command(self._task)
        environment = processes.environment(command.environment)
        self.started = time.time()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command.arguments,
                cwd=self._task.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of all processes, as of the last sample."""
        return sum(self._cpu.values())

    @property
    def peak_bytes(self) -> int:
        """The sum of the peaks of all processes."""
        return sum(self._peaks.values())

    def sample(self) -> None:
        """Take note of time and memory so far. Raises RuntimeError if the program has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._peer.name} ended with {self._process.returncode}: {self._said()}")
        with contextlib.suppress(psutil.Error):
            main = psutil.Process(self._process.pid)
            for process in (main, *main.children(recursive=True)):
                self._cpu[process.pid] = processes.cpu_seconds(process) or self._cpu.get(process.pid, 0.0)
                self._peaks[process.pid] = processes.peak_bytes(process.pid) or self._peaks.get(process.pid, 0)
        pid = self._task.backlog.query(
            "select active_pid from pg_replication_slots where slot_name = %s", self._task.slot
        )[0][0]
        self.walsender_seconds = processes.cpu_seconds(processes.walsender(pid)) or self.walsender_seconds

    def wait_for_stream(self) -> None:
        """Wait until it reads the slot, and a little longer. Raises RuntimeError if it does not."""
        deadline = time.monotonic() + _STUCK_SECONDS
        statement = "select active from pg_replication_slots where slot_name = %s"
        while not self._task.backlog.query(statement, self._task.slot)[0][0]:
            self.sample()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._peer.name} does not read the slot: {self._said()}")
            time.sleep(_LOOK_SECONDS)
        time.sleep(_SETTLE_SECONDS)

    def wait_for(self, count: int, quiet_seconds: float) -> None:
        """Wait until the topic has so many records, and for as long as more arrive. Raises RuntimeError."""
        with _ends(self._task) as ends:
            last, since = 0, time.monotonic()
            while True:
                self.sample()
                now = ends()
                if now != last:
                    last, since = now, time.monotonic()
                silent = time.monotonic() - since
                if now >= count and silent >= quiet_seconds:
                    return
                if silent > _STUCK_SECONDS:
                    raise RuntimeError(f"{self._peer.name} stopped at {now} of {count} records: {self._said()}")
                time.sleep(_LOOK_SECONDS if quiet_seconds else _LOOK_SECONDS / 10)

    def stop(self) -> None:
        """Send SIGTERM, wait, and end what is left."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.terminate()
            self._process.wait(_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End all of its processes with SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def kill_and_start(self) -> None:
        """End it as a crash would, and start it again at once."""
        self.kill()
        self.start()

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


@contextlib.contextmanager
def _ends(task: Task) -> Iterator[Callable[[], int]]:
    """Yield a function that returns how many records the topic has, with those that mark the end of transactions."""
    consumer = Consumer({"bootstrap.servers": task.backlog.servers.kafka, "group.id": "benchmark", "log_level": 0})
    places = [TopicPartition(task.topic, number) for number in range(PARTITIONS)]
    try:
        yield lambda: sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)
    finally:
        consumer.close()


@contextlib.contextmanager
def running(peer: Peer, rows: Backlog, *, empty: bool = False) -> Iterator[tuple[Running, Callable[[], Arrivals]]]:
    """Start a program on a slot and a topic of its own; yield it, and what reads the topic after its end."""
    prefix = f"bench-{rows.token}-{secrets.token_hex(4)}"
    topic = records.create_topic(rows.servers.kafka, prefix, PARTITIONS)
    folder = Path(tempfile.mkdtemp(prefix="cdc-peer-", dir=rows.folder))
    try:
        with rows.slot(empty=empty) as slot:
            program = Running(peer, Task(rows, slot, prefix, folder))
            try:
                yield program, lambda: _arrivals(rows.servers.kafka, topic)
            finally:
                program.kill()
    finally:
        records.delete_topic(rows.servers.kafka, topic)
        shutil.rmtree(folder, ignore_errors=True)


def _arrivals(kafka: str, topic: str) -> Arrivals:
    arrivals = Arrivals()
    for message in records.messages(kafka, topic, PARTITIONS):
        arrivals.add(message)
    return arrivals


def drain(peer: Peer, rows: Backlog) -> Run:
    """Measure one run over a backlog. Raises Unverified if events are missing, RuntimeError if it does not end."""
    events = rows.workload.events
    with running(peer, rows) as (program, arrivals):
        broker = rows.servers.broker
        before = processes.cpu_seconds(broker)
        program.wait_for(events, _QUIET_SECONDS)
        after = processes.cpu_seconds(broker)
        started = program.started
        program.stop()
        found = arrivals()
    if len(found.first) != events:
        raise records.Unverified(f"{peer.name} sent {len(found.first)} of {events} events")
    first, last = min(found.appended) / 1000, max(found.appended) / 1000
    return Run(
        peer.name,
        events,
        figures.steady_rate(found.appended),
        events / (last - started),
        per_event(program.cpu_seconds, events),
        program.peak_bytes / 1e6,
        per_event(program.walsender_seconds, events),
        per_event(None if before is None or after is None else after - before, events),
        first - started,
    )


def at_rate(peer: Peer, rows: Backlog, rate: int, seconds: float) -> dict[str, Any]:
    """Measure the latency at a steady rate. Raises Unverified if events are missing."""
    with running(peer, rows, empty=True) as (program, arrivals):
        program.wait_for_stream()
        program.sample()
        before = program.cpu_seconds
        written = commits.write(rows, rate, seconds)
        program.sample()
        cpu = program.cpu_seconds - before
        program.wait_for(len(written), _QUIET_SECONDS)
        program.stop()
        found = arrivals()
    if len(found.first) != len(written):
        raise records.Unverified(f"{peer.name} sent {len(found.first)} of {len(written)} events")
    return latency.summary(written, found.first, cpu)


def killed_in_backlog(peer: Peer, rows: Backlog) -> dict[str, int]:
    """Kill a program within a backlog, start it again, and count what it sent twice and never."""
    events = rows.workload.events
    with running(peer, rows) as (program, arrivals):
        program.wait_for(int(events * _KILLED_AT), 0.0)
        program.kill_and_start()
        program.wait_for(events, _QUIET_AFTER_KILL)
        program.stop()
        found = arrivals()
    return {"duplicates": found.duplicates, "lost": events - len(found.first)}


def killed_at_rate(peer: Peer, rows: Backlog, rate: int, seconds: float) -> dict[str, int]:
    """Kill a program while rows are committed at a steady rate, and count likewise."""
    with running(peer, rows, empty=True) as (program, arrivals):
        program.wait_for_stream()
        again = threading.Timer(commits.LEAD_SECONDS + seconds * _KILLED_AT, program.kill_and_start)
        again.start()
        written = commits.write(rows, rate, seconds)
        again.join()
        program.wait_for(len(written), _QUIET_AFTER_KILL)
        program.stop()
        found = arrivals()
    return {"duplicates": found.duplicates, "lost": len(written) - len(found.first)}


def measure(servers: Servers, screen: Screen, chosen: Sequence[Peer], given: Workload, rounds: int) -> dict[str, Any]:
    """Measure all programs, in the form of results.json; one that fails is left out from then on, with its reason."""
    trial = Trial(servers, screen, chosen)
    trial.drain(given, rounds)
    trial.keep_up()
    trial.kill()
    return {"workload": asdict(given), "rounds": rounds, "peers": trial.found, "failures": trial.failures}


class Trial:
    """Measures one program after the other; one that fails is left out from then on."""

    def __init__(self, servers: Servers, screen: Screen, chosen: Sequence[Peer]) -> None:
        self.found: dict[str, dict[str, Any]] = {peer.name: {"sends": peer.sends} for peer in chosen}
        self.failures: dict[str, str] = {}
        self._servers = servers
        self._screen = screen
        self._chosen = chosen

    def drain(self, given: Workload, rounds: int) -> None:
        """Measure runs over a backlog, beside the ceiling."""
        runs: dict[str, list[Run]] = {name: [] for name in (CEILING, *self.found)}
        with self._screen.bar(f"{given.events:,} rows") as bar, backlog(self._servers, given, bar) as rows:
            wait_us = throughput.best_wait(rows, self._screen)
            for number in range(rounds + 1):
                runs[CEILING].append(contestants.run(CEILING, rows, lambda _: None, wait_us=wait_us))
                for peer, run in self._each("a backlog", lambda peer: drain(peer, rows), number):
                    runs[peer.name].append(run)
                    self._screen.say(f"  {f'{number}/{rounds}' if number else 'not counted'} {throughput.line(run)}")
        ceiling = runs.pop(CEILING)
        for name, made in runs.items():
            if counted := made[1:]:  # in the first round, Kafka's JVM compiles its code
                self.found[name] |= throughput.summary(counted) | {"ratio": ratio(counted, ceiling[1:])}

    def keep_up(self) -> None:
        """Measure the latency at a steady rate, and what a kill leaves then."""
        with backlog(self._servers, Workload(0)) as rows:
            commits.prepare(rows)
            for peer, times in self._each("latency", lambda peer: at_rate(peer, rows, RATE, SECONDS)):
                self.found[peer.name]["latency"] = times
                self._screen.say(f"  {peer.name}{latency.line(RATE, times)}")
            for peer, left in self._each("a kill", lambda peer: killed_at_rate(peer, rows, RATE, SECONDS)):
                self.found[peer.name]["killed_at_rate"] = left
                self._screen.say(f"  {peer.name}, killed at {RATE:,} events/s: {left}")

    def kill(self) -> None:
        """Measure what a kill within a backlog leaves."""
        with backlog(self._servers, Workload(KILLED_EVENTS)) as rows:
            for peer, left in self._each("a kill in a backlog", lambda peer: killed_in_backlog(peer, rows)):
                self.found[peer.name]["killed_in_backlog"] = left
                self._screen.say(f"  {peer.name}, killed within {KILLED_EVENTS:,} events: {left}")

    def _each(self, what: str, measured: Callable[[Peer], T], by: int = 0) -> Iterator[tuple[Peer, T]]:
        """Yield each program with its result, in an order that is rotated by `by`."""
        for peer in figures.rotated([peer for peer in self._chosen if peer.name not in self.failures], by):
            with self._screen.bar(f"{peer.name}: {what}"):
                try:
                    result = measured(peer)
                except (RuntimeError, records.Unverified) as error:
                    self.failures[peer.name] = f"{what}: {str(error).splitlines()[0]}"
                    self._screen.say(f"  {peer.name} is left out, {what}: {error}")
                    continue
            yield peer, result


def ratio(runs: Sequence[Run], ceiling: Sequence[Run]) -> dict[str, float]:
    """Return the ratio of the rates in each round."""
    pairs = list(zip(runs, ceiling, strict=False))
    return figures.paired([run.rate or 0.0 for run, _ in pairs], [limit.rate or 1.0 for _, limit in pairs])._asdict()
