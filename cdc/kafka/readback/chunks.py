"""One partition read backwards: chunk before chunk, each of them forwards, for as long as there is something to find.

Offsets have holes: compaction, marks of transactions, and what was aborted. So a chunk ends with a record that an
earlier chunk had, and only where there was none with the end of the partition. What comes from beyond may have been
fetched for an earlier chunk, and ends a chunk only when something of the chunk itself came before it.
"""

from typing import Final

FIRST: Final = 2000  # offsets of the first chunk
GROWTH: Final = 4
LARGEST: Final = 250_000  # so that little is read beyond what is wanted


class Chunks:
    """The chunks of a partition whose last record is before `high`: `next`, then all that comes until it is `over`."""

    def __init__(self, high: int) -> None:
        self.start = self.high = high
        self.over = True
        self.held_back = False  # the end that was told is before `high`: a transaction is open there
        self._size = FIRST
        self._last = high - 1  # the record that ends the chunk
        self._is_there = False  # whether that was seen
        self._first: int | None = None  # the first record of the chunk
        self._again = False
        self._end = high  # as it was told

    def next(self, floor: int) -> bool:
        """Begin the chunk before, from `start` on; False when all from `floor` on was read."""
        if not self._again:
            if self._first is not None:
                self._last, self._is_there = self._first, True
            if self.start <= floor:
                return False
            self.start = max(floor, self.start - self._size)
            self._size = min(self._size * GROWTH, LARGEST)
        self._first, self._again, self.held_back, self.over = None, False, False, False
        return True

    def take(self, offset: int) -> bool:
        """Whether the record at an offset is one of the chunk."""
        if self.over:
            return False
        self.held_back = False
        if offset > self._last:
            self.over = True
            if self._first is None:
                # Of an earlier chunk, or all of this one is gone: the same again, up to here.
                self._again, self._last, self._is_there = True, offset, True
            return False
        if self._first is None:
            self._first = offset
        self.over = offset == self._last
        return True

    def ended(self, offset: int) -> None:
        """The partition is said to end here."""
        if self.over:
            return
        if offset < self.high:
            self.held_back, self._end = True, offset
            return
        self.over = True
        if self._first is None and self._is_there:
            # Told of an earlier chunk, or the record that should have come is gone: the same again, to the end.
            self._again, self._last, self._is_there = True, self.high - 1, False

    def give_up(self) -> None:
        """Be content with what could be read of the chunk."""
        self.over, self.high = True, self._end
