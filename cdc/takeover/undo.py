"""Gives a slot back to Debezium: publish what it holds, move the connector's stored offsets there, let it run.

Each step may be repeated: after a kill the same command continues. Offsets are never deleted, because Debezium would
take a snapshot of the table again.
"""

import json
from typing import Any, Final

from cdc.audit.in_flight import wal_end
from cdc.errors import Temporary
from cdc.kafka import positions
from cdc.kafka.cluster import Cluster
from cdc.lsn import LSN
from cdc.postgres import slots
from cdc.postgres.connection import LONG_SECONDS, Conn, connect, query
from cdc.takeover import offsets, refusals
from cdc.takeover.connect_rest import ConnectRest
from cdc.takeover.handover import KAFKA_SECONDS, STOP_SECONDS, Handover, TakeoverError

_ATTEMPTS: Final = 20


class Undo(Handover):
    """One undo. Without `rest` it says what is to be done by hand, and waits."""

    def run(self) -> None:
        """Give the slot back, or continue to. Raises CdcError."""
        settings, rest = self.settings, self.rest
        refusals.configuration(self.configuration, settings, keys_move=True)
        Cluster(settings.kafka).reach(KAFKA_SECONDS)
        with connect(settings.postgres.dsn, statement_seconds=LONG_SECONDS) as connection:
            memory = positions.remembered(settings, self.key(connection))
            if memory.record is None and self._runs(connection):
                self.say("Debezium reads the slot already: there is nothing to undo")
                return
            if memory.record is not None:
                self._give_back(connection)
            elif memory.forgotten and not rest:
                self._explain(self._confirmed(connection))
            else:  # what Debezium has stored is exact, and the slot may stand before it
                self.say(f"the publisher does not have slot {self.name}: Debezium's offsets stay as they are")
            if rest:
                rest.resume()
                self.say(f"resumed connector {rest.name}")
            self.say("waiting until Debezium reads the slot")
            self.until(
                lambda: self._runs(connection),
                f"the connector does not run, or slot {self.name!r} has no reader",
                STOP_SECONDS if rest else None,
                "see its status and its log at Kafka Connect",
            )
            self.say("Debezium reads the slot again")

    def _give_back(self, connection: Conn) -> None:
        """Publish the rest, move the offsets, and delete the record: from there on the publisher refuses the slot."""
        self.check_stopped(connection)
        stored = self._stored(self.rest) if self.rest else []
        self._catch_up(connection)
        confirmed = self._confirmed(connection)
        if self.rest:
            self.rest.change_offsets(offsets.moved(stored, confirmed))
            self.say(f"set the offsets of connector {self.rest.name} to {confirmed}")
        else:
            self._explain(confirmed)
        positions.forget(self.settings, self.key(connection))
        self.say(f"deleted the record of slot {self.name} from {self.settings.topics.positions}")

    def _stored(self, rest: ConnectRest) -> list[dict[str, Any]]:
        """Return the stored offsets. Raises TakeoverError when they cannot be changed."""
        state, _ = rest.state()
        if state != "STOPPED":
            raise TakeoverError(
                f"connector {rest.name} is {state}, and its offsets can be changed only while it is STOPPED",
                hint="stop it: PUT /connectors/NAME/stop of Kafka Connect",
            )
        stored = rest.offsets()
        if len(offsets.moved(stored, LSN(1))) != 1:
            raise TakeoverError(
                f"Kafka Connect has no offsets of connector {rest.name}, or those of several: it would take a snapshot",
                hint=f"put back those of {self.file}: PATCH /connectors/NAME/offsets",
            )
        return stored

    def _catch_up(self, connection: Conn) -> None:
        """Publish until everything that the slot has passed is in Kafka, and nothing else.

        Debezium refuses an offset below the position from which the slot reads the WAL again, and the new offset is one
        byte below the slot's position: so that must be ahead of the other.
        """
        for _ in range(_ATTEMPTS):
            self.publish(wal_end(connection))
            ((ahead,),) = query(
                connection,
                "reading the slot",
                "select restart_lsn < confirmed_flush_lsn from pg_replication_slots where slot_name = %s",
                self.name,
            )
            if ahead:
                return
        raise Temporary("the slot's position does not get ahead of its restart_lsn; run the same command again")

    def _confirmed(self, connection: Conn) -> LSN:
        confirmed = slots.inactive(connection, self.name).confirmed
        assert confirmed is not None
        return confirmed

    def _explain(self, confirmed: LSN) -> None:
        numbers = offsets.moved([{"partition": {}, "offset": {"lsn": 0}}], confirmed)[0]["offset"]
        self.say(
            f"in the stored offset of Debezium, set {json.dumps(numbers)} and keep everything else of it: by PATCH"
            " /connectors/NAME/offsets of Kafka Connect 3.6 or newer while the connector is STOPPED, or in the offset"
            " storage of Debezium Server; do not delete it: Debezium would take a snapshot. Then start Debezium"
        )

    def _runs(self, connection: Conn) -> bool:
        """Return whether Debezium reads the slot. Raises TakeoverError when its connector has failed."""
        if self.rest:
            state, tasks = self.rest.state()
            if "FAILED" in (state, *tasks):
                raise TakeoverError(
                    f"connector {self.rest.name} has failed",
                    hint="see its status and its log at Kafka Connect, and restart it; then run this command again",
                )
            if state != "RUNNING" or tasks != ["RUNNING"]:
                return False
        return slots.get(connection, self.name).active_pid is not None
