"""Snapshots of PostgreSQL: which transactions were over when one was taken.

<https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT-PARTS>
"""

import re
from typing import NamedTuple, Self

_TEXT = re.compile(r"([0-9]{1,20}):([0-9]{1,20}):([0-9,]*)")


class Snapshot(NamedTuple):
    """A `pg_snapshot`: ids of 64 bits, each of which is given out once."""

    xmin: int  # all transactions below this were over
    xmax: int  # this one and all above it were not
    running: tuple[int, ...] = ()  # those between that were not, ascending

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse PostgreSQL's text, such as `10:20:10,14`. Raises ValueError for any other."""
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a snapshot such as 10:20:10,14")
        return cls(int(found[1]), int(found[2]), tuple(sorted(map(int, filter(None, found[3].split(","))))))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.running))}"

    def sees(self, xid: int) -> bool:
        """Return whether a transaction was over: rows of it are visible unless it was rolled back."""
        return xid < self.xmax and xid not in self.running


NOTHING = Snapshot(1, 1)
"""Sees no row, not even those from before rows had the id of their transaction: these have the id 1."""
