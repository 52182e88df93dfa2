"""The bound of a recovery: which rows of the outbox may be unpublished after a slot is lost.

Rows have no LSN. The best bound is a horizon, below which all transactions are published (`cdc.replication.horizon`);
there are worse ones for a slot whose record has none. Which rows of the candidates are missing, the topics say.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, LiteralString, Self

from psycopg import sql

from cdc.lsn import LSN
from cdc.replication.horizon import BELOW, Horizon, counting

_DAY: Final = 86_400.0
"""The clock of an age column may be another than that of the bound, in another time zone, and the row was written
before it was committed."""
_FORGOTTEN: Final = -1
_MARGIN: Final = 600.0
"""Commit timestamps do not strictly follow the WAL."""


class BoundKind(StrEnum):
    """The source of a bound, from the most exact one."""

    HORIZON = "horizon"
    CATALOG_XMIN = "catalog_xmin"  # of the lost slot
    COMMITTED = "last confirmed commit"
    SINCE = "since"  # given by the user
    BEGINNING = "beginning"  # all rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The point up to which all rows are published, or are not asked for.

    `xid` has 64 bits: rows of all transactions below it. `time` is in unix seconds: that of the horizon, or where
    there is no `xid` that from which on rows are candidates. `updates` and `deletes` are the changes of rows that
    statistics had counted by then.
    """

    kind: BoundKind
    xid: int | None = None
    time: float | None = None
    lsn: LSN | None = None
    counted: float | None = None  # since when these statistics count
    updates: int | None = None
    deletes: int | None = None
    tables: str | None = None  # that had rows then
    number: int | None = None  # the last one that the table's sequence had given

    @classmethod
    def of(cls, horizon: Horizon) -> Self:
        """Make the bound of a horizon."""
        return cls(
            kind=BoundKind.HORIZON,
            xid=horizon.xid,
            time=horizon.taken,
            lsn=horizon.lsn,
            counted=horizon.counted,
            updates=horizon.updates,
            deletes=horizon.deletes,
            tables=horizon.tables,
            number=horizon.number,
        )

    def recounted(self, since: float | None) -> Self:
        """Return the bound for statistics that count since a time: if they restarted, its own mean nothing."""
        if self.counted in (None, since):
            return self
        return replace(self, updates=_FORGOTTEN, deletes=0)

    def updated(self, updates: int) -> bool:
        """Return whether rows were, or may have been, updated since, when statistics count so many updates.

        Statistics that restarted know nothing of before: see `recounted`.
        """
        return self.kind is not BoundKind.BEGINNING and updates != (self.updates or 0)

    def plain(self) -> dict[str, Any]:
        """Return what a record holds of it."""
        found = {**asdict(self), "kind": str(self.kind), "lsn": str(self.lsn) if self.lsn is not None else None}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Self:
        """Make one of what a record holds. Raises KeyError, TypeError or ValueError."""
        lsn = plain.get("lsn")
        return cls(
            kind=BoundKind(plain["kind"]),
            xid=plain.get("xid"),
            time=plain.get("time"),
            lsn=LSN.parse(lsn) if lsn is not None else None,
            counted=plain.get("counted"),
            updates=plain.get("updates"),
            deletes=plain.get("deletes"),
            tables=plain.get("tables"),
            number=plain.get("number"),
        )

    def __str__(self) -> str:
        when = "" if self.time is None else datetime.fromtimestamp(self.time, UTC).isoformat(timespec="seconds")
        return {
            BoundKind.HORIZON: f"the horizon of {when}, at LSN {self.lsn}",
            BoundKind.CATALOG_XMIN: f"the catalog_xmin of the lost slot, {self.xid}",
            BoundKind.COMMITTED: f"ten minutes before the last confirmed commit, {when}",
            BoundKind.SINCE: f"the given time, {when}",
            BoundKind.BEGINNING: "the beginning of the table",
        }[self.kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundFacts:
    """What the slot's record, the server and the lost slot say about how far rows are published.

    `catalog_xmin` has the 32 bits that `pg_replication_slots` shows, and `next_xid` is above all assigned ids.
    `confirmed_commit` is the commit time of the last transaction that is known to be published, in unix seconds.
    """

    horizons: tuple[Horizon, ...]
    timeline: int
    timelines: Mapping[int, LSN]  # where earlier ones ended: IDENTIFY_SYSTEM and TIMELINE_HISTORY
    wal_end: LSN
    next_xid: int
    catalog_xmin: int | None = None
    confirmed_commit: float | None = None
    commits: bool = False  # track_commit_timestamp is on


def choose(facts: BoundFacts) -> Bound | None:
    """Return the best bound; None when there is none, so that the user must give a time."""
    if known := counting(facts.horizons, facts.timeline, facts.timelines, facts.wal_end):
        return Bound.of(known[-1])
    if facts.catalog_xmin is not None:
        return Bound(kind=BoundKind.CATALOG_XMIN, xid=widened(facts.catalog_xmin, facts.next_xid))
    if facts.commits and facts.confirmed_commit is not None:
        return Bound(kind=BoundKind.COMMITTED, time=facts.confirmed_commit - _MARGIN)
    return None


def since(time: float) -> Bound:
    """Return the bound that a user gives, in unix seconds."""
    return Bound(kind=BoundKind.SINCE, time=time)


BEGINNING: Final = Bound(kind=BoundKind.BEGINNING)


def widened(xid: int, next_xid: int) -> int:
    """Return the largest assigned id of 64 bits whose low 32 bits are `xid`; at least 0."""
    return max(0, next_xid - 1 - ((next_xid - 1 - xid) & 0xFFFFFFFF))


# A scalar subquery runs once, with the snapshot of its statement: no row that the statement sees has a higher id.
NEXT_XID: Final[LiteralString] = "(select pg_snapshot_xmax(pg_current_snapshot())::text::int8)"
_BELOW: Final = BELOW.format(next=NEXT_XID, xmin="{row}xmin::text::int8", horizon="%(bound_xid)s::int8")
COMMITTED: Final[LiteralString] = "pg_xact_commit_timestamp({row}xmin)"


@dataclass(frozen=True, slots=True)
class RowCondition:
    """The condition on a row of the outbox, and its parameters: false for rows that are known to be published."""

    condition: sql.Composed
    values: Mapping[str, object]


def candidates(bound: Bound, age_column: str | None, *, commits: bool, alias: str | None = None) -> RowCondition:
    """Return the candidates of a bound.

    `age_column` holds the time at which a row was written, if there is one; those without a time zone are read in that
    of the session. `commits` says whether the server keeps commit timestamps. Rows of unknown age are candidates.

    A row has only 32 bits of its transaction's id: one that was frozen four billion transactions ago may look new. So
    with an age column, rows that are older than the bound by more than a day are none.
    """
    row = sql.SQL("{}.").format(sql.Identifier(alias)) if alias else sql.SQL("")
    column = sql.SQL("{}{}::timestamptz").format(row, sql.Identifier(age_column)) if age_column else None
    conditions: list[sql.Composable] = []
    values: dict[str, object] = {}
    if bound.xid is not None:
        conditions.append(sql.SQL("not ({})").format(sql.SQL(_BELOW).format(row=row)))
        values["bound_xid"] = bound.xid
    elif bound.time is not None:
        ages: list[sql.Composable] = [sql.SQL(COMMITTED).format(row=row)] if commits else []
        ages += [column] if column else []
        if ages:
            age = sql.SQL("coalesce({})").format(sql.SQL(", ").join(ages))
            conditions.append(sql.SQL("coalesce({} >= to_timestamp(%(bound_time)s), true)").format(age))
            values["bound_time"] = bound.time
    if column and bound.time is not None:
        conditions.append(sql.SQL("coalesce({} >= to_timestamp(%(bound_day)s), true)").format(column))
        values["bound_day"] = bound.time - _DAY
    every = sql.SQL(" and ").join(conditions) if conditions else sql.SQL("true")
    return RowCondition(sql.SQL("({})").format(every), MappingProxyType(values))
