"""Reads back what the topics hold of the publisher's own stream, when a session begins.

Each topic is read when it is first used, as far back as there may be records beyond the LSN that the slot confirmed;
and to the last sequence number, where numbers are enabled. Records that cannot be read count as missing, and are sent
again: only records that a `read_committed` consumer receives count as sent.
"""

import contextlib
import itertools
import logging
import threading

from confluent_kafka import KafkaError, KafkaException

from cdc import errors
from cdc.background import Background
from cdc.config.settings import Settings
from cdc.kafka.errors import kafka_error
from cdc.kafka.readback.backwards import Backwards
from cdc.kafka.readback.seen import Seen
from cdc.lsn import LSN

log = logging.getLogger(__name__)


class Tail:
    """The records of the publisher's stream in one topic, at and beyond an LSN."""

    def __init__(self, seen: Seen, number: int) -> None:
        self.partitions = 0  # how many the topic had when it was read; 0: it did not exist
        self.highest = LSN(0)  # the last transaction that has a record
        self.sequences: dict[int, int] = {}  # by partition
        self.number = number  # of the topic, in `seen`
        self._seen = seen

    def id_at(self, partition: int | None, commit_lsn: int, index: int) -> str | None:
        """Return the id of the record of a position; None when there is none. A partition of None means any."""
        return self._seen.id_at(self.number, partition, commit_lsn, index)

    def elsewhere(self, partition: int, commit_lsn: int, index: int) -> bool:
        """Return whether a position is in another partition than this."""
        return self._seen.elsewhere(self.number, partition, commit_lsn, index)

    def sequence(self, partition: int) -> int:
        """Return the last number in the header `cdc-sequence` of a partition; 0 when there is none."""
        return self.sequences.get(partition, 0)


class Tails:
    """Reads tails on a background thread, each when its topic is first used; all methods belong to one thread."""

    def __init__(self, settings: Settings, stream: str, confirmed: LSN, *, sequences: bool) -> None:
        self._settings = settings
        self._stream = stream
        self._confirmed = confirmed
        self._sequences = sequences
        self._seen = Seen()
        self._forgotten = threading.Event()
        self._backwards: Backwards | None = None  # belongs to the thread
        self._numbers = itertools.count()
        self._background: Background[str, Tail] = Background("tails", self._leave)
        self._told = False

    def ask(self, topic: str, since: int) -> Tail | None:
        """Return what a topic holds; None while it is being read. Never waits.

        `since` is the commit time of its first event that is redelivered, in milliseconds. Raises KafkaUnavailable for
        what a new session may fix, KafkaError and CdcError for what it does not; to ask after that is to try again.
        """
        return self._background.ask(topic, self._read, topic, since)

    def forget(self) -> None:
        """Drop the positions, which are not needed any more; numbers may be."""
        self._forgotten.set()
        self._seen.forget()
        self._background.run(self._leave)  # the connection is used rarely from now on

    def close(self) -> None:
        """Stop reading."""
        self._background.close()
        self._seen.forget()

    def _leave(self) -> None:
        if self._backwards:
            with contextlib.suppress(KafkaException, RuntimeError):
                self._backwards.close()
            self._backwards = None

    def _read(self, topic: str, since: int) -> Tail:
        try:
            return self._tail(topic, since)
        except BaseException:
            self._leave()
            raise

    def _tail(self, topic: str, since: int) -> Tail:
        tail = Tail(self._seen, next(self._numbers))
        try:
            if self._backwards is None:
                closed = self._background.closed
                self._backwards = Backwards(self._settings, self._stream, self._confirmed, closed)
            tail.partitions = self._backwards.partitions(topic)
            again = None if self._forgotten.is_set() else since
            if tail.partitions and (again is not None or self._sequences):
                self._fill(tail, self._backwards, topic, again)
        except KafkaException as error:
            self._refused(topic, error.args[0])
        return tail

    def _fill(self, tail: Tail, backwards: Backwards, topic: str, since: int | None) -> None:
        parts = backwards.begin(topic, tail.partitions, since, numbers=self._sequences)
        with contextlib.closing(backwards.read(topic, tail.number, parts)) as reading:
            for found in reading:
                self._seen.add(found)
                tail.highest = LSN(max([tail.highest, *(commit_lsn for _, commit_lsn, _, _, _ in found)]))
        tail.sequences = {partition: part.sequence for partition, part in parts.items()}
        if differing := self._seen.differing(tail.number):
            log.warning(
                "topic %r has %d own positions with more than one id each",
                topic,
                differing,
                extra={"event": "positions_ambiguous"},
            )

    def _refused(self, topic: str, error: KafkaError) -> None:
        """Raise the error, or log it where the content of the topic is not required."""
        hint = f"grant the principal READ on the topic {topic!r}"
        if error.code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise kafka_error(error, f"reading topic {topic!r}")
        if self._sequences:
            raise errors.KafkaError(f"Kafka, reading topic {topic!r}: {error.str()} ({error.name()})", hint=hint)
        if not self._told:
            self._told = True
            log.warning(
                "topic %r cannot be read: events may be sent twice after a crash; %s",
                topic,
                hint,
                extra={"event": "topic_unreadable"},
            )
