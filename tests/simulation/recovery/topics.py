"""Kafka as a recovery sees it: topics that are read to their ends, transactions, and the topic of positions."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Final, NamedTuple

from cdc.audit.verdicts import Kept
from cdc.dead_letters.producer import Outgoing
from cdc.delivery.positions import Memory, memory
from cdc.errors import CdcError, KafkaUnavailable
from cdc.records.record import Headers
from tests.simulation.recovery.connection import Call
from tests.simulation.recovery.judge import Judge, text
from tests.simulation.world import World

TOPIC: Final = "outbox.event.order"
_PARTITIONS: Final = 2
_FAILS: Final = 0.01  # how often a request has no answer
_FAILS_AT_MOST: Final = 4  # in a world: a recovery that never ends, while writers go on, takes all memory


class SimMessage(NamedTuple):
    """A record that is read; as confluent-kafka shows it."""

    place: int  # partition
    at: int  # offset
    record_key: bytes | None
    time: int
    record_headers: Headers

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return self.place

    def offset(self) -> int:
        return self.at

    def value(self) -> bytes:
        return self.id.encode()

    def key(self) -> bytes | None:
        return self.record_key

    def timestamp(self) -> tuple[int, int]:
        return 1, self.time

    def headers(self) -> list[tuple[str, bytes]]:
        return [(name, text(value).encode()) for name, value in self.record_headers]

    @property
    def id(self) -> str:
        return text(dict(self.record_headers)["id"])


class SimTopics:
    """The topic of events, and the records of positions."""

    def __init__(self, world: World, judge: Judge, *, compacted: bool) -> None:
        self._judge = judge
        self._random = world.random("kafka")
        self._failures = 0
        self.compacted = compacted
        self.trimmed = False
        self.partitions: list[list[SimMessage]] = [[] for _ in range(_PARTITIONS)]
        self.ends = [0] * _PARTITIONS
        self._positions: list[tuple[bytes, bytes | None]] = []
        self.steady = False

    def ids(self) -> set[str]:
        """Return the events that it holds."""
        return {message.id for part in self.partitions for message in part}

    def append(self, key: bytes | None, timestamp: int, headers: Headers) -> None:
        """Append one record."""
        number = zlib.crc32(key or b"") % _PARTITIONS
        message = SimMessage(number, self.ends[number], key, timestamp, headers)
        self._judge.appended(message.id, number, headers, self.ids(), may_repeat=self.compacted)
        self.partitions[number].append(message)
        self.ends[number] += 1

    def compact(self) -> None:
        """Leave the newest record of each key."""
        for number, part in enumerate(self.partitions):
            last = {message.record_key: message.at for message in part}
            self.partitions[number] = [message for message in part if last[message.record_key] == message.at]

    def trim(self) -> None:
        """Delete the oldest records of a partition."""
        number = self._random.randrange(_PARTITIONS)
        part = self.partitions[number]
        if part:
            del part[: self._random.randint(1, len(part))]
            self.trimmed = True

    def fails(self) -> bool:
        """Whether a request has no answer."""
        fails = not self.steady and self._failures < _FAILS_AT_MOST and self._random.random() < _FAILS
        self._failures += fails
        return fails

    def last(self) -> dict[bytes | None, str]:
        """Return the newest event of each key."""
        return {message.record_key: message.id for part in self.partitions for message in part}

    # The topic of positions

    def remembered(self, key: str) -> Memory:
        """Return what is remembered of the slot."""
        return memory(key, self._positions)

    def write(self, key: str, value: bytes | None) -> None:
        """Write a record."""
        self._positions.append((key.encode(), value))


class SimPositions:
    """In place of `cdc.kafka.positions`."""

    def __init__(self, topics: SimTopics, call: Call) -> None:
        self._topics = topics
        self._call = call

    def ensure(self, _: object) -> bool:
        return False

    def remembered(self, _: object, key: str, __: float = 0.0) -> Memory:
        with self._call():
            return self._topics.remembered(key)

    def write(self, _: object, key: str, value: bytes | None, __: float = 0.0) -> None:
        with self._call():
            fails, happens = self._topics.fails(), self._topics.fails()
            if not fails or happens:
                self._topics.write(key, value)
            if fails:
                raise KafkaUnavailable("no answer")


class SimTopicReader:
    """In place of `cdc.audit.topics.TopicReader`."""

    def __init__(self, topics: SimTopics, call: Call) -> None:
        self._topics = topics
        self._call = call
        self.forget()

    def close(self) -> None:
        """Nothing to close."""

    def forget(self) -> None:
        self._reached: dict[int, int] = {}
        self._since: int | None = None
        self._ends: list[int] = []

    def existing(self) -> set[str]:
        return {TOPIC}

    def look(self, names: Iterable[str], since: int | None = None) -> int:
        if TOPIC not in names:
            return 0
        with self._call():
            self._ends = list(self._topics.ends)
            if self._since is not None and since is None:
                self._reached.clear()
            for number, part in enumerate(self._topics.partitions):
                found = (one.at for one in part if since is None or one.time >= since)
                self._reached.setdefault(number, next(found, self._ends[number]))
            self._since = since
            return sum(self._ends) - sum(self._reached.values())

    def read(self) -> Iterator[list[SimMessage]]:
        for number, end in enumerate(self._ends):
            with self._call():
                found = [one for one in self._topics.partitions[number] if self._reached[number] <= one.at < end]
                self._reached[number] = end
            yield found

    def at(self, _: str, places: Iterable[tuple[int, int]]) -> Iterator[SimMessage]:
        wanted = set(places)
        with self._call():
            found = [one for part in self._topics.partitions for one in part if (one.place, one.at) in wanted]
        yield from found

    def kept(self, _: str, now: int) -> Kept:
        trimmed = self._topics.trimmed
        return Kept(trimmed=trimmed, compacted=self._topics.compacted, keeps_since=now if trimmed else None)


class SimProducer:
    """In place of `cdc.dead_letters.producer.ResendProducer`: a batch is committed, or not at all."""

    def __init__(self, topics: SimTopics, call: Call) -> None:
        self._topics = topics
        self._call = call

    def begin(self) -> None:
        """End the transaction of an earlier producer."""

    def send(self, batch: Sequence[Outgoing], *, whole: bool = False) -> dict[int, CdcError]:  # noqa: ARG002
        with self._call():
            fails, happens = self._topics.fails(), self._topics.fails()
            if not fails or happens:
                for event, _, _ in batch:
                    self._topics.append(event.key, event.timestamp, event.headers)
            if fails:
                raise KafkaUnavailable("the outcome of the transaction is unknown")
        return {}

    def close(self) -> None:
        """Nothing to close."""


DESTINATIONS: Final = SimpleNamespace(
    largest=lambda _: 1_000_000, keeps=lambda _: None, partitions=lambda _: _PARTITIONS, batch_bytes=1_000_000
)
