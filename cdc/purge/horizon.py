"""The rule which rows may be deleted: those of transactions that had ended before a confirmed horizon.

A row does not show the LSN of its commit. So horizons are taken: a snapshot, and after it the end of the WAL. A
transaction whose id is below the snapshot's xmin had ended by then, and had written its commit record: once the slot
has confirmed the horizon's LSN, all of its events are in Kafka. The same holds for its subtransactions, whose ids are
larger than its own, and for prepared transactions, which have not ended.

A row's xmin has the low 32 bits of such an id. The rule uses the largest assigned id with these bits, which is never
below the true one: where it is wrong, for rows frozen billions of transactions ago, the row stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from cdc.errors import PostgresError
from cdc.lsn import LSN

BELOW: Final = "(({next} - 1 - {xmin}) & 4294967295) >= ({next} - {horizon})"
"""Whether the transaction of `xmin` is below the horizon; `next` is above all assigned ids. Valid in SQL and Python."""

ROOM: Final = 64
WIDEST: Final = 4096  # blocks that one statement looks at

TIMES: Final = frozenset({1082, 1114, 1184})  # date, timestamp, timestamptz
_CREATED_AT: Final = "created_at"


@dataclass(frozen=True, slots=True)
class Horizon:
    """The transactions that had ended at a moment."""

    xid: int  # 64 bits: every transaction below it
    lsn: LSN  # their commit records end here at the latest
    taken: float  # monotonic seconds


class Horizons:
    """The horizons of one connection, from the oldest that is still useful; at most ROOM of them.

    They end with the connection: a server that crashed may assign unwritten ids and LSNs again.
    """

    def __init__(self) -> None:
        self._known: list[Horizon] = []

    def __len__(self) -> int:
        return len(self._known)

    def add(self, horizon: Horizon) -> None:
        """Add a horizon that is newer than all others."""
        self._known.append(horizon)
        if len(self._known) > ROOM:
            # Drop the one whose neighbours are nearest to each other.
            gaps = [after.taken - before.taken for before, after in zip(self._known, self._known[2:], strict=False)]
            del self._known[1 + gaps.index(min(gaps))]

    def reached(self, confirmed: LSN, until: float) -> Horizon | None:
        """Return the newest horizon that is confirmed and was taken by `until`."""
        fit = (known for known in reversed(self._known) if known.lsn <= confirmed and known.taken <= until)
        return next(fit, None)

    def forget(self, before: Horizon) -> None:
        """Drop the horizons that are older than a reached one."""
        self._known = [known for known in self._known if known.taken >= before.taken]


class AgeClock(Enum):
    """The source of a row's age."""

    COLUMN = "column"
    COMMIT = "commit timestamp"
    HORIZON = "age of the horizon"
    NONE = "nothing"


@dataclass(frozen=True, slots=True)
class Age:
    """The age a row must have, in seconds, and its source. The column is set whenever there is one."""

    grace: float
    clock: AgeClock
    column: str | None


def age(grace: float, wanted: str | None, columns: Mapping[str, tuple[int, str]], *, commits: bool, watch: bool) -> Age:
    """Select the source of rows' age. `columns` are types by name, `commits` says whether commit timestamps are kept.

    Raises PostgresError when there is no source.
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
        return Age(grace, AgeClock.NONE, column)
    if column is not None:
        return Age(grace, AgeClock.COLUMN, column)
    if commits:
        return Age(grace, AgeClock.COMMIT, None)
    if watch:
        return Age(grace, AgeClock.HORIZON, None)
    raise PostgresError(
        f"the age of rows is unknown: there is no column {_CREATED_AT!r}, and track_commit_timestamp is off",
        hint=f"name a column with --age-column (columns that hold a time: {names}), or use --watch or --grace 0",
    )


def window(blocks: int, deleted: int, batch: int) -> int:
    """Return how many blocks to scan next, after these held so many rows to delete."""
    if deleted >= batch:
        return max(1, blocks // 2)
    return min(WIDEST, blocks * 2) if deleted * 2 < batch else blocks
