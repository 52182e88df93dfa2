"""Kafka transactions of one transactional id: a producer, and the coordinator that it asks to commit.

Open and aborted transactions are invisible. A request to commit may be late, and its answer may be lost. What a
transaction takes, when it ends and what is reported is decided by `cdc.kafka.transactional`; only the client library
and the coordinator are simulated.
"""

from collections.abc import Sequence
from typing import Final

from cdc.config.librdkafka import Value
from cdc.delivery.positions import SlotRecord
from cdc.errors import Fenced, KafkaUnavailable
from cdc.kafka.transactional import Step, Transactions
from cdc.records.record import Record, Sendable
from tests.simulation.kafka import Place, SimKafka
from tests.simulation.oracle import POSITIONS
from tests.simulation.process import Process
from tests.simulation.sink import NO_OFFSET, Lane, SimSink
from tests.simulation.world import Violation

_COORDINATOR: Final = ("__transaction_state", 0)
_FENCED: Final = "fenced"


class SimTransactionalSink(SimSink):
    """The shape of `cdc.kafka.transactional_producer.TransactionalSink`."""

    exactly_once = True

    def __init__(self, kafka: SimKafka, process: Process, properties: dict[str, Value]) -> None:
        super().__init__(kafka, process, {**properties, "enable.gapless.guarantee": False})
        self._epoch = begin(kafka)
        self._held: list[tuple[str, int, Record, int]] = []  # of the open transaction, and for good in the log
        self._transactions = Transactions(POSITIONS, self._firsts)
        self._answer: bool | None = None  # of the coordinator: whether the transaction is committed
        self._spoiled = False  # the client library neither delivers nor commits what is in the transaction

    def send(self, records: Sequence[Sendable]) -> int:
        """See `TransactionalSink.send`."""
        transactions, taken = self._transactions, 0
        if not (records and transactions.takes):
            return taken
        transactions.is_open = True
        if self._spoiled:  # librdkafka queues nothing more in the state "abortable error"
            transactions.failed = True
            return taken
        for sendable in records:
            record, place = Record(*sendable), None
            if record.topic not in self._firsts.proven:
                place = transactions.place(record)
                if place is None:
                    break
                record = record._replace(partition=place.partition)
            if not self._take(record):
                break
            transactions.reports.append(record.on_delivery)
            taken += 1
            if place is not None and transactions.sent(record.topic, place):
                break
        return taken

    def poll(self, seconds: float) -> None:
        """See `TransactionalSink.poll`."""
        super().poll(seconds)
        if self._answer is not None:
            committed, self._answer = self._answer, None
            self._ended(committed=committed)
        step = self._transactions.step(self._pending)
        if step is Step.FLUSH:
            self._transactions.failed |= self._spoiled
        elif step is Step.COMMIT:
            self._transactions.committing = True
            self.world.at(self._delay(), self._commit)

    def hasten(self) -> None:
        """Do nothing: what matters is when the transaction ends."""

    def _ended(self, *, committed: bool) -> None:
        self._transactions.committing = False
        if not committed:
            raise self._error("a transaction was not committed")
        for report in self._transactions.committed():
            report(None, None)

    def __len__(self) -> int:
        return len(self._transactions.reports)

    @property
    def _ready(self) -> bool:
        return super()._ready or self._answer is not None

    def _report(self, record: Record, error: object) -> None:
        if error is not None and error != NO_OFFSET:
            self._spoiled = True
            record.on_delivery(error, record)

    def spoil(self) -> None:
        """Let the transaction fail, for example because the coordinator refuses a partition; nothing is reported."""
        self._spoiled |= self._transactions.is_open and not self._transactions.committing

    def _ship(self, lane: Lane, place: Place) -> None:
        if not self._spoiled:
            super()._ship(lane, place)

    def taken(self, topic: str, number: int, record: Record) -> None:
        """The log has a record; it can be seen when its transaction is committed."""
        self._delivered.add((topic, number))
        offset = self.kafka.place(topic, number)
        if self._epoch == self.kafka.epoch:
            self._held.append((topic, number, record, offset))

    def _commit(self) -> None:
        """The request to commit reaches the coordinator, which commits even if the process dies."""
        busy = self.kafka.available(self.kafka.log(_COORDINATOR))
        if self._spoiled:
            self._answer = False
            return
        if self._pending:  # the client library flushes first; a dead one never asks
            if not self._closed:
                self.world.at(self._delay(), self._commit)
            return
        if busy:  # the client library gets an error that may pass; the request of a dead process is on its way
            if self._closed or self._transactions.repeats(retriable=True, abandoned=self._closed):
                self.world.at(busy + self._delay(), self._commit)
            else:
                self._answer = False
            return
        if self._epoch != self.kafka.epoch:
            self.fail(_FENCED)
            return
        if self.kafka.reader > self.number and any(topic != POSITIONS for topic, *_ in self._held):
            raise Violation("B16: a transaction was committed although a later producer had begun")
        held, self._held = self._held, []
        held.sort(key=lambda taken: taken[0] == POSITIONS)  # all at once, but the oracle looks at one after the other
        for topic, number, record, offset in held:
            self.kafka.visible(topic, number, record, self, offset)
        for topic, number in {(topic, number): None for topic, number, *_ in held}:
            self.kafka.place(topic, number)
        if self._random.random() < self.kafka.lost_replies:
            self.world.at(3 * self._delay(), self._commit)
        elif not self._closed:
            self.world.at(self._delay(), self._is_committed)

    def _is_committed(self) -> None:
        self._answer = True

    def _refused(self, batch: object) -> str | None:
        if self._epoch != self.kafka.epoch:
            self.fail(_FENCED)
            return _FENCED
        return super()._refused(batch)  # type: ignore[arg-type]

    def _error(self, reason: str) -> KafkaUnavailable:
        return Fenced(reason) if reason == _FENCED else super()._error(reason)


def begin(kafka: SimKafka) -> int:
    """Fence the previous owner of the transactional id, abort its open transaction, and return the new epoch."""
    wait = kafka.available(kafka.log(_COORDINATOR))
    if wait > 5.0:
        kafka.world.advance(5.0)
        raise KafkaUnavailable("there is no coordinator")
    kafka.world.advance(wait + 0.01)
    kafka.epoch += 1
    return kafka.epoch


def hand_over(kafka: SimKafka, mark: SlotRecord) -> None:
    """End what is open, and write the mark."""
    kafka.world.enter()
    begin(kafka)
    kafka.record(mark)
    kafka.world.leave()
