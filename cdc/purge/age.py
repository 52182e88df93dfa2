"""The age that rows must have to be purged, where it is read from, and how much of the table one statement scans."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from cdc.errors import PostgresError

WIDEST: Final = 4096  # blocks that one statement looks at

TIMES: Final = frozenset({1082, 1114, 1184})  # date, timestamp, timestamptz
_CREATED_AT: Final = "created_at"


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
