"""Creates a slot for `slot create`, with its first horizon, unless rows of an earlier slot may be unpublished."""

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import psycopg

from cdc.config.settings import Settings
from cdc.delivery.positions import Memory
from cdc.delivery.recovery_record import RUN_IT
from cdc.errors import CdcError, PostgresError
from cdc.lsn import LSN
from cdc.postgres import catalog, horizons, slots
from cdc.postgres.connection import Conn, query, snapshot
from cdc.postgres.source import Source, publication_list
from cdc.quantities import plural
from cdc.recovery.bound import BEGINNING, Bound, candidates
from cdc.recovery.candidates import CandidateTable
from cdc.recovery.new_slot import NewSlot
from cdc.replication.horizon import Horizon, counting

APPLICATION: Final = "cdc-publisher slot"
_CHANGES: Final = 1000  # decoded at least, if the slot holds as many


def known_horizons(connection: Conn, settings: Settings, known: Iterable[Horizon]) -> tuple[Horizon, ...]:
    """Return the horizons that count on the server of today."""
    if not known:
        return ()
    with contextlib.closing(Source(settings.postgres.dsn, APPLICATION)) as source:
        _, timeline = source.identify()
        timelines = source.timelines(timeline)
    return counting(known, timeline, timelines, slots.wal_end(connection))


def check_published(
    connection: Conn, settings: Settings, slot: str, memory: Memory, counts: tuple[Horizon, ...]
) -> None:
    """Raise CdcError while a recovery is unfinished, or rows of an earlier slot may be unpublished.

    `counts` are the horizons of `memory` that count.
    """
    if memory.recovery is not None:
        raise memory.recovery.unfinished()
    if not memory.horizons or catalog.table_columns(connection, settings.outbox.qualified_name) is None:
        return
    bound = Bound.of(counts[-1]) if counts else BEGINNING
    table = CandidateTable(connection, settings, None)
    above = table.count(candidates(bound, table.age, commits=table.knows_commit_times, alias="t"))
    if above:
        raise PostgresError(
            f"{plural(above, 'row')} of {settings.outbox.table} may be unpublished: an earlier replication slot"
            f" {slot!r} is known to have brought those before {bound}, and a new one begins after them",
            hint=f"{RUN_IT}, which creates the slot and publishes missing events",
        )


def create(connection: Conn, settings: Settings, slot: str, *, failover: bool) -> tuple[LSN, Horizon]:
    """Create a slot; return where it starts, and the horizon of its beginning.

    All rows that the slot does not bring are below the horizon, or were committed while it was created.
    """
    slots.await_transactions(connection, slot)
    with contextlib.closing(NewSlot(settings.postgres.dsn, APPLICATION)) as new:
        start = new.create(slot, failover=failover)
        with snapshot(connection, "taking a horizon", start.snapshot):
            horizon = horizons.take(connection, settings.outbox.qualified_name)
    return start.lsn, replace(horizon, lsn=start.lsn)


def last_horizon(connection: Conn, settings: Settings, slot: str) -> Horizon | None:
    """Return a horizon of now when an inactive slot holds no event below it; None when it holds some, or may."""
    horizon = horizons.take(connection, settings.outbox.qualified_name)
    try:
        ((flushed,),) = query(connection, "reading the WAL's end", "select pg_current_wal_flush_lsn()::text")
        ((inserts, changes),) = query(
            connection,
            "reading what the slot holds",
            "select count(*) filter (where get_byte(data, 0) = ascii('I')), count(*)"
            " from pg_logical_slot_peek_binary_changes("
            "%s, null, %s, 'proto_version', '1', 'publication_names', %s)",
            slot,
            _CHANGES,
            publication_list(settings.postgres.publication),
        )
    except (CdcError, psycopg.Error):
        return None  # the slot is lost, or belongs to another plugin or database
    complete = changes < _CHANGES and LSN.parse(flushed) >= horizon.lsn
    return horizon if complete and not inserts else None
