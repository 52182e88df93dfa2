"""The consumer that reads topics back: the real `cdc.kafka.readback.log.Log`."""

import contextlib
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from cdc.config.settings import Settings
from cdc.kafka.client import reader
from cdc.kafka.cluster import Cluster, identity, is_missing
from cdc.kafka.readback import backwards
from cdc.kafka.readback.log import Bounds, Entry, Place
from cdc.kafka.reading import receive
from cdc.records.headers import headers_of

_LOOK_SECONDS: Final = 0.2  # between checks of `closed`
_FEW: Final = 8  # topics whose metadata is requested one by one
_NOT_YET: Final = (  # of partitions that were just created, or are about to get another leader
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
)

T = TypeVar("T")


class Closed(Exception):
    """The reader was closed."""


class KafkaLog:
    """A consumer that belongs to no group. Raises KafkaException and ConfigError.

    Everything that waits raises Closed soon after `closed` is set.
    """

    now = staticmethod(time.monotonic)

    def __init__(self, settings: Settings, closed: threading.Event, cluster: Cluster | None = None) -> None:
        self._settings = settings
        self._closed = closed
        self._consumer: Consumer | None = None
        self._cluster = cluster or Cluster(settings.kafka)
        self._known: set[str] = set()  # topics whose leaders the consumer knows
        self._topics: set[str] = set()  # that are being read

    def close(self) -> None:
        """Close the consumer."""
        if self._consumer is not None:
            self._consumer.close()

    def partitions(self, topics: Sequence[str], /) -> dict[str, int]:
        """See `Log`; raises the error of the first topic, and leaves out others that have one."""
        found = {}
        for topic, asked in self._cluster.identities(topics, backwards.SECONDS).items():
            try:
                self._wait_for(asked)
                found[topic] = identity(asked).partitions
            except KafkaException as error:
                if is_missing(error):
                    found[topic] = 0
                elif topic == topics[0]:
                    raise
        return found

    def bounds(self, places: Collection[Place], since: int | None, /) -> dict[Place, Bounds]:
        """See `Log`."""
        deadline = time.monotonic() + backwards.SECONDS
        while True:
            try:
                return self._bounds(places, since)
            except KafkaException as error:
                if error.args[0].code() not in _NOT_YET or time.monotonic() >= deadline:
                    raise
            self._closed.wait(_LOOK_SECONDS)

    def _bounds(self, places: Collection[Place], since: int | None) -> dict[Place, Bounds]:
        specs = [OffsetSpec.earliest(), OffsetSpec.latest()]
        if since is not None:
            specs.append(OffsetSpec.for_timestamp(since))
        lows, highs, *more = (self._cluster.offsets(places, spec, backwards.SECONDS) for spec in specs)
        sinces = {place: self._wait_for(answer).offset for place, answer in more[0].items()} if more else {}
        return {
            place: Bounds(self._wait_for(lows[place]).offset, self._wait_for(highs[place]).offset, sinces.get(place))
            for place in places
        }

    def seek(self, offsets: Mapping[Place, int], /) -> None:
        """See `Log`."""
        self._topics = {topic for topic, _ in offsets}
        if not offsets:
            if self._consumer is not None:
                self._consumer.unassign()
            return
        consumer = self._connected()
        # By itself the consumer requests the metadata of a new topic a second later.
        unknown = self._topics - self._known
        for topic in unknown if len(unknown) <= _FEW else [None]:
            with contextlib.suppress(KafkaException):
                consumer.list_topics(topic, timeout=_LOOK_SECONDS)
        self._known |= unknown
        consumer.assign([TopicPartition(*place, offset) for place, offset in offsets.items()])

    def _connected(self) -> Consumer:
        """Return the consumer, which takes some ms and MB: most sessions find no record that they have to read."""
        if self._consumer is None:
            self._consumer = reader(
                self._settings.kafka,
                "cdc-publisher-tails",
                queued_max_messages_kbytes=16_384,
                queued_min_messages=20_000,
                fetch_max_bytes=8_388_608,
                fetch_wait_max_ms=20,  # each chunk waits for so long behind the last record
            )
        return self._consumer

    def receive(self) -> list[Entry]:
        """See `Log`."""
        messages = receive(self._connected(), _LOOK_SECONDS, self._topics)
        self._look()
        return [
            (
                message.topic() or "",
                message.partition() or 0,
                message.offset() or 0,
                message.key(),
                headers_of(message) if message.error() is None else None,
            )
            for message in messages
        ]

    def _wait_for(self, answer: "Future[T]") -> T:
        while True:
            self._look()
            with contextlib.suppress(NotYet):
                return answer.result(_LOOK_SECONDS)

    def _look(self) -> None:
        if self._closed.is_set():
            raise Closed
