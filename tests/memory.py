"""Twins in memory of the source, the sink and the clock: the test says what arrives, and when deliveries end."""

import struct
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import starmap
from typing import Final

from cdc.lsn import LSN
from cdc.records.record import Record, Sendable

FOR_EVER: Final = 1 << 62
ANSWER: Final = struct.pack(">cQqB", b"k", 0, 0, 0)  # a keepalive that says nothing new
NOON: Final = 1_785_585_600.0  # 2026-08-01 12:00 UTC


class Clock:
    """Seconds that pass only when somebody waits, or looks: a loop that never waits must still meet its deadline."""

    def __init__(self, now: float = 1000.0, tick: float = 0.0) -> None:
        self.now = now
        self.tick = tick

    def monotonic(self) -> float:
        self.now += self.tick
        return self.now

    def unix(self) -> float:
        return NOON

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.now += max(0.0, seconds)


class MemorySource:
    """A source of the bursts it was given, in turn. What is written to it stays in `written`.

    It answers when it is asked to, unless `answers` is false.
    """

    def __init__(self, clock: Clock, bursts: Iterable[list[bytes]] = ()) -> None:
        self.bursts = deque(bursts)
        self.written: list[bytes] = []
        self.written_at: list[float] = []
        self.reads = 0
        self.waits: list[float] = []
        self.stopped = False
        self.answers = True
        self._clock = clock

    def read(self) -> list[bytes]:
        self.reads += 1
        return self.bursts.popleft() if self.bursts else []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self._clock.advance(seconds)

    def write(self, frame: bytes) -> None:
        self.written.append(frame)
        self.written_at.append(self._clock.now)
        if self.answers and frame[-1]:
            self.bursts.append([ANSWER])

    def stop(self) -> None:
        self.stopped = True

    @property
    def confirmed(self) -> list[int]:
        """The LSN of each status update."""
        return [int.from_bytes(frame[9:17], "big") for frame in self.written]


class MemorySink:
    """A sink with `room` for so many records whose deliveries end when the test says so.

    `settle` and `refuse` give the verdict; like a real client's, it is told from inside `poll`.
    """

    def __init__(self, clock: Clock, room: int = FOR_EVER) -> None:
        self.room = room
        self.sent: list[Record] = []
        self.waiting: list[Record] = []
        self.settles_at_once = False
        self.polls: list[float] = []
        self.hastened = 0
        self._verdicts: deque[tuple[Record, object]] = deque()
        self._clock = clock

    def send(self, records: Sequence[Sendable]) -> int:
        for count, record in enumerate(starmap(Record, records)):
            if len(self) >= self.room:
                return count
            self.sent.append(record)
            self.waiting.append(record)
            if self.settles_at_once:
                self.settle()
        return len(records)

    def poll(self, seconds: float) -> None:
        self.polls.append(seconds)
        if not self._verdicts:
            self._clock.advance(seconds)
        while self._verdicts:
            record, error = self._verdicts.popleft()
            record.on_delivery(error, None if error is None else record)

    def hasten(self) -> None:
        self.hastened += 1
        self.poll(0.001)

    def settle(self, place: int = 0, count: int = 1) -> None:
        """Kafka has `count` of the waiting records, from `place` on."""
        for _ in range(count):
            self._verdicts.append((self.waiting.pop(place), None))

    def settle_all(self) -> None:
        self.settle(0, len(self.waiting))

    def refuse(self, error: object, place: int = 0) -> None:
        """Kafka refused one of the waiting records."""
        self._verdicts.append((self.waiting.pop(place), error))

    def __len__(self) -> int:
        return len(self.waiting) + len(self._verdicts)


class MemoryTail:
    """What one topic holds: ids by partition and position, and the last number of each partition."""

    def __init__(self, partitions: int = 1) -> None:
        self.partitions = partitions
        self.ids: dict[tuple[int, int, int], str] = {}
        self.numbers: dict[int, int] = {}
        self.late: set[tuple[int, int]] = set()  # positions that have an older event of their key behind them
        self.repeated: set[bytes] = set()

    def id_at(self, partition: int | None, commit_lsn: int, index: int, /) -> str | None:
        places = range(self.partitions) if partition is None else (partition,)
        return next(
            (self.ids[place, commit_lsn, index] for place in places if (place, commit_lsn, index) in self.ids), None
        )

    @property
    def highest(self) -> LSN:
        return LSN(max((commit_lsn for _, commit_lsn, _ in self.ids), default=0))

    def indexes(self, partition: int | None, commit_lsn: int, event_id: str, /) -> list[int]:
        places = range(self.partitions) if partition is None else (partition,)
        found = {
            index
            for (place, lsn, index), each in self.ids.items()
            if place in places and lsn == commit_lsn and each == event_id
        }
        return sorted(found)

    def last(self, partition: int | None, event_id: str, /) -> int | None:
        """Records stand in the order in which they were put here."""
        found = [
            offset
            for offset, ((place, _, _), each) in enumerate(self.ids.items())
            if each == event_id and partition in (None, place)
        ]
        return max(found, default=None)

    def count(self) -> int:
        return len(set(self.ids.values()))

    def elsewhere(self, partition: int, commit_lsn: int, index: int, /) -> bool:
        return any((place, commit_lsn, index) in self.ids for place in range(self.partitions) if place != partition)

    def overtaken(self, partition: int, key: bytes, commit_lsn: int, index: int, /) -> bool:  # noqa: ARG002
        return (commit_lsn, index) in self.late or key in self.repeated

    def repeat(self, key: bytes, /) -> None:
        self.repeated.add(key)

    def sequence(self, partition: int, /) -> int:
        return self.numbers.get(partition, 0)


class MemoryTails:
    """Tails of topics; one that is None is being read. Others hold nothing, and have one partition."""

    def __init__(self, **tails: MemoryTail | None) -> None:
        self.tails = tails
        self.asked: list[tuple[str, int]] = []
        self.forgotten = False

    def ask(self, topic: str, since: int, /) -> MemoryTail | None:
        self.asked.append((topic, since))
        return self.tails.get(topic, MemoryTail())

    def forget(self) -> None:
        self.forgotten = True
