"""Numbers of ticks, and of the transactions of the stream that batches become: 21 bits of epoch, 42 of a counter.

A session takes an epoch that none had before, so no number is given out twice, and later ones are higher.
"""

from typing import Final

from cdc.errors import PostgresError
from cdc.lsn import LSN

COUNTER_BITS: Final = 42
LAST_EPOCH: Final = (1 << 21) - 1
RECOGNIZED: Final = 1 << 40
"""How many numbers of an epoch are those of batches whose rows may have been sent before."""


class Numbers:
    """Gives out the numbers of one session."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.last = LSN(epoch << COUNTER_BITS)

    @property
    def fresh(self) -> LSN:
        """The first number of a batch of which nothing was sent before."""
        return LSN((self.epoch << COUNTER_BITS) + RECOGNIZED)

    def next(self) -> LSN:
        """Return the next number."""
        self.last = LSN(self.last + 1)
        return self.last

    def catch_up(self) -> None:
        """Continue behind the numbers of batches whose rows may have been sent before."""
        self.last = max(self.last, LSN(self.fresh - 1))


def next_epoch(*known: int) -> int:
    """Return the epoch above all that are known. Raises PostgresError when there is none."""
    epoch = max(known) + 1
    if epoch > LAST_EPOCH:
        raise PostgresError(
            f"the relay has used up its {LAST_EPOCH:,} epochs, of which each session takes one",
            hint="stop the publisher, and run: cdc-publisher outbox init --polling --reset",
        )
    return epoch
