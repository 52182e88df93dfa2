"""The topics whose names the settings make: their ends, and whether they stand still."""

import contextlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import OffsetSpec

from cdc.config.settings import Settings
from cdc.kafka.client import reader
from cdc.kafka.cluster import Cluster, identity
from cdc.kafka.errors import kafka_error

Offsets = dict[str, dict[int, int]]

_SECONDS: Final = 30.0


class EventTopics:
    """The topics whose names the settings' template makes. Raises KafkaUnavailable and KafkaError."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cluster = Cluster(settings.kafka)
        self._own = {settings.topics.positions, settings.topics.dead_letter}

    def names(self) -> list[str]:
        """Return the names of those that exist."""
        self._cluster.reach(_SECONDS)
        consumer = reader(self._settings.kafka, "cdc-publisher-topics")
        with contextlib.closing(consumer):
            try:
                topics = consumer.list_topics(timeout=_SECONDS).topics
            except KafkaException as error:
                raise kafka_error(error.args[0], "listing topics") from None
        names = {name for name in topics if not name.startswith("__")} - self._own
        template = self._settings.template
        return sorted(name for name in names if not template.tells or re.fullmatch(template.pattern, name))

    def ends(self) -> Offsets:
        """Return the end offset of each partition."""
        return self._offsets(self.names(), OffsetSpec.latest())

    def open(self) -> list[str]:
        """Return the topics in which a transaction of Kafka is open."""
        names = self.names()
        ends = self._offsets(names, OffsetSpec.latest(), committed=True), self._offsets(names, OffsetSpec.latest())
        return [name for name in names if ends[0][name] != ends[1][name]]

    def lows(self) -> Offsets:
        """Return the first offset of each partition."""
        return self._offsets(self.names(), OffsetSpec.earliest())

    def since(self, milliseconds: int) -> Offsets:
        """Return the first offset of each partition with records of that time or later."""
        names = self.names()
        ends = self._offsets(names, OffsetSpec.latest())
        found = self._offsets(names, OffsetSpec.for_timestamp(max(0, milliseconds)))
        return {
            name: {number: at if at >= 0 else ends[name][number] for number, at in found[name].items()}
            for name in names
        }

    def _offsets(self, names: Iterable[str], spec: OffsetSpec, *, committed: bool = False) -> Offsets:
        found: Offsets = {name: {} for name in names}
        try:
            asked = self._cluster.identities(list(found), _SECONDS) if found else {}
            places = [(name, number) for name in found for number in range(identity(asked[name]).partitions)]
            answers = self._cluster.offsets(places, spec, _SECONDS, committed=committed) if places else {}
            for (name, number), answer in answers.items():
                found[name][number] = answer.result().offset
        except KafkaException as error:
            raise kafka_error(error.args[0], "reading the ends of topics") from None
        return found


def total(offsets: Mapping[str, Mapping[int, int]]) -> int:
    """Return the sum of all offsets: it does not change while topics stand still."""
    return sum(at for ends in offsets.values() for at in ends.values())
