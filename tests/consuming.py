"""Topics as the publisher writes them, made by hand, and consumers of them."""

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import psycopg
from confluent_kafka import Consumer as Plain
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from cdc.consumer import Consumer, Event, Retry
from tests.pipeline import eventually
from tests.producing import in_order

STREAM = "5d4fdb41"
APPLIED = "create table if not exists applied (nr bigserial, id text, key text, seq bigint, worker text)"


@dataclass(frozen=True, slots=True)
class Sent:
    """One record; `lsn` makes its position. Two with one `lsn` and key are the same event."""

    lsn: int
    key: str = "k"
    number: int | None = None  # cdc-sequence
    partition: int | None = None
    value: bytes | None = b"value"
    headers: tuple[tuple[str, str], ...] = field(default=())

    @property
    def id(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.key} {self.lsn}"))

    @property
    def all_headers(self) -> list[tuple[str, str | bytes | None]]:
        made = [("id", self.id), ("eventType", "Noted"), ("cdc-position", f"{STREAM}-{self.lsn:016X}-00000000")]
        numbered = [("cdc-sequence", str(self.number))] if self.number is not None else []
        return [*made, *self.headers, *numbered]


def make_topic(kafka: str, topic: str, partitions: int = 1) -> str:
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])[topic].result()
    return topic


def send(kafka: str, topic: str, records: Iterable[Sent], producer: Producer | None = None) -> None:
    """Produce records and wait for them."""
    used = producer or in_order(kafka)
    for record in records:
        partition = -1 if record.partition is None else record.partition
        used.produce(topic, record.value, record.key, partition, headers=record.all_headers)
    assert used.flush(30) == 0


def committed(kafka: str, group: str, topic: str, partitions: int = 1) -> list[int]:
    """The group's committed offsets; negative where there is none."""
    reader = Plain({"bootstrap.servers": kafka, "group.id": group})
    try:
        found = reader.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=30)
        return [part.offset for part in found]
    finally:
        reader.close()


def ends(kafka: str, topic: str, partitions: int = 1) -> list[int]:
    """The offset after the last record of each partition."""
    reader = Plain({"bootstrap.servers": kafka, "group.id": "ends"})
    try:
        return [
            reader.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1] for number in range(partitions)
        ]
    finally:
        reader.close()


def applied(dsn: str) -> list[tuple[str, str, int]]:
    """Id, key and number of everything that handlers wrote, in the order of writing."""
    with psycopg.connect(dsn) as connection:
        return connection.execute("select id, key, seq from applied order by nr").fetchall()


QUICK = Retry(attempts=3, first_seconds=0.01, longest_seconds=0.05)


class Running:
    """Runs a consumer in a thread; a context manager that stops it, and raises the consumer's exception."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.consumer.run()
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.consumer.stop()
        self._thread.join()
        if error is None and self.error is not None:
            raise self.error

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def until(self, holds: Callable[[], bool], what: str) -> None:
        def held() -> bool:
            assert self.error is None, self.error
            return holds()

        eventually(held, what)


class Handler:
    """Records events, and fails for the given keys, number of times and exceptions."""

    def __init__(self, failing: dict[bytes, Exception] | None = None, times: int = 1_000_000) -> None:
        self.handled: list[tuple[str, int]] = []
        self.attempts: list[tuple[str, int]] = []
        self.failing = failing or {}
        self.times = times

    def __call__(self, event: Event) -> None:
        assert event.position
        key, lsn = (event.key or b"").decode(), event.position.commit_lsn
        self.attempts.append((key, lsn))
        if event.key in self.failing and self.times > 0:
            self.times -= 1
            raise self.failing[event.key]
        self.handled.append((key, lsn))


def read(bootstrap: str, topic: str, count: int) -> Iterator[Message]:
    reader = Plain({"bootstrap.servers": bootstrap, "group.id": f"{topic}-reader", "auto.offset.reset": "earliest"})
    reader.subscribe([topic])
    try:
        while count:
            for message in reader.consume(count, 1.0):
                assert message.error() is None
                count -= 1
                yield message
    finally:
        reader.close()


def texts(message: Message) -> dict[str, str]:
    """The record's headers, without those that are null."""
    headers: Any = message.headers() or []
    return {name: value.decode() for name, value in headers if value is not None}
