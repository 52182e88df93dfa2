"""One process of the publisher, as the world sees it."""

from typing import TYPE_CHECKING

from cdc.delivery.positions import SlotRecord
from cdc.records.record import Record
from tests.simulation.oracle import Oracle
from tests.simulation.rows import Row
from tests.simulation.world import Violation, World

if TYPE_CHECKING:
    from tests.simulation.sink import SimSink
    from tests.simulation.walsender import Stream


class Flag:
    """A threading.Event in virtual time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float, /) -> bool:
        self._world.enter()
        self._world.advance(timeout, self.is_set)
        self._world.leave()
        return self._is_set


class Clock:
    """The machine's clocks: a monotonic one and a wall clock."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.now

    def unix(self) -> float:
        return self._world.now + self._world.wall_offset

    def sleep(self, seconds: float) -> None:
        self._world.enter()
        self._world.advance(seconds)
        self._world.leave()


class Process:
    """What a process has open, and what it owes."""

    def __init__(self, world: World, oracle: Oracle) -> None:
        self.world = world
        self.oracle = oracle
        self.stop = Flag(world)
        self.reload = Flag(world)
        self.started_at = world.now
        self.dead = False
        self.frozen = False
        self.accepts = False  # it was started with --accept-changes
        self.hindered_at = float("-inf")  # when something last kept it from speaking
        self.stream: Stream | None = None
        self.sink: SimSink | None = None
        self.sessions = 0  # that came as far as to read
        self._began = False
        self.in_hand: dict[str, Row] = {}  # rows that were read in this session, and are not sent
        self.ahead = 0  # how many rows it may read ahead of what the producer took
        self.knows: set[tuple[str, str]] = set()  # topic and id of what it found there in this session
        self.repeats: set[tuple[str, bytes | None]] = set()  # topics and keys of which it sent something
        self.confirmed = 0
        self.sent_to = 0  # end of the last transaction of which it sent something
        self.stopped_at: int | None = None  # the same, after a proper end

    @property
    def hindered(self) -> bool:
        """Whether it cannot act now."""
        return self.frozen or self.dead

    def opened(self, stream: "Stream", sink: "SimSink", knows: set[tuple[str, str]], confirmed: int) -> None:
        """A session begins."""
        self.stream, self.sink = stream, sink
        self._began = False
        self.sent_to = 0
        self.in_hand.clear()
        self.knows = knows
        self.repeats.clear()
        self.confirmed = confirmed
        self.stopped_at = None

    def reads(self) -> None:
        """It reads: nothing may be waiting that Kafka did not take yet, or not much."""
        if not self._began:
            self._began = True
            self.sessions += 1
            if self.sink and (untold := self.sink.kafka.untold - self.sink.kafka.missing):
                raise Violation(f"I9: {', '.join(sorted(untold))} was made anew, and nobody has heard of it")
            if self.sink:
                self.sink.kafka.reader = self.sink.number
        waiting = [row for row in self.in_hand.values() if not row.durable]
        if len(waiting) > self.ahead:
            raise Violation(f"I10: reads on with {len(waiting)} records in hand")

    def sends(self, record: Record) -> None:
        """The producer took a record of a row."""
        event_id = str(dict(record.headers)["id"])
        line = record.topic, record.key
        if (record.topic, event_id) not in self.knows or self.oracle.shifted(record):
            self.repeats.add(line)
        elif line not in self.repeats:  # else an older event of its key was sent again, and it follows
            raise Violation(f"I4: sends event {event_id} again, although it was found in {record.topic}")
        self.in_hand.pop(event_id, None)
        self.sent_to = max(self.sent_to, self.oracle.end_of(record))

    def told(self, record: Record) -> None:
        """Record in Kafka how far the slot is going to be moved."""
        assert record.value is not None
        self.oracle.told(SlotRecord.decode(record.value))

    def close(self) -> None:
        """The kernel closes what a dead process had open."""
        if self.stream:
            self.stream.close()
        if self.sink:
            self.sink.close()

    def power_off(self) -> None:
        """The machine disappears without closing its connections."""
        if self.stream:
            self.stream.deaf = True
        if self.sink:
            self.sink.close()
