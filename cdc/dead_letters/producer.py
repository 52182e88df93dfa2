"""A transactional producer for events that are sent again: each together with its marker, or neither.

A fixed transactional id lets one resend of a name run at a time: a second one ends the first.
"""

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc import errors
from cdc.config import librdkafka
from cdc.config.settings import Settings
from cdc.kafka import client
from cdc.kafka.cluster import Cluster, TopicState, already_exists, is_missing
from cdc.kafka.errors import kafka_error
from cdc.kafka.limits import Limits
from cdc.kafka.transactional_producer import retry
from cdc.records.record import Record
from cdc.replication.settlement import delivered

TRANSACTION_SECONDS: Final = 30
"""How long a resend that was killed may hold up consumers that read committed records only."""

_REQUEST_SECONDS: Final = 30.0
_TOPIC_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.05


class Outgoing(NamedTuple):
    """An event, and the marker that goes to the partition of its dead letter, if it was one."""

    event: Record
    marker: Record | None = None
    partition: int = -1


class Destinations:
    """The limits of topics that events go to, which are created as the publisher does, except in a dry run.

    Waits, unlike the publisher.
    """

    def __init__(self, settings: Settings, *, dry_run: bool) -> None:
        self._settings = settings.topics
        self._dry_run = dry_run
        self._cluster = Cluster(settings.kafka)
        self._limits = Limits(settings.kafka)
        self._largest: dict[str, int | errors.CdcError] = {}
        self._states: dict[str, TopicState] = {}  # of topics that exist

    @property
    def batch_bytes(self) -> int:
        """How many bytes the producer's batches may have, for all topics that were asked about."""
        return self._limits.batch_bytes

    def largest(self, topic: str) -> int:
        """How many bytes a record batch of the topic may have.

        Raises KafkaError when the topic cannot be used, KafkaUnavailable when that cannot be known.
        """
        if topic not in self._largest:
            try:
                self._largest[topic] = self._ask(topic)
            except errors.KafkaError as error:
                self._largest[topic] = error
        found = self._largest[topic]
        if isinstance(found, errors.CdcError):
            raise found
        return found

    def keeps(self, topic: str) -> int | None:
        """How long a topic that was asked about keeps records, in milliseconds; None when age deletes none."""
        config = self._states[topic].config if topic in self._states else {}
        age = config.get("retention.ms", "-1")
        return None if age == "-1" or "delete" not in config.get("cleanup.policy", "delete") else int(age)

    def partitions(self, topic: str) -> int | None:
        """How many partitions a topic has that was asked about."""
        return self._states[topic].identity.partitions if topic in self._states else None

    def _ask(self, topic: str) -> int:
        deadline, created = time.monotonic() + _TOPIC_SECONDS, False
        while True:
            try:
                state = self._states[topic] = self._cluster.describe(topic).result()
                limit = state.config.get("max.message.bytes")
                return self._learn(topic, int(limit) if limit else None)
            except KafkaException as error:
                if not is_missing(error):
                    raise kafka_error(error.args[0], f"looking up topic {topic!r}") from None
            if not self._settings.create:
                raise errors.KafkaError(
                    f"topic {topic!r} does not exist", hint="create it, or set [topics] create = true"
                )
            if self._dry_run:
                return sys.maxsize
            if time.monotonic() >= deadline:
                raise errors.KafkaUnavailable(f"topic {topic!r} does not appear")
            if not created:
                self._create(topic)
            created = True
            time.sleep(_LOOK_SECONDS)  # the brokers learn of it a moment later

    def _learn(self, topic: str, limit: int | None) -> int:
        try:
            return self._limits.learn(topic, limit)
        except errors.KafkaUnavailable:
            return self._limits.learn(topic, limit)  # batches are smaller from now on

    def _create(self, topic: str) -> None:
        try:
            self._cluster.create(topic, self._settings, self._settings.config).result()
        except KafkaException as error:
            if not already_exists(error):
                raise kafka_error(error.args[0], f"creating topic {topic!r}") from None


class ResendProducer:
    """A transactional producer. Raises ConfigError when librdkafka does not take the properties.

    One producer of each `name`, which a repair has, works at a time; without one it is for the dead-letter topic.
    """

    def __init__(self, settings: Settings, destinations: Destinations, name: str = "") -> None:
        self._settings = settings
        self._destinations = destinations
        self._name = name or f"replay-{settings.topics.dead_letter}"
        self._called = "repair of this slot" if name else "replay of this topic"
        self._producer: Producer | None = None
        self._batch_bytes = 0

    def begin(self) -> None:
        """End every other producer of this name; what it had not committed is rolled back. Raises Kafka errors."""
        self._batch_bytes = self._destinations.batch_bytes
        made = {
            **librdkafka.producer(self._settings.kafka),
            "transactional.id": f"cdc-publisher-{self._name}",
            "transaction.timeout.ms": TRANSACTION_SECONDS * 1000,
            "message.timeout.ms": TRANSACTION_SECONDS * 1000,
            # A transaction is atomic: there is no gap to guard against.
            "enable.gapless.guarantee": False,
            "batch.size": self._batch_bytes,
        }
        self._producer = client.producer(made, silent=True)
        self._call(self._producer.init_transactions, _REQUEST_SECONDS)

    def send(self, batch: Sequence[Outgoing], *, whole: bool = False) -> dict[int, errors.CdcError]:
        """Send a batch as one transaction; return by place in it those that Kafka refused: all others are sent.

        With `whole` nothing is sent when Kafka refuses one.

        Raises KafkaUnavailable, and KafkaError when another producer of this name began: then nothing is sent.
        """
        if self._batch_bytes != self._destinations.batch_bytes:
            self.begin()
        refused: dict[int, errors.CdcError] = {}
        while len(refused) < len(batch):
            found = self._transaction({place: one for place, one in enumerate(batch) if place not in refused})
            if not found:
                break
            refused |= found
            if whole:
                break
        return refused

    def close(self) -> None:
        """Abort the open transaction."""
        if self._producer is None:
            return
        self._abort(5.0)
        self._producer.purge()
        self._producer = None

    def _transaction(self, batch: dict[int, Outgoing]) -> dict[int, errors.CdcError]:
        """Commit, or abort and return what was refused for good."""
        assert self._producer
        refused: dict[int, errors.CdcError] = {}
        failures: list[object] = []
        unproven: list[str] = []  # topics

        def report(place: int, error: KafkaError | None, message: Message | None = None) -> None:
            topic = batch[place].event.topic
            if delivered(error, message):
                return
            if error is None:
                unproven.append(topic)
                return
            failures.append(error)
            problem = kafka_error(error, f"delivering to topic {topic!r}")
            if not isinstance(problem, errors.Temporary):  # others fail the transaction, or follow from that
                refused[place] = problem

        self._call(self._producer.begin_transaction)
        for place, (event, marker, partition) in batch.items():
            try:
                reporting = functools.partial(report, place)
                self._produce(event, reporting, event.partition)
                if marker is not None:
                    self._produce(marker, reporting, partition)
            except KafkaException as error:
                report(place, error.args[0])
                break
        try:
            if not refused:
                self._flush(failures)
                if unproven:
                    raise errors.KafkaUnavailable(f"topic {unproven[0]!r} took a later record, and one may be lost")
                self._call(self._producer.commit_transaction, _REQUEST_SECONDS)
                return {}
        except errors.CdcError:
            self._abort(_REQUEST_SECONDS)
            if not refused:
                raise
        self._abort(_REQUEST_SECONDS)
        return refused

    def _produce(
        self, record: Record, report: Callable[[KafkaError | None, Message], None], partition: int = -1
    ) -> None:
        assert self._producer
        while True:
            try:
                topic, value, key, *_, timestamp, headers = record
                self._producer.produce(topic, value, key, partition, report, None, timestamp, headers)
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.poll(_LOOK_SECONDS)

    def _flush(self, failures: Sequence[object]) -> None:
        """Wait for the deliveries, except after a failure: the commit reports the reason."""
        assert self._producer
        deadline = time.monotonic() + _REQUEST_SECONDS
        with contextlib.suppress(KafkaException):
            while len(self._producer) and not failures and time.monotonic() < deadline:
                client.flush(self._producer, _LOOK_SECONDS)

    def _abort(self, seconds: float) -> None:
        assert self._producer
        with contextlib.suppress(KafkaException):  # nothing is open, or the broker will do it in time
            self._producer.abort_transaction(seconds)

    def _call(self, function: Callable[..., object], *arguments: float) -> None:
        try:
            retry(lambda: function(*arguments), "replaying in a transaction", 2 * _REQUEST_SECONDS)
        except errors.Fenced:
            raise errors.KafkaError(
                f"another {self._called} has begun, and this one ends",
                hint="sent events are known; the other run, or a later one, sends the rest",
            ) from None
