"""The sink for at-least-once delivery: a producer that reports every record.

`send` returns only how many records fit. `poll` reports each delivery later, through the record's own callback. One
thread owns this object.
"""

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import starmap
from operator import length_hint
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from cdc import errors
from cdc.config import librdkafka
from cdc.config.settings import Settings
from cdc.kafka import client
from cdc.kafka.errors import kafka_error
from cdc.kafka.first_records import Firsts
from cdc.kafka.topics import KnownTopics
from cdc.records.record import Record, Sendable, topics_of

_LAST_REPORTS_SECONDS: Final = 0.5
_LAST_DELIVERIES_SECONDS: Final = 1.0
_STOOD_STILL_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.05
_FIRSTS_SECONDS: Final = 0.01  # a flush waits for all that is in flight, but what waits for a first record need not
HASTE_SECONDS: Final = 0.001  # librdkafka's threads must wake up before a flush ends, or it has no effect


class Sink:
    """An idempotent producer. Raises ConfigError when librdkafka refuses the properties.

    The topics of records must exist and accept their size: see `KnownTopics.largest`.
    """

    def __init__(
        self, settings: Settings, topics: KnownTopics, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._topics = topics
        self._any_topic = settings.topics.positions
        self._monotonic = monotonic
        self._polled_at = time.monotonic()
        self._failure: errors.CdcError | None = None
        made = librdkafka.producer(settings.kafka)
        made["batch.size"] = topics.batch_bytes
        if topics.careful:
            made |= topics.alone
        self._firsts = Firsts(topics.partitions, monotonic(), made["partitioner"], passing=topics.passing)
        self._producer = client.producer(made)
        self._flush = functools.partial(client.flush, self._producer)
        self._produce = self._producer.produce

    def prepare(self) -> None:
        """Wait for the connection: see `cdc.kafka.client.prepare`."""
        client.prepare(self._producer, self._any_topic)

    def send(self, records: Sequence[Sendable]) -> int:
        """Queue records in their order, as far as there is room; return how many.

        The caller sends the others again after a poll. Raises KafkaError for a record that can never be sent.
        """
        if self._topics.careful:
            made = map(Record._make, records)
            records = [one._replace(on_delivery=self._topics.reporting(one, passing=True)) for one in made]
        waiting = iter(records)
        try:
            if self._firsts.proven.issuperset(topics_of(records)):
                deque(starmap(self._produce, waiting), maxlen=0)  # 0.2 us less for each than a loop of our own
                return len(records)
            if all(map(self._queue, waiting)):
                return len(records)
        except BufferError:
            pass
        except KafkaException as error:
            if error.args[0].code() != KafkaError._FATAL:  # `poll` reports which error it was
                raise self._topics.refuses(error.args[0], Record(*records[-1 - length_hint(waiting)])) from None
        return len(records) - length_hint(waiting) - 1  # the last one that was tried was not queued

    def _queue(self, sendable: Sendable) -> bool:
        """Queue one record; False while it must wait."""
        if sendable[0] not in self._firsts.proven:
            return self._send_first(Record(*sendable))
        self._produce(*sendable)
        return True

    def _send_first(self, record: Record) -> bool:
        """Queue a record of a topic in which not every partition has had a delivery; False while it must wait."""
        place = self._firsts.place(record)
        if place is None:
            return False
        report = record.on_delivery
        if place.first:
            report = self._firsts.reporting(record.topic, place.number, report)
        self._produce(*record._replace(partition=place.partition, on_delivery=report))
        if place.first:
            self._firsts.sent(record.topic, place.number)
        return True

    def poll(self, seconds: float) -> None:
        """Serve delivery reports; wait for the first for at most `seconds`.

        Raises KafkaUnavailable when this producer will deliver nothing more, or when the topics require a new
        session and nothing is in flight, KafkaError when no other producer would deliver anything either.
        """
        if self._firsts.waiting:
            self._serve(self._flush, max(HASTE_SECONDS, min(seconds, _FIRSTS_SECONDS)))
        else:
            self._serve(self._producer.poll, seconds)

    def hasten(self) -> None:
        """Do the same as `poll`, and send queued records without lingering."""
        self._serve(self._flush, HASTE_SECONDS)

    def _serve(self, wait: Callable[[float], object], seconds: float) -> None:
        if self._failure:
            raise self._failure
        try:
            wait(seconds)
        except KafkaException as error:
            self._fail(error)
        self._polled_at = time.monotonic()
        now = self._monotonic()
        self._topics.look(now)
        self._firsts.forget(now)
        if self._topics.leaving:
            self._produce = _no_room
            if not len(self._producer):
                raise self._topics.leaving

    def _fail(self, error: KafkaException) -> None:
        """Serve the last reports: a refused record is more specific than the fatal error that followed from it.

        The error is kept for the next poll, so that the reports are handled first.
        """
        self._failure = kafka_error(error.args[0], "the producer failed")
        with contextlib.suppress(KafkaException):
            self._producer.poll(_LAST_REPORTS_SECONDS)
        if not isinstance(self._failure, errors.Temporary):
            raise self._failure  # the reports only say that records were purged

    def __len__(self) -> int:
        """Return how many records are queued or in flight."""
        return len(self._producer)

    def close(self) -> None:
        """Wait a little for the delivery of queued records, and drop the rest: the slot will stream it again.

        The next session reads what Kafka has, so nothing should arrive after that. But a process that stood still
        sends nothing more: another process may own the slot by now, and have sent it again. Records in flight are
        not purged, as that would be reported as a fatal gap. The producer ends with its last reference, which is here.
        """
        now = time.monotonic()
        deadline = now + _LAST_DELIVERIES_SECONDS if now - self._polled_at < _STOOD_STILL_SECONDS else now
        with contextlib.suppress(KafkaException):
            while not self._failure and len(self._producer) and time.monotonic() < deadline:
                self._producer.poll(_LOOK_SECONDS)
        if len(self._producer):
            self._producer.purge(in_flight=False)
        del self._produce, self._flush, self._producer


def _no_room(*_: object, **__: object) -> None:
    raise BufferError


def validate(settings: Settings) -> None:
    """Check the producer's properties without a server. Raises ConfigError."""
    client.producer(librdkafka.producer(settings.kafka), silent=True).purge()
