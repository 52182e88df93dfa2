"""Takes a slot over from Debezium: refuse, wait, stop, remember, publish, prove.

The events that Debezium has sent and that PostgreSQL sends again are recognised by their header `id`: the record of the
slot in `cdc.positions` says where in the topics they may be, so that any session of the publisher looks for them.
"""

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cdc.app.connections import Clock, Servers, ordering
from cdc.app.contracts import Schemas
from cdc.app.outbox import outbox_of
from cdc.audit.in_flight import Copy
from cdc.config.settings import Settings
from cdc.delivery.positions import ForeignWindow, Memory, SlotRecord
from cdc.delivery.service import Service
from cdc.errors import CdcError, Temporary
from cdc.kafka import positions, producer
from cdc.kafka.cluster import Cluster
from cdc.kafka.foreign import foreign_id, read_topic
from cdc.lsn import LSN
from cdc.postgres import catalog, slots
from cdc.postgres.connection import LONG_SECONDS, Conn, connect, query
from cdc.records.fastpath import select as accelerator
from cdc.records.headers import ID, headers_of
from cdc.replication.publication import child_oids
from cdc.takeover import offsets
from cdc.takeover.connect_rest import ConnectError, ConnectRest
from cdc.takeover.connector import Configuration
from cdc.takeover.proof import Found, Proof
from cdc.takeover.topics import EventTopics, Offsets, total
from cdc.takeover.translate import translate
from cdc.telemetry.metrics import STANDBY, Metrics

STILL_SECONDS: Final = 10.0
"""How long slot and topics must not change before the connector counts as stopped."""

_MARGIN_MS: Final = 600_000  # by how much the clocks of database and Kafka Connect may differ
_LOOK_SECONDS: Final = 0.5
_STOP_SECONDS: Final = 120.0
_FOREIGN_SECONDS: Final = 10.0  # for which another reader of the slot is waited for
_SHOWN: Final = 5


class TakeoverError(CdcError):
    """A take-over is refused, or could not be proven."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the user has decided."""

    wait_seconds: float = 120.0
    keys_move: bool = False
    expect_empty: bool = False
    stay: bool = False


class Takeover:
    """One take-over; `say` reports each step. All that waits ends with CdcError when `stop` is set."""

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
        self._settings = settings
        self._choices = choices
        self._say = say
        self._stop = stop
        self._rest = rest
        self._configuration = configuration
        self._topics = EventTopics(settings)
        self._name = settings.postgres.slot
        self._file = Path(f"takeover-{self._name}.json")

    def run(self) -> None:
        """Take over, or continue a take-over that was interrupted. Raises CdcError."""
        settings = self._settings
        Cluster(settings.kafka).reach(_FOREIGN_SECONDS)
        self._refuse_what_cannot_publish()
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
                self._say("the publisher has this slot already: there is nothing to take over")
                return
            else:
                self._say("the slot was taken over before: continuing with its record in Kafka")
                self._check_stopped(connection)
                self._expect(connection, proof)
            assert record.foreign is not None
            self._publish(max(record.foreign.until, self._end(connection)))
            self._prove(proof, record.foreign)
        if self._choices.stay:
            self._say("publishing until stopped")
            self._serve(self._stop, Metrics())

    # --- before anything is changed

    def _refuse(self, connection: Conn) -> Memory:
        """Raise CdcError for anything that could lose, repeat or reorder events; return the slot's memory."""
        settings = self._settings
        self._refuse_configuration()
        found = catalog.inspect(connection, settings)
        column, (schema, table) = settings.outbox.columns.id, settings.outbox.qualified_name
        unique = query(
            connection,
            "reading the indexes",
            """
            select from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
            join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]
            where n.nspname = %s and c.relname = %s and a.attname = %s and i.indisunique and i.indisvalid
              and i.indnkeyatts = 1 and i.indpred is null
            """,
            schema,
            table,
            column,
        )
        if not unique:
            raise TakeoverError(
                f"column {column!r} of {settings.outbox.table} has no unique index: an event is recognised by its id",
                hint=f"create one: CREATE UNIQUE INDEX CONCURRENTLY ON {settings.outbox.table} ({column})",
            )
        positions.ensure(settings)
        memory = positions.remembered(settings, self._key(connection))
        if memory.record is not None:
            return memory
        if self._rest:
            self._refuse_offsets(connection, self._rest, found.confirmed)
        if not self._choices.expect_empty and not self._topics.have_foreign_records():
            raise TakeoverError(
                f"topics of {settings.topics.name!r} hold no record of Debezium with a header id",
                hint="check [kafka] and [topics] name; --expect-empty for an outbox that never sent an event",
            )
        return memory

    def _refuse_what_cannot_publish(self) -> None:
        """Raise CdcError for contracts or an accelerator that the publisher could not start with."""
        accelerator.choose(self._settings.delivery.accelerator)
        producer.validate(self._settings)
        with contextlib.closing(Schemas(self._settings)) as schemas:
            schemas.read()

    def _refuse_configuration(self) -> None:
        if self._configuration is None:
            return
        plan = translate(self._configuration)
        refused = [f"{line.option}: {line.text}" for line in plan.refused]
        if refused:
            raise TakeoverError(
                f"the connector cannot be taken over: {'; '.join(refused)}", hint="run: cdc-publisher takeover plan"
            )
        moves = [line for line in plan.lines if line.option == "key.converter" and line.verdict == "changes records"]
        if moves and not self._choices.keys_move:
            raise TakeoverError(moves[0].text, hint="with --keys-move consumers see keys in two partitions")
        for section, name, given in (
            ("postgres", "slot", self._settings.postgres.slot),
            ("postgres", "publication", self._settings.postgres.publication),
            ("outbox", "table", self._settings.outbox.table),
            ("topics", "name", self._settings.topics.name),
        ):
            wanted = plan.settings.get(section, {}).get(name)
            if wanted is not None and wanted != given:
                raise TakeoverError(
                    f"[{section}] {name} is {given!r}, and the connector has {wanted!r}",
                    hint="use the settings that takeover plan prints",
                )

    def _refuse_offsets(self, connection: Conn, rest: ConnectRest, confirmed: LSN) -> None:
        state, tasks = rest.state()
        interrupted = state == "STOPPED" and self._file.exists()
        if not interrupted and (state != "RUNNING" or tasks != ["RUNNING"]):
            raise TakeoverError(
                f"connector {rest.name} is {state}, its tasks {', '.join(tasks) or 'none'}, and not RUNNING",
                hint="start it, or stop it yourself and use --stop manual",
            )
        stored = rest.offsets()
        if problem := offsets.problem(stored, confirmed):
            raise TakeoverError(problem)
        if interrupted:
            self._say(f"connector {rest.name} is stopped by a take-over that was interrupted: continuing")
            return
        self._save(rest, stored)
        slot = slots.get(connection, self._name)
        if slot.active_pid is None:
            raise TakeoverError(f"the connector runs, and slot {self._name!r} has no reader: it reads another slot")

    def _save(self, rest: ConnectRest, stored: list[dict[str, Any]]) -> None:
        """Write the connector's offsets and its configuration without secrets to a file of the working directory."""
        lines = translate(self._configuration).lines if self._configuration else []
        content = {"connector": rest.name, "offsets": stored, "options": {line.option: line.value for line in lines}}
        with open(os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as draft:
            json.dump(content, draft, indent=2)
        self._say(f"saved the offsets and the configuration of connector {rest.name} to {self._file}")

    # --- the hand-over

    def _wait_for_slot(self, connection: Conn) -> Offsets | None:
        """Note the ends of the topics, and wait until the slot has passed the WAL's end of then.

        Events that are redelivered afterwards were committed after that, so Debezium sent them behind those ends.
        Returns None if the slot has not passed it in time.
        """
        if slots.get(connection, self._name).active_pid is None:
            return None
        before, until = self._topics.ends(), self._end(connection)
        self._say(f"waiting until Debezium has confirmed {until}, at most {self._choices.wait_seconds:g} s")
        deadline = time.monotonic() + self._choices.wait_seconds
        while time.monotonic() < deadline:
            confirmed = slots.get(connection, self._name).confirmed
            if confirmed is not None and confirmed >= until:
                return before
            self._pause()
        self._say("Debezium has not confirmed it: more of its records will be read")
        return None

    def _stop_connector(self, connection: Conn) -> None:
        if self._rest:
            self._rest.stop()
            self._say(f"stopped connector {self._rest.name}")
            self._until(self._is_stopped, f"connector {self._rest.name} does not stop", _STOP_SECONDS)
        elif slots.get(connection, self._name).active_pid is not None:
            self._say(
                "stop Debezium now, so that it does not start again by itself: PUT /connectors/NAME/stop of Kafka"
                " Connect, spec.state: stopped of a KafkaConnector of Strimzi, or the process of Debezium Server;"
                " waiting until the slot has no reader"
            )
        self._until(
            lambda: slots.get(connection, self._name).active_pid is None,
            f"slot {self._name!r} still has a reader",
            _STOP_SECONDS if self._rest else None,
        )

    def _is_stopped(self) -> bool:
        assert self._rest is not None
        state, tasks = self._rest.state()
        return state == "STOPPED" and not tasks

    def _check_stopped(self, connection: Conn) -> None:
        if slots.get(connection, self._name).active_pid is not None:
            raise TakeoverError(
                f"slot {self._name!r} is being read: by the publisher, or by Debezium", hint="stop the reader first"
            )

    def _stand_still(self, connection: Conn) -> None:
        """Wait until neither the slot nor the topics have changed for a while."""
        self._say(f"waiting until slot and topics have not changed for {STILL_SECONDS:g} s")
        since, last = time.monotonic(), None
        while time.monotonic() - since < STILL_SECONDS:
            now = slots.inactive(connection, self._name).confirmed, total(self._topics.ends())
            if now != last:
                since, last = time.monotonic(), now
            self._pause()

    def _expect(self, connection: Conn, proof: Proof) -> None:
        """Read from a copy of the slot which events are to come."""
        settings = self._settings
        found = catalog.inspect(connection, settings)
        with contextlib.closing(Copy(settings, child_oids(found.definition))) as copy:
            proof.expect(copy.rows(), outbox_of(settings, self._name, found.keys))
        self._say(f"{proof.events} events since the slot's position, sent by Debezium or not")

    def _remember(self, connection: Conn, before: Offsets | None, proof: Proof) -> SlotRecord:
        """Write the record of the slot: from here on the slot is the publisher's."""
        settings = self._settings
        found = catalog.inspect(connection, settings)
        if before is None and settings.record.time_column is not None:
            before = {}  # times of a column do not say where a topic has to be read from
        elif before is None and proof.first_commit is not None:
            before = self._topics.since(proof.first_commit - _MARGIN_MS)
        window = ForeignWindow(self._end(connection), before if before is not None else self._topics.ends())
        record = SlotRecord(
            slots.system_identifier(connection),
            slots.timeline(connection),
            self._name,
            found.confirmed,
            found.definition,
            ordering(settings, found.keys, found.key_type),
            guarantee=settings.delivery.guarantee,
            cluster=Cluster(settings.kafka).cluster_id(),
            foreign=window,
        )
        positions.write(settings, record.key, record.encode())
        self._say(f"recorded that the publisher has slot {self._name} from {found.confirmed} on")
        return record

    # --- publishing

    def _publish(self, until: LSN) -> None:
        """Run the publisher until the slot has passed `until`; with `stay`, until it is stopped."""
        self._say(f"publishing until {until}")
        settings = self._settings
        with connect(settings.postgres.dsn) as connection:
            # WAL that is not flushed is not streamed: a commit flushes it.
            query(connection, "flushing the WAL", "select pg_current_xact_id()::text")
        reached, metrics, trouble = threading.Event(), Metrics(), list[CdcError]()
        watch = threading.Thread(target=self._watch, args=(until, reached, metrics, trouble), daemon=True)
        watch.start()
        try:
            drained = self._serve(reached, metrics)
        finally:
            reached.set()
            watch.join(_FOREIGN_SECONDS)
        if trouble:
            raise trouble[0]
        if self._stop.is_set():
            raise Temporary("the take-over was interrupted; run the same command again to continue it")
        if not drained:
            raise Temporary("Kafka did not confirm all records in time; run the same command again")

    def _serve(self, stop: threading.Event, metrics: Metrics) -> bool:
        """Run the publisher until `stop`; return whether everything was delivered and confirmed."""
        settings = self._settings
        runs = accelerator.choose(settings.delivery.accelerator)
        with contextlib.closing(Schemas(settings)) as schemas:
            schemas.read()
            service = Service(
                settings,
                schemas,
                Servers(settings),
                stop,
                threading.Event(),
                Clock(),
                random.random,
                make=runs.make,
                metrics=metrics,
            )
            return service.run()

    def _watch(self, until: LSN, reached: threading.Event, metrics: Metrics, trouble: list[CdcError]) -> None:
        """Set `reached` when the slot has passed `until`, on a signal, or when another program reads the slot."""
        foreign_since: float | None = None
        while not reached.wait(_LOOK_SECONDS):
            if self._stop.is_set():
                reached.set()
                return
            try:
                if metrics.phase == STANDBY:
                    foreign_since = foreign_since or time.monotonic()
                    if time.monotonic() - foreign_since > _FOREIGN_SECONDS:
                        raise TakeoverError(f"another program reads slot {self._name!r}: Debezium was started again")
                else:
                    foreign_since = None
                if self._rest and self._rest.state()[0] == "RUNNING":
                    raise TakeoverError(f"connector {self._rest.name} runs again: stop it, and run this command again")
                with connect(self._settings.postgres.dsn) as connection:
                    confirmed = slots.get(connection, self._name).confirmed
                if confirmed is not None and confirmed >= until:
                    reached.set()
            except (Temporary, ConnectError):
                continue
            except CdcError as error:
                trouble.append(error)
                reached.set()

    # --- afterwards

    def _prove(self, proof: Proof, window: ForeignWindow) -> None:
        for topic in proof.topics():
            for records in _records(self._settings, topic, window.offsets.get(topic, {})):
                proof.found(records)
        findings = proof.findings(any_key=self._choices.keys_move)
        if findings:
            text = "; ".join(f"{len(ids)} {name}: {', '.join(ids[:_SHOWN])}" for name, ids in findings.items())
            raise TakeoverError(f"the take-over is done, and its proof failed: {text}", hint="run: cdc-publisher audit")
        skipped = f", {proof.poison} could not be read" if proof.poison else ""
        self._say(f"proven: {proof.events} events have exactly one record each, in order per key{skipped}")

    # --- small things

    def _key(self, connection: Conn) -> str:
        return f"{slots.system_identifier(connection)}/{self._name}"

    def _end(self, connection: Conn) -> LSN:
        ((end,),) = query(connection, "reading the WAL's end", "select pg_current_wal_insert_lsn()::text")
        return LSN.parse(end)

    def _until(self, holds: Callable[[], bool], complaint: str, seconds: float | None) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        while not holds():
            if deadline is not None and time.monotonic() > deadline:
                raise TakeoverError(complaint, hint="stop it, and run this command again")
            self._pause()

    def _pause(self) -> None:
        if self._stop.wait(_LOOK_SECONDS):
            raise Temporary("the take-over was interrupted; run the same command again to continue it")


def _records(settings: Settings, topic: str, begin: dict[int, int] | Any) -> Iterator[list[Found]]:
    """Yield all records of a topic from offsets on, of either program."""
    for messages in read_topic(settings, topic, begin, _STOP_SECONDS):
        found = []
        for message in messages:
            headers = dict(headers_of(message))
            own = (headers.get(ID) or b"").decode(errors="replace")
            place = topic, message.partition() or 0, message.offset() or 0
            found.append(Found(*place, foreign_id(headers) or own, message.key()))
        yield found
