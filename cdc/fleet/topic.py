"""The topic of a fleet: makes it, grows it, reads its register and writes to it.

Requests to Kafka are made on a thread of its own; the loop only takes records that have arrived.
"""

import contextlib
import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition, Uuid

from cdc import errors
from cdc.background import Background
from cdc.config.settings import Settings
from cdc.errors import CdcError
from cdc.fleet.register import Plan, Register, entry, state, state_key
from cdc.kafka import client
from cdc.kafka.cluster import POSITIONS_CONFIG, Cluster, identity, is_missing
from cdc.kafka.errors import kafka_error

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 10.0
_WRITE_SECONDS: Final = 10.0
_BURST: Final = 2000
_REGISTER: Final = 0  # the partition
_NO_ID: Final = str(Uuid(0, 0))  # of every topic before Kafka 2.8
_AGAIN: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)

States = Mapping[str, tuple[bool, str]]
"""By unit: whether it works, and the instance that says so."""


class Seen(NamedTuple):
    """The topic at a look; its id is empty when it was missing and is made now."""

    topic_id: str
    entries: tuple[str, ...] = ()  # of units, written
    states: tuple[str, ...] = ()


class FleetTopic:
    """The topic as one instance sees it; all methods belong to one thread, and none waits for Kafka."""

    def __init__(self, settings: Settings, register: Register) -> None:
        self._settings = settings
        self._name = settings.fleet.topic
        self._register = register
        self._cluster = Cluster(settings.kafka)
        self._background: Background[str, Seen] = Background("fleet topic")
        self._looking = False
        self._due = 0.0
        self._asked = self._asking = 0
        self._reader: Consumer | None = None
        self.topic_id = ""

    def close(self) -> None:
        """End the thread and the reader."""
        self._background.close()
        if self._reader:
            self._reader.close()

    def read(self) -> None:
        """Take what has arrived of the register. Raises CdcError for what a retry does not fix."""
        if self._reader is None:
            return
        for message in self._reader.consume(_BURST, 0):
            error = message.error()
            if error is None:
                problem = self._register.take(message.key(), message.value())
                if problem:
                    log.warning("topic %r: %s", self._name, problem, extra={"event": "fleet_entry_unreadable"})
            elif error.code() == KafkaError._PARTITION_EOF:
                self._register.ends()
            elif not (error.retriable() or error.code() in _AGAIN or error.code() == _GROUP):
                found = kafka_error(error, f"reading topic {self._name!r}")
                if found.exit_code == 1:
                    raise found

    def doubt(self) -> None:
        """Want to know whether the topic is still the same: a look that began before does not show it."""
        self._asked += 1
        self._due = 0.0

    def look(self, plan: Plan, least: int, states: States, now: float) -> bool | None:
        """Look at the topic when that is due; make, grow and write what is needed.

        Returns whether it is the topic of before, once that is known, else None; a missing one is made with at least
        `least` partitions. Raises CdcError: a later call tries again.
        """
        if not self._looking:
            if not (plan.entries or states or now >= self._due):
                return None
            self._looking, self._asking = True, self._asked
        try:
            seen = self._background.ask("look", self._tend, plan, least, dict(states), self.topic_id)
        except CdcError:
            self._looking, self._due = False, now + LOOK_SECONDS
            raise
        if seen is None:
            return None
        self._background.forget("look")
        self._register.wrote(seen.entries, now)
        same, answers = self._same(seen), self._asking == self._asked
        self._looking, self._due = False, now + LOOK_SECONDS if same and answers else now
        return same if answers else None

    def _same(self, seen: Seen) -> bool:
        if seen.topic_id and seen.topic_id == self.topic_id:
            return True
        if seen.topic_id:
            if self.topic_id:
                self._register.begins()
                log.warning(
                    "topic %r was re-created; units stay where they are",
                    self._name,
                    extra={"event": "fleet_topic_anew"},
                )
            self.topic_id = seen.topic_id
            self._read_from_the_beginning()
        return False

    def _read_from_the_beginning(self) -> None:
        if self._reader:
            self._reader.close()
        self._reader = client.reader(self._settings.kafka, self._name)
        self._reader.assign([TopicPartition(self._name, _REGISTER, OFFSET_BEGINNING)])

    def _tend(self, plan: Plan, least: int, states: States, known: str) -> Seen:
        """Do all that waits; on the thread."""
        try:
            found = identity(self._cluster.identities([self._name])[self._name])
        except KafkaException as error:
            if not is_missing(error):
                raise kafka_error(error.args[0], f"looking up topic {self._name!r}") from None
            partitions = max(least, plan.partitions)
            self._cluster.ensure_topic(self._settings.topics, self._name, POSITIONS_CONFIG, partitions)
            log.info("created topic", extra={"event": "topic_created", "topic": self._name, "partitions": partitions})
            return Seen("")
        if found.topic_id == _NO_ID:
            raise errors.KafkaError(
                f"topic {self._name!r} has no id, so that one that is re-created would not be noticed",
                hint="a fleet needs Kafka 2.8 or newer: upgrade the brokers, or run a publisher for each unit",
            )
        if found.topic_id != known:
            return Seen(found.topic_id)  # its register is to be read first
        if found.partitions < plan.partitions:
            self._cluster.grow(self._name, plan.partitions)
        records = [(unit.encode(), entry(partition)) for unit, partition in plan.entries.items()]
        records += [(state_key(unit).encode(), state(*said)) for unit, said in states.items()]
        if records:
            client.write(self._settings.kafka, self._name, records, _WRITE_SECONDS, _REGISTER)
        for unit, partition in plan.entries.items():
            log.info("registered", extra={"event": "unit_registered", "unit": unit, "partition": partition})
        return Seen(known, tuple(plan.entries), tuple(states))


_GROUP: Final = KafkaError.GROUP_AUTHORIZATION_FAILED  # the reader's group is a name only


def read_register(settings: Settings, seconds: float) -> Register | None:
    """Return the register as it is now, for commands; None when the topic is missing. Raises CdcError."""
    from cdc.kafka.reading import read

    register, name = Register(), settings.fleet.topic
    cluster = Cluster(settings.kafka)
    cluster.reach(seconds)
    try:
        ends = {(name, _REGISTER): cluster.ends(name, seconds)[_REGISTER]}
    except KafkaException as error:
        if is_missing(error):
            return None
        raise kafka_error(error.args[0], f"looking up topic {name!r}") from None
    with contextlib.closing(client.reader(settings.kafka, name, fetch_wait_max_ms=50)) as consumer:
        try:
            for records in read(consumer, dict.fromkeys(ends, 0), ends, seconds):
                for record in records:
                    register.take(record.key(), record.value())
        except KafkaException as error:
            raise kafka_error(error.args[0], f"reading topic {name!r}") from None
    register.ends()
    return register


def forget(settings: Settings, unit: str, seconds: float) -> None:
    """Take a unit out of the register. Raises CdcError."""
    records = [(unit.encode(), None), (state_key(unit).encode(), None)]
    client.write(settings.kafka, settings.fleet.topic, records, seconds, _REGISTER)
