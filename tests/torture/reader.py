"""A reader that follows a compacted topic from its first record on, to see what compaction removes later."""

import threading
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, TopicPartition

from tests.torture.judge import Record
from tests.torture.topics import record


class Reader:
    """Keeps every record of `topic` that a read_committed consumer was given; a context manager."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "reader",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            }
        )
        self._assigned = [TopicPartition(topic, number, 0) for number in range(partitions)]
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="reader")
        self._seen: dict[tuple[str, int, int], Record] = {}

    def __enter__(self) -> Self:
        self._consumer.assign(self._assigned)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def stop(self) -> list[Record]:
        """Read no more; returns what was read."""
        self._leaving.set()
        if self._thread.is_alive():
            self._thread.join()
        return list(self._seen.values())

    def _follow(self) -> None:
        while not self._leaving.is_set():
            for message in self._consumer.consume(num_messages=1000, timeout=0.2):
                if message.error() is None:  # the client tries again after each error
                    found = record(message)
                    self._seen[found.topic, found.partition, found.offset] = found
        self._consumer.close()
