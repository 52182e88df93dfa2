"""Takes a slot over from Debezium: refuse, wait, stop, remember, publish, prove.

The events that Debezium has sent and that PostgreSQL sends again are recognised by their header `id`: the record of the
slot in `cdc.positions` says where in the topics they may be, so that any session of the publisher looks for them.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from cdc.app.connections import ordering
from cdc.app.outbox import outbox_of
from cdc.audit.in_flight import Copy, wal_end
from cdc.config.settings import Settings
from cdc.delivery.positions import ForeignWindow, Memory, SlotRecord
from cdc.kafka import positions
from cdc.kafka.cluster import Cluster
from cdc.kafka.event_topics import EventTopics, Offsets, total
from cdc.kafka.foreign import foreign_id, read_topic
from cdc.lsn import LSN
from cdc.postgres import catalog, slots
from cdc.postgres.connection import LONG_SECONDS, Conn, connect
from cdc.records.headers import ID, headers_of
from cdc.replication.publication import child_oids
from cdc.takeover import offsets, refusals
from cdc.takeover.connect_rest import ConnectRest
from cdc.takeover.connector import Configuration
from cdc.takeover.handover import KAFKA_SECONDS, STOP_SECONDS, Handover, TakeoverError
from cdc.takeover.proof import Found, Proof
from cdc.takeover.refusals import Choices
from cdc.takeover.translate import translate
from cdc.telemetry.metrics import Metrics

STILL_SECONDS: Final = 10.0
"""How long slot and topics must not change before the connector counts as stopped."""

_MARGIN_MS: Final = 600_000  # by how much the clocks of database and Kafka Connect may differ
_SHOWN: Final = 5
_AGAIN: Final = "stop it, and run this command again"


class Takeover(Handover):
    """One take-over."""

    def __init__(
        self,
        settings: Settings,
        choices: Choices,
        say: Callable[[str], None],
        stop: threading.Event,
        *,
        rest: ConnectRest | None = None,
        configuration: Configuration | None = None,
    ) -> None:
        super().__init__(settings, say, stop, rest=rest, configuration=configuration)
        self._choices = choices
        self._topics = EventTopics(settings)

    def run(self) -> None:
        """Take over, or continue a take-over that was interrupted. Raises CdcError."""
        settings = self.settings
        Cluster(settings.kafka).reach(KAFKA_SECONDS)
        refusals.what_cannot_publish(settings)
        with (
            connect(settings.postgres.dsn, statement_seconds=LONG_SECONDS) as connection,
            contextlib.closing(Proof()) as proof,
        ):
            memory = self._refuse(connection)
            record = memory.record
            if record is None:
                before = self._wait_for_slot(connection)
                self._stop_connector(connection)
                self._stand_still(connection)
                self._expect(connection, proof)
                record = self._remember(connection, before, proof)
            elif record.foreign is None:
                self.say("the publisher has this slot already: there is nothing to take over")
                return
            else:
                self.say("the slot was taken over before: continuing with its record in Kafka")
                self.check_stopped(connection)
                self._expect(connection, proof)
            assert record.foreign is not None
            self.publish(max(record.foreign.until, wal_end(connection)))
            self._prove(proof, record.foreign)
        if self._choices.stay:
            self.say("publishing until stopped")
            self.serve(self.stop, Metrics())

    # --- before anything is changed

    def _refuse(self, connection: Conn) -> Memory:
        """Raise CdcError for anything that could lose, repeat or reorder events; return the slot's memory."""
        settings, choices = self.settings, self._choices
        refusals.configuration(self.configuration, settings, keys_move=choices.keys_move)
        found = catalog.inspect(connection, settings)
        if not choices.allow_duplicates:
            refusals.ids(connection, settings)
        positions.ensure(settings)
        memory = positions.remembered(settings, self.key(connection))
        if memory.record is not None:
            return memory
        if self.rest:
            self._refuse_offsets(connection, self.rest, found.confirmed)
        refusals.records(settings, choices)
        return memory

    def _refuse_offsets(self, connection: Conn, rest: ConnectRest, confirmed: LSN) -> None:
        state, tasks = rest.state()
        interrupted = state == "STOPPED" and self.file.exists()
        if not interrupted and (state != "RUNNING" or tasks != ["RUNNING"]):
            raise TakeoverError(
                f"connector {rest.name} is {state}, its tasks {', '.join(tasks) or 'none'}, and not RUNNING",
                hint="start it, or stop it yourself and use --stop manual",
            )
        stored = rest.offsets()
        if problem := offsets.problem(stored, confirmed):
            raise TakeoverError(problem)
        if interrupted:
            self.say(f"connector {rest.name} is stopped by a take-over that was interrupted: continuing")
            return
        self._save(rest, stored)
        slot = slots.get(connection, self.name)
        if slot.active_pid is None:
            raise TakeoverError(f"the connector runs, and slot {self.name!r} has no reader: it reads another slot")

    def _save(self, rest: ConnectRest, stored: list[dict[str, Any]]) -> None:
        """Write the connector's offsets and its configuration without secrets to a file of the working directory."""
        lines = translate(self.configuration).lines if self.configuration else []
        content = {"connector": rest.name, "offsets": stored, "options": {line.option: line.value for line in lines}}
        with open(os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as draft:
            json.dump(content, draft, indent=2)
        self.say(f"saved the offsets and the configuration of connector {rest.name} to {self.file}")

    # --- the hand-over

    def _wait_for_slot(self, connection: Conn) -> Offsets | None:
        """Note the ends of the topics, and wait until the slot has passed the WAL's end of then.

        Events that are redelivered afterwards were committed after that, so Debezium sent them behind those ends.
        Returns None if the slot has not passed it in time.
        """
        if slots.get(connection, self.name).active_pid is None:
            return None
        before, until = self._topics.ends(), wal_end(connection)
        self.say(f"waiting until Debezium has confirmed {until}, at most {self._choices.wait_seconds:g} s")
        deadline = time.monotonic() + self._choices.wait_seconds
        while time.monotonic() < deadline:
            confirmed = slots.get(connection, self.name).confirmed
            if confirmed is not None and confirmed >= until:
                return before
            self.pause()
        self.say("Debezium has not confirmed it: more of its records will be read")
        return None

    def _stop_connector(self, connection: Conn) -> None:
        if self.rest:
            self.rest.stop()
            self.say(f"stopped connector {self.rest.name}")
            self.until(self._is_stopped, f"connector {self.rest.name} does not stop", STOP_SECONDS, _AGAIN)
        elif slots.get(connection, self.name).active_pid is not None:
            self.say(
                "stop Debezium now, so that it does not start again by itself: PUT /connectors/NAME/stop of Kafka"
                " Connect, spec.state: stopped of a KafkaConnector of Strimzi, or the process of Debezium Server;"
                " waiting until the slot has no reader"
            )
        self.until(
            lambda: slots.get(connection, self.name).active_pid is None,
            f"slot {self.name!r} still has a reader",
            STOP_SECONDS if self.rest else None,
            _AGAIN,
        )

    def _is_stopped(self) -> bool:
        assert self.rest is not None
        state, tasks = self.rest.state()
        return state == "STOPPED" and not tasks

    def _stand_still(self, connection: Conn) -> None:
        """Wait until neither the slot nor the topics have changed for a while."""
        self.say(f"waiting until slot and topics have not changed for {STILL_SECONDS:g} s")
        since, last = time.monotonic(), None
        while time.monotonic() - since < STILL_SECONDS:
            now = slots.inactive(connection, self.name).confirmed, total(self._topics.ends())
            if unfinished := self._topics.open():
                self.say(f"a transaction of Kafka is open in {', '.join(unfinished)}: waiting for its end")
            if unfinished or now != last:
                since, last = time.monotonic(), now
            self.pause()

    def _expect(self, connection: Conn, proof: Proof) -> None:
        """Read from a copy of the slot which events are to come."""
        settings = self.settings
        found = catalog.inspect(connection, settings)
        with contextlib.closing(Copy(settings, child_oids(found.definition))) as copy:
            proof.expect(copy.rows(), outbox_of(settings, self.name, found.keys))
        self.say(f"{proof.events} events since the slot's position, sent by Debezium or not")

    def _remember(self, connection: Conn, before: Offsets | None, proof: Proof) -> SlotRecord:
        """Write the record of the slot: from here on the slot is the publisher's."""
        settings = self.settings
        found = catalog.inspect(connection, settings)
        if self._choices.allow_duplicates:
            before = None
        elif before is None and settings.record.time_column is not None:
            before = {}  # times of a column do not say where a topic has to be read from
        elif before is None and proof.first_commit is not None:
            before = self._topics.since(proof.first_commit - _MARGIN_MS)
        window = ForeignWindow(wal_end(connection), before if before is not None else self._topics.ends())
        record = SlotRecord(
            slots.system_identifier(connection),
            slots.timeline(connection),
            self.name,
            found.confirmed,
            found.definition,
            ordering(settings, found.keys, found.key_type),
            guarantee=settings.delivery.guarantee,
            cluster=Cluster(settings.kafka).cluster_id(),
            foreign=window,
        )
        positions.write(settings, record.key, record.encode())
        self.say(f"recorded that the publisher has slot {self.name} from {found.confirmed} on")
        return record

    # --- afterwards

    def _prove(self, proof: Proof, window: ForeignWindow) -> None:
        for topic in proof.topics():
            for records in _records(self.settings, topic, window.offsets.get(topic, {})):
                proof.found(records)
        findings = proof.findings(any_key=self._choices.keys_move, any_ids=self._choices.allow_duplicates)
        if findings:
            text = "; ".join(f"{len(ids)} {name}: {', '.join(ids[:_SHOWN])}" for name, ids in findings.items())
            raise TakeoverError(f"the take-over is done, and its proof failed: {text}", hint="run: cdc-publisher audit")
        skipped = f", {proof.poison} could not be read" if proof.poison else ""
        self.say(f"proven: {proof.events} events have exactly one record each, in order per key{skipped}")


def _records(settings: Settings, topic: str, begin: dict[int, int] | Any) -> Iterator[list[Found]]:
    """Yield all records of a topic from offsets on, of either program."""
    for messages in read_topic(settings, topic, begin, STOP_SECONDS):
        found = []
        for message in messages:
            headers = dict(headers_of(message))
            own = (headers.get(ID) or b"").decode(errors="replace")
            place = topic, message.partition() or 0, message.offset() or 0
            found.append(Found(*place, foreign_id(headers) or own, message.key()))
        yield found
