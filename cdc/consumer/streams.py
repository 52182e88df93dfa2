"""State of a `GapDetector` for one stream in one partition, and the verdict on the next record."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from cdc.consumer.verdicts import Duplicate, Gap, InOrder, Place, Recounted, Reordered, Verdict
from cdc.records.headers import Order, Position

HOLES: Final = 100


@dataclass(slots=True)
class Stream:
    """Positions and sequence numbers of a stream.

    `seen` has the positions above `floor`, at most `memory`; `holes` has the latest ranges of missing numbers. `ids`
    has the last ids, as many: without a replication slot, an event that is sent again has another position.
    """

    name: str
    memory: int
    floor: Order
    highest: Order
    next: int | None = None
    holes: list[tuple[int, int]] = field(default_factory=list)
    seen: dict[Order, int] = field(default_factory=dict)  # to offsets
    ids: dict[str, int] = field(default_factory=dict)  # likewise, the oldest first
    _heap: list[Order] = field(default_factory=list)

    @classmethod
    def begin(
        cls, memory: int, position: Position, offset: int, sequence: int | None, event_id: str | None = None
    ) -> "Stream":
        """Start with the first record that was read, anywhere in the stream."""
        order = position.order
        stream = cls(position.stream, memory, order, order, sequence + 1 if sequence else None)
        stream._remember(order, offset)
        stream._remember_id(event_id, offset)
        return stream

    def judge(self, position: Position, sequence: int | None, offset: int, place: Place) -> Verdict:
        """Return the verdict on the next record; `place` contains the fields that all verdicts begin with."""
        order, expected = position.order, self.next
        event_id, ahead = place[3], order > self.highest
        first_offset = self.seen.get(order)
        if first_offset is None and event_id is not None:
            first_offset = self.ids.get(event_id)
        behind = expected is not None and sequence is not None and sequence < expected
        verdict: Verdict
        if expected is not None and sequence is not None and sequence > expected:
            verdict = Gap(*place, expected, sequence)
            self.holes = [*self.holes, (expected, sequence - 1)][-HOLES:]
        elif first_offset is not None:
            verdict = Duplicate(*place, first_offset)
        elif behind and self._fills(sequence or 0):
            verdict = Reordered(*place, self._position(self.highest))
        elif ahead and behind:
            verdict = Recounted(*place, expected or 0, sequence or 0)
            self.holes.clear()
        elif ahead:
            verdict = InOrder(*place)
        elif order <= self.floor:
            verdict = Duplicate(*place, None)
        else:
            verdict = Reordered(*place, self._position(self.highest))
        if sequence is not None and (not behind or isinstance(verdict, Recounted)):
            self.next = sequence + 1
        self.highest = max(self.highest, order)
        self._remember(order, offset)
        self._remember_id(event_id, offset)
        return verdict

    def _fills(self, sequence: int) -> bool:
        """Remove a number from the holes; return whether it was in one."""
        for at, (first, last) in enumerate(self.holes):
            if first <= sequence <= last:
                rest = [(first, sequence - 1), (sequence + 1, last)]
                self.holes[at : at + 1] = [(low, high) for low, high in rest if low <= high]
                return True
        return False

    def _remember(self, order: Order, offset: int) -> None:
        if order in self.seen:
            return
        self.seen[order] = offset
        heapq.heappush(self._heap, order)
        if len(self._heap) > self.memory:
            # Forget the lowest position: all positions above it remain known.
            lowest = heapq.heappop(self._heap)
            del self.seen[lowest]
            self.floor = max(self.floor, lowest)

    def _remember_id(self, event_id: str | None, offset: int) -> None:
        if event_id is None or event_id in self.ids:
            return
        self.ids[event_id] = offset
        if len(self.ids) > self.memory:
            del self.ids[next(iter(self.ids))]

    def _position(self, order: Order) -> Position:
        return Position(self.name, *order)

    def saved(self) -> dict[str, object]:
        """Return the state as JSON-serializable data."""
        return {
            "floor": list(self.floor),
            "highest": list(self.highest),
            "next": self.next,
            "holes": [list(hole) for hole in self.holes],
            "seen": [[*order, offset] for order, offset in sorted(self.seen.items())],
            "ids": [[event_id, offset] for event_id, offset in self.ids.items()],
        }

    @classmethod
    def restored(cls, name: str, memory: int, saved: dict[str, Any]) -> "Stream":
        """Create a stream from the result of `saved`. Raises KeyError, TypeError or ValueError for other data."""
        following = saved["next"]
        stream = cls(
            name,
            memory,
            _order(saved["floor"]),
            _order(saved["highest"]),
            None if following is None else int(following),
            [_order(hole) for hole in saved["holes"]],
        )
        for order, offset in _seen(saved["seen"]):
            stream._remember(order, offset)
        for event_id, offset in saved.get("ids", ()):  # an earlier version saved none
            stream._remember_id(str(event_id), int(offset))
        return stream


def _order(pair: Any) -> Order:
    first, second = pair
    return int(first), int(second)


def _seen(entries: Any) -> Iterator[tuple[Order, int]]:
    for lsn, index, offset in entries:
        yield (int(lsn), int(index)), int(offset)
