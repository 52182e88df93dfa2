"""What the topics hold already of our own stream, read back when a session begins.

Each topic is read when it is first asked for, as far back as there may be records beyond what the slot confirmed; and,
where numbers are wanted, to the last one. What cannot be read counts as not there, so that it is sent again: only
records that a `read_committed` consumer gets are ever taken for sent.
"""

import contextlib
import itertools
import logging
import queue
import threading
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from cdc import errors
from cdc.config.settings import Settings
from cdc.kafka.errors import kafka_error
from cdc.kafka.readback.backwards import Backwards, Closed
from cdc.kafka.readback.seen import Seen
from cdc.lsn import LSN

log = logging.getLogger(__name__)

_CLOSE_SECONDS: Final = 1.0


class Tail:
    """What one topic holds of our stream at and beyond an LSN."""

    def __init__(self, seen: Seen, number: int) -> None:
        self.partitions = 0  # how many the topic had when it was read; 0: it did not exist
        self.highest = LSN(0)  # the last transaction of which there is a record
        self.sequences: dict[int, int] = {}  # by partition
        self.number = number  # of the topic, in `seen`
        self._seen = seen

    def id_at(self, partition: int | None, commit_lsn: int, index: int) -> str | None:
        """The id of the record of a position; None when there is none. A partition of None means any."""
        return self._seen.id_at(self.number, partition, commit_lsn, index)

    def elsewhere(self, partition: int, commit_lsn: int, index: int) -> bool:
        """Whether a position is in another partition than this."""
        return self._seen.elsewhere(self.number, partition, commit_lsn, index)

    def sequence(self, partition: int) -> int:
        """The last number in the header `cdc-sequence` of a partition; 0 when there is none."""
        return self.sequences.get(partition, 0)


class Tails:
    """Reads tails, each when its topic is first asked for, in a thread of its own; all else belongs to one thread."""

    def __init__(self, settings: Settings, stream: str, confirmed: LSN, *, sequences: bool) -> None:
        self._settings = settings
        self._stream = stream
        self._confirmed = confirmed
        self._sequences = sequences
        self._seen = Seen()
        # Written by the worker only, but that failures are taken out when they are raised.
        self._tails: dict[str, Tail] = {}
        self._failures: dict[str, Exception] = {}
        self._asked: set[str] = set()
        self._jobs: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()  # None: look what has changed
        self._forgotten = threading.Event()
        self._closed = threading.Event()
        self._worker: threading.Thread | None = None
        self._backwards: Backwards | None = None  # the worker's
        self._numbers = itertools.count()
        self._told = False

    def ask(self, topic: str, since: int) -> Tail | None:
        """What a topic holds; None while it is being read: never waits.

        `since` is the commit time of its first event that comes again, in milliseconds. Raises KafkaUnavailable for
        what a new session may mend, KafkaError and CdcError for what it does not; to ask after that is to try anew.
        """
        tail = self._tails.get(topic)
        if tail is None:
            if topic not in self._asked:
                self._asked.add(topic)
                self._jobs.put((topic, since))
                self._start()
            elif topic in self._failures:
                self._asked.discard(topic)
                raise self._failures.pop(topic)
        return tail

    def forget(self) -> None:
        """No position will be asked for any more, but numbers may be."""
        self._forgotten.set()
        self._seen.forget()
        self._jobs.put(None)

    def close(self) -> None:
        """Stop reading."""
        self._closed.set()
        self._jobs.put(None)
        if self._worker:
            self._worker.join(_CLOSE_SECONDS)
        self._seen.forget()

    def _start(self) -> None:
        if self._worker is None:
            # A pool of concurrent.futures is no daemon: a Kafka that hangs would hold up the end of the process.
            self._worker = threading.Thread(target=self._work, name="tails", daemon=True)
            self._worker.start()

    def _work(self) -> None:
        while not self._closed.is_set():
            job = self._jobs.get()
            if job is None:
                self._leave()  # it is used rarely from now on
                continue
            topic, since = job
            try:
                self._tails[topic] = self._read(topic, since)
            except Closed:
                break
            except Exception as error:  # whatever it is belongs to who asked
                self._failures[topic] = error
                self._leave()
        self._leave()

    def _leave(self) -> None:
        if self._backwards:
            with contextlib.suppress(KafkaException, RuntimeError):
                self._backwards.close()
            self._backwards = None

    def _read(self, topic: str, since: int) -> Tail:
        tail = Tail(self._seen, next(self._numbers))
        try:
            if self._backwards is None:
                self._backwards = Backwards(self._settings, self._stream, self._confirmed, self._closed)
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
            log.warning("topic %r has %d positions of ours with more than one id each", topic, differing)

    def _refused(self, topic: str, error: KafkaError) -> None:
        """Raises one of our errors, unless what is in the topic need not be known."""
        hint = f"grant the principal READ on the topic {topic!r}"
        if error.code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise kafka_error(error, f"reading topic {topic!r}")
        if self._sequences:
            raise errors.KafkaError(f"Kafka, reading topic {topic!r}: {error.str()} ({error.name()})", hint=hint)
        if not self._told:
            self._told = True
            log.warning("what topic %r holds cannot be read: events may be sent twice after a crash; %s", topic, hint)
