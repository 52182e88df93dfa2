"""Reads and writes the compacted topic of positions; see `cdc.delivery.positions` for its records."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message

from cdc import errors
from cdc.config.settings import Settings
from cdc.delivery.positions import Memory, memory
from cdc.kafka import client
from cdc.kafka.cluster import POSITIONS_CONFIG, REQUEST_SECONDS, Cluster, is_missing
from cdc.kafka.errors import kafka_error
from cdc.kafka.reading import Place, read

log = logging.getLogger(__name__)

SECONDS: Final = 30.0


def ensure(settings: Settings) -> bool:
    """Create the topic when it is missing; return whether it was. Raises CdcError."""
    topic = settings.topics.positions
    cluster = Cluster(settings.kafka)
    if cluster.ensure_topic(settings.topics, topic, POSITIONS_CONFIG):
        log.info("created topic", extra={"event": "topic_created", "topic": topic})
        return True
    try:
        config = cluster.describe(topic).result().config
    except KafkaException as error:
        raise kafka_error(error.args[0], f"looking up topic {topic!r}") from None
    if config.get("cleanup.policy", "compact") != "compact":
        log.warning(
            "topic %r has cleanup.policy %s: positions will be forgotten; set it to compact",
            topic,
            config["cleanup.policy"],
            extra={"event": "positions_not_compacted"},
        )
    return False


def _records(settings: Settings, seconds: float) -> Iterator[Message]:
    """Yield the committed records of the topic, the oldest of each partition first. Raises what `dated` does."""
    topic = settings.topics.positions
    consumer = client.reader(settings.kafka, topic, fetch_wait_max_ms=50)  # at the end nothing more is to come
    with contextlib.closing(consumer):
        try:
            # All partitions from their beginning, since keys have moved where partitions were added.
            ends = _ends(consumer, topic, Cluster(settings.kafka), min(seconds, REQUEST_SECONDS))
            for records in read(consumer, dict.fromkeys(ends, 0), ends, seconds):
                yield from records
        except KafkaException as error:
            raise kafka_error(error.args[0], f"reading topic {topic!r}") from None


def values(settings: Settings, key: str, seconds: float = SECONDS) -> Iterator[bytes | None]:
    """Yield the values of a key that the topic holds, the oldest first; none when the topic is missing.

    Raises what `dated` does.
    """
    return (value for value, _ in dated(settings, key, seconds))


def dated(settings: Settings, key: str, seconds: float = SECONDS) -> Iterator[tuple[bytes | None, int]]:
    """Yield the same values with the time of each record, in unix milliseconds.

    Reads committed records only, and waits for the end of open transactions of other slots. Raises KafkaUnavailable
    when no record arrives for `seconds`, KafkaError when reading is not allowed.
    """
    wanted = key.encode()
    yield from ((one.value(), one.timestamp()[1]) for one in _records(settings, seconds) if one.key() == wanted)


def remembered(settings: Settings, key: str, seconds: float = SECONDS) -> Memory:
    """Return what is remembered of a slot. Raises what `dated` does, and KafkaError for a record of something else."""
    try:
        return memory(key, ((one.key(), one.value()) for one in _records(settings, seconds)))
    except ValueError as error:
        raise errors.KafkaError(
            f"topic {settings.topics.positions!r} holds something else about slot {key!r}: {error}",
            hint="name another topic in [topics] positions, or delete its record of this key",
        ) from None


def forget(settings: Settings, key: str, seconds: float = 10.0, *, topics: bool = True) -> None:
    """Delete the record of a slot and, with `topics`, those of its topics, if there are any. Raises CdcError."""
    Cluster(settings.kafka).reach(seconds)  # its error says why Kafka cannot be reached
    last = {one.key() or b"": one.value() for one in _records(settings, seconds)}
    slot, prefix = key.encode(), f"{key}/".encode()
    kept = [name for name, value in last.items() if value and (name == slot or (topics and name.startswith(prefix)))]
    for name in kept:
        write(settings, name.decode(), None, seconds)


def write(settings: Settings, key: str, value: bytes | None, seconds: float = SECONDS) -> None:
    """Write one record and wait for its delivery; None deletes the key.

    Raises KafkaUnavailable when that takes longer than `seconds`: the record may have been written.
    """
    client.write(settings.kafka, settings.topics.positions, [(key.encode(), value)], seconds)


def _ends(consumer: Consumer, topic: str, cluster: Cluster, seconds: float) -> dict[Place, int]:
    """Return the end of each partition; none when the topic is missing. Raises KafkaException."""
    try:
        ends = cluster.ends(topic, seconds)
    except KafkaException as error:
        if is_missing(error):
            return {}
        raise
    consumer.list_topics(topic, timeout=seconds)  # or it would ask for the leaders a second later
    return {(topic, number): end for number, end in ends.items()}
