"""Check what a relay without a slot depends on: table, trigger, sequence, ids, its own row, rights and connection."""

from functools import partial
from typing import Final

from cdc.checks import outbox, postgres, postgres_facts
from cdc.checks.finding import Notes
from cdc.checks.postgres import attempt, defect_noted
from cdc.checks.postgres_facts import Conn, Link
from cdc.config.settings import Settings
from cdc.postgres import defects, polling_defects, relay_facts
from cdc.postgres import polling_table as wanted
from cdc.postgres.relay_facts import MOST, Relay, Waiting
from cdc.quantities import plural

ADOPT: Final = "cdc-publisher outbox init --polling --adopt"

_WELL: Final = {
    "polling_columns": "the columns cdc_tx and cdc_seq are there, each with an index",
    "polling_sequence": "one sequence numbers the rows, without a cache",
    "polling_trigger": "a trigger stamps each row of the outbox, and none runs after it",
    "polling_ids": "each id is unique in the table that holds its row",
    "polling_relay": "table cdc_relay has the relay",
    "polling_rights": "the role may read, tick and confirm",
}


def check(connection: Conn, notes: Notes, settings: Settings, link: Link) -> bool:
    """Add a finding per line; return whether rows of the table can be read."""
    look = partial(attempt, connection, notes)
    _connection(notes, link)
    outbox.encoding(connection, notes)
    needed = outbox.table(connection, notes, settings)
    found = postgres_facts.rights(connection, settings.outbox.qualified_name)
    if needed is None:
        return False
    met = True
    for name, defect in polling_defects.read(connection, settings).items():
        met &= defect_noted(notes, name, defect, _WELL[name])
    look("polling_relays", lambda: _relays(connection, notes, settings))
    if met:
        look("polling_rows", lambda: _rows(connection, notes, settings))
    return found.selects and found.uses_schema


def _connection(notes: Notes, link: Link) -> None:
    if link.pooled:
        text = (
            "the connection goes through a pooler, which works, with two limits: a standby waits for the lease before"
            " it takes over, as there is no lock that ends with the session, and NOTIFY does not wake the relay"
        )
        notes.warns("polling_connection", text, hint=postgres.DIRECT)
    else:
        text = "PostgreSQL itself answers: a standby notices the end of a session at once, and NOTIFY wakes the relay"
        notes.passes("polling_connection", text)


def _relays(connection: Conn, notes: Notes, settings: Settings) -> None:
    table = settings.outbox.qualified_name
    if names := relay_facts.others(connection, settings):
        relay = defects.name(table[0], wanted.RELAY)
        fix = [f"DELETE FROM {relay} WHERE relay = {defects.text(name)};" for name in names]
        text = f"table {defects.shown(table)} has further relays ({', '.join(names)})"
        notes.fails("polling_relays", f"{text}: one may delete what another has not sent", *fix)
    else:
        notes.passes("polling_relays", "the outbox has no other relay")


def _rows(connection: Conn, notes: Notes, settings: Settings) -> None:
    relay = relay_facts.require(connection, settings)
    found = relay_facts.waiting(connection, settings, relay)
    _strays(notes, found)
    _handover(notes, settings, relay)
    notes.passes("polling_numbers", _numbers(relay, found))


def _strays(notes: Notes, found: Waiting) -> None:
    if found.strays:
        more = " or more" if found.strays == MOST else ""
        text = f"{plural(found.strays, 'row')}{more} will be in no batch: they were written without the trigger"
        notes.warns("polling_strays", text, ADOPT, hint="skip this if they are published already, and delete them")
    else:
        notes.passes("polling_strays", "each row was or will be in a batch")


def _handover(notes: Notes, settings: Settings, relay: Relay) -> None:
    if relay.handover is None:
        notes.passes("polling_handover", "no slot publishes rows of this relay")
        return
    text = f"replication slot {settings.postgres.slot} publishes until it has confirmed {relay.handover}"
    hint = 'let a publisher with [postgres] source = "slot" run until then; stop it, and start this one'
    notes.warns("polling_handover", text, hint=hint)


def _numbers(relay: Relay, found: Waiting) -> str:
    if found.numbers is None:
        return "the numbers that the sequence gave out may not be read"
    missing = max(0, found.numbers - relay.rows_in_batches - found.unconfirmed)
    return (
        f"{found.numbers} numbers were given out, {relay.rows_in_batches} rows were in confirmed batches; {missing}"
        " were rolled back, or deleted or truncated before a query saw them, which no relay can notice"
    )
