"""A thread that writes log lines, so that logging never blocks.

Lines wait in a bounded queue. Lines that do not fit are dropped, and one line reports their number at their place.
`logging.handlers.QueueHandler` does not fit: on a full queue it does not count the dropped record, but prints to
standard error, which may block; and a bounded `queue.Queue` deadlocks if a signal handler logs.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, TextIO

ROOM: Final = 5000  # lines that may wait for a slow reader

_BUSY_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 1.0

_Item = tuple[int, str] | threading.Event | None


class Writer:
    """Accepts lines from any thread, also from inside a signal handler, and writes them in order in its own thread.

    `report` formats the line that reports a number of dropped lines. `due` is called about once a second, in the
    writer's thread, and returns more lines to write.
    """

    def __init__(
        self,
        stream: TextIO | None,
        report: Callable[[int], str],
        room: int = ROOM,
        due: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._stream = stream
        self._descriptor = _descriptor(stream)
        self._report = report
        self._due = due
        self._room = room
        # Each line with the number of lines dropped before it. Unlike Queue, SimpleQueue is reentrant.
        self._waiting: queue.SimpleQueue[tuple[int, str] | threading.Event] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._overflow = 0
        self._dropped = 0  # used only by the thread, as is _cut
        self._cut = False
        threading.Thread(target=self._run, name="logs", daemon=True).start()

    def put(self, line: str) -> None:
        """Queue a line, or drop it if the queue is full."""
        with self._lock:
            if self._waiting.qsize() >= self._room:
                self._overflow += 1
                return
            self._waiting.put((self._take_dropped(), line))

    def close(self, seconds: float) -> None:
        """End the thread after the last line, and wait for that at most `seconds`."""
        end = threading.Event()
        self._waiting.put(end)
        end.wait(seconds)

    def _run(self) -> None:
        looked = time.monotonic()
        while True:
            item = self._next()
            if isinstance(item, threading.Event):
                self._report_dropped(self._take_dropped())
                item.set()
                return
            if item:
                dropped, line = item
                self._report_dropped(dropped)
                self._dropped += not self._write(line)
            if time.monotonic() - looked >= _LOOK_SECONDS:
                self._dropped += sum([not self._write(line) for line in self._due()])
                looked = time.monotonic()
            if self._waiting.empty():
                self._report_dropped(self._take_dropped())

    def _next(self) -> _Item:
        try:
            return self._waiting.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            return None

    def _take_dropped(self) -> int:
        with self._lock:
            dropped, self._overflow = self._overflow, 0
        return dropped

    def _report_dropped(self, dropped: int) -> None:
        self._dropped += dropped
        if self._dropped and self._write(self._report(self._dropped)):
            self._dropped = 0

    def _write(self, line: str) -> bool:
        # End a line that was written only in part.
        data = f"{chr(10) * self._cut}{line}\n".encode(errors="backslashreplace")
        try:
            if self._descriptor is not None:
                self._write_bytes(self._descriptor, data)
            elif self._stream is not None:
                self._stream.write(data.decode())
                self._stream.flush()
        except (OSError, ValueError):  # closed, no reader, or no space left
            return False
        self._cut = False
        return True

    def _write_bytes(self, descriptor: int, data: bytes) -> None:
        """Write without the stream's lock, which the interpreter acquires at exit even if this thread is blocked."""
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
