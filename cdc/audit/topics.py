"""Reads the topics that an audit compares with the table: their names, retention and records."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from cdc import errors
from cdc.audit.verdicts import Kept
from cdc.config.settings import Settings
from cdc.kafka.client import reader
from cdc.kafka.cluster import Cluster
from cdc.kafka.errors import kafka_error
from cdc.kafka.reading import Place, read
from cdc.outbox.topic_template import TopicTemplate

SECONDS: Final = 60.0
"""How long an open transaction, or a silent broker, may hold up the audit."""

_REQUEST_SECONDS: Final = 30.0

T = TypeVar("T")


class TopicReader:
    """Reads topics from their beginning, or a time, to the ends that `look` finds.

    `aged` says that retention, which goes by the times of records, goes by the ages of rows. Raises KafkaUnavailable,
    KafkaError and ConfigError.
    """

    def __init__(self, settings: Settings, *, seconds: float = SECONDS, aged: bool = True) -> None:
        self._aged = aged
        self._commit_times = settings.record.time_column is None
        self._cluster = Cluster(settings.kafka)
        self._seconds = seconds
        # If retention deletes records meanwhile, reading continues with the oldest left, which `kept` reports.
        self._consumer = reader(
            settings.kafka,
            "cdc-publisher-audit",
            queued_max_messages_kbytes=16_384,
            queued_min_messages=20_000,
            fetch_wait_max_ms=50,
        )
        self._reached: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        self._late: set[Place] = set()  # that are read from a time on

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def forget(self) -> None:
        """Read all topics again from where the next `look` says."""
        for places in (self._reached, self._ends, self._late):
            places.clear()

    def existing(self) -> set[str]:
        """Return the names of all visible topics, without Kafka's own."""
        found = self._asked(lambda: self._consumer.list_topics(timeout=_REQUEST_SECONDS), "listing the topics")
        return {name for name in found.topics if not name.startswith("__")}

    def look(self, names: Iterable[str], since: int | None = None) -> int:
        """Find the current ends of topics; return how many offsets are to be read.

        Records that were read before are not read again. New topics start at a time, in milliseconds since 1970;
        without one, topics that started at a time start again from their beginning. So do all topics whose records have
        times of a column.
        """
        since = since if self._commit_times else None
        for name in sorted(names):
            self._look(name, since)
        return sum(max(0, end - self._reached[place]) for place, end in self._ends.items())

    def _look(self, name: str, since: int | None) -> None:
        for number, end in self._asked(lambda: self._cluster.ends(name), f"looking up topic {name!r}").items():
            place = name, number
            self._ends[place] = end
            if place not in self._reached or (since is None and place in self._late):
                self._reached[place] = self._lows(place)
                self._late.discard(place)
                if since is not None:
                    self._reached[place] = max(self._reached[place], self._since(place, since, end))
                    self._late.add(place)

    def _lows(self, place: Place) -> int:
        part = TopicPartition(*place)
        low, _ = self._asked(
            lambda: self._consumer.get_watermark_offsets(part, timeout=_REQUEST_SECONDS),
            f"looking up topic {place[0]!r}",
        )
        return int(low)

    def _since(self, place: Place, since: int, end: int) -> int:
        asked = [TopicPartition(*place, max(0, since))]
        (found,) = self._asked(
            lambda: self._consumer.offsets_for_times(asked, timeout=_REQUEST_SECONDS), f"looking up topic {place[0]!r}"
        )
        return int(found.offset) if found.offset >= 0 else end  # negative: nothing is as new

    def read(self) -> Iterator[list[Message]]:
        """Yield all records up to the ends that were found, each partition in its order."""
        portions = read(self._consumer, self._reached, self._ends, self._seconds)
        while portion := self._asked(lambda: next(portions, None), "reading the topics"):
            yield portion

    def at(self, name: str, places: Iterable[tuple[int, int]]) -> Iterator[Message]:
        """Yield the records at these partitions and offsets of a topic, as far as they are there."""
        for number, offset in sorted(places):
            reached, ends = {(name, number): offset}, {(name, number): offset + 1}
            portions = read(self._consumer, reached, ends, self._seconds)
            while portion := self._asked(lambda: next(portions, None), f"reading topic {name!r}"):  # noqa: B023
                yield from portion

    def by_append(self, name: str) -> bool:
        """Return whether records of a topic have the time at which Kafka stored them."""
        found = self._asked(lambda: self._cluster.describe(name).result(), f"looking up topic {name!r}")
        return found.config.get("message.timestamp.type", "CreateTime") != "CreateTime"

    def kept(self, name: str, now: int) -> Kept:
        """Return what retention may have deleted, after reading; `now` is in milliseconds since 1970."""
        found = self._asked(lambda: self._cluster.describe(name).result(), f"looking up topic {name!r}")
        age = found.config.get("retention.ms", "unknown")
        size = found.config.get("retention.bytes", "unknown")
        deletes = "delete" in found.config.get("cleanup.policy", "delete")
        keeps_since: int | None = None
        if deletes and (size != "-1" or age == "unknown" or (age != "-1" and not self._aged)):
            keeps_since = now  # retention by size, or by what is unknown, may delete anything
        elif deletes and age != "-1":
            keeps_since = now - int(age)
        return Kept(
            trimmed=any(low > 0 for low in self.lows(name).values()),
            compacted="compact" in found.config.get("cleanup.policy", ""),
            keeps_since=keeps_since,
        )

    def lows(self, name: str) -> dict[int, int]:
        """Return the first offset of each partition that was read."""
        return {number: self._lows((topic, number)) for topic, number in self._ends if topic == name}

    def _asked(self, ask: Callable[[], T], doing: str) -> T:
        try:
            return ask()
        except KafkaException as error:
            raise _failed(error.args[0], doing) from None


def choose(
    existing: set[str], of_rows: Iterable[str], template: TopicTemplate, own: Iterable[str], only: Iterable[str]
) -> Mapping[str, bool]:
    """Return the topics of events, and whether each exists; `own` are never among them, `only` restricts them."""
    matching = {name for name in existing if template.tells and re.fullmatch(template.pattern, name)}
    matching |= existing & set(template.known)
    chosen = set(only) or (matching | set(of_rows)) - set(own)
    return {name: name in existing for name in sorted(chosen)}


def _failed(error: KafkaError, doing: str) -> errors.CdcError:
    if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return errors.KafkaError(
            f"Kafka, {doing}: {error.str()} ({error.name()})",
            hint="grant the principal READ and DESCRIBE on it, or name the topics to audit with --topic",
        )
    return kafka_error(error, doing)
