"""Decides when the child of a unit is started, drained or ended.

One child of a unit at a time: a unit that comes back while its child drains waits for the end of that child.
"""

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from cdc.backoff import Backoff

LONGEST_PAUSE_SECONDS: Final = 60.0
TEMPORARY_PAUSE_SECONDS: Final = 10.0
"""The longest pause where nothing needs an operator: a server may be back at any moment."""
STEADY_SECONDS: Final = 60.0
"""A child that lived as long as that is started again at once."""
KILL_SECONDS: Final = 5.0
"""What a child has beyond its time to drain."""


class Act(Enum):
    """An action on a unit's child."""

    START = "start"
    DRAIN = "drain"
    EXIT = "exit"  # at once, as after kill -9
    GIVE_UP = "give up"  # likewise: Kafka is away, and another instance may reach it
    KILL = "kill"


class Wanted(NamedTuple):
    """A unit that is to run here; the digest changes with its settings."""

    digest: int
    drain_seconds: float
    lost: bool = False  # the group is away: another instance may be waiting for it


@dataclass(slots=True)
class Life:
    """A child."""

    digest: int
    drain_seconds: float
    began: float
    draining_since: float | None = None
    exiting: bool = False
    blocked_since: float | None = None  # by Kafka


@dataclass(slots=True)
class _Pauses:
    backoff: Backoff
    until: float = field(default=float("-inf"))


class Supervision:
    """The children of one instance. `random` returns numbers from 0 to 1."""

    def __init__(self, session_seconds: float, random: Callable[[], float]) -> None:
        self._session_seconds = session_seconds
        self._random = random
        self.lives: dict[str, Life] = {}
        self._pauses: dict[str, _Pauses] = {}

    def turn(self, wanted: Mapping[str, Wanted], now: float) -> Iterator[tuple[Act, str]]:
        """Yield what is to be done now, and note it as done."""
        for unit, life in list(self.lives.items()):
            act = self._about(life, wanted.get(unit), now)
            if act is not None:
                yield act, unit
        for unit, one in wanted.items():
            pauses = self._pauses.get(unit)
            if unit not in self.lives and (pauses is None or now >= pauses.until):
                self.lives[unit] = Life(one.digest, one.drain_seconds, now)
                yield Act.START, unit
        for unit in self._pauses.keys() - wanted.keys() - self.lives.keys():
            del self._pauses[unit]

    def _about(self, life: Life, wanted: Wanted | None, now: float) -> Act | None:
        if life.draining_since is not None:
            late = now - life.draining_since - life.drain_seconds
            if late >= 2 * KILL_SECONDS:
                return Act.KILL
            if late >= KILL_SECONDS and not life.exiting:
                life.exiting = True
                return Act.EXIT
            return None
        if wanted is None or wanted.digest != life.digest:
            life.draining_since = now
            return Act.DRAIN
        return None

    def given_up(self, wanted: Mapping[str, Wanted], now: float) -> set[str]:
        """Return the units that Kafka has blocked for a whole session while the group is away."""
        return {
            unit
            for unit, life in self.lives.items()
            if unit in wanted
            and wanted[unit].lost
            and life.blocked_since is not None
            and now - life.blocked_since >= self._session_seconds
        }

    def give_up(self, units: AbstractSet[str], now: float) -> Iterator[tuple[Act, str]]:
        """Yield the end of children that cannot drain, as Kafka is away."""
        for unit in units:
            if unit in self.lives and not self.lives[unit].exiting:
                self.lives[unit].draining_since = now
                self.lives[unit].exiting = True
                yield Act.GIVE_UP, unit

    def blocked(self, unit: str, now: float, *, by_kafka: bool) -> None:
        """Note whether Kafka blocks a unit."""
        life = self.lives[unit]
        if not by_kafka:
            life.blocked_since = None
        elif life.blocked_since is None:
            life.blocked_since = now

    def ended(self, unit: str, now: float, *, needs_operator: bool = False) -> float:
        """Note that a child has ended; return the seconds until the next one, if it is wanted."""
        life = self.lives.pop(unit)
        if life.draining_since is not None:
            self._pauses.pop(unit, None)
            return 0.0
        pauses = self._pauses.setdefault(unit, _Pauses(Backoff(self._random, LONGEST_PAUSE_SECONDS)))
        if now - life.began >= STEADY_SECONDS:
            pauses.backoff.reset()
        pause = pauses.backoff.pause()
        if not needs_operator:
            pause = min(pause, TEMPORARY_PAUSE_SECONDS * (0.5 + 0.5 * self._random()))
        pauses.until = now + pause
        return pause
