"""The publisher as users start it: `python -m cdc start`, with default settings except for required ones."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import psutil

from benchmarks import processes
from benchmarks.backlog import Backlog
from cdc.lsn import LSN

POLL_SECONDS: Final = 0.2  # seldom enough to cost nothing
START_SECONDS: Final = 60.0
RESIDENT_SECONDS: Final = 0.5  # between two samples of the memory


class Program:
    """A running publisher on `slot`, or what runs it, that logs to a file. `started` is Unix time."""

    def __init__(self, backlog: Backlog, slot: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._backlog = backlog
        self._slot = slot
        self._log = backlog.folder / f"{slot}.log"
        command = processes.python("-m", "cdc", "--log-format", "json", *arguments)
        with self._log.open("wb") as log:
            self.started = time.time()
            self._process = subprocess.Popen(
                command,
                cwd=backlog.folder,
                env=processes.environment({**backlog.source.settings, **environment}),
                stdout=log,
                stderr=log,
            )
        self.pid = self._process.pid
        self.peak_bytes = 0
        self.resident: list[tuple[float, float]] = []  # seconds since the start, MB
        self.walsender_seconds: float | None = None
        self.cpu_seconds = 0.0
        self._walsender: psutil.Process | None = None

    def streaming_after(self) -> float:
        """Return the seconds until it logged `streaming`. Raises RuntimeError after a minute."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for line in self._log.read_text().splitlines():
                if '"streaming"' in line:
                    return _logged_at(line) - self.started
            self.check()
            time.sleep(0.05)
        raise RuntimeError(f"the publisher did not begin to stream: {self._said()}")

    def wait_until(self, end: LSN, seen: Callable[[LSN], None] = lambda _: None) -> None:
        """Wait until the slot is confirmed up to `end`. Raises RuntimeError if the program ends before."""
        wait_until([self], end, seen)

    def confirmed(self) -> LSN:
        """Return what the slot or the relay has confirmed, and take samples of memory and CPU."""
        position, walsender = self._backlog.confirmed(self._slot)
        self._sample(walsender)
        return position

    def cpu_so_far(self) -> float:
        """Return the CPU seconds so far of all its threads, and of the processes that it runs."""
        return processes.total_seconds(processes.tree(self.pid))

    def _sample(self, walsender: int | None) -> None:
        self.peak_bytes = max(self.peak_bytes, processes.peak_bytes(self.pid))
        age = time.time() - self.started
        if not self.resident or age - self.resident[-1][0] >= RESIDENT_SECONDS:
            self.resident.append((round(age, 2), processes.resident_bytes(self.pid) / 1e6))
        self._walsender = self._walsender or processes.walsender(walsender)
        self.walsender_seconds = processes.cpu_seconds(self._walsender) or self.walsender_seconds

    def check(self) -> None:
        """Raise RuntimeError if the program has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the publisher ended by itself: {self._said()}")

    def _said(self) -> str:
        return self._log.read_text()[-2000:]

    def stop(self) -> None:
        """Send SIGTERM and wait. Raises RuntimeError unless the exit code is 0."""
        if self._process.returncode is not None:
            return
        below = processes.total_seconds(processes.tree(self.pid)[1:])
        self.cpu_seconds = below + processes.end(self._process)
        if self._process.returncode:
            raise RuntimeError(f"the publisher ended with {self._process.returncode}: {self._said()}")

    def kill(self) -> None:
        """End the process in any state, after an error."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _logged_at(line: str) -> float:
    return datetime.fromisoformat(json.loads(line)["time"]).timestamp()


def wait_until(running: Sequence[Program], end: LSN, seen: Callable[[LSN], None] = lambda _: None) -> None:
    """Wait until all slots are confirmed up to `end`. Raises RuntimeError if a program ends before."""
    while True:
        confirmed = min([one.confirmed() for one in running])
        seen(confirmed)
        if confirmed >= end:
            return
        for one in running:
            one.check()
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def program(
    backlog: Backlog, slot: str, prefix: str, environment: Mapping[str, str], unit: Path | None = None
) -> Iterator[Program]:
    """Start a publisher, of the settings file of a `unit` if there is one, and end it afterwards in any case."""
    settings = unit or backlog.settings(f"{slot}.toml", slot=slot, prefix=prefix)
    # Each run has a slot and a topic of its own, which are not those of the unit's file.
    own = {"CDC_POSTGRES__SLOT": slot, "CDC_TOPICS__NAME": f"{prefix}.{{aggregatetype}}"} if unit else {}
    with ended(Program(backlog, slot, ["--config", str(settings), "start"], {**environment, **own})) as running:
        yield running


@contextlib.contextmanager
def ended(running: Program) -> Iterator[Program]:
    """End a program afterwards in any case."""
    try:
        yield running
    finally:
        running.kill()
