"""The thread that writes lines: nobody who has one to write ever waits.

Lines go through a bounded queue. What does not fit is counted, and told in one line when there is room again.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, TextIO

ROOM: Final = 5000  # lines that wait for a slow reader

_BUSY_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 1.0

_Item = tuple[int, str] | threading.Event | None


class Writer:
    """Takes lines from any thread, also from inside a signal handler, and writes them in order in its own thread.

    `told` makes the line that says how many lines are missing at its place. `due` is asked about once a second, in
    the thread, for lines whose time has come.
    """

    def __init__(
        self,
        stream: TextIO | None,
        told: Callable[[int], str],
        room: int = ROOM,
        due: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._stream = stream
        self._descriptor = _descriptor(stream)
        self._told = told
        self._due = due
        self._room = room
        # Each line with the number of those that are missing before it. A SimpleQueue may be entered twice by a thread.
        self._waiting: queue.SimpleQueue[tuple[int, str] | threading.Event] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._no_room = 0
        self._missing = 0  # only of the thread, as is _cut
        self._cut = False
        threading.Thread(target=self._run, name="logs", daemon=True).start()

    def put(self, line: str) -> None:
        """Write a line soon; forget it when too many wait."""
        with self._lock:
            if self._waiting.qsize() >= self._room:
                self._no_room += 1
                return
            self._waiting.put((self._without_room(), line))

    def close(self, seconds: float) -> None:
        """End the thread behind the last line, and wait for that so long."""
        end = threading.Event()
        self._waiting.put(end)
        end.wait(seconds)

    def _run(self) -> None:
        looked = time.monotonic()
        while True:
            item = self._next()
            if isinstance(item, threading.Event):
                self._tell(self._without_room())
                item.set()
                return
            if item:
                missing, line = item
                self._tell(missing)
                self._missing += not self._write(line)
            if time.monotonic() - looked >= _LOOK_SECONDS:
                self._missing += sum([not self._write(line) for line in self._due()])
                looked = time.monotonic()
            if self._waiting.empty():
                self._tell(self._without_room())

    def _next(self) -> _Item:
        try:
            return self._waiting.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            return None

    def _without_room(self) -> int:
        with self._lock:
            missing, self._no_room = self._no_room, 0
        return missing

    def _tell(self, missing: int) -> None:
        self._missing += missing
        if self._missing and self._write(self._told(self._missing)):
            self._missing = 0

    def _write(self, line: str) -> bool:
        # A line of which only a part was written is ended first.
        data = f"{chr(10) * self._cut}{line}\n".encode(errors="backslashreplace")
        try:
            if self._descriptor is not None:
                self._write_bytes(self._descriptor, data)
            elif self._stream is not None:
                self._stream.write(data.decode())
                self._stream.flush()
        except (OSError, ValueError):  # closed, nobody reads, no space left
            return False
        self._cut = False
        return True

    def _write_bytes(self, descriptor: int, data: bytes) -> None:
        """Without the stream's lock, which the interpreter wants at its end, whether or not somebody reads."""
        while data:
            try:
                written = os.write(descriptor, data)
            except BlockingIOError:
                time.sleep(_BUSY_SECONDS)
                continue
            data = data[written:]
            self._cut = bool(data)


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return stream.fileno() if stream else None
    except (OSError, ValueError):
        return None
