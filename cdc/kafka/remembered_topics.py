"""Remembers each topic in the topic of positions before the first event is sent to it.

Kafka does not report that a topic was deleted and created again while no publisher ran: the events in it are gone, and
the new one takes the next events as if nothing had happened. The remembered ids are compared when a session begins, in
`cdc.delivery.slot_memory`.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message

from cdc import errors
from cdc.delivery.positions import RememberedTopic, topic_key
from cdc.kafka.cluster import Cluster, Identity, identity, is_missing
from cdc.kafka.errors import kafka_error
from cdc.kafka.positions import Writer
from cdc.kafka.topics import KnownTopics
from cdc.replication.settlement import delivered

_MORE: Final = 4
_MOST: Final = 256


def existing(cluster: Cluster, topics: Collection[str]) -> dict[str, RememberedTopic]:
    """Return what distinguishes topics now, of those that exist; waits for Kafka. Raises CdcError."""
    found = {}
    for topic, answer in cluster.identities(topics).items():
        try:
            there = identity(answer)
            found[topic] = RememberedTopic(there.topic_id, there.partitions)
        except KafkaException as error:
            if not is_missing(error):
                raise kafka_error(error.args[0], f"looking up topic {topic!r}") from None
    return found


class RememberedTopics:
    """The topics of one session: see `cdc.records.encoding.Topics`. `key` is that of the slot's record.

    `remembered` has the records of all topics; this object adds to it. Nothing here waits.
    """

    def __init__(self, writer: Writer, topics: KnownTopics, key: str, remembered: dict[str, RememberedTopic]) -> None:
        self._writer = writer
        self._topics = topics
        self._key = key
        self._remembered = remembered
        self._unasked: Iterator[str] | None = None  # of those remembered, when the first topic was used
        self._awaited: set[str] = set()
        self._beside = _MORE
        self._sure: dict[str, Identity] = {}
        self._writing: dict[str, RememberedTopic] = {}
        self._failure: errors.CdcError | None = None

    @property
    def changes(self) -> int:
        """See `KnownTopics`."""
        return self._topics.changes

    @property
    def most(self) -> int:
        """See `KnownTopics`."""
        return self._topics.most

    @property
    def refused(self) -> Mapping[str, str]:
        """See `KnownTopics`."""
        return self._topics.refused

    def partitions(self, topic: str) -> int | None:
        """See `KnownTopics`."""
        return self._topics.partitions(topic)

    def largest(self, topic: str) -> int | None:
        """Return what `KnownTopics.largest` does, once the topic is remembered; None until then.

        Raises what that does, and KafkaError and KafkaUnavailable when its record cannot be written.
        """
        largest, found = self._topics.largest(topic), self._topics.identity(topic)
        if largest is None and topic not in self._awaited:
            self._awaited.add(topic)
            self._ask_ahead()
        if largest is None or found is None or found is self._sure.get(topic):
            return largest
        record = RememberedTopic(found.topic_id, found.partitions)
        if self._remembered.get(topic) != record:
            self._write(topic, record)
            return None
        self._sure[topic] = found
        return largest

    def _ask_ahead(self) -> None:
        """Request more topics with each one that is waited for, as only few of them may be needed."""
        if self._unasked is None:
            self._unasked = iter(list(self._remembered))
        others = list(itertools.islice(self._unasked, self._beside))
        self._topics.ask_ahead(others)
        self._beside = min(self._beside * _MORE, _MOST)

    def _write(self, topic: str, record: RememberedTopic) -> None:
        if self._failure:
            raise self._failure
        try:
            if self._writing.get(topic) != record:
                self._writing[topic] = record
                self._writer.send(topic_key(self._key, topic), record.encode(), partial(self._reported, topic, record))
            self._writer.poll()
        except BufferError:
            self._writing.pop(topic, None)

    def _reported(self, topic: str, record: RememberedTopic, error: KafkaError | None, message: Message) -> None:
        if delivered(error, message):
            self._remembered[topic] = record
            return
        name = self._writer.topic
        self._failure = (
            kafka_error(error, f"writing to topic {name!r}")
            if error is not None
            else errors.KafkaUnavailable(f"topic {name!r} took a later record, and that of {topic!r} may be lost")
        )
