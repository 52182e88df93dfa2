"""Topics as the publisher writes them, made by hand, and a consumer in a process of its own that can be killed.

A handled event is a row in the table `applied`, which has no unique key: what is applied twice is there twice.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from confluent_kafka import Consumer as Plain
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from cdc.consumer import Consumer, Event, Inbox, Retry
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


class CrashingInbox(Inbox):
    """Kills its process once the transaction of an event is committed, where it is told to."""

    def __init__(self, consumer: str, crashes: "Crashes") -> None:
        super().__init__(consumer)
        self._crashes = crashes

    @contextmanager
    def event(self, connection: Any, event_id: Any, *, nested: bool = False) -> Iterator[bool]:
        with super().event(connection, event_id, nested=nested) as new:
            yield new
        self._crashes.at("committed", str(event_id))


@dataclass(frozen=True, slots=True)
class Crashes:
    """Where to die, each once: names of files in a folder, `{step} {event id}`."""

    folder: Path

    def plan(self, step: str, event_id: str) -> None:
        (self.folder / f"{step} {event_id}").touch()

    def at(self, step: str, event_id: str) -> None:
        planned = self.folder / f"{step} {event_id}"
        if planned.exists():
            planned.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    def left(self) -> list[str]:
        return [file.name for file in self.folder.iterdir()]


def start(options: dict[str, Any], log: Path) -> "subprocess.Popen[bytes]":
    """A consumer in another process; see `main` for what the options are."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.consuming", json.dumps(options)], stdout=output, stderr=output
        )


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("options", type=json.loads)
    options = parser.parse_args(arguments).options
    crashes = Crashes(Path(options["crashes"]))
    worker = options["worker"]

    def handle(event: Event, connection: "psycopg.Connection[Any]") -> None:
        assert event.position
        connection.execute(
            "insert into applied (id, key, seq, worker) values (%s, %s, %s, %s)",
            [event.id, (event.key or b"").decode(), event.position.commit_lsn, worker],
        )
        crashes.at("written", event.id or "")

    consumer = Consumer(
        options["kafka"],
        [options["topic"]],
        handle,
        inbox=CrashingInbox("tests", crashes),
        connect=lambda: psycopg.connect(options["dsn"]),
        retry=Retry(attempts=3, first_seconds=0.01, longest_seconds=0.05),
        commit_seconds=options.get("commit_seconds", 0.2),
    )
    signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
    consumer.run()


if __name__ == "__main__":
    main(sys.argv[1:])
