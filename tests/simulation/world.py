"""Virtual time, chance by seed, and the points at which a process can die.

Nothing here knows a real clock, a thread or the order of a set: the same seed makes the same world, event by event.
"""

import hashlib
import heapq
import itertools
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Final

TICK: Final = 20e-6  # how long a call takes that does not wait
_CALLS_AT_MOST: Final = 400_000
NOON: Final = 1_785_585_600.0  # 2026-08-01 12:00 UTC


class Crash(BaseException):
    """The process is killed at an arbitrary point. Its code must not catch this."""


class Violation(BaseException):
    """An invariant does not hold."""


class World:
    """One heap of events, one source of chance, one trace.

    A process calls into the world by `enter` and `leave`; `crashes` are those calls, counted from the last start of a
    process, in which it dies: before what the call does, or after it (the effect is there, the caller never knows).
    """

    def __init__(self, seed: str, *, grain: float = 0.002, crashes: Iterable[tuple[int, bool]] = ()) -> None:
        self.seed = seed
        self.now = 1000.0
        self.wall_offset = NOON - self.now
        self.grain = grain  # the shortest sleep that the scheduler allows
        self.trace: list[tuple[Any, ...]] = []
        self.calls = 0
        self.events = 0
        self.counts: list[int] = []  # calls of each life of a process
        self.freeze: Callable[[], None] | None = None  # what happens while a process stands still
        self._crashes = list(crashes)
        self._die_before = self._die_after = -1
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._ties = itertools.count()
        self._calls_of_all = 0

    def random(self, component: str) -> Random:
        """A source of chance for one part of the world, so that one more draw here changes nothing there."""
        return Random(f"{self.seed}/{component}")

    def note(self, *what: Any) -> None:
        """Add to the trace."""
        self.trace.append((round(self.now, 6), *what))

    def digest(self) -> str:
        """What two runs of the same seed must agree on."""
        return hashlib.sha256(repr(self.trace).encode()).hexdigest()

    def at(self, delay: float, act: Callable[..., None], *arguments: Any) -> None:
        """Let something happen after a while."""
        heapq.heappush(self._heap, (self.now + delay, next(self._ties), act, arguments))

    def advance(self, seconds: float, ready: Callable[[], bool] | None = None, lazy: float = 0.0) -> None:
        """Let time pass; return earlier when `ready` says so. While nothing happens, up to `lazy` seconds pass."""
        heap = self._heap
        until = self.now + max(seconds, self.grain)
        if heap and heap[0][0] > until:
            until = max(until, min(heap[0][0], self.now + lazy))
        while heap and heap[0][0] <= until:
            if ready is not None and ready():
                return
            self._next()
        if ready is None or not ready():
            self.now = max(self.now, until)

    def _next(self) -> None:
        time, _, act, arguments = heapq.heappop(self._heap)
        self.now = max(self.now, time)
        self.events += 1
        act(*arguments)

    # The process

    def started(self) -> None:
        """Start a process, and count its calls from zero."""
        self.calls = 0
        self._die_before = self._die_after = -1
        if self._crashes:
            call, after = self._crashes.pop(0)
            if after:
                self._die_after = call
            else:
                self._die_before = call

    def ended(self) -> None:
        """A process has ended."""
        self.counts.append(self.calls)

    def kill(self, *, after: bool) -> None:
        """The running process dies in its next call."""
        if after:
            self._die_after = self.calls + 1
        else:
            self._die_before = self.calls + 1

    def suspend(self) -> tuple[int, int, int]:
        """Another process runs for a while."""
        return self.calls, self._die_before, self._die_after

    def resume(self, saved: tuple[int, int, int]) -> None:
        """Let the first process resume."""
        self.calls, self._die_before, self._die_after = saved

    def enter(self) -> None:
        """A process calls: what is due happens, and it may die here."""
        self.now += TICK
        self.calls += 1
        self._calls_of_all += 1
        heap = self._heap
        while heap and heap[0][0] <= self.now:
            self._next()
        if self.freeze is not None:
            freeze, self.freeze = self.freeze, None
            freeze()
        if self.calls == self._die_before:
            raise Crash
        if self._calls_of_all > _CALLS_AT_MOST:
            raise Violation("I7: the loop spins without end")

    def leave(self) -> None:
        """The call is done; its caller may not live to see it."""
        if self.calls == self._die_after:
            raise Crash

    @property
    def all_calls(self) -> int:
        """Calls of all processes."""
        return self._calls_of_all
