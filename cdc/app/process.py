"""A watchdog: ends the process when its main loop stands still, whatever it stands on.

Python's own thread of `faulthandler` needs no interpreter lock, so it also sees a thread that never gives that back.
A process that was stopped or frozen for longer may be ended when it goes on: by then its slot may be another's anyway.
"""

import faulthandler
import os
import signal
import sys
import time
from types import TracebackType
from typing import Final, Self

STANDS_STILL_SECONDS: Final = 300.0
_DUMP_SECONDS: Final = 10.0
_TURNS: Final = 10  # a timer is wound up again that often within its time: winding costs a thread


class Watchdog:
    """A context manager within which `turned` must be called more often than every `seconds`.

    When it is not, all stacks are written to standard error and SIGALRM ends the process a moment later, whatever
    became of the writing: supervisors start a program again that a signal has ended, while exit code 1 needs a person.
    For the main thread, one at a time.
    """

    def __init__(self, seconds: float = STANDS_STILL_SECONDS, dump_seconds: float = _DUMP_SECONDS) -> None:
        self._seconds = seconds
        self._dump_seconds = dump_seconds
        self._wind_at = float("-inf")
        self._output = _standard_error()

    def __enter__(self) -> Self:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        self.turned()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        self._wind_at = float("-inf")

    def turned(self) -> None:
        """The loop has come around."""
        now = time.monotonic()
        if now < self._wind_at:
            return
        self._wind_at = now + self._seconds / _TURNS
        signal.setitimer(signal.ITIMER_REAL, self._seconds + self._dump_seconds)
        faulthandler.dump_traceback_later(self._seconds, file=self._output)


def _standard_error() -> int:
    """The descriptor that stacks are written to; nowhere when the process was started without standard error."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return os.open(os.devnull, os.O_WRONLY)
