"""How far rows were sent: all that one snapshot sees, and of what a later one sees the numbers up to one.

Positions cannot say that, as the rows of a position are another session's: no session reads an old batch again.
"""

from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from cdc.lsn import LSN, EventPosition
from cdc.polling.snapshots import Snapshot


class Progress(NamedTuple):
    """Sent is all that `seen` sees, and of what `partly` sees the rows whose `cdc_seq` is at most `until`."""

    seen: Snapshot
    partly: Snapshot | None = None
    until: int | None = None
    tick: int = 0  # number of the tick that took the later of the two snapshots; 0 when none of a session did
    xid: int = 0  # id of that tick's transaction
    rows: int = 0  # how many rows were sent since the relay was made

    def document(self) -> dict[str, object]:
        """The progress as the record of the relay in Kafka has it."""
        return {
            "seen": str(self.seen),
            "partly": None if self.partly is None else str(self.partly),
            "until": self.until,
            "tick": self.tick,
            "xid": self.xid,
            "rows": self.rows,
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Read a progress. Raises KeyError, TypeError and ValueError."""
        partly, until = document["partly"], document["until"]
        return cls(
            Snapshot.parse(document["seen"]),
            None if partly is None else Snapshot.parse(partly),
            None if until is None else int(until),
            int(document["tick"]),
            int(document["xid"]),
            int(document["rows"]),
        )


@dataclass(slots=True)
class Part:
    """A transaction of the stream: a batch, or a part of one. `ends`: nothing of the batch comes after it."""

    number: LSN
    before: Progress
    seen: Snapshot  # all of the batch is visible in it
    tick: int
    xid: int
    numbers: "array[int]"  # `cdc_seq` of its rows, ascending
    ends: bool

    def after(self, count: int) -> Progress:
        """The progress when the first so many rows were sent."""
        rows = self.before.rows + count
        if self.ends and count == len(self.numbers):
            return Progress(self.seen, None, None, self.tick, self.xid, rows)
        if not count:
            return self.before
        return Progress(self.before.seen, self.seen, self.numbers[count - 1], self.tick, self.xid, rows)

    @property
    def done(self) -> Progress:
        """The progress when all of it was sent."""
        return self.after(len(self.numbers))


class Sent:
    """What positions of one session mean. The parts are added in the order of the stream."""

    def __init__(self, begun: Progress) -> None:
        self._passed = begun
        self._passed_until = LSN(0)  # all parts below this number are confirmed
        self._parts: deque[Part] = deque()

    @property
    def last(self) -> Progress:
        """The progress behind all parts."""
        return self._parts[-1].done if self._parts else self._passed

    def add(self, part: Part) -> None:
        """Add the next part."""
        self._parts.append(part)

    def confirmed(self, lsn: LSN) -> Progress:
        """Return the progress of all parts below a number, which are not asked for again, and drop them."""
        while self._parts and self._parts[0].number < lsn:
            part = self._parts.popleft()
            self._passed, self._passed_until = part.done, LSN(part.number + 1)
        return self._passed

    def at(self, position: EventPosition | None) -> Progress:
        """Return the progress when the event at a position was the last one that was sent."""
        if position is None or position.commit_lsn < self._passed_until:
            return self._passed
        found = self._passed
        for part in self._parts:
            if part.number == position.commit_lsn:
                return part.after(min(position.number + 1, len(part.numbers)))
            if part.number > position.commit_lsn:
                break
            found = part.done
        return found
