"""Gaps, duplicates and disorder in topics, noticed as their records are read.

    detector = GapDetector()
    detector.on(Gap, lambda gap: page_somebody(str(gap)))
    ...
    event = Event.of(message)
    verdict = detector.observe(event.topic, event.partition, event.offset, event.headers)

With `[delivery] sequence = true` every record of a partition carries the next number of its stream (`cdc-sequence`),
and a loss is seen with the next record. Without it, duplicates and disorder can be seen by position, but no loss: the
events of one transaction go to several partitions, so a partition never has all positions.

Pure: no clock, no thread, no client library.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from cdc.consumer.events import Headers, Marks
from cdc.consumer.streams import Stream
from cdc.consumer.verdicts import Foreign, Repaired, Replayed, Reread, Started, Verdict
from cdc.records.headers import REPAIRED, REPLAYED

MEMORY: Final = 1000
STREAMS: Final = 64
_VERSION: Final = 1

V = TypeVar("V", bound=Verdict)


class _Partition:
    def __init__(self) -> None:
        self.offset = -1
        self.current: str | None = None
        self.streams: dict[str, Stream] = {}  # the last one used is the last


class GapDetector:
    """Judges each record by those before it, for each topic, partition and stream (whoever issued the positions).

    Feed it the records of a partition in the order in which they are read, from wherever reading begins: the first
    number seen is taken as the start. It is not for compacted topics, where gaps are what compaction makes.

    Memory is bounded. Of each stream in each partition it remembers the `memory` highest positions (about 200 bytes
    each), by which it tells a duplicate from an event that is merely late; what is older than all of those is presumed
    a duplicate. Of missing numbers it remembers the last 100 ranges, and of streams the last 64 in each partition. One
    thread at a time.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._memory = max(1, memory)
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._callbacks: list[tuple[type[Verdict], Callable[[Any], None]]] = []

    def on(self, kind: type[V], callback: Callable[[V], None]) -> None:
        """Call `callback` with each verdict of that class, or of all for `Verdict`. `observe` raises what it raises."""
        self._callbacks.append((kind, callback))

    def observe(self, topic: str, partition: int, offset: int, headers: Headers) -> Verdict:
        """Judge the next record. Never raises for what is in a record."""
        verdict = self._judge(topic, partition, offset, Marks.of(headers))
        for kind, callback in self._callbacks:
            if isinstance(verdict, kind):
                callback(verdict)
        return verdict

    def forget(self, topic: str | None = None, partition: int | None = None) -> None:
        """Forget a partition, a topic, or everything: reading goes on elsewhere, as after a rebalance."""
        for known in list(self._partitions):
            if topic in (None, known[0]) and partition in (None, known[1]):
                del self._partitions[known]

    def _judge(self, topic: str, partition: int, offset: int, marks: Marks) -> Verdict:
        place = (topic, partition, offset, marks.id, marks.position, marks.sequence)
        at = self._partitions.setdefault((topic, partition), _Partition())
        position = marks.position
        again, at.offset = offset <= at.offset, max(offset, at.offset)
        if REPAIRED in marks.names:
            return Repaired(*place)
        if REPLAYED in marks.names:
            return Replayed(*place)
        if position is None:
            return Foreign(*place)
        stream = at.streams.pop(position.stream, None)
        if again:
            if stream is not None and position.order <= stream.highest:
                at.streams[stream.name] = stream
                return Reread(*place)
            # A new event below what was read: this is not the topic that it was, or not where reading was.
            at.streams.clear()
            at.offset, stream = offset, None
        previous, at.current = at.current, position.stream
        if stream is None:
            at.streams[position.stream] = Stream.begin(self._memory, position, offset, marks.sequence)
            if len(at.streams) > STREAMS:
                del at.streams[next(iter(at.streams))]
            return Started(*place, previous)
        at.streams[stream.name] = stream
        return stream.judge(position, marks.sequence, offset, place)

    def state(self) -> dict[str, Any]:
        """All that is remembered, for `restore` after a restart; JSON can hold it.

        Save it together with the offsets up to which it goes: restored to an older one, it would see a gap.
        """
        return {
            "version": _VERSION,
            "partitions": [
                {
                    "topic": topic,
                    "partition": partition,
                    "offset": known.offset,
                    "current": known.current,
                    "streams": [[name, stream.saved()] for name, stream in known.streams.items()],
                }
                for (topic, partition), known in self._partitions.items()
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, in place of what is remembered. Raises ValueError when it is none."""
        restored: dict[tuple[str, int], _Partition] = {}
        try:
            if state["version"] != _VERSION:
                raise ValueError(f"version {state['version']!r} is not known")
            for saved in state["partitions"]:
                known = restored[str(saved["topic"]), int(saved["partition"])] = _Partition()
                known.offset = int(saved["offset"])
                known.current = None if saved["current"] is None else str(saved["current"])
                known.streams = {str(name): Stream.restored(name, self._memory, one) for name, one in saved["streams"]}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not a state of a GapDetector: {error!r}") from None
        self._partitions = restored
