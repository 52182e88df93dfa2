"""Administers Kafka: checks that it can be reached, describes topics and creates them."""

import contextlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Final, NamedTuple

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    ConfigEntry,
    ConfigResource,
    ListOffsetsResultInfo,
    OffsetSpec,
    ResourceType,
    TopicDescription,
)
from confluent_kafka.cimpl import NewPartitions, NewTopic

from cdc import errors
from cdc.config import librdkafka
from cdc.config.settings import Topics
from cdc.kafka.client import admin_client
from cdc.kafka.errors import kafka_error
from cdc.kafka.refusals import Complaints

REQUEST_SECONDS: Final = 10.0
_SOON_SECONDS: Final = 1.0


# Positions are one record per slot: one partition keeps them in order, and small segments keep them quick to read.
DEAD_LETTERS_CONFIG: Final[dict[str, librdkafka.Value]] = {
    "retention.ms": -1
}  # retention counts from the commit: old letters would be deleted at once
POSITIONS_CONFIG: Final[dict[str, librdkafka.Value]] = {
    "cleanup.policy": "compact",
    "segment.bytes": 16_777_216,
    "segment.ms": 3_600_000,
}


class Identity(NamedTuple):
    """Distinguishes a topic from a later one of the same name; and its numbers of partitions and replicas."""

    topic_id: str
    partitions: int
    replicas: int  # of the partition with the fewest


class GroupMember(NamedTuple):
    """A member of a consumer group, with the topics and partitions that are assigned to it."""

    client_id: str
    host: str
    partitions: frozenset[tuple[str, int]]


class TopicState(NamedTuple):
    """A topic that exists. Settings that the cluster does not have are not in `config`."""

    identity: Identity
    config: Mapping[str, str]
    hidden: str = ""  # why the settings may not be read


class Description:
    """A request for the description of a topic; `result` does not wait once it is `done`."""

    def __init__(self, identity: Future[TopicDescription], config: Future[dict[str, ConfigEntry]]) -> None:
        self._identity = identity
        self._config = config

    def done(self) -> bool:
        """Return whether the answers have arrived; never waits."""
        return self._identity.done() and self._config.done()

    def result(self) -> TopicState:
        """Return the topic; waits. Raises KafkaException: see `is_missing`."""
        found = identity(self._identity)
        try:
            entries = self._config.result()
        except KafkaException as error:
            if error.args[0].code() in _ASK_AGAIN:
                raise
            return TopicState(found, {}, hidden=error.args[0].str())
        return TopicState(found, {name: entry.value for name, entry in entries.items() if entry.value is not None})


_ASK_AGAIN: Final = (
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


def identity(answer: Future[TopicDescription]) -> Identity:
    """Read one answer of `identities`; waits. Raises KafkaException."""
    described = answer.result()
    replicas = min((len(partition.replicas) for partition in described.partitions), default=0)
    return Identity(str(described.topic_id), len(described.partitions), replicas)


class Cluster:
    """A Kafka cluster. Raises ConfigError when the properties are not librdkafka's."""

    def __init__(self, given: Mapping[str, librdkafka.Value]) -> None:
        self._bootstrap = str(given.get("bootstrap.servers", given.get("metadata.broker.list", "")))
        self._complaints = Complaints(given)
        self._admin = admin_client({**librdkafka.connection(given), "error_cb": self._complaints})

    def reach(self, seconds: float) -> int:
        """Return the number of brokers. Raises KafkaUnavailable when none answers in time, KafkaRefused when none will.

        A refusal ends the waiting soon, but not at once: another broker may accept the connection.
        """
        soon = min(_SOON_SECONDS, seconds / 2)
        with contextlib.suppress(KafkaException):
            return self._brokers(soon)
        try:
            return self._brokers(soon if self._complaints.refused else seconds - soon)
        except KafkaException as error:
            raise self._complaints.refusal() or errors.KafkaUnavailable(
                f"Kafka cannot be reached at {self._bootstrap}: {self._complaints.reason or error.args[0].str()}",
                hint='check that it runs, that [kafka] "bootstrap.servers" names it, and that "security.protocol" fits',
            ) from None

    def cluster_id(self, seconds: float = REQUEST_SECONDS) -> str:
        """Return the id of the cluster, which distinguishes it from others; waits. Raises CdcError."""
        try:
            return str(self._admin.describe_cluster(request_timeout=seconds).result().cluster_id or "")
        except KafkaException as error:
            raise kafka_error(error.args[0], "asking for the id of the cluster") from None

    def _brokers(self, seconds: float) -> int:
        try:
            return len(self._admin.list_topics(timeout=seconds).brokers)
        finally:
            self._admin.poll(0)  # calls error_cb

    def identities(
        self, topics: Iterable[str], seconds: float = REQUEST_SECONDS
    ) -> dict[str, Future[TopicDescription]]:
        """Request the identities of topics; see `identity` and `is_missing` for the answers."""
        return self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=seconds)

    def ends(self, topic: str, seconds: float = REQUEST_SECONDS, *, committed: bool = False) -> dict[int, int]:
        """Return the end offset of each partition; with `committed`, before open transactions. Raises KafkaException.

        It waits for the answer.
        """
        partitions = identity(self.identities([topic], seconds)[topic]).partitions
        places = [(topic, number) for number in range(partitions)]
        answers = self.offsets(places, OffsetSpec.latest(), seconds, committed=committed)
        return {number: answer.result().offset for (_, number), answer in answers.items()}

    def offsets(
        self, places: Iterable[tuple[str, int]], spec: OffsetSpec, seconds: float, *, committed: bool = False
    ) -> dict[tuple[str, int], Future[ListOffsetsResultInfo]]:
        """Request the offset of each partition that an OffsetSpec means; with `committed`, before open transactions."""
        asked = {TopicPartition(*place): spec for place in places}
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        answers = self._admin.list_offsets(asked, isolation_level=level, request_timeout=seconds)
        return {(part.topic, part.partition): answer for part, answer in answers.items()}

    def describe(self, topic: str) -> Description:
        """Request the identity and the settings of a topic."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        config = self._admin.describe_configs([resource], request_timeout=REQUEST_SECONDS)[resource]
        return Description(self.identities([topic])[topic], config)

    def create(self, topic: str, topics: Topics, config: Mapping[str, librdkafka.Value]) -> Future[None]:
        """Request the creation of a topic with the settings' partitions and replication factor."""
        new = NewTopic(
            topic,
            num_partitions=topics.partitions,
            replication_factor=topics.replication_factor,
            config={
                name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in config.items()
            },
        )
        return self._admin.create_topics([new], request_timeout=REQUEST_SECONDS)[topic]

    def grow(self, topic: str, partitions: int) -> None:
        """Give a topic so many partitions, unless it has them; waits. Raises CdcError."""
        try:
            self._admin.create_partitions([NewPartitions(topic, partitions)], request_timeout=REQUEST_SECONDS)[
                topic
            ].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.INVALID_PARTITIONS:  # another process was faster
                raise kafka_error(error.args[0], f"growing topic {topic!r}") from None

    def group_members(self, group: str, seconds: float = REQUEST_SECONDS) -> list[GroupMember]:
        """Return the members of a consumer group; none when there is no such group. Raises CdcError."""
        try:
            described = self._admin.describe_consumer_groups([group], request_timeout=seconds)[group].result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return []
            raise kafka_error(error.args[0], f"looking up group {group!r}") from None
        return [
            GroupMember(
                str(member.client_id),
                str(member.host).removeprefix("/"),
                frozenset((one.topic, one.partition) for one in member.assignment.topic_partitions),
            )
            for member in described.members
        ]

    def ensure_own_topics(self, topics: Topics) -> dict[str, bool]:
        """Create the publisher's own topics that are missing; return for each whether it was. Raises CdcError."""
        return {
            topics.positions: self.ensure_topic(topics, topics.positions, POSITIONS_CONFIG),
            topics.dead_letter: self.ensure_topic(topics, topics.dead_letter, DEAD_LETTERS_CONFIG),
        }

    def ensure_topic(
        self, topics: Topics, topic: str, config: Mapping[str, librdkafka.Value], partitions: int = 1
    ) -> bool:
        """Create one of the publisher's own topics when it is missing; return whether it was. Raises CdcError."""
        try:
            identity(self.identities([topic])[topic])
        except KafkaException as error:
            if not is_missing(error):
                raise kafka_error(error.args[0], f"looking up topic {topic!r}") from None
        else:
            return False
        return _created(topic, self.create(topic, topics.model_copy(update={"partitions": partitions}), config))


def _created(topic: str, future: Future[None]) -> bool:
    try:
        future.result()
    except KafkaException as error:
        if already_exists(error):
            return False
        raise kafka_error(error.args[0], f"creating topic {topic!r}") from None
    return True


def is_missing(error: BaseException) -> bool:
    """Return whether the answer of `identity` or `describe` means that the topic does not exist."""
    return isinstance(error, KafkaException) and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def already_exists(error: BaseException) -> bool:
    """Return whether the answer to `create` means that the topic was created meanwhile."""
    return isinstance(error, KafkaException) and error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
