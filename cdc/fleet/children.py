"""The children of an instance, each a process forked from one that has loaded everything.

It is the standard library's forkserver. A child has ended when its pipe is closed: `exitcode` says 255 at once when the
forkserver dies, while the child lives.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final, NamedTuple

from cdc.config.settings import Settings
from cdc.fleet import child
from cdc.fleet.child import Birth, ChildReport, LastWord

log = logging.getLogger(__name__)

PRELOADED: Final = "cdc.fleet.preload"


class Ended(NamedTuple):
    """The end of a child: its exit code, None if it crashed, and what was wrong."""

    code: int | None
    why: str


class _Child(NamedTuple):
    process: BaseProcess
    pipe: "Connection[Any, Any]"


class Children:
    """Starts children by unit, and hears what they say."""

    def __init__(self, log_format: str, *, verbose: bool) -> None:
        self._log_format = log_format
        self._verbose = verbose
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([PRELOADED])
        self._children: dict[str, _Child] = {}
        self._last: dict[str, LastWord] = {}
        self._stillborn: dict[str, str] = {}

    def prepare(self) -> None:
        """Start the process that children are forked from; it loads while the instance joins the group."""
        forkserver.ensure_running()

    def start(self, unit: str, settings: Settings) -> None:
        """Start the child of a unit; one that cannot be started is heard as ended."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=child.run, args=(theirs, Birth(unit, settings, self._log_format, self._verbose)), name=unit
        )
        try:
            process.start()
        except (OSError, EOFError) as error:
            ours.close()
            self._stillborn[unit] = f"no process could be started: {error or type(error).__name__}"
        else:
            self._children[unit] = _Child(process, ours)
        finally:
            theirs.close()

    def order(self, unit: str, order: bytes) -> None:
        """Send an order of `cdc.fleet.child`; a child that has ended is heard later."""
        if unit in self._children:
            with contextlib.suppress(OSError):
                self._children[unit].pipe.send_bytes(order)

    def kill(self, unit: str) -> None:
        """SIGKILL."""
        if unit in self._children:
            with contextlib.suppress(OSError):
                os.kill(self._children[unit].process.pid or 0, signal.SIGKILL)

    def pid(self, unit: str) -> int | None:
        """Return the process id of a unit's child."""
        return self._children[unit].process.pid if unit in self._children else None

    def listen(self, seconds: float) -> Iterator[tuple[str, ChildReport | Ended]]:
        """Yield what children say, waiting at most `seconds` for the first."""
        for unit in list(self._stillborn):
            yield unit, Ended(None, self._stillborn.pop(unit))
        units = {one.pipe: unit for unit, one in self._children.items()}
        for ready in wait(list(units), seconds):
            assert isinstance(ready, Connection)
            yield from self._hear(units[ready], ready)

    def _hear(self, unit: str, pipe: "Connection[Any, Any]") -> Iterator[tuple[str, ChildReport | Ended]]:
        try:
            said = pipe.recv()
        except (OSError, EOFError):
            self._bury(unit)
            last = self._last.pop(unit, None)
            yield unit, Ended(last.code, last.why) if last else Ended(None, "it ended without a last word: it crashed")
            return
        if isinstance(said, LastWord):
            self._last[unit] = said
        else:
            yield unit, said

    def _bury(self, unit: str) -> None:
        gone = self._children.pop(unit)
        gone.pipe.close()
        gone.process.join(0)
