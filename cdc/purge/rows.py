"""Deletes rows of the outbox in small transactions; see `cdc.replication.horizon` for which.

It scans the heap block by block: no index is needed, and blocks are scanned once.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from cdc.errors import CdcError, PostgresError, PostgresUnavailable
from cdc.postgres.connection import LONG_SECONDS, Conn, connect, described, query
from cdc.postgres.relay_facts import Relay, stray, unseen
from cdc.purge.age import Age, AgeClock, window
from cdc.replication.horizon import BELOW, Horizon

DOING: Final = "purging the outbox"
_FIRST_WINDOW: Final = 64
_SESSION: Final = """
    reset search_path; -- triggers of the outbox may depend on it
    reset timezone; -- columns of timestamp and date are compared in the time zone that rows were written in
    set synchronous_commit = off; -- rows that come back after a crash are deleted again
"""


def session(dsn: str) -> Conn:
    """Open a connection for purging. Raises ConfigError, PostgresError or PostgresUnavailable."""
    connection = connect(dsn, lock_seconds=1, statement_seconds=LONG_SECONDS, application_name="cdc-publisher purge")
    try:
        connection.execute(_SESSION)
    except psycopg.Error as error:
        connection.close()
        raise described(error, DOING) from None
    return connection


def use_path(connection: Conn, *, own: bool) -> None:
    """Resolve names as the publisher does, for definitions that are compared; else as the role does, for triggers."""
    try:
        connection.execute("set search_path = pg_catalog" if own else "reset search_path")
    except psycopg.Error as error:
        raise described(error, DOING) from None


def keeps_commit_timestamps(connection: Conn) -> bool:
    """Return whether the server keeps commit timestamps."""
    ((setting,),) = query(connection, "reading settings", "select current_setting('track_commit_timestamp')")
    return bool(setting == "on")


def ago(connection: Conn, seconds: float) -> str:
    """Return the time so many seconds ago, by the server's clock."""
    ((moment,),) = query(connection, "asking the time", "select (now() - make_interval(secs => %s))::text", seconds)
    return str(moment)


class PurgedTable(NamedTuple):
    """A table with rows of its own, unlike a partitioned one."""

    schema: str
    name: str
    blocks: int

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class SeenRows(NamedTuple):
    """The rows that the confirmed snapshot of a relay sees; none that were in no batch."""

    snapshot: str
    condition: sql.Composed


def seen_rows(relay: Relay, published: str) -> SeenRows:
    """Return the rows that a relay has published; `published` is the setting of the outbox."""
    condition = sql.SQL("(not {} and not {})").format(unseen(relay.confirmed, ""), stray(relay.cleared, published, ""))
    return SeenRows(relay.confirmed, condition)


@dataclass(frozen=True, slots=True)
class Due:
    """The rows to delete: published, by a horizon or by what a relay has confirmed, and older than any cutoff."""

    published: Horizon | SeenRows
    age: Age
    cutoff: str

    @property
    def confirmed(self) -> str:
        """How far rows are published, as an LSN or a snapshot."""
        return str(self.published.lsn) if isinstance(self.published, Horizon) else self.published.snapshot

    @property
    def condition(self) -> sql.Composed:
        """The condition on a row; rows for which it is false or null stay."""
        if isinstance(self.published, Horizon):
            below = sql.SQL("({})").format(sql.SQL(_BELOW))
        else:
            below = self.published.condition
        if self.age.clock is AgeClock.COLUMN:
            assert self.age.column is not None
            old = sql.SQL(" and {} < %(cutoff)s::timestamptz").format(sql.Identifier(self.age.column))
        elif self.age.clock is AgeClock.COMMIT:
            old = sql.SQL(" and pg_xact_commit_timestamp(xmin) < %(cutoff)s::timestamptz").format()
        else:
            old = sql.SQL("").format()
        return below + old

    @property
    def values(self) -> Mapping[str, object]:
        """The parameters of the condition."""
        xid = self.published.xid if isinstance(self.published, Horizon) else None
        return {"horizon": xid, "cutoff": self.cutoff}


# A scalar subquery runs once, with the snapshot of its statement: no row that the statement sees has a higher id.
_BELOW: Final = BELOW.format(
    next="(select pg_snapshot_xmax(pg_current_snapshot())::text::int8)",
    xmin="xmin::text::int8",
    horizon="%(horizon)s::int8",
)

_DELETE: Final = """
    delete from only {table} where ctid = any(array(
        select ctid from only {table} where ctid >= %(from)s::tid and ctid < %(until)s::tid and {due}
        limit %(batch)s for update skip locked
    ))
"""


class DeletedBlocks(NamedTuple):
    """One transaction: the number of blocks that are done, and of deleted rows."""

    blocks: int
    deleted: int


def delete(connection: Conn, table: PurgedTable, due: Due, batch: int) -> Iterator[DeletedBlocks]:
    """Delete the rows that are due, one batch before each step is yielded; locked rows stay.

    Rows in blocks that were added since the start are too new.
    """
    statement = sql.SQL(_DELETE).format(table=sql.Identifier(table.schema, table.name), due=due.condition)
    block, width = 0, _FIRST_WINDOW
    while block < table.blocks:
        until = min(block + width, table.blocks)
        with deleting_from(table):
            part = {"from": f"({block},0)", "until": f"({until},0)", "batch": batch}
            deleted = connection.execute(statement, {**due.values, **part}).rowcount
        done = 0 if deleted >= batch else until - block  # full: there may be more of them in these blocks
        block += done
        width = window(width, deleted, batch)
        yield DeletedBlocks(done, deleted)


def count(connection: Conn, table: PurgedTable, due: Due) -> int:
    """Return how many rows are due."""
    statement = sql.SQL("select count(*) from only {} where {}")
    with deleting_from(table):
        found = connection.execute(
            statement.format(sql.Identifier(table.schema, table.name), due.condition), due.values
        ).fetchone()
    assert found is not None
    return int(found[0])


def check_rights(connection: Conn, tables: list[PurgedTable]) -> None:
    """Check the privileges on the tables. Raises PostgresError when the role may not delete from one."""
    found = query(
        connection,
        "reading the rights",
        """
        select format('%%I', current_user), string_agg(format('%%I.%%I', schema, name), ', ' order by schema, name)
        from unnest(%s::text[], %s::text[]) as t (schema, name)
        where not (select bool_and(has_table_privilege(format('%%I.%%I', schema, name), wanted))
                   from unnest('{SELECT,UPDATE,DELETE}'::text[]) as wanted)
        having count(*) > 0
        """,
        [table.schema for table in tables],
        [table.name for table in tables],
    )
    for role, names in found:
        raise PostgresError(
            f"role {role} may not delete from {names}", hint=f"run: GRANT SELECT, UPDATE, DELETE ON {names} TO {role}"
        )


@contextlib.contextmanager
def deleting_from(table: PurgedTable) -> Iterator[None]:
    """Convert errors of PostgreSQL about a table, with hints."""
    try:
        yield
    except psycopg.Error as error:
        raise _converted(error, str(table)) from None


def _converted(error: psycopg.Error, table: str) -> CdcError:
    state, text = error.sqlstate or "", str(error).split("\n")[0]
    if state == "42P01":
        return PostgresUnavailable(f"{table} was dropped or renamed meanwhile: {text}")
    for prefix, part, hint in _HINTS:
        if state.startswith(prefix) and part in text:
            return PostgresError(f"PostgreSQL refuses to delete rows of {table}: {text} (SQLSTATE {state})", hint=hint)
    return described(error, f"{DOING} {table}")


_HINTS: Final = (
    ("42501", "row-level security", "run: ALTER ROLE <user> BYPASSRLS; or purge as another role"),
    (
        "42501",
        "",
        "run: GRANT SELECT, UPDATE, DELETE ON the table, and USAGE ON its schema, TO the role of [postgres] dsn",
    ),
    ("23", "", "another table refers to these rows: drop its foreign key, or make it ON DELETE CASCADE"),
    ("2BP01", "", "drop what depends on the partition, or run with --keep-partitions"),
    (
        "55000",
        "replica identity",
        "publish inserts alone: ALTER PUBLICATION <name> SET (publish = 'insert'); or give the table a primary key",
    ),
    ("P0001", "", "a trigger of the table raised this error"),
)
