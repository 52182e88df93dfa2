"""The publishers of a run: the real program, started again whenever it has ended."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

# Killed by us, drained after SIGTERM, not drained in time, or a second signal.
EXPECTED: Final = {-signal.SIGKILL, 0, 75, 128 + signal.SIGTERM}
START_SECONDS: Final = 10
_STATE: Final = re.compile(r'"message": ?"(streaming|standby)')


class NobodyRuns(Exception):
    """There is no publisher to torment."""


class Publisher:
    """One process of `cdc-publisher start`."""

    def __init__(self, command: list[str], log: Path, folder: Path) -> None:
        self.log = log
        self._offset = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
        self.started_at = time.monotonic()
        self.frozen = False

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        """What it logged."""
        with self.log.open("rb") as file:
            file.seek(self._offset)
            return file.read().decode(errors="replace")

    def states(self) -> list[str]:
        """Since its start, each time that it began to publish or to wait: "streaming" or "standby"."""
        return _STATE.findall(self.said())

    def signal(self, number: int) -> None:
        if self.runs:
            self.process.send_signal(number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)
        self.frozen = False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def peak_memory(self) -> int:
        """Largest resident size so far, in bytes; 0 when it runs no more."""
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        except OSError:
            return 0
        return int(found[1]) * 1024 if found else 0


class Crew:
    """Keeps publishers running: one, or two while a standby is wanted."""

    def __init__(self, settings: Path, tell: Callable[..., None]) -> None:
        self._command = [sys.executable, "-m", "cdc", "--config", str(settings), "--log-format", "json", "start"]
        self._folder = settings.parent
        self._tell = tell
        self._lock = threading.RLock()
        self._wanted = 1
        self._number = 0
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="crew")
        self.publishers: list[Publisher] = []
        self.peak_memory = 0
        self.starts = 0
        self.refusals: list[str] = []  # exits that nothing we did accounts for

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._leaving.set()
        self._thread.join()
        for publisher in self.publishers:
            publisher.kill()

    def first(self) -> Publisher:
        """The oldest that runs and is not frozen; waits for one. Raises NobodyRuns."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with self._lock:
                for publisher in self.publishers:
                    if publisher.runs and not publisher.frozen:
                        return publisher
            time.sleep(0.05)
        raise NobodyRuns

    def want(self, number: int) -> None:
        """Keep so many running; what is frozen counts."""
        with self._lock:
            self._wanted = number
        self._man()

    def stop(self, seconds: float) -> list[int]:
        """SIGTERM to all, for good; returns their exit codes."""
        self._leaving.set()
        self._thread.join()
        for publisher in self.publishers:
            publisher.signal(signal.SIGTERM)
        codes = []
        for publisher in self.publishers:
            try:
                codes.append(publisher.process.wait(seconds))
            except subprocess.TimeoutExpired:
                publisher.kill()
                codes.append(-signal.SIGKILL)
        return codes

    def _watch(self) -> None:
        while not self._leaving.wait(0.05):
            self._man()

    def _man(self) -> None:
        """Replace those that have ended, and measure the others."""
        with self._lock:
            for publisher in list(self.publishers):
                if publisher.runs:
                    self.peak_memory = max(self.peak_memory, publisher.peak_memory())
                else:
                    self.publishers.remove(publisher)
                    self._ended(publisher)
            while len(self.publishers) < self._wanted and not self._leaving.is_set():
                self._start()

    def _start(self) -> None:
        self._number += 1
        self.starts += 1
        # Not the file of one that runs: what each says is read from its own.
        taken = {publisher.log for publisher in self.publishers}
        logs = [self._folder / f"publisher-{number % 2}.log" for number in (self._number, self._number + 1)]
        log = next((log for log in logs if log not in taken), logs[0])
        publisher = Publisher(self._command, log, self._folder)
        self.publishers.append(publisher)
        self._tell("publisher started", pid=publisher.process.pid, log=log.name)

    def _ended(self, publisher: Publisher) -> None:
        code = publisher.process.returncode
        lasted = round(time.monotonic() - publisher.started_at, 2)
        self._tell("publisher ended", pid=publisher.process.pid, code=code, lasted=lasted)
        said = publisher.said()
        if code == -signal.SIGTERM and "starting" not in said:
            return  # it had not begun to listen to signals: what Python does then is as good as kill -9
        if code not in EXPECTED:
            last = said.strip().split("\n")[-1]
            self.refusals.append(f"publisher {publisher.process.pid} ended with exit code {code}: {last[:600]}")
            time.sleep(0.5)  # it may do so again and again


def quiet_environment() -> dict[str, str]:
    """Ours, without settings of a publisher."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CDC_")}
