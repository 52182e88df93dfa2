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
from collections.abc import Callable, Sequence
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
from cdc.records.record import Delivered, Record, Sendable

TRANSACTION_MS: Final = 20_000
"""How long a publisher that died may hold up consumers of committed records; one that lives needs far less."""
INIT_SECONDS: Final = 10.0
"""PostgreSQL waits meanwhile; the next session tries again."""

_COMMIT_SECONDS: Final = 1.0  # of one try
_LOOK_SECONDS: Final = 1.0
_ABORT_SECONDS: Final = 3.0


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
        sent, transactions = 0, self._transactions
        if not (records and transactions.takes):
            return sent
        produce, took, proven = self._producer.produce, transactions.reports.append, self._firsts.proven
        careful = self._topics.careful
        try:
            if not transactions.is_open:
                self._producer.begin_transaction()
                transactions.is_open = True
            for topic, value, key, partition, on_delivery, _, timestamp, headers in records:
                if careful and len(self._producer):
                    break  # an error of the transaction names no record
                place = None
                if topic not in proven:
                    place = transactions.place(Record(*records[sent]))
                    if place is None:
                        break
                    partition = place.partition
                if careful:
                    self._last = Record(*records[sent])
                report = self._topics.reporting(self._last) if self._last else on_delivery
                failed = functools.partial(_refused, report)
                produce(topic, value, key, partition, failed, None, timestamp, headers)
                took(on_delivery)
                sent += 1
                if place is not None and transactions.sent(topic, place):
                    break
        except BufferError:
            pass
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() not in (KafkaError._FATAL, KafkaError._STATE):
                raise self._topics.refuses(reason, Record(*records[sent])) from None
            transactions.failed = True  # `poll` reports which error it was
        return sent

    def poll(self, seconds: float) -> None:
        """Serve the producer; wait for at most `seconds`.

        Reports the records of a transaction once its commit is verified. Raises Fenced, and KafkaUnavailable when this
        producer will deliver nothing more, or when the topics require a new session.
        """
        try:
            self._serve(seconds)
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
        """Do nothing: records become visible when their transaction ends, which has its own timing."""

    def _serve(self, seconds: float) -> None:
        match self._transactions.step(len(self._producer)):
            case Step.WAIT if self._commit:
                concurrent.futures.wait([self._commit], seconds)
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
