"""Read the first rows that wait in the replication slot, without moving the slot."""

from typing import Final, NamedTuple

from cdc.app.outbox import outbox_of
from cdc.checks.postgres_facts import Conn
from cdc.config.settings import Settings
from cdc.errors import PoisonEvent
from cdc.outbox.events import Event
from cdc.postgres import key_column, publication
from cdc.postgres.connection import query
from cdc.postgres.source import publication_list
from cdc.replication.pgoutput import decode
from cdc.replication.prefixes import Prefixes
from cdc.replication.publication import table_oid
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Transactions

_MESSAGES: Final = 1000  # decoded at least, if there are as many; the first transaction is read as a whole


class Waiting(NamedTuple):
    """The oldest waiting event, and its commit time in milliseconds since 1970."""

    event: Event
    committed: int
    timed: tuple[Event, ...] = ()  # of those read, with the earliest and the latest time of a column


def oldest(connection: Conn, settings: Settings) -> Waiting | None:
    """Return the oldest event that the slot holds; None if there is none near its start, or if it is unreadable.

    No publisher may read the slot. Raises PostgresError, and PostgresUnavailable when decoding takes too long.
    """
    keys = key_column.keys(connection, settings)
    outbox = outbox_of(settings, "", keys)
    prefix = settings.outbox.messages
    table = settings.outbox.qualified_name
    oid = table_oid(publication.read(connection, settings.postgres.publication, table))
    transactions = Transactions(table, Ledger(), oid, prefixes=Prefixes(prefix))
    found = query(
        connection,
        "reading the oldest waiting row",
        "select data from pg_logical_slot_peek_binary_changes("
        "%s, null, %s, 'proto_version', '1', 'messages', %s, 'publication_names', %s)",
        settings.postgres.slot,
        _MESSAGES,
        "false" if prefix is None else "true",
        publication_list(settings.postgres.publication),
    )
    waiting: Waiting | None = None
    for (data,) in found:
        row = transactions.feed(decode(bytes(data)))
        if row is None:
            continue
        try:
            event = outbox.event(row)
        except PoisonEvent:
            return waiting
        waiting = waiting or Waiting(event, row.transaction.timestamp)
        if outbox.time is None:
            return waiting
        by_time = sorted([*waiting.timed, event], key=lambda event: event.timestamp)
        waiting = waiting._replace(timed=(by_time[0], by_time[-1]))
    return waiting
