"""Reads one partition backwards, chunk by chunk; the records of each chunk are read forwards.

Offsets have holes: compaction, markers of transactions, and aborted records. So a chunk ends with a record that the
chunk before had, or one behind it if that is gone, or else with the end of the partition.
"""

from typing import Final, NamedTuple

FIRST: Final = 500  # offsets of the first chunk: after a proper stop nothing is to be found
GROWTH: Final = 4
LARGEST: Final = 250_000  # limits how much is read in vain


class Sizes(NamedTuple):
    """Sizes of chunks, in offsets: of the first one, and of the largest one."""

    first: int = FIRST
    largest: int = LARGEST


SIZES: Final = Sizes()


class Chunks:
    """The chunks of a partition whose last record is before `high`: call `next`, then `take` until it is `over`."""

    def __init__(self, high: int, sizes: Sizes = SIZES) -> None:
        self.start = self.high = high
        self.over = True
        self.held_back = False  # the reported end is before `high`: a transaction is open there
        self._size, self._largest = sizes
        self._last = high - 1  # the record that ends the chunk
        self._first: int | None = None  # the first record of the chunk
        self._end = high  # as it was reported

    def next(self, floor: int) -> bool:
        """Start the chunk before, from `start` on; return False when all from `floor` on was read."""
        if self._first is not None:
            self._last = self._first
        if self.start <= floor:
            return False
        self.start = max(floor, self.start - self._size)
        self._size = min(self._size * GROWTH, self._largest)
        self._first, self.held_back, self.over = None, False, False
        return True

    def take(self, offset: int) -> bool:
        """Return whether the record at an offset belongs to the chunk."""
        if self.over:
            return False
        self.held_back = False
        self.over = offset >= self._last
        if offset > self._last:
            return False
        if self._first is None:
            self._first = offset
        return True

    def ended(self, offset: int) -> None:
        """Note that the partition is reported to end here."""
        if self.over:
            return
        if offset < self.high:
            self.held_back, self._end = True, offset
        else:
            self.over = True

    def give_up(self) -> None:
        """End the chunk with the records read so far."""
        self.over, self.high = True, self._end
