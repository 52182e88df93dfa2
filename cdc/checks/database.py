"""Check PostgreSQL: connection, server settings, outbox table, publication, slots and transactions."""

import contextlib
from functools import partial
from typing import NamedTuple

from cdc.app.connections import ordering
from cdc.checks import outbox, polling, postgres, postgres_facts, recovery, sampling, slot
from cdc.checks.finding import Notes
from cdc.checks.postgres import System, attempt
from cdc.checks.postgres_facts import Conn, ServerFacts
from cdc.checks.recovery import RecoveryFacts
from cdc.checks.sampling import RowSample
from cdc.checks.slot import SlotNow
from cdc.checks.waiting import Waiting, oldest
from cdc.config.settings import Settings
from cdc.delivery.positions import SlotRecord
from cdc.errors import PostgresError, PostgresUnavailable, ProtocolError
from cdc.kafka.cluster import Cluster
from cdc.kafka.remembered_topics import existing
from cdc.postgres import catalog, defects, publication, slot_health, slots
from cdc.postgres.renamed import located
from cdc.postgres.slot_health import Health


class DatabaseFacts(NamedTuple):
    """The slot and the rows, with which Kafka and the contracts are compared; None if they could not be read."""

    slot: SlotNow | None = None
    sample: RowSample | None = None
    waiting: Waiting | None = None  # the oldest row in the slot, while no publisher reads it
    slot_key: str | None = None  # of the slot's record in Kafka
    recovery: RecoveryFacts | None = None


def check(notes: Notes, settings: Settings, long_seconds: float) -> DatabaseFacts:
    """Add a finding per line to `notes`. A transaction is long if it is open for more than `long_seconds`."""
    with postgres.session(settings.postgres.dsn, notes) as connection:
        if connection is not None:
            return _Check(notes, settings, connection).run(long_seconds)
    return DatabaseFacts()


class _Check:
    def __init__(self, notes: Notes, settings: Settings, connection: Conn) -> None:
        self._notes = notes
        self._settings = located(connection, settings)
        self._connection = connection
        self._sample: RowSample | None = None
        self._recovery: RecoveryFacts | None = None

    def run(self, long_seconds: float) -> DatabaseFacts:
        """Run every check that the server's state allows. Raises PostgresUnavailable if the connection ends."""
        notes, connection, name = self._notes, self._connection, self._settings.postgres.slot
        link, server = postgres_facts.link(connection), postgres_facts.server(connection)
        postgres.reached(notes, link, server)
        if server.version < defects.OLDEST_VERSION:
            return DatabaseFacts()
        if self._settings.postgres.polls:
            if polling.check(connection, notes, self._settings, link):
                attempt(connection, notes, "outbox_rows", self._rows)
            return DatabaseFacts(None, self._sample)
        found = None if server.standby else slot_health.read(connection, name)
        reader = postgres_facts.reader(connection, name)
        postgres.settings(notes, server, slot_exists=found is not None, streams=reader is not None)
        attempt(connection, notes, "replication_role", lambda: postgres.role(connection, notes))
        system = postgres.direct(notes, self._settings.postgres.dsn, link)
        attempt(connection, notes, "outbox_table", self._outbox)
        if server.standby:
            return DatabaseFacts(None, self._sample)  # a standby does not have the publisher's slot
        usable = slot.slot(
            notes, name, found, reader, server.version, postgres_facts.for_psql(self._settings.postgres.dsn)
        )
        if found is not None and usable:
            self._retention(found, server)
        attempt(connection, notes, "synchronous_standby", lambda: self._synchronous(server))
        self._others(long_seconds)
        now = self._now(system, found) if system and found and usable else None
        waiting = None
        if now and reader is None:
            with contextlib.suppress(PostgresError, PostgresUnavailable, ProtocolError):
                waiting = oldest(connection, self._settings)
        key = f"{system[0]}/{name}" if system else None
        return DatabaseFacts(now, self._sample, waiting, key, self._recovery)

    def _outbox(self) -> None:
        notes, connection, settings = self._notes, self._connection, self._settings
        outbox.encoding(connection, notes)
        needed = outbox.table(connection, notes, settings)
        attempt(connection, notes, "publication", lambda: outbox.publication(connection, notes, settings, needed))
        if settings.outbox.messages is not None:
            attempt(connection, notes, "message_function", lambda: outbox.messages(connection, notes, settings))
        found = postgres_facts.rights(connection, settings.outbox.qualified_name)
        outbox.rights(connection, notes, settings, found, is_there=needed is not None)
        if needed is not None:
            attempt(connection, notes, "outbox_order", lambda: recovery.order(connection, notes, settings))
        if needed is not None and found.selects and found.uses_schema:
            attempt(connection, notes, "outbox_rows", self._rows)
        if needed is not None and self._sample:
            attempt(connection, notes, "recovery", self._facts)

    def _rows(self) -> None:
        self._sample = sampling.take(self._connection, self._settings)

    def _facts(self) -> None:
        assert self._sample
        found = recovery.facts(self._connection, self._settings)
        self._recovery = found._replace(empty=not self._sample.latest)

    def _retention(self, found: Health, server: ServerFacts) -> None:
        name, connection = self._settings.postgres.slot, self._connection
        slot.retained(self._notes, name, found, server)
        slot.timeouts(self._notes, server)
        others = postgres_facts.other_slots(connection, name)
        slot.failover(self._notes, name, found, server, others, postgres_facts.for_psql(self._settings.postgres.dsn))

    def _synchronous(self, server: ServerFacts) -> None:
        slot.synchronous(self._notes, server.synchronous_names, postgres_facts.standbys(self._connection))

    def _others(self, long_seconds: float) -> None:
        notes, connection = self._notes, self._connection
        look = partial(attempt, connection, notes)
        look(
            "other_slots",
            lambda: slot.others(notes, postgres_facts.other_slots(connection, self._settings.postgres.slot)),
        )
        look(
            "long_transactions",
            lambda: slot.transactions(notes, postgres_facts.long_transactions(connection, long_seconds), long_seconds),
        )
        database = connection.info.dbname
        look(
            "prepared_transactions",
            lambda: slot.prepared(notes, postgres_facts.prepared(connection, long_seconds), long_seconds, database),
        )

    def _now(self, system: System, found: Health) -> SlotNow | None:
        settings, name = self._settings, self._settings.postgres.slot
        if found.confirmed is None:
            return None
        now = publication.read(self._connection, settings.postgres.publication, settings.outbox.qualified_name)
        order = ordering(settings, *catalog.key_form(self._connection, settings))
        mark = SlotRecord(system.identifier, system.timeline, name, found.confirmed, now, order)
        used, wal_end = catalog.used(self._connection, name), slots.wal_end(self._connection)
        return SlotNow(mark, used, system.timelines, wal_end, lambda topics: existing(Cluster(settings.kafka), topics))
