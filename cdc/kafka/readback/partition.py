"""Decides how far one partition is read backwards, and which of its records matter.

A partition was read far enough when the first own record of a chunk is below the LSN that the slot confirmed, or when
all records as new as the first redelivered event were read: timestamps are commit times. A search for the last number
in `cdc-sequence` continues until it is found.
"""

from typing import Final

from cdc.kafka.readback.chunks import Chunks, Sizes
from cdc.kafka.readback.log import Bounds
from cdc.records.headers import REPAIRED, REPLAYED, SEQUENCE, Order

UNNUMBERED: Final = 10_000  # so many own records without a number: there is none before them
FARTHEST: Final = 1_000_000  # offsets that are searched for a number
_BY_HAND: Final = (REPLAYED, REPAIRED)  # such records are out of order
_BEFORE_ALL: Final = (-1, -1)


class ReadPartition(Chunks):
    """A partition: how far it has to be read, and the results. `numbers`: also search for the last number.

    `disordered` is set when an own record may come behind one of a higher position.
    """

    def __init__(self, bounds: Bounds, confirmed: int, sizes: Sizes, *, numbers: bool) -> None:
        super().__init__(bounds.high, sizes)
        self.low = bounds.low
        self.sequence = 0
        self.disordered = False
        self._confirmed = confirmed
        self._window: int | None = None  # where the search for redelivered events ends, during the search
        if bounds.since is not None:
            self._window = self.high if bounds.since < 0 else max(self.low, bounds.since)
        self._numbers: int | None = max(self.low, self.high - FARTHEST) if numbers else None  # of the other search
        self._oldest: int | None = None  # commit LSN of the first own record in the chunk
        self._unnumbered = 0
        self._newest = _BEFORE_ALL  # the highest position so far in the chunk
        self._lowest: Order | None = None  # in the chunk
        self._behind: Order | None = None  # the lowest position in the chunks behind

    @property
    def unnumbered(self) -> bool:
        """Whether the search for a number ended at its limit without finding one."""
        return self._numbers is not None and self._numbers > self.low

    def more(self) -> bool:
        """Start the next chunk, if one is needed; return whether it was."""
        if self._oldest is not None and self._oldest < self._confirmed:
            self._window = None
        if self.sequence or self._unnumbered >= UNNUMBERED:
            self._numbers = None
        if self._lowest is not None:
            self._behind = min(self._lowest, self._behind or self._lowest)
        self._oldest, self._newest, self._lowest = None, _BEFORE_ALL, None
        floors = [floor for floor in (self._window, self._numbers) if floor is not None]
        return bool(floors) and self.next(min(floors))

    def saw(self, order: Order, name: str, text: bytes | None) -> bool:
        """Take note of an own record of the chunk; return whether it has to be kept.

        `name` and `text` are its last header. Kept are the records at or beyond the confirmed LSN, and those below it
        that may come behind one of them.
        """
        by_hand = name in _BY_HAND
        if not by_hand:
            if self._oldest is None:
                self._oldest = order[0]
            if name != SEQUENCE:
                self._unnumbered += 1
            elif text and len(text) < 19 and text.isdigit():
                self.sequence = max(self.sequence, int(text))
        late = order < self._newest
        if late or (self._behind is not None and order > self._behind):
            self.disordered = True
        if not late:
            self._newest = order
        if self._lowest is None or order < self._lowest:
            self._lowest = order
        if self._window is None:
            return False  # the event is redelivered, or was confirmed
        return order[0] >= self._confirmed or by_hand or self._newest[0] >= self._confirmed
