"""Reads how far a relay is, and which rows of the outbox are in no batch, or will be in none: see polling.md.

Nothing here writes, or waits for a lock.
"""

from typing import Final, NamedTuple

from psycopg import sql

from cdc.config.settings import Settings
from cdc.errors import PostgresError
from cdc.outbox.columns import SEQUENCE_COLUMN
from cdc.polling.batches import beyond
from cdc.polling.snapshots import Snapshot
from cdc.postgres import catalog, defects, numbers
from cdc.postgres import polling_table as wanted
from cdc.postgres.connection import Conn, converting
from cdc.postgres.polling_table import TX_COLUMN
from cdc.replication.values import TIMESTAMP, TIMESTAMPTZ
from cdc.telemetry.metrics import RelayHealth

_CREATED_AT: Final = "created_at"

MOST: Final = 10_000
"""Rows beyond these are not counted."""


class Relay(NamedTuple):
    """The row of a relay in `cdc_relay`; times are unix seconds, snapshots text."""

    name: str
    id: str
    outbox: str
    holder: str | None
    locked: bool
    epoch: int
    last_batch: int
    heartbeat: int
    heartbeat_at: float | None
    confirmed_batch: int
    confirmed: str
    partly: str | None
    partly_until: int | None
    cleared: str
    rows_in_batches: int
    first_number: int
    handover: str | None
    ticks: int  # of batches that are not confirmed and cleared yet
    last_tick: str | None  # its snapshot
    last_ticked: float | None


class Waiting(NamedTuple):
    """Rows that are not confirmed; at most `MOST` of each kind are counted."""

    unconfirmed: int
    unbatched: int
    oldest_seconds: float | None  # age of the oldest in no batch; that of the last tick where rows do not show theirs
    strays: int
    numbers: int | None  # that the sequence gave out since init; None where it may not be read


def _column(alias: str, name: str) -> sql.Identifier:
    return sql.Identifier(alias, name) if alias else sql.Identifier(name)


def unseen(snapshot: str, alias: str = "t") -> sql.Composed:
    """Return the condition for rows whose transaction a snapshot does not see. Rows without one fulfil none."""
    conditions = sql.SQL(" or ").join(map(sql.SQL, beyond(Snapshot.parse(snapshot), alias)))
    return sql.SQL("({})").format(conditions)


def unconfirmed(relay: Relay, alias: str = "t") -> sql.Composed:
    """Return the condition for rows that are not confirmed, among them those that are sent and not yet confirmed."""
    if relay.partly is None:
        return unseen(relay.confirmed, alias)
    number = _column(alias, SEQUENCE_COLUMN)
    return sql.SQL("({} and ({} or {} > {}))").format(
        unseen(relay.confirmed, alias), unseen(relay.partly, alias), number, sql.Literal(relay.partly_until)
    )


def stray(cleared: str | None, published: str, alias: str = "o") -> sql.Composed:
    """Return the condition for rows that no batch will ever have.

    Where rows are deleted, also those that should be gone: the cleared snapshot sees them.
    """
    tx, number = _column(alias, TX_COLUMN), _column(alias, SEQUENCE_COLUMN)
    without = sql.SQL("({} is null or {} is null").format(tx, number)
    if published != "delete" or cleared is None or cleared == wanted.NOTHING:
        return without + sql.SQL(")")
    xmax = cleared.split(":")[1]
    seen = sql.SQL(" or ({} < {}::xid8 and pg_visible_in_snapshot({}, {}::pg_snapshot)))")
    return without + seen.format(tx, sql.Literal(xmax), tx, sql.Literal(cleared))


def read(connection: Conn, settings: Settings) -> Relay | None:
    """Return the relay of the settings; None where there is none, or no table of relays."""
    schema = settings.outbox.qualified_name[0]
    if catalog.table_columns(connection, (schema, wanted.RELAY)) is None:
        return None
    statement = sql.SQL(
        """
        select r.relay, r.id::text, r.outbox, r.holder, r.locked, r.epoch, r.last_batch, r.heartbeat,
               extract(epoch from r.heartbeat_at)::float8, r.confirmed_batch, r.confirmed_snapshot::text,
               r.partly_snapshot::text, r.partly_until, r.cleared_snapshot::text, r.rows_in_batches, r.first_number,
               r.handover::text, (select count(*) from {ticks} t where t.relay = r.relay),
               last.snapshot::text, extract(epoch from last.ticked_at)::float8
        from {relay} r left join lateral (
            select t.snapshot, t.ticked_at from {ticks} t where t.relay = r.relay order by t.batch desc limit 1
        ) last on true
        where r.relay = %s
        """
    ).format(relay=sql.Identifier(schema, wanted.RELAY), ticks=sql.Identifier(schema, wanted.TICKS))
    with converting("reading the relay"):
        found = connection.execute(statement, [settings.postgres.slot]).fetchall()
    return Relay(*found[0]) if found else None


def exists(connection: Conn, settings: Settings) -> bool:
    """Return whether there is a relay of this name; the table of its ticks may be missing."""
    schema = settings.outbox.qualified_name[0]
    if catalog.table_columns(connection, (schema, wanted.RELAY)) is None:
        return False
    statement = sql.SQL("select from {} where relay = %s").format(sql.Identifier(schema, wanted.RELAY))
    with converting("reading the relay"):
        return connection.execute(statement, [settings.postgres.slot]).rowcount == 1


def require(connection: Conn, settings: Settings) -> Relay:
    """Return the relay of the settings. Raises PostgresError where there is none."""
    if found := read(connection, settings):
        return found
    raise PostgresError(
        f"there is no relay {settings.postgres.slot!r} in table"
        f" {defects.shown((settings.outbox.qualified_name[0], wanted.RELAY))}",
        hint="run: cdc-publisher outbox init --polling",
    )


def others(connection: Conn, settings: Settings) -> list[str]:
    """Return the names of further relays of the same outbox: each would delete what another has not sent."""
    table = settings.outbox.qualified_name
    if catalog.table_columns(connection, (table[0], wanted.RELAY)) is None:
        return []
    statement = sql.SQL("select relay from {} where outbox = %s and relay <> %s order by 1").format(
        sql.Identifier(table[0], wanted.RELAY)
    )
    with converting("reading the relays"):
        return [name for (name,) in connection.execute(statement, [defects.name(*table), settings.postgres.slot])]


def waiting(connection: Conn, settings: Settings, relay: Relay) -> Waiting:
    """Return what waits for the relay: searched by the indexes of both columns."""
    table = sql.Identifier(*settings.outbox.qualified_name)
    age = _age(connection, settings)

    def counted(condition: sql.Composed) -> sql.Composed:
        return sql.SQL("(select count(*) from (select from {} t where {} limit {}) c)").format(
            table, condition, sql.Literal(MOST)
        )

    unbatched = unseen(relay.last_tick or relay.confirmed)
    statement = sql.SQL(
        "select {}, {}, (select {} from (select * from {} t where {} order by t.{} limit {}) t), {},"
        " extract(epoch from clock_timestamp())::float8"
    ).format(
        counted(unconfirmed(relay)),
        counted(unbatched),
        age,
        table,
        unbatched,
        sql.Identifier(TX_COLUMN),
        sql.Literal(MOST),
        counted(stray(relay.cleared, settings.outbox.published, "t")),
    )
    with converting("reading what waits for the relay"):
        ((behind, new, oldest, strays, now),) = connection.execute(statement).fetchall()
    last = numbers.last(connection, settings.outbox.qualified_name)
    since = oldest if oldest is not None else relay.last_ticked
    return Waiting(
        behind,
        new,
        max(0.0, now - since) if new and since is not None else None,
        strays,
        None if last is None else last - relay.first_number,
    )


def observe(connection: Conn, settings: Settings) -> RelayHealth:
    """Return what waits for the relay. Raises PostgresError where there is no relay any more."""
    relay = require(connection, settings)
    found = waiting(connection, settings, relay)
    return RelayHealth(
        unbatched=found.unbatched,
        oldest_seconds=found.oldest_seconds,
        strays=found.strays,
        numbers=found.numbers,
        batched=relay.rows_in_batches,
        open_ticks=relay.ticks,
    )


def _age(connection: Conn, settings: Settings) -> sql.Composable:
    """Return the expression of the oldest row's time, in unix seconds."""
    present = catalog.table_columns(connection, settings.outbox.qualified_name) or {}
    if present.get(_CREATED_AT, (0, ""))[0] in (TIMESTAMP, TIMESTAMPTZ):
        return sql.SQL("extract(epoch from min(t.{}))::float8").format(sql.Identifier(_CREATED_AT))
    return sql.SQL("null::float8")
