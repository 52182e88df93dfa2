"""Read and decode the demo's topics, independently of the publisher's code."""

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
    """One received record; `delay_ms` is the time from the commit in PostgreSQL to its receipt."""

    topic: str
    partition: int
    key: str
    type: str
    event_id: str
    position: str  # the header cdc-position
    record: dict[str, Any]
    delay_ms: int


class DemoReader:
    """Reads `topics` from the beginning. Raises KafkaError, KafkaUnavailable, or ValueError for an unknown schema."""

    def __init__(self, bootstrap_servers: str, topics: Sequence[str], schemas: Path) -> None:
        self._decode = Decoder(folder=schemas)
        self._consumer = reader({"bootstrap.servers": bootstrap_servers}, "demo")
        self._topics = frozenset(topics)
        self._partitions = [part for topic in topics for part in self._partitions_of(topic)]
        self._consumer.assign(self._partitions)

    def wait_until_ready(self) -> None:
        """Fetch once from every empty partition, so that latencies do not include the consumer's start."""
        deadline, ends = time.monotonic() + REQUEST_SECONDS, 0
        while ends < len(self._partitions):
            if time.monotonic() > deadline:
                raise KafkaUnavailable("the topics cannot be read")
            ends += sum(message.error() is not None for message in receive(self._consumer, 0.1, self._topics))

    def read(self, seconds: float) -> list[Arrival]:
        """Return the records that arrive first within `seconds`, or an empty list."""
        messages = receive(self._consumer, seconds, self._topics)
        return self._arrivals(message for message in messages if message.error() is None)

    def read_all(self, seconds: float) -> Iterator[Arrival]:
        """Yield everything up to the ends that the partitions have now; `read` continues from there.

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
        """Close the consumer."""
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
            time.sleep(0.05)  # a new topic appears in the broker's metadata after a moment
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
            record=self._decode(_bytes(message.value()), headers),
            delay_ms=max(now_ms - message.timestamp()[1], 0),
        )


class BackgroundReader:
    """Runs a reader in a thread, so that rendering does not add to measured latencies."""

    def __init__(self, reader: DemoReader) -> None:
        self._reader = reader
        self._arrived: queue.SimpleQueue[list[Arrival]] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)

    def start(self) -> None:
        """Start the thread once the reader is ready."""
        self._reader.wait_until_ready()
        self._thread.start()

    def take(self, seconds: float) -> list[Arrival]:
        """Return records since the last call, or wait `seconds` for the first. Raises the reader's errors."""
        if self._error:
            raise self._error
        arrivals: list[Arrival] = []
        with contextlib.suppress(queue.Empty):
            arrivals += self._arrived.get(timeout=seconds)
            while True:
                arrivals += self._arrived.get_nowait()
        return arrivals

    def stop(self) -> None:
        """Stop the thread, without closing the reader."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _listen(self) -> None:
        try:
            while not self._stop.is_set():
                if arrivals := self._reader.read(0.1):
                    self._arrived.put(arrivals)
        except Exception as error:  # raised by `take`
            self._error = error


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value or b"")


def _text(value: str | bytes | None) -> str:
    return _bytes(value).decode()
