"""Check whether the publisher could recover from the loss of its slot: which rows, and in which order."""

from datetime import UTC, datetime
from typing import Final, NamedTuple

from cdc.checks.finding import Notes
from cdc.checks.postgres_facts import Conn
from cdc.config.settings import Settings
from cdc.delivery.positions import Memory
from cdc.postgres import horizons, numbers
from cdc.postgres.connection import query
from cdc.quantities import plural

INIT_ORDER: Final = "cdc-publisher outbox init --order"
PURGE: Final = "cdc-publisher outbox purge --grace 7d"


class RecoveryFacts(NamedTuple):
    """What the server has for a recovery."""

    commits: bool  # track_commit_timestamp is on
    inserted: int  # rows, as statistics count them
    empty: bool  # no row is in the table


def order(connection: Conn, notes: Notes, settings: Settings) -> None:
    """Check that a column numbers the rows in the order of their inserts."""
    name = settings.outbox.table
    found = numbers.columns(connection, settings.outbox.qualified_name)
    if found and found[0].cache == 1:
        notes.passes("outbox_order", f"column {found[0].name} numbers the rows of {name}")
    elif found:
        text = (
            f"the sequence of column {found[0].name} gives each session {plural(found[0].cache, 'number')} at once: it"
            " does not show the order of rows, which `recover` needs"
        )
        notes.warns("outbox_order", text, f"ALTER SEQUENCE {found[0].sequence} CACHE 1;")
    else:
        text = f"no column numbers the rows of {name}: after a loss of the slot, `recover` may reorder events of a key"
        notes.warns("outbox_order", text, INIT_ORDER)


def facts(connection: Conn, settings: Settings) -> RecoveryFacts:
    """Read what the server has for a recovery."""
    ((commits,),) = query(connection, "reading settings", "select current_setting('track_commit_timestamp')::bool")
    counted = horizons.changes(connection, settings.outbox.qualified_name)
    return RecoveryFacts(commits, counted.inserts if counted else 0, empty=False)


def recovery(notes: Notes, found: RecoveryFacts, memory: Memory) -> None:
    """Check whether a loss of the slot could be healed."""
    if found.inserted and found.empty:
        text = (
            f"{plural(found.inserted, 'row')} were inserted, and none is in the table: after a loss of the slot, events"
            " that it did not bring cannot be published"
        )
        notes.warns("recovery", text, hint=f"keep rows for some days, and delete them with: {PURGE}")
    elif memory.horizons:
        newest = memory.horizons[-1]
        taken = datetime.fromtimestamp(newest.taken, UTC).isoformat(timespec="seconds")
        text = f"after a loss of the slot, `recover` would look at rows since the horizon of {taken}, at {newest.lsn}"
        notes.passes("recovery", text)
    elif found.commits:
        text = "Kafka has no horizon of the slot: after its loss, `recover` would go by commit timestamps"
        notes.passes("recovery", text)
    elif memory.record is None:
        notes.passes("recovery", "the first session of a publisher takes a horizon, which `recover` needs")
    else:
        text = (
            "Kafka has no horizon of the slot, and track_commit_timestamp is off: after a loss of the slot, `recover`"
            " needs to know since when rows are missing (--since)"
        )
        notes.warns("recovery", text, "cdc-publisher start", hint="a publisher takes horizons while it runs")
