"""Reads and writes the compacted topic of positions; see `cdc.delivery.positions` for its records."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from cdc import errors
from cdc.config.settings import Settings
from cdc.delivery.positions import Memory, memory
from cdc.kafka import client
from cdc.kafka.cluster import POSITIONS_CONFIG, REQUEST_SECONDS, Cluster, is_missing
from cdc.kafka.errors import kafka_error
from cdc.kafka.reading import Place, read

log = logging.getLogger(__name__)

SECONDS: Final = 30.0


def ensure(settings: Settings, cluster: Cluster | None = None) -> bool:
    """Create the topic when it is missing; return whether it was. Raises CdcError."""
    topic = settings.topics.positions
    cluster = cluster or Cluster(settings.kafka)
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


class Reader:
    """Reads the topic, each time only what is new. Close it soon: it keeps a connection.

    It remembers what the topic holds of slots of the name `slot`, of which only the server's identifier is missing
    until PostgreSQL answers.
    """

    def __init__(self, settings: Settings, cluster: Cluster | None = None, slot: str = "") -> None:
        self.exists = False  # the topic, as far as it was read
        self._settings = settings
        self._cluster = cluster or Cluster(settings.kafka)
        self._slot = slot.encode()
        self._consumer: Consumer | None = None
        self._reached: dict[Place, int] = {}
        self._kept: list[tuple[bytes | None, bytes | None]] = []

    def memory(self, key: str, seconds: float = SECONDS, *, waits: bool = True) -> Memory:
        """Return what `remembered` does; for `waits` see `news`."""
        self.look(seconds, waits=waits)
        try:
            return memory(key, self._kept)
        except ValueError as error:
            raise errors.KafkaError(
                f"topic {self._settings.topics.positions!r} holds something else about slot {key!r}: {error}",
                hint="name another topic in [topics] positions, or delete its record of this key",
            ) from None

    def look(self, seconds: float = SECONDS, *, waits: bool = True) -> None:
        """Read what is new about the slots; for `waits` see `news`. Raises what `dated` does."""
        news = ((one.key(), one.value()) for one in self.news(seconds, waits=waits))
        self._kept += [(name, value) for name, value in news if (name or b"").split(b"/")[1:2] == [self._slot]]

    def news(self, seconds: float, *, waits: bool = True) -> Iterator[Message]:
        """Yield the committed records that are new, the oldest of each partition first. Raises what `dated` does.

        It `waits` for the end of open transactions, or leaves out what is behind the first of them.
        """
        topic = self._settings.topics.positions
        try:
            ends = self._ends(topic, min(seconds, REQUEST_SECONDS), committed=not waits)
            self.exists = bool(ends)
            # All partitions from their beginning, since keys have moved where partitions were added.
            self._reached = {place: self._reached.get(place, 0) for place in ends}
            if any(self._reached[place] < end for place, end in ends.items()):
                for records in read(self._connected(topic, seconds), self._reached, ends, seconds):
                    yield from records
        except KafkaException as error:
            raise kafka_error(error.args[0], f"reading topic {topic!r}") from None

    def close(self) -> None:
        """Close the connection, and forget everything."""
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = None
        self._reached, self._kept = {}, []

    def _connected(self, topic: str, seconds: float) -> Consumer:
        if self._consumer is None:
            # At the end nothing more is to come.
            self._consumer = client.reader(self._settings.kafka, topic, fetch_wait_max_ms=50)
            # Or it would ask for the leaders a second later.
            self._consumer.list_topics(topic, timeout=min(seconds, REQUEST_SECONDS))
        return self._consumer

    def _ends(self, topic: str, seconds: float, *, committed: bool) -> dict[Place, int]:
        """Return the end of each partition; none when the topic is missing. Raises KafkaException."""
        try:
            ends = self._cluster.ends(topic, seconds, committed=committed)
        except KafkaException as error:
            if is_missing(error):
                return {}
            raise
        return {(topic, number): end for number, end in ends.items()}


def _records(settings: Settings, seconds: float) -> Iterator[Message]:
    """Yield the committed records of the topic, the oldest of each partition first. Raises what `dated` does."""
    with contextlib.closing(Reader(settings)) as reader:
        yield from reader.news(seconds)


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
    with contextlib.closing(Reader(settings, slot=key.partition("/")[2])) as reader:
        return reader.memory(key, seconds)


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


class Writer:
    """Writes records by one producer, which connects when the first is written. One thread owns this object."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.topic: Final = settings.topics.positions
        self._producer: Producer | None = None

    def write(self, key: str, value: bytes | None, seconds: float = SECONDS) -> None:
        """Write one record and wait for its delivery; None deletes the key.

        Raises KafkaUnavailable when that takes longer than `seconds`: the record may have been written.
        """
        client.deliver(self._connected(), self.topic, [(key.encode(), value)], seconds)

    def send(self, key: str, value: bytes, reported: Callable[[KafkaError | None, Message], None]) -> None:
        """Queue one record without waiting; `reported` is called by `poll`. Raises BufferError, and CdcError."""
        is_new = self._producer is None
        try:
            producer = self._connected()
            producer.produce(self.topic, value, key.encode(), on_delivery=reported)
            if is_new:
                client.prepare(producer, self.topic)
        except KafkaException as error:
            raise kafka_error(error.args[0], f"writing to topic {self.topic!r}") from None

    def poll(self) -> None:
        """Serve the reports that have arrived. Raises CdcError."""
        try:
            if self._producer is not None:
                self._producer.poll(0)
        except KafkaException as error:
            raise kafka_error(error.args[0], f"writing to topic {self.topic!r}") from None

    def close(self) -> None:
        """Drop what was not written."""
        if self._producer is not None:
            self._producer.purge(in_flight=False)
            self._producer = None

    def _connected(self) -> Producer:
        if self._producer is None:
            self._producer = client.prompt_producer(self._settings.kafka)
        return self._producer
