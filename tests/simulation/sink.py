"""The producer, as librdkafka promises to be with the properties it is given, and not an inch better."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Final

from cdc.config.librdkafka import Value, producer
from cdc.errors import CdcError, KafkaError, KafkaUnavailable
from cdc.kafka.first_records import Firsts
from cdc.records.partitioner import partition
from cdc.records.record import Record, Sendable
from cdc.replication.settlement import Failure
from tests.simulation.kafka import Log, Place, SimKafka
from tests.simulation.oracle import DEAD_LETTERS, POSITIONS
from tests.simulation.process import Process

DELIVERED: Final = SimpleNamespace(offset=lambda: 0)
NO_OFFSET: Final = "no offset"
"""What librdkafka reports as a success when a broker that forgot the producer has taken a later batch than this."""
_UNPROVEN: Final = SimpleNamespace(offset=lambda: None)
TOO_LARGE: Final = "MSG_SIZE_TOO_LARGE"
_IN_FLIGHT: Final = 5
_BATCH: Final = 6


@dataclass(slots=True, eq=False)
class Batch:
    """Records of one partition on their way."""

    producer: "SimSink"
    place: Place
    records: list[Record]
    queued_at: float
    appended: bool = False  # in the leader's log
    durable: bool = False  # in the followers' too
    settled: bool = False  # reported, for good or ill
    tries: int = 0
    refused: bool = False  # was turned away by the leader, to be sent again


@dataclass(slots=True)
class Lane:
    """One partition's queue, and what of it is in flight."""

    queue: deque[Record] = field(default_factory=deque)
    flight: list[Batch] = field(default_factory=list)
    queued_at: float = 0.0
    armed: bool = False
    stopped: bool = False  # gapless: a record was refused, nothing may pass it


class SimSink:
    """One producer; the shape of `cdc.kafka.producer.Sink`."""

    exactly_once = False

    def __init__(self, kafka: SimKafka, process: Process, properties: dict[str, Value]) -> None:
        self.kafka = kafka
        self.world = kafka.world
        self.process = process
        self.turns: dict[Place, int] = {}  # the last row it wrote to each partition
        self._random = kafka.random
        given = producer(properties)
        self._capacity = int(given["queue.buffering.max.messages"])
        self._timeout = float(given["message.timeout.ms"]) / 1000
        self._acks_all = given["acks"] in ("all", "-1")
        self._idempotent = given["enable.idempotence"] == "true"
        self._gapless = given["enable.gapless.guarantee"] == "true"
        self._lanes: dict[Place, Lane] = {}
        self._reports: deque[tuple[Record, object]] = deque()
        self._pending = 0
        self._fatal: str | None = None
        self._too_large = False
        self._closed = False  # or its process is dead
        self._firsts = Firsts(self._partitions, self.world.now, given["partitioner"])
        self._delivered: set[Place] = set()
        kafka.producers += 1
        self.number = kafka.producers

    def _partitions(self, topic: str) -> int:
        return 1 if topic in (POSITIONS, DEAD_LETTERS) else self.kafka.partitions

    def delivered_to(self, place: Place) -> bool:
        """Whether a batch of this producer is for good in a partition."""
        return place in self._delivered

    # The process's side

    def send(self, records: Sequence[Sendable]) -> int:
        taken = 0
        while taken < len(records) and self._place(Record(*records[taken])):
            taken += 1
        return taken

    def _place(self, record: Record) -> bool:
        """Queue a record as `cdc.kafka.producer.Sink` does: the first one of each partition alone."""
        if record.topic in self._firsts.proven:
            return self._take(record)
        place = self._firsts.place(record)
        if place is None:
            return False
        if place.first:
            report = self._firsts.reporting(record.topic, place.number, record.on_delivery)
            record = record._replace(on_delivery=report)
        if not self._take(record._replace(partition=place.partition)):
            return False
        if place.first:
            self._firsts.sent(record.topic, place.number)
        return True

    def _take(self, record: Record) -> bool:
        self.world.enter()
        if self._pending >= self._capacity:
            self.world.leave()
            return False
        if record.topic == POSITIONS:
            self.process.told(record)
        else:
            self.process.sends(record)
        number = record.partition
        if number < 0:
            number = partition(record.key or b"", self._partitions(record.topic))
        place = (record.topic, number)
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = Lane()
        if not lane.queue:
            lane.queued_at = self.world.now
        lane.queue.append(record)
        self._pending += 1
        limit = self.kafka.limits.get(record.topic)
        if limit is not None and len(record.value or b"") > limit:
            self._too_large = True
        if not lane.armed:
            self._arm(lane, place)
        self.world.leave()
        return True

    def poll(self, seconds: float) -> None:
        self.world.enter()
        if seconds and not self._ready:
            self.world.advance(seconds, lambda: self._ready, lazy=0.1)
        while self._reports:
            record, error = self._reports.popleft()
            self._pending -= 1
            self._report(record, error)
        if self._fatal:
            raise self._error(self._fatal)
        self._firsts.forget(self.world.now)
        self.world.leave()

    def hasten(self) -> None:
        self.poll(0.001)

    @property
    def superseded(self) -> bool:
        """Whether another producer has begun since."""
        return self.kafka.producers != self.number

    @property
    def _ready(self) -> bool:
        """Whether `poll` has delivery reports to return."""
        return bool(self._reports or self._fatal)

    def _report(self, record: Record, error: object) -> None:
        if error == NO_OFFSET:
            record.on_delivery(None, _UNPROVEN)
        else:
            record.on_delivery(error, DELIVERED)

    def _error(self, reason: str) -> KafkaUnavailable:
        return KafkaUnavailable(f"the producer failed: {reason}")

    def taken(self, topic: str, number: int, record: Record) -> None:
        """The log has a record for good."""
        self._delivered.add((topic, number))
        self.kafka.visible(topic, number, record, self, self.kafka.place(topic, number))

    def __len__(self) -> int:
        return self._pending

    def close(self) -> None:
        """Drop what is queued; what is in flight may still arrive."""
        self._closed = True
        for lane in self._lanes.values():
            lane.queue.clear()

    # The client library's side

    def fail(self, reason: str) -> None:
        """A fatal error: nothing more is reported, though what is in flight may be persisted."""
        if not self._closed:
            self._fatal = reason
            self._reports.clear()
            for lane in self._lanes.values():
                lane.queue.clear()

    def _arm(self, lane: Lane, place: Place) -> None:
        lane.armed = True
        self.world.at(0.005 * self._random.random(), self._ship, lane, place)

    def _ship(self, lane: Lane, place: Place) -> None:
        lane.armed = False
        if self._closed or self._fatal or lane.stopped:
            return
        if self.process.frozen:
            self.world.at(0.05, self._ship, lane, place)
            lane.armed = True
            return
        if lane.queue and len(lane.flight) < _IN_FLIGHT:
            count = min(len(lane.queue), self._random.randint(1, _BATCH))
            batch = Batch(self, place, [lane.queue.popleft() for _ in range(count)], lane.queued_at)
            lane.queued_at = self.world.now
            lane.flight.append(batch)
            self.world.at(self._delay(), self._arrive, lane, batch)
        if lane.queue:
            self._arm(lane, place)

    def _delay(self) -> float:
        return self.kafka.latency * (0.5 + self._random.random())

    def _gone(self, batch: Batch) -> bool:
        """Whether retries have ended, so that a batch that was not accepted never will be."""
        return (self._closed or self._fatal is not None) and batch.tries > 0

    def _arrive(self, lane: Lane, batch: Batch) -> None:
        """The request reaches the leader, or does not."""
        if batch.settled or self._gone(batch):
            return
        log = self.kafka.log(batch.place)
        if self._timeout and self.world.now - batch.queued_at > self._timeout:
            self._settle(lane, batch, "local: message timed out")
            return
        busy = self.kafka.available(log)
        if self._idempotent and self._passed(lane, batch):
            self._lose(lane, batch)
            return
        early = self._idempotent and self._early(log, lane, batch)
        if early and (self._closed or self._fatal):
            return
        if busy or early:
            # A dead producer's request may wait in the network for a while.
            batch.tries += not self._closed
            self.world.at(busy + self._delay(), self._arrive, lane, batch)
            return
        if log.unready:
            log.unready -= 1
            batch.refused = True
            self.world.at(4 * self._delay(), self._arrive, lane, batch)
            return
        refused = self._refused(batch)
        if refused:
            self._settle(lane, batch, refused)
            return
        self.kafka.append(batch.place, batch, lambda batch: self._copied(lane, batch))
        if not self._acks_all:
            self.world.at(self._delay() / 4, self._settle, lane, batch, None)

    def _early(self, log: Log, lane: Lane, batch: Batch) -> bool:
        """Whether an earlier batch is missing: the broker wants sequence numbers without a gap.

        From a producer that it does not know it takes any number; a connection keeps the order, but for what was
        turned away.
        """
        for other in lane.flight:
            if other is batch:
                return False
            if not (other.appended or other.durable):
                return self.number in log.known or not other.refused
        return False

    @staticmethod
    def _passed(lane: Lane, batch: Batch) -> bool:
        """Whether the broker has a later batch: it takes this one for a duplicate, and the client library believes it.

        <https://github.com/confluentinc/librdkafka/blob/master/INTRODUCTION.md#idempotent-producer>
        """
        later = lane.flight[lane.flight.index(batch) + 1 :]
        return not (batch.appended or batch.durable) and any(other.appended or other.durable for other in later)

    def _refused(self, batch: Batch) -> str | None:
        if self._too_large:
            return f"denied: {TOO_LARGE}"
        refused = self.kafka.refusing.get(batch.place[0])
        return refused if refused and not batch.appended else None

    def _copied(self, lane: Lane, batch: Batch) -> None:
        if batch.settled:
            return
        if not batch.durable:  # the leader is gone, and the batch with it
            batch.tries += 1
            self.world.at(self._delay(), self._arrive, lane, batch)
        elif self._random.random() < self.kafka.lost_replies:
            self._retry(lane, batch)
        else:
            self.world.at(self._delay() / 2, self._settle, lane, batch, None)

    def _retry(self, lane: Lane, batch: Batch) -> None:
        """Lose a reply: the broker answers an idempotent producer's second request as a duplicate."""
        batch.tries += 1
        if self._idempotent:
            self.world.at(3 * self._delay(), self._settle, lane, batch, None)
        else:
            batch.appended = batch.durable = False
            self.world.at(3 * self._delay(), self._arrive, lane, batch)

    def _lose(self, lane: Lane, batch: Batch) -> None:
        """Report a batch that the broker takes for a duplicate."""
        batch.settled = True
        lane.flight.remove(batch)
        if not (self._closed or self._fatal):
            self._reports.extend((record, NO_OFFSET) for record in batch.records)

    def _settle(self, lane: Lane, batch: Batch, error: str | None) -> None:
        if batch.settled or self._closed or self._fatal:
            return
        batch.settled = True
        if batch in lane.flight:
            lane.flight.remove(batch)
        if error is None:
            self._reports.extend((record, None) for record in batch.records)
            return
        refused, *others = batch.records
        self._reports.append((refused, error))
        if error.startswith("local"):
            self._reports.extend((record, error) for record in others)
        elif self._gapless:
            # The rest of the partition is purged, without delivery reports.
            lane.stopped = True
            lane.queue.clear()
            for batch in lane.flight:
                batch.settled = True  # out of sequence for the broker
            lane.flight.clear()
        elif others:
            rest = Batch(self, batch.place, others, batch.queued_at)
            lane.flight.insert(0, rest)
            self._passing(lane, rest)

    def _passing(self, lane: Lane, rest: Batch) -> None:
        self.kafka.append(rest.place, rest, lambda batch: self._copied(lane, batch))


def failed(failure: Failure) -> CdcError:
    """Convert a failed delivery to one of the program's errors."""
    if "denied" in str(failure.error):
        return KafkaError(f"Kafka refuses: {failure.error}")
    return KafkaUnavailable(f"Kafka, delivering: {failure.error}")
