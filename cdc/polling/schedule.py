"""When the relay looks for new rows, and when another process may take its place. Times are monotonic seconds."""

from typing import Final, NamedTuple

LEASE_SECONDS: Final = 30.0
"""For how long the relay of a holder must have stood still until another process takes it over."""
BEAT_SECONDS: Final = 2.0
TRUST_SECONDS: Final = LEASE_SECONDS * 2 / 3
"""For how long a holder may rely on its last heartbeat."""

BUSY_SECONDS: Final = 0.05
"""How soon after rows were found the relay looks again."""
AHEAD_SECONDS: Final = 1.0
"""How often it looks while earlier rows are not sent, so that batches stay small."""
AHEAD_NUMBERS: Final = 10_000
"""After how many numbers of the sequence it looks sooner: as many rows as one part of a batch has."""
_GROWTH: Final = 2.0
MOST_AHEAD: Final = 1_000
"""How many ticks are made before their batches are read: one may be of a day in which Kafka is away."""


class Looking:
    """When to look for new rows: soon after some were found, and up to `longest` seconds later while there are none."""

    def __init__(self, longest: float, now: float) -> None:
        self._longest = longest
        self._interval = BUSY_SECONDS
        self._looked = now - longest
        self._glanced = self._looked
        self._number = 0  # the last one of the sequence, as of the last look

    def due(self, *, behind: bool, ahead: int) -> float:
        """Return when to look next, or, while `behind`, at how many numbers were given out.

        `behind`: earlier rows are not sent yet. `ahead` ticks are not read.
        """
        if not behind:
            return self._looked + self._interval
        return self._glanced + BUSY_SECONDS if ahead < MOST_AHEAD else float("inf")

    def glanced(self, now: float, number: int) -> bool:
        """Take note of the last number of the sequence; return whether to look now although earlier rows wait."""
        self._glanced = now
        return now >= self._looked + AHEAD_SECONDS or number >= self._number + AHEAD_NUMBERS

    def looked(self, now: float, number: int, *, found: bool) -> None:
        """Take note of a look, of the last number of the sequence, and of whether there were new rows."""
        self._looked = self._glanced = now
        self._number = number
        self._interval = BUSY_SECONDS if found else min(self._interval * _GROWTH, self._longest)

    def notified(self) -> None:
        """Look soon: a writer says that there are rows."""
        self._interval = BUSY_SECONDS


class Holding(NamedTuple):
    """Who holds a relay, as its row says."""

    holder: str | None
    epoch: int
    heartbeat: int
    locked: bool  # the holder has the advisory lock too


class Lease:
    """Watches the relay of another holder. No clock but that of this process decides."""

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None
        self._since = 0.0

    def free(self, found: Holding, now: float, *, lock_held: bool) -> bool:
        """Whether the relay may be taken over. `lock_held`: another session has the advisory lock.

        The server ends a session with the lock that is silent for the time of the lease. So the lock stands for it.
        """
        seen = found.epoch, found.heartbeat
        if seen != self._seen:
            self._seen, self._since = seen, now
        if found.holder is None:
            return not lock_held
        if found.locked:
            return not lock_held
        return now - self._since >= LEASE_SECONDS
