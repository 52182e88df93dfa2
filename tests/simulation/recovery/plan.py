"""The plan of a recovery world: what its table is like, how the slot is lost, and when the process dies."""

from dataclasses import dataclass
from random import Random
from typing import Final

_FIRST_XIDS: Final = (700, (1 << 32) - 15, 3 * (1 << 32) + 5)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one world is like; all of it follows from its seed."""

    keys: int = 4
    timed: bool = False  # the server keeps commit timestamps
    numbered: bool = True  # the table has a sequence column
    updates: bool = False
    compacted: bool = False
    trims: bool = False
    losses: tuple[str, ...] = ("dropped",)
    crashes: tuple[tuple[int, bool], ...] = ()
    first_xid: int = _FIRST_XIDS[0]
    backlog: int = 12  # steps of the writers while there is no slot

    @property
    def ordered(self) -> bool:
        """Whether the table shows the order of commits."""
        return self.numbered or (self.timed and not self.updates)


def plan(seed: int) -> Plan:
    """Return the world of a seed."""
    random = Random(f"recovery/{seed}")
    compacted = random.random() < 0.2
    crashes = [(random.randint(1, 120), random.random() < 0.5) for _ in range(random.choice((0, 1, 1, 2, 3, 5)))]
    return Plan(
        keys=random.randint(1, 6),
        timed=random.random() < 0.5,
        numbered=random.random() < 0.8 or compacted,
        # Of a row that topics hold, an update before the horizon shows in no statistics, and would be its commit.
        updates=random.random() < 0.4 and not compacted,
        compacted=compacted,
        trims=random.random() < 0.1,
        losses=tuple(
            random.choice(("dropped", "lost", "failover", "failover")) for _ in range(random.choice((1, 1, 2, 3)))
        ),
        crashes=tuple(crashes),
        first_xid=random.choice(_FIRST_XIDS),
        backlog=random.choice((0, 5, 12, 30, 60)),
    )
