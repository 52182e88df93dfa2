"""The admin side of Kafka: can it be reached, which topics exist, creating them."""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from cdc import errors
from cdc.config.settings import Topics
from cdc.kafka import librdkafka, properties
from cdc.kafka.failure import kafka_error

REQUEST_SECONDS: Final = 10.0


class Cluster:
    """A Kafka cluster. Raises ConfigError when the properties are not librdkafka's."""

    def __init__(self, given: Mapping[str, properties.Value]) -> None:
        self._bootstrap = str(given.get("bootstrap.servers", given.get("metadata.broker.list", "")))
        try:
            self._admin = AdminClient(properties.connection(given), logger=librdkafka.silent)
        except KafkaException as error:
            raise errors.ConfigError(f"[kafka] {error.args[0].str()}") from None

    def reach(self, seconds: float) -> int:
        """The number of brokers. Raises KafkaUnavailable when none answers in time."""
        try:
            return len(self._admin.list_topics(timeout=seconds).brokers)
        except KafkaException as error:
            raise errors.KafkaUnavailable(
                f"Kafka cannot be reached at {self._bootstrap}: {error.args[0].str()}",
                hint='check that it runs and that [kafka] "bootstrap.servers" names it',
            ) from None

    def exists(self, topic: str) -> "Future[Any]":
        """Ask whether a topic exists; see `is_missing` for the answer."""
        futures: dict[str, Future[Any]] = self._admin.describe_topics(
            TopicCollection([topic]), request_timeout=REQUEST_SECONDS
        )
        return futures[topic]

    def create(self, topic: str, topics: Topics, config: Mapping[str, Any]) -> "Future[Any]":
        """Ask for a topic of the settings' partitions and replication factor."""
        new = NewTopic(
            topic,
            num_partitions=topics.partitions,
            replication_factor=topics.replication_factor,
            config={
                name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in config.items()
            },
        )
        futures: dict[str, Future[Any]] = self._admin.create_topics([new], request_timeout=REQUEST_SECONDS)
        return futures[topic]

    def ensure_own_topics(self, topics: Topics) -> dict[str, bool]:
        """Create our topics that are missing; returns for each whether it was created. Raises our errors."""
        wanted = {topics.positions: {"cleanup.policy": "compact"}, topics.dead_letter: {}}
        # Positions are one record per slot: one partition keeps them in order and quick to read.
        one_partition = topics.model_copy(update={"partitions": 1})
        futures = {topic: self.create(topic, one_partition, config) for topic, config in wanted.items()}
        return {topic: _created(topic, future) for topic, future in futures.items()}


def _created(topic: str, future: "Future[Any]") -> bool:
    try:
        future.result()
    except KafkaException as error:
        if already_exists(error):
            return False
        raise kafka_error(error.args[0], f"creating topic {topic!r}") from None
    return True


def is_missing(error: BaseException) -> bool:
    """Whether the answer to `exists` means that the topic does not exist."""
    return isinstance(error, KafkaException) and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def already_exists(error: BaseException) -> bool:
    """Whether the answer to `create` means that somebody was faster."""
    return isinstance(error, KafkaException) and error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
