"""Finds out whether rows were deleted since the bound that may not have been published."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from psycopg import sql

from cdc.config.settings import Settings
from cdc.delivery.purge_record import PurgeRecord
from cdc.postgres import numbers
from cdc.postgres.connection import Conn, converting, query
from cdc.quantities import plural
from cdc.recovery.bound import NEXT_XID, Bound
from cdc.replication.horizon import BELOW, Horizon

_BELOW: Final = BELOW.format(next=NEXT_XID, xmin="xmin::text::int8", horizon="%(horizon)s::int8")


@dataclass(frozen=True, slots=True)
class Losses:
    """Rows that are not there any more: at most so many of them were not published; None: unknown how many.

    `tables` has a phrase for each table whose rows have gone at once.
    """

    rows: int | None = 0
    between: str = ""
    tables: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.rows != 0

    def __str__(self) -> str:
        count = "an unknown number of rows" if self.rows is None else f"up to {plural(self.rows, 'row')}"
        gone = f" ({'; '.join(self.tables)})" if self.tables else ""
        return f"{count} {self.between} {'was' if self.rows == 1 else 'were'} deleted{gone}"

    def plain(self) -> dict[str, Any]:
        """Return what a record holds of it."""
        return asdict(self)

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Self:
        """Make one of what a record holds. Raises KeyError or TypeError."""
        return cls(plain["rows"], plain["between"], tuple(plain["tables"]))

    def join(self, other: "Losses") -> "Losses":
        """Return both together."""
        if not (self and other):
            return self or other
        rows = None if self.rows is None or other.rows is None else self.rows + other.rows
        return Losses(rows, self.between, tuple(dict.fromkeys((*self.tables, *other.tables))))


def find(
    connection: Conn,
    current: Conn,
    settings: Settings,
    bound: Bound,
    now: Horizon,
    purge: PurgeRecord,
    *,
    published: int,
) -> Losses:
    """Return what may be lost. `now` is the horizon of the snapshot of `connection`; `current` has none.

    `published` is how many events since the bound have a record, and no row.
    """
    name = settings.outbox.qualified_name
    if now.deletes is None or bound.tables is None or bound.deletes is None:
        return Losses()
    gone = _gone(connection, bound, now.tables or "", purge)
    # Anyone with the right to may reset the statistics of a database.
    deletes = now.deletes if now.deletes < bound.deletes else now.deletes - bound.deletes
    counted = max(0, deletes - max(purge.since(bound.time or 0.0), published))
    if not (counted or gone):
        return Losses()
    between = f"since {bound}"
    rows: int | None = None if gone else counted
    if numbered := _unused(connection, current, name, bound):
        sequence, first, last, unused = numbered
        unused = max(0, unused - published)
        rows, between = unused if gone else min(counted, unused), f"between {sequence} {first} and {last}"
    return Losses(rows, between, gone) if rows != 0 else Losses()


def _gone(connection: Conn, bound: Bound, tables: str, purge: PurgeRecord) -> tuple[str, ...]:
    """Return a phrase for each table that lost all of its rows at once since the bound."""
    before, now = _parsed(bound.tables or ""), _parsed(tables)
    found = []
    for oid, filenode in before.items():
        if oid in now and now[oid] != filenode and not _has_old_rows(connection, oid, bound):
            found.append(f"{_name(connection, oid)} was truncated")
        elif oid not in now and oid not in purge.dropped:
            name = _name(connection, oid)
            found.append(f"{name} was detached" if name else f"a table or partition with oid {oid} was dropped")
    return tuple(found)


def _parsed(tables: str) -> dict[int, int]:
    pairs = (one.partition(":") for one in tables.split())
    return {int(oid): int(filenode or oid) for oid, _, filenode in pairs}


def _name(connection: Conn, oid: int) -> str:
    statement = "select coalesce((select c.oid::regclass::text from pg_class c where c.oid = %s), '')"
    ((name,),) = query(connection, "reading the tables", statement, oid)
    return str(name)


def _has_old_rows(connection: Conn, oid: int, bound: Bound) -> bool:
    """Return whether a table has rows from before the bound: then it was rewritten, and not truncated."""
    statement = sql.SQL("select exists (select from only {} where {})").format(
        sql.SQL(_name(connection, oid)), sql.SQL(_BELOW)
    )
    with converting("reading the outbox table"):
        ((found,),) = connection.execute(statement, {"horizon": bound.xid}).fetchall()
    return bool(found)


def _unused(connection: Conn, current: Conn, name: tuple[str, str], bound: Bound) -> tuple[str, int, int, int] | None:
    """Return the sequence column, the numbers given since the bound, and how many of them no row has.

    Transactions that were rolled back leave such numbers too.
    """
    column = numbers.ordering(connection, name)
    if column is None or bound.number is None:
        return None
    first = bound.number + 1
    statement = sql.SQL("select count(*), coalesce(max({0}), 0) from {1} where {0} >= {2}").format(
        sql.Identifier(column), sql.Identifier(*name), first
    )
    with converting("reading the outbox table"):
        ((count, last),) = connection.execute(statement).fetchall()
    # Numbers behind those of all rows are of deleted rows only if no transaction was open then, or has begun since.
    seen = "select pg_snapshot_xmin(s)::text, pg_snapshot_xmax(s)::text from pg_current_snapshot() s"
    end = numbers.last(connection, name)
    if end is not None and len({*query(connection, "reading", seen)[0], *query(current, "reading", seen)[0]}) == 1:
        last = max(last, end)
    return column, first, last, max(0, last - first + 1 - count)
