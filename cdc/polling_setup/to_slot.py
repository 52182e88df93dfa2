"""`slot create --from-polling`: a slot follows a relay, and no event is lost, repeated or reordered.

1. The ends of the topics are noted, and the slot is created. Its record says that what is behind those ends was sent.
2. The relay confirms everything that was committed before: a snapshot from after the creation of the slot sees it.
3. The relay is stopped, and its row deleted: it cannot start again.
4. The record is written again, with the end of the WAL: nothing that is committed later was sent by the relay.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from psycopg import sql

from cdc.audit.in_flight import wal_end
from cdc.config.settings import Settings
from cdc.delivery.positions import ForeignWindow, SlotRecord
from cdc.errors import PostgresError
from cdc.kafka import positions
from cdc.kafka.cluster import Cluster
from cdc.kafka.event_topics import EventTopics
from cdc.lsn import LSN
from cdc.polling_setup.run import HEARTBEATS_SECONDS
from cdc.postgres import catalog, relay_facts, slots
from cdc.postgres import polling_table as wanted
from cdc.postgres.connection import Conn, converting, query
from cdc.postgres.relay_facts import Relay
from cdc.recovery import creation

LEASE_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.5
_REACH_SECONDS: Final = 10.0
_ALWAYS: Final = LSN(2**64 - 1)
_START: Final = 'set [postgres] source = "slot", and run: cdc-publisher start'
_DOING: Final = "taking the outbox over from the relay"


class Takeover:
    """One run. `say` reports each step. Raises CdcError; a run that was interrupted continues."""

    def __init__(self, connection: Conn, settings: Settings, say: Callable[[str], None]) -> None:
        self._connection = connection
        self._settings = settings
        self._say = say
        self._name = settings.postgres.slot
        self._key = f"{slots.system_identifier(connection)}/{self._name}"

    def run(self, *, failover: bool) -> None:
        """Create the slot, and wait until the relay has handed the outbox over."""
        settings = self._settings
        catalog.server(self._connection)
        if defect := catalog.published_defect(self._connection, settings):
            raise defect.error()
        Cluster(settings.kafka).reach(_REACH_SECONDS)
        positions.ensure(settings)
        begun = positions.remembered(settings, self._key).record
        relay = relay_facts.read(self._connection, settings)
        if relay is None and begun and begun.foreign and begun.foreign.own and begun.foreign.until != _ALWAYS:
            self._say("the outbox was taken over from the relay by an earlier run")
            self._say(_START)
            return
        if begun is None or begun.foreign is None or begun.foreign.until != _ALWAYS:
            if relay is None:
                relay_facts.require(self._connection, settings)
            begun = self._create(failover=failover)
        else:
            self._say(f"slot {self._name} was created by an earlier run: continuing")
        if relay is not None:
            self._wait_for_rows()
            self._wait_for_stop()
        self._finish(begun)

    def _create(self, *, failover: bool) -> SlotRecord:
        settings = self._settings
        if any(slot.name == self._name for slot in slots.find(self._connection)):
            raise PostgresError(
                f"replication slot {self._name!r} exists, and no record of it in {settings.topics.positions}: it is in"
                " use, or an earlier run was interrupted when it had created the slot",
                hint="if no publisher has used it, run: cdc-publisher slot drop; then run this again",
            )
        slots.check_new(self._connection, self._name, failover=failover)
        ends = EventTopics(settings).ends()
        lsn, horizon = creation.create(self._connection, settings, self._name, failover=failover)
        record = SlotRecord(
            self._key.partition("/")[0],
            horizon.timeline,
            self._name,
            lsn,
            {},
            {},
            guarantee=settings.delivery.guarantee,
            horizons=(horizon,),
            foreign=ForeignWindow(_ALWAYS, ends, own=True),
        )
        positions.write(settings, self._key, record.encode())
        self._say(f"created slot {self._name}, starting at {lsn}")
        return record

    def _wait_for_rows(self) -> None:
        """Wait until the relay has confirmed all that was committed before the slot was created."""
        ((xid,),) = query(self._connection, "noting a transaction", "select pg_current_xact_id()::text")
        self._say("waiting until the relay has confirmed everything that the slot does not bring")
        while relay := relay_facts.read(self._connection, self._settings):
            ((seen,),) = query(
                self._connection,
                "reading the relay",
                "select pg_visible_in_snapshot(%s::xid8, %s::pg_snapshot)",
                xid,
                relay.confirmed,
            )
            if seen or not relay_facts.waiting(self._connection, self._settings, relay).unconfirmed:
                return
            time.sleep(_LOOK_SECONDS)

    def _wait_for_stop(self) -> None:
        """Wait until the relay was stopped, or has shown no heartbeat for its lease; delete its row."""
        relay = relay_facts.require(self._connection, self._settings)
        if relay.holder is not None:
            self._say(f"stop the publisher of the relay now: {relay.holder}")
        still_since = time.monotonic()
        while not self._delete(relay, silent=time.monotonic() - still_since > LEASE_SECONDS + HEARTBEATS_SECONDS):
            time.sleep(_LOOK_SECONDS)
            now = relay_facts.require(self._connection, self._settings)
            if (now.epoch, now.heartbeat) != (relay.epoch, relay.heartbeat):
                still_since = time.monotonic()
            relay = now
        self._say(f"deleted relay {self._name}")
        positions.forget(self._settings, f"{relay.id}/{self._name}")

    def _delete(self, relay: Relay, *, silent: bool) -> bool:
        """Delete the row of a relay that was stopped, or is `silent`, unless it has moved; return whether it did."""
        if relay.holder is not None and not silent:
            return False
        schema = self._settings.outbox.qualified_name[0]
        relays, ticks = (sql.Identifier(schema, name) for name in (wanted.RELAY, wanted.TICKS))
        delete = sql.SQL(
            "delete from {} where relay = %s and epoch = %s and heartbeat = %s and holder is not distinct from %s"
        ).format(relays)
        with converting(_DOING), self._connection.transaction():
            values = [self._name, relay.epoch, relay.heartbeat, relay.holder]
            if not self._connection.execute(delete, values).rowcount:
                return False
            self._connection.execute(sql.SQL("delete from {} where relay = %s").format(ticks), [self._name])
        return True

    def _finish(self, begun: SlotRecord) -> None:
        """Write the record with which the publisher starts."""
        known = positions.remembered(self._settings, self._key).record or begun
        if known.foreign is None:
            raise PostgresError(f"slot {self._name!r} is published already", hint="run: cdc-publisher status")
        window = known.foreign._replace(until=wal_end(self._connection))
        positions.write(self._settings, self._key, replace(known, foreign=window).encode())
        self._say(_START)
