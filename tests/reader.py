"""Reads topics back from beginning to end, without a consumer group."""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

INTERNAL = ("positions", "dead")


@dataclass(frozen=True)  # without slots: it keeps what was looked up
class Received:
    """One record as a consumer sees it."""

    topic: str
    partition: int
    offset: int
    key: str
    value: Any  # decoded
    raw: bytes
    timestamp: tuple[int, int]
    headers: list[tuple[str, str]]  # None for a header without a value

    def header(self, name: str) -> str:
        (value,) = [value for header, value in self.headers if header == name]
        return value

    @cached_property
    def id(self) -> str:
        return self.header("id")

    @cached_property
    def position(self) -> str:
        return self.header("cdc-position")


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage: among hundreds of thousands of records there is none, and looking takes most of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@uncollected()
def read_all(bootstrap: str, prefix: str, decode: Callable[[bytes], Any]) -> list[Received]:
    """Every record of the topics that begin with `prefix`, up to what is there now."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{prefix}reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,  # the marks of transactions take offsets that no record has
        }
    )
    try:
        partitions = [
            TopicPartition(topic, number, OFFSET_BEGINNING)
            for topic, metadata in consumer.list_topics(timeout=30).topics.items()
            if topic.startswith(prefix) and not topic.removeprefix(prefix).startswith(INTERNAL)
            for number in metadata.partitions
        ]
        ends = _ends(bootstrap, consumer, partitions)
        wanted = {partition for partition, end in ends.items() if end > 0}
        consumer.assign([p for p in partitions if (p.topic, p.partition) in wanted])
        records: list[Received] = []
        while wanted:
            for message in consumer.consume(num_messages=10_000, timeout=1):
                error = message.error()
                if error and error.code() == KafkaError._PARTITION_EOF:
                    wanted.discard((message.topic(), message.partition()))
                    continue
                assert not error, error
                record = _received(message, decode)
                records.append(record)
                if record.offset + 1 >= ends[record.topic, record.partition]:
                    wanted.discard((record.topic, record.partition))
        return sorted(records, key=lambda r: (r.topic, r.partition, r.offset))
    finally:
        consumer.close()


def _ends(bootstrap: str, consumer: Consumer, partitions: list[TopicPartition]) -> dict[tuple[str, int], int]:
    """Where committed records end, once a transaction that was just committed is visible: that takes a moment."""
    unread = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "isolation.level": "read_uncommitted"})
    try:
        deadline = time.monotonic() + 2.0  # a transaction that stays open is not waited for
        while True:
            written, ends = [
                {(p.topic, p.partition): _end(reader, p) for p in partitions} for reader in (unread, consumer)
            ]
            if all(ends[place] >= end for place, end in written.items()) or time.monotonic() > deadline:
                return ends
            time.sleep(0.02)
    finally:
        unread.close()


def _text(value: bytes | None) -> Any:
    return None if value is None else value.decode()


def _received(message: Any, decode: Callable[[bytes], Any]) -> Received:
    raw = message.value()
    try:
        value = raw if raw is None else decode(raw)
    except ValueError:
        value = raw
    return Received(
        message.topic(),
        message.partition(),
        message.offset(),
        (message.key() or b"").decode(),
        value,
        raw,
        message.timestamp(),
        [(name, _text(header)) for name, header in message.headers() or []],
    )


def _end(consumer: Consumer, partition: TopicPartition) -> int:
    """Where a partition ends, once it has a leader: a broker that was frozen has to become that again."""
    deadline = time.monotonic() + 30.0
    while True:
        try:
            return int(consumer.get_watermark_offsets(partition, timeout=30)[1])
        except KafkaException as raised:
            if not raised.args[0].retriable() or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def end_offset(bootstrap: str, topic: str) -> int:
    """How many offsets the partitions of a topic have."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        return sum(_end(consumer, TopicPartition(topic, p)) for p in partitions)
    finally:
        consumer.close()
