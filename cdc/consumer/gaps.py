"""Detect gaps, duplicates and reordering in topics while reading their records.

    detector = GapDetector()
    detector.on(Gap, lambda gap: page_operator(str(gap)))
    ...
    event = Event.of(message)
    verdict = detector.observe(event.topic, event.partition, event.offset, event.headers)

With `[delivery] sequence = true`, each record of a partition has the next number of its stream (`cdc-sequence`), so
that the next record reveals a loss. Without it, duplicates and reordering are detected by position, but losses are not:
the events of a transaction go to several partitions, so no partition has all positions.

The detector uses no clock, thread or client library.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from cdc.consumer.events import Headers, PublisherHeaders
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
        self.streams: dict[str, Stream] = {}  # least recently used first


class GapDetector:
    """Compares each record with its predecessors in the same topic, partition and stream.

    Call `observe` with the records of a partition in the order of reading, from any start: the first number seen is the
    start. It does not support compacted topics, where compaction creates gaps.

    Memory is bounded. For each stream and partition the detector keeps the `memory` highest positions and the last ids,
    about 300 bytes for both, to distinguish duplicates from late events; an event older than all of them is presumed a
    duplicate. It keeps the last 100 ranges of missing numbers, and the last 64 streams of each partition. Not
    thread-safe.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._memory = max(1, memory)
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._callbacks: list[tuple[type[Verdict], Callable[[Any], None]]] = []

    def on(self, kind: type[V], callback: Callable[[V], None]) -> None:
        """Call `callback` with each verdict of the class `kind`; its exceptions propagate from `observe`."""
        self._callbacks.append((kind, callback))

    def observe(self, topic: str, partition: int, offset: int, headers: Headers) -> Verdict:
        """Return the verdict on the next record. Never raises for the content of a record."""
        verdict = self._judge(topic, partition, offset, PublisherHeaders.of(headers))
        for kind, callback in self._callbacks:
            if isinstance(verdict, kind):
                callback(verdict)
        return verdict

    def forget(self, topic: str | None = None, partition: int | None = None) -> None:
        """Forget a partition, a topic, or everything, when reading continues elsewhere, as after a rebalance."""
        for known in list(self._partitions):
            if topic in (None, known[0]) and partition in (None, known[1]):
                del self._partitions[known]

    def _judge(self, topic: str, partition: int, offset: int, parsed: PublisherHeaders) -> Verdict:
        place = (topic, partition, offset, parsed.id, parsed.position, parsed.sequence)
        at = self._partitions.setdefault((topic, partition), _Partition())
        position = parsed.position
        again, at.offset = offset <= at.offset, max(offset, at.offset)
        if REPAIRED in parsed.names:
            return Repaired(*place)
        if REPLAYED in parsed.names:
            return Replayed(*place)
        if position is None:
            return Foreign(*place)
        stream = at.streams.pop(position.stream, None)
        if again:
            if stream is not None and position.order <= stream.highest:
                at.streams[stream.name] = stream
                return Reread(*place)
            # A new event at a lower offset: the topic was re-created, or reading jumped back further than the memory.
            at.streams.clear()
            at.offset, stream = offset, None
        previous, at.current = at.current, position.stream
        if stream is None:
            at.streams[position.stream] = Stream.begin(self._memory, position, offset, parsed.sequence, parsed.id)
            if len(at.streams) > STREAMS:
                del at.streams[next(iter(at.streams))]
            return Started(*place, previous)
        at.streams[stream.name] = stream
        return stream.judge(position, parsed.sequence, offset, place)

    def state(self) -> dict[str, Any]:
        """Return the detector's state as JSON-serializable data, for `restore` after a restart.

        Save it together with the offsets that it covers: with other offsets the detector would report gaps.
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
        """Replace the state by a saved one. Raises ValueError if it is invalid."""
        restored: dict[tuple[str, int], _Partition] = {}
        try:
            if state["version"] != _VERSION:
                raise ValueError(f"unknown version {state['version']!r}")
            for saved in state["partitions"]:
                known = restored[str(saved["topic"]), int(saved["partition"])] = _Partition()
                known.offset = int(saved["offset"])
                known.current = None if saved["current"] is None else str(saved["current"])
                known.streams = {str(name): Stream.restored(name, self._memory, one) for name, one in saved["streams"]}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not a saved state of a GapDetector: {error!r}") from None
        self._partitions = restored
