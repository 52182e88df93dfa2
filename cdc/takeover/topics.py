"""The topics that Debezium sends to: their ends, whether they stand still, and whether they hold its records."""

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
from cdc.kafka.foreign import foreign_id
from cdc.kafka.reading import Place, read
from cdc.records.headers import headers_of

Offsets = dict[str, dict[int, int]]

_SECONDS: Final = 30.0
_LAST: Final = 100  # records at the end of a partition among which one of Debezium is looked for
_PARTITIONS: Final = 200  # in which one is looked for


class EventTopics:
    """The topics whose names the settings' template makes. Raises KafkaUnavailable and KafkaError."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cluster = Cluster(settings.kafka)
        self._own = {settings.topics.positions, settings.topics.dead_letter}

    def names(self) -> list[str]:
        """Return the names of those that exist."""
        consumer = reader(self._settings.kafka, "cdc-publisher-takeover")
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

    def since(self, milliseconds: int) -> Offsets:
        """Return the first offset of each partition with records of that time or later."""
        names = self.names()
        ends = self._offsets(names, OffsetSpec.latest())
        found = self._offsets(names, OffsetSpec.for_timestamp(max(0, milliseconds)))
        return {
            name: {number: at if at >= 0 else ends[name][number] for number, at in found[name].items()}
            for name in names
        }

    def have_foreign_records(self) -> bool:
        """Return whether some of the last records are of another program and have an id."""
        names = self.names()
        lows, ends = self._offsets(names, OffsetSpec.earliest()), self._offsets(names, OffsetSpec.latest())
        places: dict[Place, int] = {
            (name, number): end
            for name in names
            for number, end in ends[name].items()
            if end > lows[name].get(number, 0)
        }
        places = dict(list(places.items())[:_PARTITIONS])
        begin = {place: max(lows[place[0]][place[1]], end - _LAST) for place, end in places.items()}
        consumer = reader(self._settings.kafka, "cdc-publisher-takeover", fetch_wait_max_ms=50)
        with contextlib.closing(consumer):
            for messages in read(consumer, begin, places, _SECONDS):
                if any(foreign_id(dict(headers_of(message))) is not None for message in messages):
                    return True
        return False

    def _offsets(self, names: Iterable[str], spec: OffsetSpec) -> Offsets:
        found: Offsets = {name: {} for name in names}
        try:
            asked = self._cluster.identities(list(found), _SECONDS) if found else {}
            places = [(name, number) for name in found for number in range(identity(asked[name]).partitions)]
            answers = self._cluster.offsets(places, spec, _SECONDS) if places else {}
            for (name, number), answer in answers.items():
                found[name][number] = answer.result().offset
        except KafkaException as error:
            raise kafka_error(error.args[0], "reading the ends of topics") from None
        return found


def total(offsets: Mapping[str, Mapping[int, int]]) -> int:
    """Return the sum of all offsets: it does not change while topics stand still."""
    return sum(at for ends in offsets.values() for at in ends.values())
