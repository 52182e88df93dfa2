"""Which rows of the outbox may go: those of transactions that had ended before a horizon which is confirmed.

A row does not tell at which LSN it was committed. So horizons are taken: a snapshot, and after it the end of the WAL.
A transaction whose id is below the snapshot's xmin had ended by then, and had written the record of its commit: once
the slot has confirmed the horizon's LSN, all of its events are in Kafka. The same holds for its subtransactions, whose
ids are larger than its own, and for prepared ones, which have not ended.

A row's xmin has the low 32 bits of such an id. It is taken for the largest id with these bits that has been assigned,
which is never less than the true one: where it is wrong, for rows frozen billions of transactions ago, the row stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from cdc.errors import PostgresError
from cdc.lsn import LSN

BELOW: Final = "(({next} - 1 - {xmin}) & 4294967295) >= ({next} - {horizon})"
"""Whether the transaction of `xmin` is below the horizon; `next` is above all that have an id. SQL and Python agree."""

ROOM: Final = 64
WIDEST: Final = 4096  # blocks that one statement looks at

TIMES: Final = frozenset({1082, 1114, 1184})  # date, timestamp, timestamptz
_CREATED_AT: Final = "created_at"


@dataclass(frozen=True, slots=True)
class Horizon:
    """What had ended at a moment."""

    xid: int  # 64 bits: every transaction below it
    lsn: LSN  # the commit records of these end here at the latest
    taken: float  # monotonic seconds


class Horizons:
    """Horizons of one connection, from the oldest that may be of use; at most ROOM of them.

    They die with the connection: a server that crashed may assign ids and LSNs again that it had not yet written.
    """

    def __init__(self) -> None:
        self._known: list[Horizon] = []

    def __len__(self) -> int:
        return len(self._known)

    def add(self, horizon: Horizon) -> None:
        """Remember a horizon that is newer than all others."""
        self._known.append(horizon)
        if len(self._known) > ROOM:
            # The one that is missed least: its neighbours are nearest to each other.
            gaps = [after.taken - before.taken for before, after in zip(self._known, self._known[2:], strict=False)]
            del self._known[1 + gaps.index(min(gaps))]

    def reached(self, confirmed: LSN, until: float) -> Horizon | None:
        """The newest that is confirmed and was taken by `until`."""
        fit = (known for known in reversed(self._known) if known.lsn <= confirmed and known.taken <= until)
        return next(fit, None)

    def forget(self, before: Horizon) -> None:
        """Those that are older than one that is reached are of no use any more."""
        self._known = [known for known in self._known if known.taken >= before.taken]


class Clock(Enum):
    """What tells how old a row is."""

    COLUMN = "column"
    COMMIT = "commit timestamp"
    HORIZON = "age of the horizon"
    NONE = "nothing"


@dataclass(frozen=True, slots=True)
class Age:
    """How old a row must be, in seconds, and by what. The column is known whenever there is one."""

    grace: float
    clock: Clock
    column: str | None


def age(grace: float, wanted: str | None, columns: Mapping[str, tuple[int, str]], *, commits: bool, watch: bool) -> Age:
    """How to tell the age of rows. `columns` are types by name, `commits` says whether commit timestamps are kept.

    Raises PostgresError when nothing tells it.
    """
    names = ", ".join(name for name, (oid, _) in columns.items() if oid in TIMES) or "none"
    if wanted is not None and wanted not in columns:
        raise PostgresError(f"the outbox has no column {wanted!r}", hint=f"its columns that hold a time: {names}")
    if wanted is not None and columns[wanted][0] not in TIMES:
        raise PostgresError(
            f"column {wanted!r} is {columns[wanted][1]}, not timestamptz, timestamp or date",
            hint=f"columns of the outbox that hold a time: {names}",
        )
    default = _CREATED_AT if columns.get(_CREATED_AT, (0, ""))[0] in TIMES else None
    column = wanted or default
    if grace == 0:
        return Age(grace, Clock.NONE, column)
    if column is not None:
        return Age(grace, Clock.COLUMN, column)
    if commits:
        return Age(grace, Clock.COMMIT, None)
    if watch:
        return Age(grace, Clock.HORIZON, None)
    raise PostgresError(
        f"nothing tells how old a row is: there is no column {_CREATED_AT!r}, and track_commit_timestamp is off",
        hint=f"name a column by --age-column (that hold a time: {names}), run with --watch, or say --grace 0",
    )


def window(blocks: int, deleted: int, batch: int) -> int:
    """How many blocks to look at next, when these held so many rows to delete."""
    if deleted >= batch:
        return max(1, blocks // 2)
    return min(WIDEST, blocks * 2) if deleted * 2 < batch else blocks
