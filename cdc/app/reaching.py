"""Reaches Kafka, and reads what it remembers of the slot: what a session needs before it asks PostgreSQL anything.

Nothing is changed there, so it can begin beside other work: mostly it waits.
"""

from typing import Final, NamedTuple

from cdc.config.settings import Settings
from cdc.delivery.positions import AT_LEAST_ONCE
from cdc.kafka import positions
from cdc.kafka.cluster import Cluster

_REACH_SECONDS: Final = 5.0


class Reached(NamedTuple):
    """The connection that all sessions ask Kafka by, the cluster's id, and what is remembered there."""

    cluster: Cluster
    cluster_id: str
    positions: positions.Reader


def reach(settings: Settings) -> Reached:
    """Connect to Kafka. Raises ConfigError, KafkaUnavailable, KafkaRefused and KafkaError."""
    cluster = Cluster(settings.kafka)
    cluster.reach(_REACH_SECONDS)
    reader = positions.Reader(settings, cluster, settings.postgres.slot)
    reader.look(waits=settings.delivery.guarantee == AT_LEAST_ONCE)
    return Reached(cluster, cluster.cluster_id(), reader)
