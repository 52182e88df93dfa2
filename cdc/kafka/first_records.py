"""Sends the first record of each partition alone.

A broker accepts any sequence number from a producer that it does not know, or has forgotten: when it refuses the first
batch of a partition, it accepts the second, which is already in flight. librdkafka reports both as delivered, and the
first is lost. Only after a delivery does the broker refuse a gap. So no other record is sent to a partition until its
first one is delivered, and every partition starts again from time to time, because brokers forget idle producers.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from cdc.records.partitioner import partition
from cdc.records.record import Delivered, Record
from cdc.replication import settlement

FORGET_SECONDS: Final = 300.0  # well below any `producer.id.expiration.ms` that makes sense; the default is a day


class Target(NamedTuple):
    """Where a record goes: the partition's number, whether it is the first there, and the client's `partition`."""

    number: int
    first: bool
    partition: int  # -1: the client chooses, by the key


class Firsts:
    """The partitions of this session. `proven` are topics of which every partition has had a delivery.

    While a first record is `waiting`, later records may wait for it: it should not linger.

    `partitions` returns the number of partitions of a topic, None when it is unknown. Records without a key may go to
    any partition, unless the `partitioner` has one for all of them. `passing`: others may pass a refused first record.
    """

    def __init__(
        self, partitions: Callable[[str], int | None], now: float, partitioner: object, *, passing: bool = False
    ) -> None:
        self.proven: set[str] = set()
        self.waiting = 0  # first records without a delivery report
        self._partitions = partitions
        self._passing = passing
        self._scattering = partitioner == "murmur2_random"
        self._delivered: dict[str, dict[int, bool]] = {}  # for each partition that was sent to
        self._forget_at = now + FORGET_SECONDS

    def place(self, record: Record) -> Target | None:
        """Return where a record goes; None while it must wait."""
        partitions = self._partitions(record.topic) or 1
        delivered = self._delivered.setdefault(record.topic, {})
        number = chosen = record.partition
        if number < 0 and record.key is None and self._scattering:
            untried = (number for number in range(partitions) if number not in delivered)
            proven = (number for number, done in delivered.items() if done)
            number = chosen = next(untried, next(proven, 0))
        elif number < 0:
            number = partition(record.key or b"", partitions)
        done = delivered.get(number)
        return None if done is False else Target(number, done is None, chosen)

    def sent(self, topic: str, number: int) -> None:
        """Note that the first record of a partition is in flight."""
        self._delivered.setdefault(topic, {})[number] = False
        self.waiting += 1

    def reporting(self, topic: str, number: int, on_delivery: Delivered) -> Delivered:
        """Wrap the delivery callback of the first record of a partition."""
        delivered = self._delivered.setdefault(topic, {})

        def report(error: object, message: object) -> None:
            self.waiting -= 1
            if settlement.delivered(error, message):
                delivered[number] = True
                if self._delivered.get(topic) is delivered:  # not from before `forget`
                    self._prove(topic)
            elif self._passing:
                delivered.pop(number, None)  # the next record is the first one then
            on_delivery(error, message)

        return report

    def all_delivered(self) -> None:
        """Note that nothing is in flight and nothing was refused: for a sink whose reports are of refusals only."""
        self.waiting = 0
        for topic, delivered in self._delivered.items():
            delivered.update(dict.fromkeys(delivered, True))
            self._prove(topic)

    def _prove(self, topic: str) -> None:
        delivered = self._delivered[topic]
        if len(delivered) >= (self._partitions(topic) or 1) and all(delivered.values()):
            self.proven.add(topic)

    def forget(self, now: float) -> None:
        """Forget all deliveries when it is time to; `now` is in monotonic seconds."""
        if now >= self._forget_at:
            self._forget_at = now + FORGET_SECONDS
            self.proven.clear()
            self._delivered.clear()
