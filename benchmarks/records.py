"""Create a run's topics, and verify their records afterwards: number, order, no duplicates, and decoded samples.

Records carry the time of the append by the broker, so measuring does not slow down the run.
"""

import io
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any, Final

import fastavro
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks import workload
from benchmarks.backlog import Backlog
from benchmarks.workload import AGGREGATE, contract

SAMPLE_EVERY: Final = 10_007
FRAMING_BYTES: Final = 10  # of single-object encoding
BATCH: Final = 10_000
SILENT_SECONDS: Final = 30.0
INDEX_BITS: Final = 23
NUMBER_BITS: Final = 41  # all but the epoch of what cdc.polling.numbers gives out


class Unverified(Exception):
    """The records in Kafka differ from the committed rows, which makes the run invalid."""


@dataclass(slots=True)
class Records:
    """The records of a topic. `appended` counts records by the time of the append, in Unix ms."""

    count: int = 0
    appended: Counter[int] = field(default_factory=Counter)
    positions: dict[tuple[bytes, int], "array[int]"] = field(default_factory=dict)  # by slot and partition
    sample: list[Message] = field(default_factory=list)
    times: dict[str, int] = field(default_factory=dict)  # of each id, where that was asked for
    numbers: dict[int, "array[int]"] = field(default_factory=dict)  # of events by partition, where ids were asked for

    def add(self, message: Message, *, by_id: bool) -> None:
        kind, moment = message.timestamp()
        if kind != TIMESTAMP_LOG_APPEND_TIME:
            raise Unverified("the topic does not keep the time of the append: set message.timestamp.type")
        headers: dict[str, Any] = dict(message.headers() or [])
        if self.count % SAMPLE_EVERY == 0:
            self.sample.append(message)
        if by_id:
            event_id = headers["id"].decode()
            self.times[event_id] = moment
            self.numbers.setdefault(message.partition() or 0, array("Q")).append(workload.number(event_id))
        self.count += 1
        self.appended[moment] += 1
        slot, position = _position(headers["cdc-position"])
        self.positions.setdefault((slot, message.partition() or 0), array("Q")).append(position)


def _position(header: bytes) -> tuple[bytes, int]:
    """Return the slot or stream of a position, and a number of the same order.

    It fits in 64 bits: up to 2 TB of WAL, or one session of a relay.
    """
    stream, commit_lsn, index = header.split(b"-")
    return stream, int(commit_lsn, 16) % (1 << NUMBER_BITS) << INDEX_BITS | int(index, 16)


def create_topic(kafka: str, prefix: str, partitions: int) -> str:
    """Create the topic of a run's events."""
    topic = f"{prefix}.{AGGREGATE}"
    config = {"message.timestamp.type": "LogAppendTime"}
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    admin.create_topics([NewTopic(topic, partitions, 1, config=config)], operation_timeout=60)[topic].result()
    return topic


def delete_topic(kafka: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    admin.delete_topics([topic], operation_timeout=60)[topic].result()


def read_back(kafka: str, topic: str, partitions: int, *, by_id: bool = False) -> Records:
    """Read every committed record of a topic. Raises Unverified if it cannot be read to its end."""
    found = Records()
    for message in messages(kafka, topic, partitions):
        found.add(message, by_id=by_id)
    return found


def messages(kafka: str, topic: str, partitions: int) -> Iterator[Message]:
    """Yield every committed record of a topic. Raises Unverified if it cannot be read to its end."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": "benchmark",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    try:
        yield from _read(consumer, topic, partitions)
    finally:
        consumer.close()


def _read(consumer: Consumer, topic: str, partitions: int) -> Iterator[Message]:
    ended, heard = 0, time.monotonic()
    while ended < partitions:
        # A batch that is not full is waited for until the time is over, also behind the last record.
        batch = consumer.consume(BATCH, timeout=0.2)
        heard = time.monotonic() if batch else heard
        if time.monotonic() - heard > SILENT_SECONDS:
            raise Unverified(f"topic {topic} cannot be read to its end")
        for message in batch:
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                ended += 1
            else:
                raise Unverified(f"topic {topic} cannot be read: {error}")


def verify(records: Records, backlog: Backlog, expected: int | None = None) -> None:
    """Raise Unverified unless each event exists once, in order, and samples match.

    The events are those of the backlog unless another number is expected. The order is that of the commits, for
    each slot in each partition; where ids were asked for, also that of the events of each key over all slots.
    """
    expected = expected or backlog.workload.events
    if records.count != expected:
        raise Unverified(f"{records.count} records instead of {expected}")
    for (_, partition), positions in records.positions.items():
        if any(later <= earlier for earlier, later in pairwise(positions)):
            raise Unverified(f"partition {partition} is not in the order of the commits, or holds an event twice")
    for slot in {slot for slot, _ in records.positions}:
        everything = sorted(chain(*(found for (of, _), found in records.positions.items() if of == slot)))
        if any(later == earlier for earlier, later in pairwise(everything)):
            raise Unverified("a position is in two partitions")
    if records.numbers:
        verify_numbers(records, backlog.workload.keys, expected)
    for found in map(_described, records.sample):
        written = workload.event(backlog.workload, workload.number(found["id"]))
        if found != written:
            raise Unverified(f"a record is not as its event: {found} instead of {written}")


def verify_numbers(records: Records, keys: int, expected: int) -> None:
    """Raise Unverified unless the events are those from 1 to `expected`, once each, in order for each of the keys.

    The numbers of a key's events differ by a multiple of `keys`.
    """
    for partition, numbers in records.numbers.items():
        last: dict[int, int] = {}
        for number in numbers:
            key = number % keys
            if last.get(key, 0) >= number:
                raise Unverified(f"partition {partition} has event {number} behind event {last[key]} of its key")
            last[key] = number
    everything = sorted(chain(*records.numbers.values()))
    if everything != list(range(1, expected + 1)):
        raise Unverified(f"{len(everything)} records are not the {expected} events, once each")


def _described(message: Message) -> dict[str, Any]:
    given: dict[str, Any] = dict(message.headers() or [])
    headers = {name: value.decode() for name, value in given.items()}
    body = io.BytesIO(bytes(message.value() or b"")[FRAMING_BYTES:])
    value = fastavro.schemaless_reader(body, fastavro.parse_schema(contract(headers["eventType"])), None)
    key = (message.key() or b"").decode()
    return {"id": headers["id"], "key": key, "type": headers["eventType"], "value": value}
