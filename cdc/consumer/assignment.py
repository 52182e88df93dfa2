"""The partitions that the group has given to this process, and what each has in hand."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from cdc.consumer.events import Event

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(eq=False, slots=True)
class Partition:
    """One assigned partition: the events that were fetched and not handled, the oldest first, and how that goes."""

    topic: str
    number: int
    events: deque[Event] = field(default_factory=deque)
    failures: int = 0  # of the handler for the oldest event
    waits: int = 0  # the same for those that are not the event's fault
    due: float | None = None  # monotonic seconds of the next attempt
    burying: bool = False  # the oldest is on its way to the dead letters
    done: int | None = None  # offset behind the last handled event
    committed: int | None = None

    @property
    def held(self) -> bool:
        """Whether it waits, and takes no more."""
        return self.due is not None or self.burying

    def ready(self, now: float) -> bool:
        """Whether the oldest event can be handled."""
        return bool(self.events) and not self.burying and (self.due is None or now >= self.due)

    def finish(self) -> None:
        """The oldest event is handled, or buried."""
        self.done = self.events.popleft().offset + 1
        self.failures = self.waits = 0
        self.due, self.burying = None, False


class Assignment:
    """Partitions by their place."""

    def __init__(self) -> None:
        self._partitions: dict[Place, Partition] = {}

    def add(self, places: Iterable[Place]) -> None:
        """They are ours from now on, and begin with nothing in hand."""
        for topic, number in places:
            self._partitions[topic, number] = Partition(topic, number)

    def forget(self, places: Iterable[Place]) -> list[Place]:
        """They are no more, and what they have in hand is abandoned; returns those that took no more."""
        forgotten = {place: self._partitions.pop(place, None) for place in places}
        return [place for place, partition in forgotten.items() if partition and partition.held]

    def has(self, partition: Partition) -> bool:
        """Whether it is still the same assignment, and not forgotten or given anew."""
        return self._partitions.get((partition.topic, partition.number)) is partition

    def take(self, event: Event) -> bool:
        """Put a fetched event behind the others of its partition; False when that was taken away meanwhile."""
        partition = self._partitions.get((event.topic, event.partition))
        if partition is not None:
            partition.events.append(event)
        return partition is not None

    def ready(self, now: float) -> list[Partition]:
        """Whose oldest event can be handled: of those that waited and of the others, one each, so that none starves.

        Not all, because between many slow attempts the group would not hear of this process.
        """
        ready = [partition for partition in self._partitions.values() if partition.ready(now)]
        waited = sorted(
            (partition for partition in ready if partition.held), key=lambda partition: partition.due or 0.0
        )
        return [*waited[:1], *[partition for partition in ready if not partition.held][:1]]

    def due(self) -> float | None:
        """When the next attempt is due, in monotonic seconds; None when no partition waits for one."""
        times = [p.due or 0.0 for p in self._partitions.values() if p.events and not p.burying]
        return min(times, default=None)

    @property
    def burying(self) -> bool:
        """Whether any partition waits for its dead letter."""
        return any(partition.burying for partition in self._partitions.values())

    def uncommitted(self, places: Iterable[Place] | None = None) -> dict[Place, int]:
        """The offsets to commit, of those or of all."""
        return {
            place: partition.done
            for place in (self._partitions if places is None else places)
            if (partition := self._partitions.get(place))
            and partition.done is not None
            and partition.done != partition.committed
        }

    def committed(self, topic: str, number: int, offset: int) -> None:
        """Kafka has it."""
        if partition := self._partitions.get((topic, number)):
            partition.committed = offset
