"""The publisher as users start it: `python -m cdc start`, with default settings except for required ones."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final

import psutil

from benchmarks import processes
from benchmarks.backlog import Backlog
from cdc.lsn import LSN

POLL_SECONDS: Final = 0.2  # seldom enough to cost nothing
START_SECONDS: Final = 60.0
RESIDENT_SECONDS: Final = 0.5  # between two samples of the memory


class Program:
    """A running publisher on `slot` that logs to a file. `started` is Unix time."""

    def __init__(self, backlog: Backlog, slot: str, prefix: str, environment: Mapping[str, str]) -> None:
        self._backlog = backlog
        self._slot = slot
        settings = backlog.settings(f"{slot}.toml", slot=slot, prefix=prefix)
        self._log = settings.with_suffix(".log")
        command = processes.python("-m", "cdc", "--config", str(settings), "--log-format", "json", "start")
        with self._log.open("wb") as log:
            self.started = time.time()
            self._process = subprocess.Popen(
                command, cwd=backlog.folder, env=processes.environment(environment), stdout=log, stderr=log
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
            self._check()
            time.sleep(0.05)
        raise RuntimeError(f"the publisher did not begin to stream: {self._said()}")

    def wait_until(self, end: LSN, seen: Callable[[LSN], None] = lambda _: None) -> None:
        """Wait until the slot is confirmed up to `end`. Raises RuntimeError if the program ends before."""
        while True:
            row = self._backlog.query(
                "select confirmed_flush_lsn::text, active_pid from pg_replication_slots where slot_name = %s",
                self._slot,
            )[0]
            self._sample(row[1])
            confirmed = LSN.parse(row[0])
            seen(confirmed)
            if confirmed >= end:
                return
            self._check()
            time.sleep(POLL_SECONDS)

    def cpu_so_far(self) -> float:
        """Return the CPU seconds of all its threads so far."""
        return processes.cpu_seconds(psutil.Process(self.pid)) or 0.0

    def _sample(self, walsender: int | None) -> None:
        self.peak_bytes = max(self.peak_bytes, processes.peak_bytes(self.pid))
        age = time.time() - self.started
        if not self.resident or age - self.resident[-1][0] >= RESIDENT_SECONDS:
            self.resident.append((round(age, 2), processes.resident_bytes(self.pid) / 1e6))
        self._walsender = self._walsender or processes.walsender(walsender)
        self.walsender_seconds = processes.cpu_seconds(self._walsender) or self.walsender_seconds

    def _check(self) -> None:
        if self._process.poll() is not None:
            raise RuntimeError(f"the publisher ended by itself: {self._said()}")

    def _said(self) -> str:
        return self._log.read_text()[-2000:]

    def stop(self) -> None:
        """Send SIGTERM and wait. Raises RuntimeError unless the exit code is 0."""
        if self._process.returncode is not None:
            return
        self.cpu_seconds = processes.end(self._process)
        if self._process.returncode:
            raise RuntimeError(f"the publisher ended with {self._process.returncode}: {self._said()}")

    def kill(self) -> None:
        """End the process in any state, after an error."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _logged_at(line: str) -> float:
    return datetime.fromisoformat(json.loads(line)["time"]).timestamp()


@contextlib.contextmanager
def program(backlog: Backlog, slot: str, prefix: str, environment: Mapping[str, str]) -> Iterator[Program]:
    """Start a publisher, and end it afterwards in any case."""
    running = Program(backlog, slot, prefix, environment)
    try:
        yield running
    finally:
        running.kill()
