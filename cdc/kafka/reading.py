"""Reads partitions from one offset to another, by consumers that belong to no group: see `cdc.kafka.client.reader`."""

import time
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from cdc.errors import KafkaUnavailable

_POLL_SECONDS: Final = 0.5
_BURST: Final = 2000
_HARMLESS: Final = KafkaError.GROUP_AUTHORIZATION_FAILED  # the group is a name only

Place = tuple[str, int]
"""Topic and partition."""


def place_of(message: Message) -> Place:
    """Return the topic and partition of a message."""
    return message.topic() or "", message.partition() or 0


def receive(consumer: Consumer, seconds: float, topics: Collection[str]) -> list[Message]:
    """Return what has arrived, waiting at most `seconds` for the first message: records and ends of partitions.

    Of these only the ends have an `error`. Raises KafkaException for other errors of the topics, unless librdkafka
    tries again.
    """
    # consume() waits until it has as many messages as it is asked for.
    messages = consumer.consume(1, seconds)
    if messages:
        messages += consumer.consume(_BURST, 0)
    return [message for message in messages if _counts(message, topics)]


def _counts(message: Message, topics: Collection[str]) -> bool:
    error, topic = message.error(), message.topic()
    if error is None or error.code() == KafkaError._PARTITION_EOF:
        return True
    if (topic is None or topic in topics) and not error.retriable() and error.code() != _HARMLESS:
        raise KafkaException(error)
    return False


def read(
    consumer: Consumer, reached: dict[Place, int], ends: Mapping[Place, int], seconds: float
) -> Iterator[list[Message]]:
    """Yield the records from the offsets `reached` to before `ends`, in the order of each partition.

    Moves `reached` along. Raises KafkaException, and KafkaUnavailable when no record arrives for `seconds`.
    """
    unread = {place for place, end in ends.items() if reached[place] < end}
    topics = {topic for topic, _ in unread}
    consumer.assign([TopicPartition(*place, reached[place]) for place in sorted(unread)])
    deadline = time.monotonic() + seconds
    while unread:
        records = []
        for message in receive(consumer, _POLL_SECONDS, topics):
            place, offset, is_record = place_of(message), message.offset() or 0, message.error() is None
            if place not in unread:
                continue
            if is_record and offset < ends[place]:
                records.append(message)
            # Markers of transactions may follow the last record. Before an open transaction a partition ends too early.
            reached[place] = max(reached[place], min(offset + is_record, ends[place]))
            if reached[place] == ends[place]:
                unread.discard(place)
        if records:
            deadline = time.monotonic() + seconds
            yield records
        elif time.monotonic() >= deadline:
            topic, number = place = min(unread)
            raise KafkaUnavailable(
                f"topic {topic!r}, partition {number} could not be read beyond offset {reached[place]} of"
                f" {ends[place]}: no records for {seconds:g} s",
                hint="an open transaction of another producer may hold it up, or a broker is down: try again",
            )
    consumer.unassign()
