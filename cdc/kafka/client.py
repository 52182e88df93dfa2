"""Consumers that belong to no group: they read what is committed, from where they are told to, and commit nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message

from cdc.config import librdkafka as properties
from cdc.kafka import librdkafka
from cdc.kafka.errors import not_created

Headers = Sequence[tuple[str, bytes | None]]


def reader(given: Mapping[str, properties.Value], name: str, **more: int) -> Consumer:
    """A reader of the cluster that `given` names; `more` are librdkafka's properties, with _ for each dot.

    Raises ConfigError when the properties are not librdkafka's.
    """
    made = {
        **properties.connection(given),
        # Required, but there is no group: nothing joins, nothing is committed, and no right to it is needed.
        "group.id": name,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",  # the oldest may be deleted while the others are read
        "isolation.level": "read_committed",
        "fetch.queue.backoff.ms": 5,  # it would rest for a second whenever its queue is full
        **{name.replace("_", "."): value for name, value in more.items()},
    }
    try:
        return Consumer(made, logger=librdkafka.silent)
    except KafkaException as error:
        raise not_created(error) from None


def burst(consumer: Consumer, seconds: float, most: int = 2000) -> list[Message]:
    """What is there; the first is waited for, at most for so long. Raises KafkaException."""
    # Asked for many, it would wait for all of them.
    messages = consumer.consume(1, seconds)
    return messages + consumer.consume(most, 0) if messages else []


def headers_of(message: Message) -> Headers:
    """The headers of a consumed record: in their order, with values of bytes, unlike those of a record to send."""
    found: Any = message.headers() or ()
    read: Headers = found
    return read
