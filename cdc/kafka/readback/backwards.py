"""Reads topics from the ends of their partitions backwards, for records of the publisher's own stream.

A partition was read far enough when the first own record of a chunk is below the LSN that the slot confirmed, or when
all records as new as the first redelivered event were read: timestamps are commit times. A search for the last number
in `cdc-sequence` continues until it is found.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import ListOffsetsResultInfo, OffsetSpec, TopicDescription

from cdc import errors
from cdc.config.settings import Settings
from cdc.kafka.client import reader
from cdc.kafka.cluster import Cluster, identity, is_missing
from cdc.kafka.readback.chunks import Chunks
from cdc.kafka.readback.seen import Sighting
from cdc.kafka.reading import receive
from cdc.lsn import LSN
from cdc.records.headers import ID, POSITION, REPAIRED, REPLAYED, SEQUENCE, Pairs, headers_of, positions_of

log = logging.getLogger(__name__)

SECONDS: Final = 30.0  # of silence until Kafka counts as gone
PATIENCE_SECONDS: Final = 30.0  # with open transactions of others, in all
MARGIN_MS: Final = 600_000  # by how much clocks may go back
UNNUMBERED: Final = 10_000  # so many own records without a number: there is none before them
FARTHEST: Final = 1_000_000  # offsets that are searched for a number
_TELL_SECONDS: Final = 3.0
_LOOK_SECONDS: Final = 0.2  # between checks of `closed`
_NOT_YET: Final = (  # of partitions that were just created, or are about to get another leader
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
)
_BY_HAND: Final = (REPLAYED, REPAIRED)  # such records are out of order


class Closed(Exception):
    """The reader was closed."""


class Partition(Chunks):
    """A partition: how far it has to be read, and the results."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__(high)
        self.window: int | None = None  # where the search for redelivered events ends, during the search
        self.numbers: int | None = None  # the same of the search for the last number
        self.bounded = False  # the latter ends before the log does
        self.oldest: int | None = None  # commit LSN of the first own record in the chunk
        self.sequence = self.unnumbered = 0
        self.low = low

    def more(self, confirmed: int) -> bool:
        """Start the next chunk, if one is needed; return whether it was."""
        if self.oldest is not None and self.oldest < confirmed:
            self.window = None
        if self.sequence or self.unnumbered >= UNNUMBERED:
            self.numbers = None
        self.oldest = None
        floors = [floor for floor in (self.window, self.numbers) if floor is not None]
        return bool(floors) and self.next(min(floors))


class Backwards:
    """A consumer that belongs to no group. Raises KafkaException, KafkaUnavailable, ConfigError.

    Everything that waits raises Closed soon after `closed` is set.
    """

    def __init__(self, settings: Settings, stream: str, confirmed: LSN, closed: threading.Event) -> None:
        self._confirmed = confirmed
        self._closed = closed
        self._patience = PATIENCE_SECONDS
        self._heard = 0.0
        self._match = positions_of(stream)
        self._consumer = reader(
            settings.kafka,
            "cdc-publisher-tails",
            queued_max_messages_kbytes=16_384,
            queued_min_messages=20_000,
            fetch_max_bytes=8_388_608,
            fetch_wait_max_ms=20,  # each chunk waits for so long behind the last record
        )
        self._cluster = Cluster(settings.kafka)

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def partitions(self, topic: str) -> int:
        """Return the number of partitions; 0 when the topic does not exist."""
        asked = self._cluster.identities([topic], SECONDS)[topic]
        self._wait_for(asked)
        try:
            return identity(asked).partitions
        except KafkaException as error:
            if is_missing(error):
                return 0
            raise

    def begin(self, topic: str, partitions: int, since: int | None, *, numbers: bool) -> dict[int, Partition]:
        """Find where partitions end, and how far they have to be read: `since` is a time in milliseconds, or None."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                return self._begin(topic, partitions, since, numbers)
            except KafkaException as error:
                if error.args[0].code() not in _NOT_YET or time.monotonic() >= deadline:
                    raise
            self._closed.wait(_LOOK_SECONDS)

    def _begin(self, topic: str, partitions: int, since: int | None, numbers: bool) -> dict[int, Partition]:
        lows = self._cluster.offsets(topic, partitions, OffsetSpec.earliest(), SECONDS)
        highs = self._cluster.offsets(topic, partitions, OffsetSpec.latest(), SECONDS)
        then = None if since is None else OffsetSpec.for_timestamp(max(0, since - MARGIN_MS))
        thens = {} if then is None else self._cluster.offsets(topic, partitions, then, SECONDS)
        parts = {}
        for number in range(partitions):
            part = parts[number] = Partition(self._offset(lows[number]), self._offset(highs[number]))
            if thens:
                found = self._offset(thens[number])
                part.window = part.high if found < 0 else max(part.low, found)  # negative: nothing is as new
            if numbers:
                part.numbers = max(part.low, part.high - FARTHEST)
        return parts

    def read(self, topic: str, tag: int, parts: Mapping[int, Partition]) -> Generator[list[Sighting]]:
        """Yield the own records at or beyond the confirmed LSN, as of topic `tag`; fill the last numbers of `parts`."""
        with contextlib.suppress(KafkaException):
            # By itself the consumer requests the metadata of a new topic a second later.
            self._consumer.list_topics(topic, timeout=_LOOK_SECONDS)
        try:
            while chunk := {number: part for number, part in parts.items() if part.more(self._confirmed)}:
                yield from self._chunk(topic, tag, chunk)
        finally:
            self._consumer.unassign()
        for number, part in parts.items():
            if part.numbers is not None and part.numbers > part.low:
                log.warning(
                    "no own record with %s among the last %d of topic %r, partition %d: numbers start at 1 there",
                    *(SEQUENCE, FARTHEST, topic, number),
                    extra={"event": "sequence_not_found"},
                )

    def _offset(self, answer: Future[ListOffsetsResultInfo]) -> int:
        self._wait_for(answer)
        return int(answer.result().offset)

    def _wait_for(self, answer: Future[ListOffsetsResultInfo] | Future[TopicDescription]) -> None:
        while True:
            self._look()
            with contextlib.suppress(NotYet):
                answer.exception(_LOOK_SECONDS)
                return

    def _look(self) -> None:
        if self._closed.is_set():
            raise Closed

    def _chunk(self, topic: str, tag: int, parts: Mapping[int, Partition]) -> Generator[list[Sighting]]:
        """Yield the own records until the chunk is over in all partitions."""
        self._consumer.assign([TopicPartition(topic, number, part.start) for number, part in parts.items()])
        self._heard = last = time.monotonic()
        waited = 0.0
        while unread := [part for part in parts.values() if not part.over]:
            messages = receive(self._consumer, _LOOK_SECONDS, (topic,))
            self._look()
            if messages:
                yield self._ours(topic, tag, parts, messages)
            now = time.monotonic()
            if all(part.held_back for part in unread):
                self._patience -= now - last
                self._wait(topic, unread, waited, waited + now - last)
                waited += now - last
            elif now - self._heard >= SECONDS:
                raise errors.KafkaUnavailable(f"topic {topic!r} could not be read: no answer in {SECONDS:g} s")
            last = now

    def _wait(self, topic: str, held_back: Iterable[Partition], before: float, waited: float) -> None:
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
        self, topic: str, tag: int, parts: Mapping[int, Partition], messages: Iterable[Message]
    ) -> list[Sighting]:
        """Return the records of the stream whose events may be redelivered."""
        found: list[Sighting] = []
        confirmed, match, heard = self._confirmed, self._match, False
        for message in messages:
            number, offset = message.partition() or 0, message.offset() or 0
            part = parts.get(number) if message.topic() == topic else None  # else of one that was read before
            if part is None or part.over:
                continue
            if message.error() is not None:
                part.ended(offset)
                heard = True
                continue
            if not part.take(offset):
                continue
            heard = True
            headers = headers_of(message)
            third = headers[2][1] if len(headers) > 2 and headers[2][0] == POSITION else _first(headers, POSITION)
            position = match(third or b"")
            if position is None:
                continue
            commit_lsn = int(position[1], 16)
            name, text = headers[-1]
            if name not in _BY_HAND:
                if part.oldest is None:
                    part.oldest = commit_lsn
                if name != SEQUENCE:
                    part.unnumbered += 1
                elif text and len(text) < 19 and text.isdigit():
                    part.sequence = max(part.sequence, int(text))
            if commit_lsn >= confirmed:
                event_id = headers[0][1] if headers[0][0] == ID else _first(headers, ID)
                found.append((tag, commit_lsn, int(position[2], 16), number, event_id or b""))
        if heard:
            self._heard = time.monotonic()
        return found


def _first(headers: Pairs, wanted: str) -> bytes | None:
    return next((value for name, value in headers if name == wanted), None)
