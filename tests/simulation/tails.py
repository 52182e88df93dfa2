"""What a new session reads of the topics: everything that consumers can see at that moment.

The pure core of reading back decides what is there (`cdc.kafka.readback`); only its consumer is simulated.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from cdc.kafka.readback.chunks import Sizes
from cdc.kafka.readback.log import Bounds, Entry, Place
from cdc.kafka.readback.seen import SeenPositions
from cdc.kafka.readback.tail import Readback, Tail
from tests.simulation.kafka import SimKafka, Stored
from tests.simulation.oracle import DEAD_LETTERS
from tests.simulation.world import Violation

_BURST: Final = 3
_SIZES: Final = Sizes(first=2, largest=9)
"""Logs hold a few records, and are read in several chunks all the same."""
_CALLS_AT_MOST: Final = 5_000


class SimLog:
    """The shape of `cdc.kafka.readback.log.Log`, on the logs as they are when its first method is called.

    Nothing waits: a caller in virtual time comes when all leaders answer.
    """

    def __init__(self, kafka: SimKafka) -> None:
        self._kafka = kafka
        self._logs: dict[Place, list[Stored]] = {}
        self._reached: dict[Place, int] = {}
        self._calls = 0

    def partitions(self, topics: Sequence[str], /) -> dict[str, int]:
        found = {topic: 1 if topic == DEAD_LETTERS else self._kafka.partitions for topic in topics}
        for topic, count in found.items():
            for number in range(count):
                log = [each for each in self._kafka.seen.get(topic, ()) if each.partition == number]
                self._logs[topic, number] = sorted(log, key=lambda each: each.offset)
        return found

    def bounds(self, places: Collection[Place], since: int | None, /) -> dict[Place, Bounds]:
        return {place: Bounds(self._low(place), self._high(place), self._since(place, since)) for place in places}

    def _low(self, place: Place) -> int:
        log = self._logs[place]
        return log[0].offset if log else self._high(place)

    def _high(self, place: Place) -> int:
        return self._kafka.log(place).end

    def _since(self, place: Place, since: int | None) -> int | None:
        if since is None:
            return None
        return next((each.offset for each in self._logs[place] if each.record.timestamp >= since), -1)

    def seek(self, offsets: Mapping[Place, int], /) -> None:
        self._reached = dict(offsets)

    def receive(self) -> list[Entry]:
        self._calls += 1
        if self._calls > _CALLS_AT_MOST:
            raise Violation("I7: reads back without end")
        found: list[Entry] = []
        for place, at in self._reached.items():
            log = [each for each in self._logs[place] if each.offset >= at]
            found += [self._entry(place, each) for each in log[:_BURST]]
            if len(log) <= _BURST:
                found.append((*place, self._high(place), None, None))
                self._reached[place] = self._high(place)
            else:
                self._reached[place] = log[_BURST].offset
        return found

    @staticmethod
    def _entry(place: Place, each: Stored) -> Entry:
        headers = tuple(
            (name, value.encode() if isinstance(value, str) else value) for name, value in each.record.headers
        )
        return (*place, each.offset, each.record.key, headers)

    def now(self) -> float:
        return self._kafka.world.now


class SimTails:
    """The shape of `cdc.delivery.ports.Tails`."""

    def __init__(self, kafka: SimKafka, stream: str, confirmed: int, *, sequences: bool) -> None:
        self._kafka = kafka
        self._log = SimLog(kafka)
        self._seen = SeenPositions()
        self._readback = Readback(self._log, stream, confirmed, self._seen, sequences=sequences, sizes=_SIZES)
        self._asked: set[str] = set()
        self._read: dict[str, Tail] = {}

    def ask(self, topic: str, since: int, /) -> Tail | None:
        if topic not in self._asked:
            world = self._kafka.world
            world.enter()
            self._asked.add(topic)
            world.at(self._kafka.latency * self._kafka.random.random(), self._begin, topic, since)
            world.leave()
        return self._read.get(topic)

    def forget(self) -> None:
        self._seen.forget()

    def _begin(self, topic: str, since: int) -> None:
        kafka = self._kafka
        busy = max(kafka.available(kafka.log((topic, number))) for number in range(kafka.partitions))
        if busy:
            kafka.world.at(busy + 0.01, self._begin, topic, since)
            return
        self._read |= self._readback.read(topic, self._log.partitions([topic]), since)
