"""What one instance of a fleet decides: which units run here, when children start and end, whether it is ready."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from cdc.fleet.placement import Placement
from cdc.fleet.readiness import Readiness
from cdc.fleet.register import Plan, Register
from cdc.fleet.supervision import Act, Supervision, Wanted

NEEDS_A_PERSON: Final = (1, 78)
"""Exit codes of a child that fails again in the same way until an operator acts."""
CRASHES: Final = 3
"""So many ends without a last word, before the unit works, count as a failure."""


class File(NamedTuple):
    """What a unit's file says; the digest changes with it."""

    digest: int
    drain_seconds: float


class Instance:
    """One instance; the loop in `cdc.fleet.run` reports what it sees, and does what it decides."""

    def __init__(self, name: str, session_seconds: float, random: Callable[[], float]) -> None:
        self.register = Register()
        self.placement = Placement()
        self.readiness = Readiness(name)
        self.supervision = Supervision(session_seconds, random)
        self._files: Mapping[str, File] = {}
        self._invalid: Mapping[str, str] = {}
        self._crashes: Counter[str] = Counter()
        self._stopping = False

    def see(self, files: Mapping[str, File], invalid: Mapping[str, str]) -> None:
        """Take what is in the folder: units, and what is wrong with those that cannot run.

        A child continues when its file becomes invalid.
        """
        self._files = files
        self._invalid = invalid

    def stop(self) -> None:
        """Want no unit any more."""
        self._stopping = True

    @property
    def stopped(self) -> bool:
        """Whether every child has ended, after `stop`."""
        return self._stopping and not self.supervision.lives

    @property
    def placed(self) -> set[str]:
        """The units that are to run here."""
        held = self.placement.held
        return {unit for unit, partition in self.register.partitions.items() if partition in held}

    def plan(self, now: float) -> Plan:
        """Return what the register lacks."""
        return self.register.plan(sorted(self._files), now)

    def turn(self, now: float) -> Iterator[tuple[Act, str]]:
        """Yield what is to be done with children."""
        wanted = {} if self._stopping else self._wanted(now)
        given_up = self.supervision.given_up(wanted, now)
        if given_up:
            self.placement.give_up(self.register.partitions[unit] for unit in given_up)
            yield from self.supervision.give_up(given_up, now)
            wanted = self._wanted(now)
        yield from self.supervision.turn(wanted, now)

    def _wanted(self, now: float) -> dict[str, Wanted]:
        placed, wanted = self.placed, {}
        partitions, lost, lives = self.register.partitions, self.placement.lost, self.supervision.lives
        for unit in placed:
            if unit in self._files:
                wanted[unit] = Wanted(*self._files[unit], partitions[unit] in lost)
            elif unit in self._invalid:
                if unit in lives:
                    wanted[unit] = Wanted(lives[unit].digest, lives[unit].drain_seconds, partitions[unit] in lost)
                else:
                    self.readiness.fails(unit, self._invalid[unit], self.register.states.get(unit))
        self.readiness.without_file(placed - self._files.keys() - self._invalid.keys(), now)
        for unit in self.readiness.known - wanted.keys() - (placed & self._invalid.keys()):
            self.readiness.left(unit)
            del self._crashes[unit]
        return wanted

    def saw(self, unit: str, now: float, *, works: bool, blocked_by_kafka: bool) -> bool | None:
        """Take the state of a child; return whether the unit works for the register, None where that knows."""
        self.supervision.blocked(unit, now, by_kafka=blocked_by_kafka)
        if not works:
            return None
        del self._crashes[unit]
        return self.readiness.works(unit, self.register.states.get(unit))

    def ended(self, unit: str, code: int | None, why: str, now: float) -> tuple[float, bool | None]:
        """Take the end of a child, whose code is None if it crashed.

        Returns the seconds until the next one, and whether the unit works, as `saw` does.
        """
        drained = self.supervision.lives[unit].draining_since is not None
        pause = self.supervision.ended(unit, now, needs_operator=code in NEEDS_A_PERSON)
        self._crashes[unit] += code is None and not drained
        if code in NEEDS_A_PERSON or self._crashes[unit] >= CRASHES:
            return pause, self.readiness.fails(unit, why, self.register.states.get(unit))
        return pause, None
