"""The register of a fleet: which partition of its topic stands for which unit.

It is partition 0 of the topic, read from the beginning by every instance, so that instances with different folders
agree, and a new unit moves no other. The last entry of a unit counts. An entry is written only by an instance that has
read the register to its end without finding one, and it counts when it is read back.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson

FIRST: Final = 1
"""The first partition that stands for units."""
AGAIN_SECONDS: Final = 10.0
"""After that an entry that was not read back is written again."""
_STATE: Final = "/state"  # no unit's name has a slash


class Worked(NamedTuple):
    """The last word about a unit: an instance that saw it work, or saw it fail where it had worked before."""

    works: bool
    instance: str


class Plan(NamedTuple):
    """Entries to write, and how many partitions the topic must have for them."""

    entries: dict[str, int]
    partitions: int


class Register:
    """The entries that were read, and those to be written."""

    def __init__(self) -> None:
        self.complete = False  # it was read to its end
        self.states: dict[str, Worked] = {}
        self._entries: dict[str, int] = {}
        self._before: dict[str, int] = {}  # of a topic that is gone
        self._written: dict[str, float] = {}

    def take(self, key: bytes | None, value: bytes | None) -> str:
        """Take the next record; return what is wrong with it, if anything."""
        name = (key or b"").decode(errors="replace")
        unit = name.removesuffix(_STATE)
        try:
            read: Any = None if value is None else orjson.loads(value)
            if name != unit:
                self._take_state(unit, read)
            elif read is None:
                self._entries.pop(name, None)
                self._before.pop(name, None)
                self._written.pop(name, None)
            else:
                partition = read["partition"]
                if not isinstance(partition, int) or partition < FIRST:
                    raise ValueError(f"partition {partition!r}")
                self._entries[name] = partition
                self._written.pop(name, None)
        except (ValueError, TypeError, KeyError) as error:
            return f"the entry of {name!r} is not one of a fleet: {error}"
        return ""

    def _take_state(self, unit: str, read: Any) -> None:
        if read is None:
            self.states.pop(unit, None)
        else:
            self.states[unit] = Worked(read["works"] is True, str(read["instance"]))

    def ends(self) -> None:
        """Note that the end was reached."""
        self.complete = True

    def begins(self) -> None:
        """Note that the topic was re-created and is read from its beginning; the entries of the old one still count."""
        self._before = self.partitions
        self._entries = {}
        self.states = {}
        self._written = {}
        self.complete = False

    @property
    def partitions(self) -> dict[str, int]:
        """The partition of each unit that is registered; until the end was read, as the topic before this one says."""
        return {**self._before, **self._entries} if self.complete else self._before

    def plan(self, units: Iterable[str], now: float) -> Plan:
        """Return what to write for units that the register lacks; nothing before it was read to its end."""
        if not self.complete:
            return Plan({}, 0)
        known = self.partitions
        taken = {*known.values()}
        lacking = {name: known[name] for name in self._before if name not in self._entries}
        for name in units:
            if name not in known:
                lacking[name] = next(number for number in range(FIRST, len(taken) + FIRST + 1) if number not in taken)
                taken.add(lacking[name])
        due = {
            name: number
            for name, number in lacking.items()
            if now - self._written.get(name, float("-inf")) >= AGAIN_SECONDS
        }
        return Plan(due, max([*known.values(), *lacking.values(), 0]) + 1)

    def wrote(self, names: Iterable[str], now: float) -> None:
        """Note that entries were written: they are not written again until they had time to be read back."""
        self._written.update(dict.fromkeys(names, now))


def entry(partition: int) -> bytes:
    """Return the value of a unit's entry; its key is the unit's name."""
    return orjson.dumps({"partition": partition})


def state_key(unit: str) -> str:
    """Return the key of the last word about a unit."""
    return unit + _STATE


def state(works: bool, instance: str) -> bytes:
    """Return the value of the last word about a unit."""
    return orjson.dumps({"works": works, "instance": instance})
