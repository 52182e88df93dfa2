"""What topics hold of the publisher's stream: the pure core of reading back, which a simulation can drive.

`Readback.read` reads topics through the port `cdc.kafka.readback.log.Log`; the `Tail` of each answers for its records.
"""

import contextlib
import logging
from collections.abc import Mapping
from types import MappingProxyType

from cdc.kafka.readback.backwards import Backwards
from cdc.kafka.readback.chunks import SIZES, Sizes
from cdc.kafka.readback.log import Log
from cdc.kafka.readback.seen import SeenPositions
from cdc.lsn import LSN

log = logging.getLogger(__name__)


class Tail:
    """The records of the publisher's stream in one topic, at and beyond an LSN: see `cdc.delivery.ports.Tail`."""

    def __init__(self, seen: SeenPositions, partitions: int = 0) -> None:
        self.partitions = partitions
        self.highest = LSN(0)
        self.sequences: dict[int, int] = {}  # by partition
        self.number = seen.number()  # of the topic
        self.disordered = False
        self._seen = seen

    def id_at(self, partition: int | None, commit_lsn: int, index: int, /) -> str | None:
        """Return the id of the record of a position; None when there is none. A partition of None means any."""
        return self._seen.id_at(self.number, partition, commit_lsn, index)

    def indexes(self, partition: int | None, commit_lsn: int, event_id: str, /) -> list[int]:
        """Return the indexes at which a transaction's records have an id, ascending. A partition of None means any."""
        return self._seen.indexes(self.number, partition, commit_lsn, event_id)

    def last(self, partition: int | None, event_id: str, /) -> int | None:
        """Return the offset of the last record with an id; None when there is none. A partition of None means any."""
        return self._seen.last(self.number, partition, event_id)

    def count(self) -> int:
        """Return how many ids the records have."""
        return self._seen.count(self.number)

    def elsewhere(self, partition: int, commit_lsn: int, index: int, /) -> bool:
        """Return whether a position is in another partition than this."""
        return self._seen.elsewhere(self.number, partition, commit_lsn, index)

    def overtaken(self, partition: int, key: bytes, commit_lsn: int, index: int, /) -> bool:
        """Return whether an older event of the key comes behind the record of a position, or was sent again."""
        if self.disordered and self._seen.overtaken(self.number, partition, commit_lsn, index):
            return True
        return self._seen.repeated(self.number, key)

    def repeat(self, key: bytes, /) -> None:
        """Note that an event of the key is sent again: it comes behind all that the topic holds."""
        self._seen.repeat(self.number, key)

    def sequence(self, partition: int, /) -> int:
        """Return the last number in the header `cdc-sequence` of a partition; 0 when there is none."""
        return self.sequences.get(partition, 0)


class Readback:
    """One session's reading of topics. One thread at a time may use it; `seen` is shared with its tails. `floors` are
    offsets by topic and partition before which there is nothing of the stream.

    Raises what `Log` raises, KafkaUnavailable when Kafka is silent, and CdcError when there is no disk space.
    """

    def __init__(
        self,
        source: Log,
        stream: str,
        confirmed: int,
        seen: SeenPositions,
        *,
        sequences: bool,
        sizes: Sizes = SIZES,
        floors: Mapping[str, Mapping[int, int]] = MappingProxyType({}),
    ) -> None:
        self._backwards = Backwards(source, stream, confirmed, sizes, floors)
        self._seen = seen
        self._sequences = sequences

    def read(self, wanted: str, topics: Mapping[str, int], since: int | None) -> dict[str, Tail]:
        """Return the tail of the topic `wanted`, and of all others that can be read without waiting.

        `topics` has the number of partitions of each, from `Log.partitions`. `since` is the commit time of the first
        event that is redelivered, in milliseconds; None when only numbers are of interest.
        """
        tails = {topic: Tail(self._seen, partitions) for topic, partitions in topics.items()}
        there = {topic: partitions for topic, partitions in topics.items() if partitions}
        if not there or (since is None and not self._sequences):
            return tails
        parts = self._backwards.begin(there, since, numbers=self._sequences)
        named = {tail.number: topic for topic, tail in tails.items()}
        tags = {topic: number for number, topic in named.items()}
        with contextlib.closing(self._backwards.read(wanted, tags, parts)) as reading:
            for sightings in reading:
                self._seen.add(sightings)
                for sighting in sightings:
                    tail = tails[named[sighting.topic]]
                    tail.highest = max(tail.highest, LSN(sighting.commit_lsn))
        for (topic, number), part in parts.items():
            tails[topic].sequences[number] = part.sequence
            tails[topic].disordered |= part.disordered
        for topic in there.keys() - {topic for topic, _ in parts}:
            del tails[topic]  # an open transaction of another producer holds it back
        for topic in there.keys() & tails:
            self._compare(topic, tails[topic])
        return tails

    def _compare(self, topic: str, tail: Tail) -> None:
        if tail.disordered:
            self._seen.compare(tail.number)
        if differing := self._seen.differing(tail.number):
            log.warning(
                "topic %r has %d own positions with more than one id each",
                topic,
                differing,
                extra={"event": "positions_ambiguous"},
            )
