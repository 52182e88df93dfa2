"""Kafka transactions of one transactional id: a producer, and the coordinator that it asks to commit.

Open and aborted transactions are invisible. A request to commit may be late, and its answer may be lost.
"""

from typing import Final

from cdc.config.librdkafka import Value
from cdc.delivery.positions import SlotRecord
from cdc.errors import Fenced, KafkaUnavailable
from cdc.records.record import Record
from tests.simulation.kafka import SimKafka
from tests.simulation.oracle import POSITIONS
from tests.simulation.process import Process
from tests.simulation.sink import NO_OFFSET, SimSink
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
        self._waiting: list[Record] = []
        self._ending = self._asking = self._committed = False
        self._broken = False  # the client library commits no transaction of which a record failed

    def _place(self, record: Record) -> bool:
        """See `TransactionalSink`: a record of the position is alone in its transaction."""
        return self._take(record) if record.topic == POSITIONS else super()._place(record)

    def _take(self, record: Record) -> bool:
        if self._ending or not super()._take(record):
            return False
        self._waiting.append(record)
        self._ending = record.topic == POSITIONS
        return True

    def poll(self, seconds: float) -> None:
        super().poll(seconds)
        if self._committed:
            self._committed = self._asking = self._ending = False
            self._firsts.all_delivered()
            waiting, self._waiting = self._waiting, []
            for record in waiting:
                record.on_delivery(None, None)
        elif self._ending and not (self._asking or self._broken or self._pending):
            self._asking = True
            self.world.at(self._delay(), self._commit)
        elif self._firsts.waiting and not (self._ending or self._broken or self._pending):
            self._firsts.all_delivered()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def _ready(self) -> bool:
        return super()._ready or self._committed

    def _report(self, record: Record, error: object) -> None:
        if error is not None and error != NO_OFFSET:
            self._broken = True
            record.on_delivery(error, record)

    def taken(self, topic: str, number: int, record: Record) -> None:
        """The log has a record; it can be seen when its transaction is committed."""
        self._delivered.add((topic, number))
        offset = self.kafka.place(topic, number)
        if self._epoch == self.kafka.epoch:
            self._held.append((topic, number, record, offset))

    def _commit(self) -> None:
        """The request to commit reaches the coordinator, which commits even if the process dies."""
        busy = self.kafka.available(self.kafka.log(_COORDINATOR))
        if busy:
            self.world.at(busy + self._delay(), self._commit)
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
            self.world.at(self._delay(), self._answer)

    def _answer(self) -> None:
        self._committed = True

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
