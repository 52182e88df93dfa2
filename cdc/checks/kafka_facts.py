"""Read facts about a Kafka cluster for `check`, with requests that change nothing."""

import contextlib
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ConfigEntry,
    ConfigResource,
    DescribeClusterResult,
    ResourcePatternType,
    ResourceType,
    TopicDescription,
)

from cdc.config.librdkafka import Value, connection
from cdc.kafka.client import admin_client
from cdc.kafka.cluster import Cluster
from cdc.kafka.errors import kafka_error

SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 3.0


class Broker(NamedTuple):
    """One broker and its advertised address."""

    number: int
    host: str
    port: int
    failure: str  # why the address does not answer; empty if it does


class Clusters(NamedTuple):
    """The cluster. `operations` are those that the principal may perform on it; None if it does not report them."""

    name: str
    brokers: list[Broker]
    operations: frozenset[str] | None


class TopicFacts(NamedTuple):
    """One topic. `refusal` is why the principal may not describe it; `config` is None if it may not be read."""

    name: str
    exists: bool
    refusal: str = ""
    replicas: tuple[tuple[int, ...], ...] = ()  # by partition, brokers' numbers
    leaderless: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()  # partitions of which a replica is not in sync
    operations: frozenset[str] | None = None
    config: Mapping[str, str] | None = None

    @property
    def replication(self) -> int:
        """The number of replicas of the partition that has the fewest; 0 if there is no partition."""
        return min(map(len, self.replicas), default=0)


class Inspector:
    """An admin client of one cluster. Raises ConfigError if librdkafka rejects the properties."""

    def __init__(self, given: Mapping[str, Value]) -> None:
        self._given = given
        self._admin = admin_client(connection(given))

    def cluster(self, seconds: float = SECONDS) -> Clusters:
        """Read the brokers, and connect to each at its advertised address. Raises KafkaUnavailable and KafkaError."""
        Cluster(self._given).reach(seconds)
        try:
            metadata = self._admin.list_topics(timeout=seconds)
        except KafkaException as error:
            raise kafka_error(error.args[0], "listing the brokers") from None
        nodes = sorted((number, str(node.host), int(node.port)) for number, node in metadata.brokers.items())
        with ThreadPoolExecutor(min(len(nodes), 10) or 1) as callers:
            brokers = list(callers.map(_connect, nodes))
        # str() returns the cluster's id; the library's stub wrongly declares the attribute as None.
        return Clusters(str(metadata), brokers, None if all(one.failure for one in brokers) else self._operations())

    def _operations(self) -> frozenset[str] | None:
        try:
            found: DescribeClusterResult = self._admin.describe_cluster(
                include_authorized_operations=True, request_timeout=SECONDS
            ).result()
        except KafkaException as error:
            raise kafka_error(error.args[0], "describing the cluster") from None
        return _names(found.authorized_operations)

    def topics(self, names: Iterable[str]) -> list[TopicFacts]:
        """Describe topics and their settings, sorted by name. Raises KafkaUnavailable and KafkaError."""
        wanted = sorted(set(names))
        if not wanted:
            return []
        described = self._admin.describe_topics(
            TopicCollection(wanted), include_authorized_operations=True, request_timeout=SECONDS
        )
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in wanted]
        configs = self._admin.describe_configs(resources, request_timeout=SECONDS)
        return [_topic(name, described[name], configs[found]) for name, found in zip(wanted, resources, strict=True)]

    def broker_settings(self, number: int) -> Mapping[str, str] | None:
        """Read a broker's settings; None without the right to. Raises KafkaUnavailable and KafkaError."""
        resource = ConfigResource(ResourceType.BROKER, str(number))
        return _config(self._admin.describe_configs([resource], request_timeout=SECONDS)[resource], f"broker {number}")

    def may_write(self, transactional_id: str, principal: str) -> bool | None:
        """Return whether an ACL allows the principal to use a transactional id; None if ACLs cannot be read."""
        any_value: Any = None  # the library accepts None, but declares str
        asked = AclBindingFilter(
            ResourceType.TRANSACTIONAL_ID,
            transactional_id,
            ResourcePatternType.MATCH,
            any_value,
            any_value,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        try:
            found: list[AclBinding] = self._admin.describe_acls(asked, request_timeout=SECONDS).result()
        except KafkaException:
            return None
        allowed: dict[AclPermissionType | str | int, bool] = {
            AclPermissionType.ALLOW: False,
            AclPermissionType.DENY: False,
        }
        for entry in found:
            if entry.principal in (principal, "User:*") and entry.operation in (AclOperation.WRITE, AclOperation.ALL):
                allowed[entry.permission_type] = True
        return allowed[AclPermissionType.ALLOW] and not allowed[AclPermissionType.DENY]


def _connect(node: tuple[int, str, int]) -> Broker:
    number, host, port = node
    failure = ""
    try:
        with contextlib.closing(socket.create_connection((host, port), _CONNECT_SECONDS)):
            pass
    except OSError as error:
        failure = error.strerror or str(error) or type(error).__name__
    return Broker(number, host, port, failure)


def _topic(name: str, described: Future[TopicDescription], config: Future[dict[str, ConfigEntry]]) -> TopicFacts:
    try:
        found = described.result()
    except KafkaException as error:
        with contextlib.suppress(KafkaException):
            config.result()
        reason = error.args[0]
        if reason.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return TopicFacts(name, exists=False)
        if reason.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return TopicFacts(name, exists=False, refusal=reason.str())
        raise kafka_error(reason, f"looking up topic {name!r}") from None
    partitions = sorted(found.partitions, key=lambda partition: partition.id)
    return TopicFacts(
        name,
        exists=True,
        replicas=tuple(tuple(int(node.id) for node in partition.replicas) for partition in partitions),
        leaderless=tuple(
            partition.id for partition in partitions if partition.leader is None or partition.leader.id < 0
        ),
        behind=tuple(partition.id for partition in partitions if len(partition.isr) < len(partition.replicas)),
        operations=_names(found.authorized_operations),
        config=_config(config, f"topic {name!r}"),
    )


def _config(answer: Future[dict[str, ConfigEntry]], of: str) -> Mapping[str, str] | None:
    try:
        entries = answer.result()
    except KafkaException as error:
        reason = error.args[0]
        if reason.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
            return None
        raise kafka_error(reason, f"reading the settings of {of}") from None
    return {name: entry.value for name, entry in entries.items() if entry.value is not None}


def _names(operations: Iterable[Enum] | None) -> frozenset[str] | None:
    return None if operations is None else frozenset(operation.name for operation in operations)
