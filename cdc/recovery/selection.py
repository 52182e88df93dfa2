"""Selects the rows that a recovery looks at, and their order."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from psycopg import sql

from cdc.audit.table import OutboxTable
from cdc.config.settings import Settings
from cdc.delivery.positions import EXACTLY_ONCE, reached
from cdc.delivery.recovery_record import RecoveryRecord
from cdc.postgres import numbers
from cdc.postgres.connection import Conn, converting
from cdc.recovery.bound import Bound, BoundKind, candidates
from cdc.recovery.compacted import StreamFacts
from cdc.recovery.order import Order, OrderFacts, OrderKind, order_by
from cdc.recovery.state import FoundState
from cdc.replication.horizon import Horizon

ALIAS: Final = "t"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSelection:
    """The candidates, and their order."""

    bound: Bound
    order: Order
    condition: sql.Composed
    values: Mapping[str, object]

    def including(self, also: tuple[sql.Composed, Mapping[str, object]]) -> "RowSelection":
        """Return the selection with the rows of another condition, and its parameters."""
        condition, values = also
        either = sql.SQL("({} or {})").format(self.condition, condition)
        return replace(self, condition=either, values={**self.values, **values})


def stream_facts(found: FoundState, record: RecoveryRecord, selection: RowSelection) -> StreamFacts:
    """Return what is known of the events that the lost slot brought."""
    known, confirmed = found.memory.record, None
    # Rows that were never in the stream have no position.
    if known and known.guarantee == EXACTLY_ONCE and selection.bound.kind not in (BoundKind.SINCE, BoundKind.BEGINNING):
        position = reached(known, found.mark.timeline, found.timelines)
        confirmed = (known.timeline, *position) if position else None
    timed = selection.order.kind is OrderKind.COMMITTED and selection.order.exact
    return StreamFacts(record.at, confirmed, timed)


def select(connection: Conn, settings: Settings, table: OutboxTable, chosen: Bound, now: Horizon) -> RowSelection:
    """Find out which rows are candidates, and their order, in the snapshot that has the horizon `now`."""
    chosen = chosen.recounted(now.counted)
    where = candidates(chosen, table.age, commits=table.knows_commit_times, alias=ALIAS)
    sequence = numbers.ordering(connection, settings.outbox.qualified_name)
    number = sql.SQL("t.{}").format(sql.Identifier(sequence)) if sequence else sql.SQL("null::int8")
    # A number of 0 is that of a row from before there was the column.
    statement = sql.SQL(
        "select {untimed}, coalesce(bool_or({number} = 0), false) from {table} t where {condition}"
    ).format(
        untimed=sql.SQL(
            "coalesce(bool_or(pg_xact_commit_timestamp(t.xmin) is null), false)" if table.knows_commit_times else "true"
        ),
        number=number,
        table=sql.Identifier(*settings.outbox.qualified_name),
        condition=where.condition,
    )
    with converting("reading the outbox table"):
        ((untimed, unnumbered),) = connection.execute(statement, where.values).fetchall()
    order = order_by(
        OrderFacts(
            commits=table.knows_commit_times,
            untimed=untimed,
            sequence=sequence,
            unnumbered=unnumbered,
            updated=chosen.updated(now.updates or 0),
        ),
        ALIAS,
    )
    return RowSelection(bound=chosen, order=order, condition=where.condition, values=where.values)
