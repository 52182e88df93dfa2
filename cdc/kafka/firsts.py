"""The first record of a partition goes alone.

A broker takes any sequence number from a producer that it does not know, or has forgotten: when it refuses the first
batch of a partition, the second, which is on its way by then, is taken and has passed it. Only after a delivery does
it refuse what does not follow. So until the first record of a partition is delivered no other is sent to it, and from
time to time every partition begins anew, because brokers forget producers that were idle.
"""

from collections.abc import Callable
from typing import Final

from cdc.encoding import Delivered, Record
from cdc.kafka.partitions import partition

FORGET_SECONDS: Final = 300.0  # well below any `producer.id.expiration.ms` that makes sense; the default is a day


class Firsts:
    """What is known of partitions in this session. `proven` are topics of which every partition has had a delivery.

    While a first record is `waiting`, so may be all that comes behind it: it should not linger.

    `partitions` says how many a topic has, None when that is not known.
    """

    def __init__(self, partitions: Callable[[str], int | None], now: float) -> None:
        self.proven: set[str] = set()
        self.waiting = 0  # first records of which nothing was heard yet
        self._partitions = partitions
        self._delivered: dict[str, dict[int, bool]] = {}  # for each partition that was sent to
        self._forget_at = now + FORGET_SECONDS

    def place(self, record: Record) -> int | None:
        """The partition of a record when it would be the first there; -1 when not; None while it must wait."""
        if record.key is None:
            return -1  # has no order to lose
        place = partition(record.key, self._partitions(record.topic) or 1)
        delivered = self._delivered.get(record.topic, {}).get(place)
        if delivered is None:
            return place
        return -1 if delivered else None

    def sent(self, topic: str, place: int) -> None:
        """The first record of a partition is on its way."""
        self._delivered.setdefault(topic, {})[place] = False
        self.waiting += 1

    def reporting(self, topic: str, place: int, on_delivery: Delivered) -> Delivered:
        """What to call when the first record of a partition has been delivered, or not."""
        delivered = self._delivered.setdefault(topic, {})

        def report(error: object, message: object) -> None:
            self.waiting -= 1
            if error is None:
                delivered[place] = True
                of_now = self._delivered.get(topic) is delivered
                if of_now and len(delivered) >= (self._partitions(topic) or 1) and all(delivered.values()):
                    self.proven.add(topic)
            on_delivery(error, message)

        return report

    def forget(self, now: float) -> None:
        """Begin anew when it is time to; `now` is in monotonic seconds."""
        if now >= self._forget_at:
            self._forget_at = now + FORGET_SECONDS
            self.proven.clear()
            self._delivered.clear()
