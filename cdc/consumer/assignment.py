"""Partitions assigned to this process, with their fetched events."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from cdc.consumer.events import Event

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(eq=False, slots=True)
class Partition:
    """One assigned partition: fetched events that are not handled yet, oldest first, and the state of retries."""

    topic: str
    number: int
    events: deque[Event] = field(default_factory=deque)
    failures: int = 0  # attempts of the oldest event that failed
    waits: int = 0  # attempts that failed with a Temporary error
    due: float | None = None  # monotonic seconds of the next attempt
    dead_lettering: bool = False  # the oldest event was sent to the dead-letter topic, not confirmed yet
    done: int | None = None  # offset after the last handled event, or the end of the partition if none is in hand
    end: int = 0  # of the partition, when it was last reached
    committed: int | None = None

    @property
    def paused(self) -> bool:
        """Whether fetching is paused until the oldest event is handled."""
        return self.due is not None or self.dead_lettering

    def ready(self, now: float) -> bool:
        """Return whether the oldest event can be handled."""
        return bool(self.events) and not self.dead_lettering and (self.due is None or now >= self.due)

    def finish(self) -> None:
        """Remove the oldest event, which was handled or dead-lettered."""
        self.done = self.events.popleft().offset + 1
        self.failures = self.waits = 0
        self.due, self.dead_lettering = None, False
        self.pass_end()

    def pass_end(self) -> None:
        """Count markers and aborted records of transactions at the end as done, if no event is in hand."""
        if not self.events and self.end > (self.done or 0):
            self.done = self.end


class Assignment:
    """Assigned partitions by topic and number."""

    def __init__(self) -> None:
        self._partitions: dict[Place, Partition] = {}

    def add(self, places: Iterable[Place]) -> None:
        """Add newly assigned partitions, without events."""
        for topic, number in places:
            self._partitions[topic, number] = Partition(topic, number)

    def forget(self, places: Iterable[Place]) -> list[Place]:
        """Remove partitions with their events; return those that were paused."""
        forgotten = {place: self._partitions.pop(place, None) for place in places}
        return [place for place, partition in forgotten.items() if partition and partition.paused]

    def is_current(self, partition: Partition) -> bool:
        """Return whether `partition` is still assigned, and was not revoked and assigned again."""
        return self._partitions.get((partition.topic, partition.number)) is partition

    def take(self, event: Event) -> bool:
        """Add a fetched event; return False if its partition was revoked in the meantime."""
        partition = self._partitions.get((event.topic, event.partition))
        if partition is not None:
            partition.events.append(event)
        return partition is not None

    def ended(self, topic: str, number: int, offset: int) -> None:
        """Record that all records before `offset` were fetched, and that there are no more at the moment."""
        if partition := self._partitions.get((topic, number)):
            partition.end = offset
            partition.pass_end()

    def ready(self, now: float) -> list[Partition]:
        """Return at most one paused partition and one other whose oldest event can be handled, so that none starves.

        Not all of them, because the consumer must poll between slow handlers to stay in the group.
        """
        ready = [partition for partition in self._partitions.values() if partition.ready(now)]
        waited = sorted(
            (partition for partition in ready if partition.paused), key=lambda partition: partition.due or 0.0
        )
        return [*waited[:1], *[partition for partition in ready if not partition.paused][:1]]

    def due(self) -> float | None:
        """Return when the next attempt is due, in monotonic seconds, or None if no partition waits."""
        times = [p.due or 0.0 for p in self._partitions.values() if p.events and not p.dead_lettering]
        return min(times, default=None)

    @property
    def dead_lettering(self) -> bool:
        """Whether any partition waits for the delivery of a dead letter."""
        return any(partition.dead_lettering for partition in self._partitions.values())

    def uncommitted(self, places: Iterable[Place] | None = None) -> dict[Place, int]:
        """Return the offsets to commit for `places`, or for all partitions."""
        return {
            place: partition.done
            for place in (self._partitions if places is None else places)
            if (partition := self._partitions.get(place))
            and partition.done is not None
            and partition.done != partition.committed
        }

    def committed(self, topic: str, number: int, offset: int) -> None:
        """Record that Kafka committed an offset."""
        if partition := self._partitions.get((topic, number)):
            partition.committed = offset
