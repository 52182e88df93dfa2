"""Kafka: logs that leaders append to and followers copy, and what happens when leaders change.

A record counts, and consumers see it, when the followers have it; what only a leader had is gone with the leader.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from cdc.delivery.positions import AT_LEAST_ONCE, EXACTLY_ONCE, Memory, RememberedTopic, SlotRecord, memory
from cdc.delivery.slot_memory import claim
from cdc.errors import KafkaUnavailable
from cdc.records.partitioner import partition
from cdc.records.record import Record
from tests.simulation.oracle import DEAD_LETTERS, POSITIONS, Oracle
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.sink import Batch, SimSink

Place = tuple[str, int]
COMPACTED_AFTER: Final = 30.0  # seconds; the active segment is left alone


class Stored(NamedTuple):
    """A record that consumers can see."""

    partition: int
    record: Record
    offset: int


@dataclass(slots=True)
class Log:
    """One partition."""

    leader: int = 0  # its epoch
    down_until: float = 0.0
    tail: "list[Batch]" = field(default_factory=list)  # appended, and not yet copied
    known: set[int] = field(default_factory=set)  # producers of which the leader knows the last sequence number
    end: int = 0  # the next offset
    unready: int = 0  # how many batches are turned away, to be sent again


class SimKafka:
    """A cluster with some topics of `partitions` partitions."""

    def __init__(self, world: World, oracle: Oracle, *, partitions: int, latency: float) -> None:
        self.world = world
        self.oracle = oracle
        self.random = world.random("kafka")
        self.partitions = partitions
        self.latency = latency
        self.down_until = 0.0
        self.logs: dict[Place, Log] = {}
        self.missing: set[str] = set()  # topics that do not exist now; only asked, never walked through
        self.limits: dict[str, int] = {}
        self.topic_ids: dict[str, int] = {}  # another one after a topic was made anew
        self.untold: set[str] = set()  # topics that were made anew, and of which no operator has heard yet
        self.positions: list[tuple[float, str, bytes | None]] = []
        self.refusing: dict[str, str] = {}  # topic: with which error records are refused
        self.lost_replies = 0.0
        self.reader = 0  # the number of the producer of the last session that began to read
        self.producers = 0  # that have begun
        self.epoch = 0  # of the transactional id
        self.seen: dict[str, list[Stored]] = {}  # by topic, what consumers can see
        self.appended = 0
        self.truncated = 0

    def log(self, place: Place) -> Log:
        found = self.logs.get(place)
        if found is None:
            found = self.logs[place] = Log()
        return found

    def available(self, log: Log) -> float:
        """How long until the leader answers; 0 when it does."""
        return max(0.0, max(self.down_until, log.down_until) - self.world.now)

    def outage(self, seconds: float) -> None:
        """Nothing is answered for a while."""
        self.world.note("kafka is down", seconds)
        self.down_until = max(self.down_until, self.world.now + seconds)

    def change_leader(self, seconds: float) -> None:
        """Every partition gets a leader that lacks what was not copied."""
        self.world.note("leaders change")
        for log in self.logs.values():
            log.leader += 1
            log.down_until = self.world.now + seconds * self.random.random()
            for batch in log.tail:
                batch.appended = False
                self.truncated += 1
                if not batch.producer.delivered_to(batch.place):
                    log.known.discard(batch.producer.number)
            log.tail.clear()

    def append(self, place: Place, batch: "Batch", copied: Callable[["Batch"], None]) -> None:
        """The leader takes a batch."""
        log = self.log(place)
        log.tail.append(batch)
        log.known.add(batch.producer.number)
        batch.appended = True
        self.world.at(self.latency * self.random.random(), self._copy, place, batch, log.leader, copied)

    def _copy(self, place: Place, batch: "Batch", leader: int, copied: Callable[["Batch"], None]) -> None:
        log = self.log(place)
        if log.leader != leader:
            copied(batch)  # it was not: see `batch.appended`
            return
        # Followers copy in order.
        while log.tail:
            first = log.tail[0]
            del log.tail[0]
            self._visible(place, first)
            if first is batch:
                break
        copied(batch)

    def _visible(self, place: Place, batch: "Batch") -> None:
        batch.durable = True
        topic, number = place
        for record in batch.records:
            batch.producer.taken(topic, number, record)

    def place(self, topic: str, number: int, count: int = 1) -> int:
        """Return the offset of the next record of a partition; a marker at the end of a transaction takes one too."""
        log = self.log((topic, number))
        log.end += count
        return log.end - count

    def visible(self, topic: str, number: int, record: Record, producer: "SimSink", offset: int) -> None:
        """Consumers that read what is committed can see a record."""
        self.appended += 1
        self.world.note("append", topic, number, record.key, record.value)
        if topic == POSITIONS:
            assert record.key is not None
            self.positions.append((self.world.now, record.key.decode(), record.value))
        else:
            self.seen.setdefault(topic, []).append(Stored(number, record, offset))
        self.oracle.appended(topic, number, record, producer)

    def findable(self, stream: str) -> set[tuple[str, str]]:
        """Topic and id of every record of a stream that a consumer can see, in the partition of its key.

        Without those that have an older event of their key behind them, and those of a position of several ids.
        """
        found: set[tuple[str, str]] = set()
        oldest: dict[tuple[str, int, bytes | None], str] = {}  # position of each key, from the end
        for topic, seen in self.seen.items():
            ids: dict[tuple[int, str], set[str]] = {}
            for number, record, _ in seen:
                headers = dict(record.headers)
                ids.setdefault((number, str(headers["cdc-position"])), set()).add(str(headers["id"]))
            for number, record, _ in reversed(seen):
                headers = dict(record.headers)
                position, line = str(headers["cdc-position"]), (topic, number, record.key)
                if not position.startswith(stream):
                    continue
                in_order = position <= oldest.get(line, position)
                oldest[line] = min(position, oldest.get(line, position))
                if len(ids[number, position]) > 1:
                    continue  # one of these ids may be there: events behind it are sent again
                if topic == DEAD_LETTERS or (number == partition(record.key or b"", self.partitions) and in_order):
                    found.add((topic, str(headers["id"])))
        return found

    def forget_producers(self) -> None:
        """Every partition forgets the sequence numbers of its producers, and accepts any from each."""
        self.world.note("producers are forgotten")
        for log in self.logs.values():
            log.known.clear()

    def compact(self, topic: str, share: float, *, tombstones: bool) -> list[Stored]:
        """Keep each key's newest record in the oldest `share` of a topic; with `tombstones`, not those without a value.

        The newest record of a partition is in the active segment, which is left alone. Returns what is gone.
        """
        seen = self.seen.get(topic, [])
        clean = round(share * len(seen))
        newest = {(each.partition, each.record.key): at for at, each in enumerate(seen[:clean])}
        active = {each.partition: at for at, each in enumerate(seen)}
        kept: list[Stored] = []
        gone: list[Stored] = []
        for at, each in enumerate(seen):
            older = at < clean and newest[each.partition, each.record.key] != at
            deleted = at < clean and tombstones and each.record.value is None
            (gone if (older or deleted) and active[each.partition] != at else kept).append(each)
        self.seen[topic] = kept
        self.world.note("compacted", topic, len(gone))
        return gone

    def delete(self, topic: str) -> list[Stored]:
        """Delete a topic, and create it again empty; returns what is gone."""
        gone = self.seen.pop(topic, [])
        self.topic_ids[topic] = self.topic_ids.get(topic, 0) + 1
        for (name, _), log in self.logs.items():
            if name == topic:
                log.known.clear()
                log.tail.clear()
                log.leader += 1
                log.end = 0
        self.world.note("made anew", topic, len(gone))
        return gone

    def identity(self, topic: str) -> RememberedTopic:
        """What distinguishes a topic from a later one of its name."""
        return RememberedTopic(str(self.topic_ids.get(topic, 0)), 1 if topic == DEAD_LETTERS else self.partitions)

    def record(self, mark: SlotRecord) -> None:
        """Write a record of the slot, as a program other than the publisher."""
        self.positions.append((self.world.now, mark.key, mark.encode()))

    def claim(self, mark: SlotRecord, *, exactly_once: bool) -> None:
        """Write the record of a slot that nobody has read from; waits for Kafka for a limited time."""
        self._reach()
        guarantee = EXACTLY_ONCE if exactly_once else AT_LEAST_ONCE
        if claimed := claim(mark, self._memory(mark.key), guarantee):
            self.record(claimed)

    def _reach(self) -> None:
        wait = self.available(self.log((POSITIONS, 0)))
        if wait > 5.0:
            self.world.advance(5.0)
            raise KafkaUnavailable("Kafka cannot be reached")
        self.world.advance(wait + 0.01)

    def _memory(self, key: str) -> Memory:
        self._compact()
        return memory(key, ((found.encode(), value) for _, found, value in self.positions))

    def remembered(self, key: str) -> Memory:
        """Reads the topic of positions; waits for Kafka for a limited time."""
        self.world.enter()
        self._reach()
        found = self._memory(key)
        self.world.leave()
        return found

    def _compact(self) -> None:
        old = self.world.now - COMPACTED_AFTER
        last = {key: at for at, key, _ in self.positions}
        self.positions = [entry for entry in self.positions if entry[0] > old or entry[0] == last[entry[1]]]
