"""Reads topics from the ends of their partitions backwards, for records of the publisher's own stream.

All partitions of all topics that are asked for are read side by side, chunk by chunk.
"""

import logging
from collections.abc import Generator, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from cdc import errors
from cdc.kafka.readback.chunks import SIZES, Sizes
from cdc.kafka.readback.log import Entry, Log, Place
from cdc.kafka.readback.partition import FARTHEST, ReadPartition
from cdc.kafka.readback.seen import Sighting
from cdc.records.headers import ID, POSITION, SEQUENCE, Pairs, positions_of

log = logging.getLogger(__name__)

SECONDS: Final = 30.0  # of silence until Kafka counts as gone
PATIENCE_SECONDS: Final = 30.0  # with open transactions of others, in all
MARGIN_MS: Final = 600_000  # by how much clocks may go back
_TELL_SECONDS: Final = 3.0


class Backwards:
    """One reader of a session. Raises KafkaUnavailable, and what the methods of `Log` raise."""

    def __init__(
        self,
        source: Log,
        stream: str,
        confirmed: int,
        sizes: Sizes = SIZES,
        floors: Mapping[str, Mapping[int, int]] = MappingProxyType({}),
    ) -> None:
        self._floors = floors
        self._log = source
        self._confirmed = confirmed
        self._sizes = sizes
        self._patience = PATIENCE_SECONDS
        self._heard = 0.0
        self._match = positions_of(stream)

    def begin(self, topics: Mapping[str, int], since: int | None, *, numbers: bool) -> dict[Place, ReadPartition]:
        """Find where the partitions of topics end, and how far they have to be read.

        `topics` has their numbers of partitions; `since` is a time in milliseconds, or None.
        """
        places = [(topic, number) for topic, partitions in topics.items() for number in range(partitions)]
        then = None if since is None else max(0, since - MARGIN_MS)
        bounds = dict(self._log.bounds(places, then))
        for topic, number in places:
            found = bounds[topic, number]
            floor = min(found.high, self._floors.get(topic, {}).get(number, 0))
            bounds[topic, number] = found._replace(low=max(found.low, floor))
        return {place: ReadPartition(bounds[place], self._confirmed, self._sizes, numbers=numbers) for place in places}

    def read(
        self, wanted: str, tags: Mapping[str, int], parts: dict[Place, ReadPartition]
    ) -> Generator[list[Sighting]]:
        """Yield the own records that matter, and fill the results of `parts`; `tags` are the numbers of the topics.

        Waits for the open transactions of others in the topic `wanted` only: the partitions of other topics that are
        held back are removed from `parts`.
        """
        try:
            while chunk := {place: part for place, part in parts.items() if part.more()}:
                yield from self._chunk(wanted, tags, chunk)
                held_back = {topic for (topic, _), part in chunk.items() if not part.over}
                for place in [place for place in parts if place[0] in held_back]:
                    del parts[place]
        finally:
            self._log.seek({})
        for (topic, number), part in parts.items():
            if part.unnumbered:
                log.warning(
                    "no own record with %s among the last %d of topic %r, partition %d: numbers start at 1 there",
                    *(SEQUENCE, FARTHEST, topic, number),
                    extra={"event": "sequence_not_found"},
                )

    def _chunk(
        self, wanted: str, tags: Mapping[str, int], parts: Mapping[Place, ReadPartition]
    ) -> Generator[list[Sighting]]:
        """Yield the own records until the chunk is over in all partitions."""
        self._log.seek({place: part.start for place, part in parts.items()})
        self._heard = last = self._log.now()
        waited = 0.0
        unread = dict(parts)
        while unread:
            entries = self._log.receive()
            if entries:
                yield self._ours(tags, parts, entries)
            now = self._log.now()
            unread = {place: part for place, part in unread.items() if not part.over}
            if unread and all(part.held_back for part in unread.values()):
                mine = {place: part for place, part in unread.items() if place[0] == wanted}
                if not mine:
                    return
                self._patience -= now - last
                self._wait(wanted, mine.values(), waited, waited + now - last)
                waited += now - last
            elif unread and now - self._heard >= SECONDS:
                topic = min(unread)[0]
                raise errors.KafkaUnavailable(f"topic {topic!r} could not be read: no answer in {SECONDS:g} s")
            last = now

    def _wait(self, topic: str, held_back: Iterable[ReadPartition], before: float, waited: float) -> None:
        if self._patience <= 0:
            log.warning(
                "topic %r has an open transaction of another producer: records behind it cannot be read, and own"
                " events among them may be sent twice",
                topic,
                extra={"event": "foreign_transaction_skipped"},
            )
            for part in held_back:
                part.give_up()
        elif before < _TELL_SECONDS <= waited:
            log.warning(
                "topic %r is held back by an open transaction of another producer; waiting for its end, at most %.0f s",
                *(topic, self._patience),
                extra={"event": "foreign_transaction_waiting"},
            )

    def _ours(
        self, tags: Mapping[str, int], parts: Mapping[Place, ReadPartition], entries: Iterable[Entry]
    ) -> list[Sighting]:
        """Return the records of the stream that have to be kept."""
        found: list[Sighting] = []
        match, heard = self._match, False
        for topic, number, offset, key, headers in entries:
            part = parts.get((topic, number))  # else of one that was read before
            if part is None or part.over:
                continue
            if headers is None:
                part.ended(offset)
                heard = True
                continue
            if not part.take(offset):
                continue
            heard = True
            third = headers[2][1] if len(headers) > 2 and headers[2][0] == POSITION else _first(headers, POSITION)
            position = match(third or b"")
            if position is None:
                continue
            order = int(position[1], 16), int(position[2], 16)
            if part.saw(order, *headers[-1]):
                event_id = headers[0][1] if headers[0][0] == ID else _first(headers, ID)
                found.append(Sighting(tags[topic], *order, number, event_id or b"", key, offset))
        if heard:
            self._heard = self._log.now()
        return found


def _first(headers: Pairs, wanted: str) -> bytes | None:
    return next((value for name, value in headers if name == wanted), None)
