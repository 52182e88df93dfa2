"""Reads the topics back and decodes what is there: the demo's independent witness.

It knows nothing of the publisher but the topics and the contracts.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, KafkaException, Message, TopicPartition

from cdc.consumer import Decoder
from cdc.errors import KafkaUnavailable
from cdc.kafka.client import reader
from cdc.kafka.errors import kafka_error
from cdc.kafka.reading import read, receive
from cdc.records.headers import ID, POSITION, TYPE, headers_of

REQUEST_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One record as it was received; `delay_ms` from the commit in PostgreSQL to here, by this machine's clock."""

    topic: str
    partition: int
    key: str
    type: str
    event_id: str
    position: str  # the header cdc-position
    record: dict[str, Any]
    delay_ms: int


class Reader:
    """Reads `topics` from their beginning. Raises our Kafka errors, and ValueError for an unknown contract."""

    def __init__(self, bootstrap_servers: str, topics: Sequence[str], schemas: Path) -> None:
        self._decode = Decoder(folder=schemas)
        self._consumer = reader({"bootstrap.servers": bootstrap_servers}, "demo")
        self._topics = frozenset(topics)
        self._partitions = [part for topic in topics for part in self._partitions_of(topic)]
        self._consumer.assign(self._partitions)

    def wait_until_ready(self) -> None:
        """Connect and fetch once from every (empty) partition, so that no latency counts our own start."""
        deadline, ends = time.monotonic() + REQUEST_SECONDS, 0
        while ends < len(self._partitions):
            if time.monotonic() > deadline:
                raise KafkaUnavailable("the topics cannot be read")
            ends += sum(message.error() is not None for message in receive(self._consumer, 0.1, self._topics))

    def read(self, seconds: float) -> list[Arrival]:
        """What arrives within `seconds`; returns as soon as something does."""
        messages = receive(self._consumer, seconds, self._topics)
        return self._arrivals(message for message in messages if message.error() is None)

    def read_all(self, seconds: float) -> Iterator[Arrival]:
        """Yield everything up to the ends that the partitions have now; `read` goes on from there.

        Raises KafkaUnavailable when nothing arrives for `seconds`.
        """
        starts, ends = {}, {}
        for part in self._partitions:
            place = part.topic, part.partition
            starts[place], ends[place] = self._consumer.get_watermark_offsets(part, timeout=REQUEST_SECONDS)
        for messages in read(self._consumer, starts, ends, seconds):
            yield from self._arrivals(messages)
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in ends.items()])

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def _partitions_of(self, topic: str) -> list[TopicPartition]:
        deadline = time.monotonic() + REQUEST_SECONDS
        while time.monotonic() < deadline:
            try:
                found = self._consumer.list_topics(topic, timeout=REQUEST_SECONDS).topics[topic]
            except KafkaException as error:
                raise kafka_error(error.args[0], f"looking up topic {topic!r}") from None
            if found.partitions and found.error is None:
                return [TopicPartition(topic, number, OFFSET_BEGINNING) for number in sorted(found.partitions)]
            time.sleep(0.05)  # just created: the broker hears of it a moment later
        raise KafkaUnavailable(f"topic {topic!r} does not appear")

    def _arrivals(self, messages: Iterable[Message]) -> list[Arrival]:
        now_ms = time.time_ns() // 1_000_000
        return [self._arrival(message, now_ms) for message in messages]

    def _arrival(self, message: Message, now_ms: int) -> Arrival:
        headers = dict(headers_of(message))
        return Arrival(
            topic=message.topic() or "",
            partition=message.partition() or 0,
            key=_text(message.key()),
            type=_text(headers[TYPE]),
            event_id=_text(headers[ID]),
            position=_text(headers[POSITION]),
            record=self._decode(_bytes(message.value())),
            delay_ms=max(now_ms - message.timestamp()[1], 0),
        )


class Listener:
    """A reader on a thread of its own: showing what arrived must not delay the clock of what arrives."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._arrived: queue.SimpleQueue[list[Arrival]] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)

    def start(self) -> None:
        """Begin once the reader is ready."""
        self._reader.wait_until_ready()
        self._thread.start()

    def take(self, seconds: float) -> list[Arrival]:
        """What arrived since the last call, or within `seconds`. Raises the reader's errors."""
        if self._error:
            raise self._error
        arrivals: list[Arrival] = []
        with contextlib.suppress(queue.Empty):
            arrivals += self._arrived.get(timeout=seconds)
            while True:
                arrivals += self._arrived.get_nowait()
        return arrivals

    def stop(self) -> None:
        """Listen no more; the reader is the caller's to close."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _listen(self) -> None:
        try:
            while not self._stop.is_set():
                if arrivals := self._reader.read(0.1):
                    self._arrived.put(arrivals)
        except Exception as error:  # for the thread that takes
            self._error = error


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value or b"")


def _text(value: str | bytes | None) -> str:
    return _bytes(value).decode()
