"""A command in a real pseudo-terminal, and what its screen shows."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyte

PATIENCE = 60.0
_READ = 65_536


class Terminal:
    """Runs a command in a terminal of so many columns and lines; a context manager, which kills it at the end."""

    def __init__(
        self,
        command: Sequence[str],
        columns: int = 100,
        lines: int = 30,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.raw = bytearray()
        """All that was written."""
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._master, slave = pty.openpty()
        self.attributes = termios.tcgetattr(slave)
        self._slave = slave
        self._set_size(columns, lines)
        unset = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "COLORTERM"}
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        environment |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **(env or {})}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read, name="terminal", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._done.set()
        self._thread.join()
        os.close(self._slave)
        os.close(self._master)

    @property
    def text(self) -> str:
        """The screen as lines of text."""
        with self._lock:
            return "\n".join(line.rstrip() for line in self._screen.display)

    def cells(self) -> list[list[pyte.screens.Char]]:
        """The screen as lines of characters with their colours."""
        with self._lock:
            screen = self._screen
            return [[screen.buffer[y][x] for x in range(screen.columns)] for y in range(screen.lines)]

    def shows(self, *texts: str) -> str:
        """Wait until the screen shows all of these; returns it."""
        return self.until(lambda shown: all(text in shown for text in texts), f"{texts}")

    def until(self, holds: Callable[[str], bool], what: str) -> str:
        """Wait until the screen is as `holds` wants it; returns it."""
        deadline = time.monotonic() + PATIENCE
        while not holds(shown := self.text):
            assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what} on\n{shown}"
            assert self.process.poll() is None, f"exit {self.process.poll()} before {what} on\n{shown}"
            time.sleep(0.05)
        return shown

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size; the program gets SIGWINCH."""
        with self._lock:
            self._screen.resize(lines, columns)
            self._screen.reset()
        self._set_size(columns, lines)

    def press_ctrl_c(self) -> int:
        """As a person does; returns the exit code."""
        os.write(self._master, b"\x03")
        return self.wait()

    def signal(self, number: signal.Signals) -> int:
        """Send a signal; returns the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for the end, and for all that was written; returns the exit code."""
        code = self.process.wait(seconds)
        self._done.set()
        self._thread.join()
        return code

    def restored(self) -> bool:
        """Whether echo and the rest are as they were before the command."""
        return termios.tcgetattr(self._slave) == self.attributes

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._master], [], [], 0.05)
            if not ready:
                if self._done.is_set():
                    return
                continue
            data = b""
            with contextlib.suppress(OSError):
                data = os.read(self._master, _READ)
            with self._lock:
                self.raw += data
                self._stream.feed(data)
