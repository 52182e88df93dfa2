"""The sink for exactly-once delivery: Kafka transactions, each of which ends with a record of the position.

A fixed transactional id for each slot makes the broker refuse any earlier producer: a process that was frozen, or one
whose last request is still in flight. Nothing counts as delivered until a commit is verified. When that is not
possible, the session ends; the next one ends the transaction either way, and reads the position.
<https://kafka.apache.org/documentation/#semantics>
"""

import concurrent.futures
import contextlib
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import starmap
from operator import itemgetter, length_hint
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc.config import librdkafka
from cdc.config.settings import Settings
from cdc.delivery.positions import SlotRecord
from cdc.kafka import client
from cdc.kafka.errors import kafka_error
from cdc.kafka.first_records import Firsts
from cdc.kafka.producer import HASTE_SECONDS
from cdc.kafka.topics import KnownTopics
from cdc.kafka.transactional import Step, Transactions
from cdc.records.record import Delivered, Record, Sendable, topics_of

TRANSACTION_MS: Final = 20_000
"""How long a publisher that died may hold up consumers of committed records; one that lives needs far less."""
INIT_SECONDS: Final = 10.0
"""PostgreSQL waits meanwhile; the next session tries again."""

_report: Final = itemgetter(Record._fields.index("on_delivery"))
_COMMIT_SECONDS: Final = 1.0  # of one try
_LOOK_SECONDS: Final = 1.0
_ABORT_SECONDS: Final = 3.0
_MARKERS_SECONDS: Final = 0.003
"""How long the next transaction leaves the coordinator alone, which answers before the partitions have the markers.

Until they do, it refuses their registration for the next transaction, and librdkafka asks again only after 20 ms.
"""


class TransactionalSink:
    """A transactional producer for the slot of `key`. One thread owns this object.

    Aborts the open transaction of any other producer of the slot. Raises ConfigError when librdkafka refuses the
    properties, KafkaUnavailable and KafkaError when transactions are not available. The topics of records must exist
    and accept their size: see `KnownTopics.largest`. A record of the topic of positions ends the transaction.
    """

    def __init__(self, settings: Settings, topics: KnownTopics, key: str) -> None:
        self._topics = topics
        self._firsts = Firsts(topics.partitions, time.monotonic(), librdkafka.producer(settings.kafka)["partitioner"])
        self._producer = producer(settings, key, topics.batch_bytes, alone=topics.careful)
        self._transactions = Transactions(settings.topics.positions, self._firsts)
        self._last: Record | None = None  # that was sent, where each is sent alone
        self._look_at = 0.0  # monotonic seconds
        self._commit: concurrent.futures.Future[KafkaError | None] | None = None
        self._abandoned = threading.Event()
        self._committer = concurrent.futures.ThreadPoolExecutor(1, "commit")

    def send(self, records: Sequence[Sendable]) -> int:
        """Queue records in their order, as far as there is room; return how many.

        The caller sends the others again after a poll. Raises KafkaError for a record that can never be sent,
        KafkaUnavailable when the transaction has failed.
        """
        transactions = self._transactions
        if not (records and transactions.takes):
            return 0
        waiting, is_full = iter(records), True
        try:
            if not transactions.is_open:
                self._producer.begin_transaction()
                transactions.is_open = True
            if not self._topics.careful and self._firsts.proven.issuperset(topics_of(records)):
                deque(starmap(self._producer.produce, _reporting_refusals(waiting)), maxlen=0)  # as `Sink.send` does
                is_full = False
            else:
                is_full = not all(map(self._queue, waiting))
        except BufferError:
            pass
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() not in (KafkaError._FATAL, KafkaError._STATE):
                tried = max(0, len(records) - length_hint(waiting) - 1)  # none, where the transaction cannot begin
                raise self._topics.refuses(reason, Record(*records[tried])) from None
            transactions.failed = True  # `poll` reports which error it was
        sent = max(0, len(records) - length_hint(waiting) - is_full)  # the last one that was tried was not queued
        transactions.reports += map(_report, records[:sent])
        return sent

    def _queue(self, sendable: Sendable) -> bool:
        """Queue one record; False while it must wait."""
        record, transactions, careful = Record(*sendable), self._transactions, self._topics.careful
        if not transactions.takes or (careful and len(self._producer)):  # an error of the transaction names no record
            return False
        place = None
        if record.topic not in self._firsts.proven:
            place = transactions.place(record)
            if place is None:
                return False
            record = record._replace(partition=place.partition)
        report = record.on_delivery
        if careful:
            self._last, report = record, self._topics.reporting(record)
        self._producer.produce(*record._replace(on_delivery=functools.partial(_refused, report)))
        if place is not None:
            transactions.sent(record.topic, place)
        return True

    def poll(self, seconds: float, *, flush: bool = False) -> None:
        """Serve the producer; wait for at most `seconds`. With `flush`, queued records do not linger.

        Reports the records of a transaction once its commit is verified. Raises Fenced, and KafkaUnavailable when this
        producer will deliver nothing more, or when the topics require a new session.
        """
        try:
            self._serve(seconds, flush=flush)
        except KafkaException as error:
            raise self._topics.transaction_failed(error.args[0], "sending in a transaction", self._last) from None
        if self._commit is not None and self._commit.done():
            self._ended(self._commit.result())
        now = time.monotonic()
        self._topics.look(now)
        self._firsts.forget(now)
        if self._topics.leaving:
            raise self._topics.leaving  # uncommitted events are redelivered

    def hasten(self) -> None:
        """Do the same as `poll`, and send queued records without lingering: then less is left for the end of their
        transaction, when they become visible."""
        self.poll(0, flush=True)

    def _serve(self, seconds: float, *, flush: bool) -> None:
        match self._transactions.step(len(self._producer)):
            case Step.WAIT if self._commit:
                concurrent.futures.wait([self._commit], seconds)
            case Step.POLL if flush:
                client.flush(self._producer, HASTE_SECONDS)
            case Step.POLL:
                self._producer.poll(seconds)
            case Step.FLUSH:
                client.flush(self._producer, max(HASTE_SECONDS, seconds))  # which does not linger
                self._look()
            case Step.COMMIT:
                self._producer.poll(0)  # the report of a refused record is more specific than the transaction's error
                self._transactions.committing = True
                self._commit = self._committer.submit(self._end)

    def _look(self) -> None:
        """Ask whether the transaction has failed: librdkafka then delivers nothing more, and does not report it."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        try:
            self._producer.begin_transaction()  # fails in any case: a transaction is open, or has failed
        except KafkaException as error:
            self._transactions.failed = error.args[0].fatal() or error.args[0].txn_requires_abort()

    def _end(self) -> KafkaError | None:
        """Commit; return None, or the error. Runs on a thread, as the main loop must not wait."""
        while True:
            try:
                self._producer.commit_transaction(_COMMIT_SECONDS)
                time.sleep(_MARKERS_SECONDS)
                return None
            except KafkaException as raised:
                error: KafkaError = raised.args[0]
                abandoned = self._abandoned.is_set()
                if not self._transactions.repeats(retriable=error.retriable(), abandoned=abandoned):
                    return error

    def _ended(self, error: KafkaError | None) -> None:
        self._commit, self._transactions.committing = None, False
        if error is not None:
            raise self._topics.transaction_failed(error, "committing a transaction", self._last)
        for report in self._transactions.committed():
            report(None, None)

    def __len__(self) -> int:
        """Return how many records are not committed."""
        return len(self._transactions.reports)

    def close(self) -> None:
        """Abort the open transaction, so that consumers need not wait for it; a running commit is not touched."""
        self._abandoned.set()
        self._committer.shutdown(wait=False)
        if self._transactions.aborts:
            with contextlib.suppress(KafkaException):
                self._producer.abort_transaction(_ABORT_SECONDS)
        self._producer.purge()
        del self._producer


def _reporting_refusals(records: Iterable[Sendable]) -> Iterator[Sendable]:
    """Yield records whose reports go through `_refused`; those of one transaction of PostgreSQL share theirs."""
    last: Delivered | None = None
    for topic, value, key, partition, on_delivery, _, timestamp, headers in records:
        if on_delivery is not last:
            last, refused = on_delivery, functools.partial(_refused, on_delivery)
        yield topic, value, key, partition, refused, None, timestamp, headers


def _refused(on_delivery: Delivered, error: KafkaError | None, message: Message) -> None:
    """Report a record that Kafka refused; others of its transaction are purged because of it, and are not reported."""
    if error is not None and error.code() not in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
        on_delivery(error, message)


def producer(settings: Settings, key: str, batch_bytes: int | None = None, *, alone: bool = False) -> Producer:
    """Create a producer with the slot's transactional id, and abort the transaction of others. Raises CdcError.

    `alone`: each batch holds one record.
    """
    made = {
        "transaction.timeout.ms": TRANSACTION_MS,
        **librdkafka.producer(settings.kafka),
        "transactional.id": f"cdc-publisher-{key}",
        # A transaction is atomic: there is no gap to guard against.
        "enable.gapless.guarantee": False,
        # Reports of success mean nothing before the commit.
        "delivery.report.only.error": True,
    }
    if batch_bytes is not None:
        made["batch.size"] = batch_bytes
    if alone:
        made |= librdkafka.ALONE
    found = client.producer(made)
    retry(lambda: found.init_transactions(INIT_SECONDS), f"preparing transactions of {made['transactional.id']!r}")
    return found


def hand_over(settings: Settings, mark: SlotRecord) -> None:
    """Abort the open Kafka transaction of the slot, fence its producers, and write the mark. Raises CdcError."""
    last = producer(settings, mark.key)
    last.begin_transaction()
    last.produce(settings.topics.positions, mark.encode(), mark.key.encode())
    retry(lambda: last.commit_transaction(INIT_SECONDS), "ending transactions")


def retry(function: Callable[[], object], doing: str, seconds: float = INIT_SECONDS) -> None:
    """Call a function until it succeeds, fails permanently or the time is up. Raises Fenced and other CdcErrors."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            function()
            return
        except KafkaException as raised:
            error = raised.args[0]
            if not error.retriable() or time.monotonic() >= deadline:
                raise kafka_error(error, doing) from None
