"""Builds the status document of a relay that does not answer, from its row in `cdc_relay` and the outbox."""

import time
from typing import Final

from cdc import __version__
from cdc.config.settings import Settings
from cdc.postgres import catalog, defects, relay_facts
from cdc.postgres.connection import Conn, query
from cdc.postgres.relay_facts import MOST, Relay, Waiting
from cdc.quantities import moment, plural
from cdc.status.database import estimated_rows
from cdc.status.document import PollingStatus, SlotStatus, StatusDocument, TableStatus
from cdc.telemetry.health import State

_SILENT_SECONDS: Final = 30.0  # a relay writes its heartbeat every two
_START: Final = "start it with: cdc-publisher start"
_INIT: Final = "run: cdc-publisher outbox init --polling"
_ADOPT: Final = "see check, and run: cdc-publisher outbox init --polling --adopt"


def look(connection: Conn, settings: Settings) -> StatusDocument:
    """Read the relay once. Raises PostgresUnavailable, and PostgresError where the table cannot be read."""
    ((now,),) = query(connection, "asking the time", "select extract(epoch from clock_timestamp())::float8")
    relay = relay_facts.read(connection, settings)
    table = settings.outbox.qualified_name
    if relay is None or catalog.table_columns(connection, table) is None:
        text = f"there is no relay {settings.postgres.slot!r} of table {defects.shown(table)}"
        return _document(settings, State.STOPPED, text, hint=_INIT, ready=False, running=False)
    waiting = relay_facts.waiting(connection, settings, relay)
    state, text, ready = _judge(relay, waiting, now)
    stopped = state == State.STOPPED
    document = _document(
        settings,
        state,
        text,
        hint=_START if stopped else _ADOPT if waiting.strays else None,
        ready=ready,
        running=not stopped,
    )
    since = None if relay.heartbeat_at is None or not stopped else moment(relay.heartbeat_at)
    rows = TableStatus(name=settings.outbox.table, rows=estimated_rows(connection, table))
    more = {"polling": _polling(relay, waiting), "since": since, "notes": _notes(waiting), "table": rows}
    return document.model_copy(update=more)


def _judge(relay: Relay, waiting: Waiting, now: float) -> tuple[State, str, bool | None]:
    more = " or more" if waiting.unconfirmed == MOST else ""
    behind = f"; {plural(waiting.unconfirmed, 'row')}{more} not confirmed" if waiting.unconfirmed else ""
    if relay.holder is None:
        return State.STOPPED, f"no process runs the relay{behind}", False
    silent = None if relay.heartbeat_at is None else now - relay.heartbeat_at
    if silent is None or silent > _SILENT_SECONDS:
        since = "" if silent is None else f" for {silent:,.0f} s"
        return State.STOPPED, f"{relay.holder} has not reported{since}{behind}", False
    return State.STREAMING, f"{relay.holder} runs the relay{behind}", None


def _notes(waiting: Waiting) -> list[str]:
    if not waiting.strays:
        return []
    return [f"{plural(waiting.strays, 'row')} of the outbox will be in no batch: they were written without the trigger"]


def _polling(relay: Relay, waiting: Waiting) -> PollingStatus:
    return PollingStatus(
        holder=relay.holder,
        open_ticks=relay.ticks,
        unconfirmed_rows=waiting.unconfirmed,
        unbatched_rows=waiting.unbatched,
        oldest_row_seconds=waiting.oldest_seconds or 0.0,
        strays=waiting.strays,
        numbers=waiting.numbers,
        batched_rows=relay.rows_in_batches,
    )


def _document(
    settings: Settings, state: State, summary: str, *, hint: str | None, ready: bool | None, running: bool
) -> StatusDocument:
    return StatusDocument(
        version=__version__,
        time=moment(time.time()),
        running=running,
        state=state,
        ready=ready,
        summary=summary,
        slot=SlotStatus(name=settings.postgres.slot),
        source="database",
        hint=hint,
    )
