"""Reads back what the topics hold of the publisher's own stream, when a session begins.

Each topic is read when it is first used, as far back as there may be records beyond the LSN that the slot confirmed;
and to the last sequence number, where numbers are enabled. Other topics that the publisher is known to use are read
beside it. Records that cannot be read count as missing, and are sent again: only records that a `read_committed`
consumer receives count as sent.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from cdc import errors
from cdc.background import Background
from cdc.config.settings import Settings
from cdc.kafka.cluster import Cluster
from cdc.kafka.errors import kafka_error
from cdc.kafka.readback.consumer import KafkaLog
from cdc.kafka.readback.seen import SeenPositions
from cdc.kafka.readback.tail import Readback, Tail
from cdc.lsn import LSN

log = logging.getLogger(__name__)

_MORE: Final = 4  # times as many topics are read beside each further one that is asked for
_MOST: Final = 1000


class Tails:
    """Reads tails on a background thread, each when its topic is first used; all methods belong to one thread.

    `known` returns the topics that the publisher has used before. Without `commit_times`, records have times of a
    column, and only positions say how far topics have to be read. `by_id`: records are looked up by their ids. `floors`
    are offsets by topic and partition before which there is nothing of the stream.
    """

    def __init__(
        self,
        settings: Settings,
        stream: str,
        confirmed: LSN,
        *,
        sequences: bool,
        known: Callable[[], Iterable[str]] = tuple,
        commit_times: bool = True,
        cluster: Cluster | None = None,
        by_id: bool = False,
        floors: Mapping[str, Mapping[int, int]] = MappingProxyType({}),
    ) -> None:
        self._settings = settings
        self._stream = stream
        self._confirmed = confirmed
        self._sequences = sequences
        self._known = known
        self._commit_times = commit_times
        self._cluster = cluster
        self._floors = floors
        self._seen = SeenPositions(threading.Lock(), by_id=by_id)
        self._forgotten = threading.Event()
        self._background: Background[str, Tail] = Background("tails", self._leave)
        # These belong to the thread.
        self._log: KafkaLog | None = None
        self._readback: Readback | None = None
        self._read: dict[str, Tail] = {}
        self._partitions: dict[str, int] = {}  # of the topics that were read last
        self._others = 1  # topics beside the next one
        self._alone = False
        self._told = False

    def ask(self, topic: str, since: int) -> Tail | None:
        """Return what a topic holds; None while it is being read. Never waits.

        `since` is the commit time of its first event that is redelivered, in milliseconds. Raises KafkaUnavailable for
        what a new session may fix, KafkaError and CdcError for what it does not; to ask after that is to try again.
        """
        return self._background.ask(topic, self._tail, topic, since)

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
        if self._log:
            with contextlib.suppress(KafkaException, RuntimeError):
                self._log.close()
        self._log = self._readback = None

    def _tail(self, topic: str, since: int) -> Tail:
        if topic not in self._read:
            self._read |= self._topics(topic, since)
        return self._read[topic]

    def _topics(self, topic: str, since: int) -> dict[str, Tail]:
        """Read a topic, and others beside it; if that fails, only this one."""
        if others := self._beside(topic):
            try:
                return self._together(topic, since, others)
            except (KafkaException, errors.CdcError):
                self._alone = True
        try:
            return self._together(topic, since, [])
        except KafkaException as error:
            self._refused(topic, error.args[0])
            return {topic: Tail(self._seen, self._partitions.get(topic, 0))}

    def _together(self, topic: str, since: int, others: list[str]) -> dict[str, Tail]:
        try:
            if self._log is None:
                self._log = KafkaLog(self._settings, self._background.closed, self._cluster)
            self._partitions = self._log.partitions([topic, *others])
            if self._readback is None:
                self._readback = Readback(
                    self._log,
                    self._stream,
                    self._confirmed,
                    self._seen,
                    sequences=self._sequences,
                    floors=self._floors,
                )
            begin = since if self._commit_times else 0
            return self._readback.read(topic, self._partitions, None if self._forgotten.is_set() else begin)
        except BaseException:
            self._leave()
            raise

    def _beside(self, topic: str) -> list[str]:
        """Return topics to read beside one: each time more, as only few of them may be needed."""
        if self._alone:
            return []
        others = [other for other in self._known() if other != topic and other not in self._read]
        self._others = min(self._others * _MORE, _MOST)
        return others[: self._others]

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
