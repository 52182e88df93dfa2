"""Topics read to their ends, one partition after the other, as the judge wants them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from tests.torture.judge import Record
from tests.torture.ledger import digest


def records(bootstrap: str, topics: Iterable[str]) -> Iterator[Record]:
    """Every record that a read_committed consumer can see now."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "judge",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    try:
        metadata = consumer.list_topics(timeout=30).topics
        for topic in topics:
            for number in sorted(metadata[topic].partitions):
                yield from _partition(consumer, TopicPartition(topic, number, OFFSET_BEGINNING))
    finally:
        consumer.close()


def with_removed(left: Iterable[Record], seen: Iterable[Record]) -> Iterator[Record]:
    """What is left, and among it what was seen before and is there no more, by offset in each partition."""
    by_place = {(r.topic, r.partition, r.offset): r._replace(is_left=False) for r in seen}
    by_place.update(((r.topic, r.partition, r.offset), r) for r in left)
    return (by_place[place] for place in sorted(by_place))


def dumped(records: Iterable[Record], file: Path) -> Iterator[Record]:
    """The same records, each of them also written to `file` as a JSON line."""
    with file.open("w") as out:
        for one in records:
            out.write(json.dumps(one) + "\n")
            yield one


def _partition(consumer: Consumer, partition: TopicPartition) -> Iterator[Record]:
    consumer.assign([partition])
    while True:
        for message in consumer.consume(num_messages=1000, timeout=0.3):
            error: Any = message.error()
            if error is None:
                yield record(message)
            elif error.name() == "_PARTITION_EOF":
                return
            elif not error.retriable():
                raise AssertionError(str(error))


def record(message: Any) -> Record:
    """What the judge wants of a message."""
    headers = dict(message.headers() or [])
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        (message.key() or b"").decode(errors="replace"),
        headers.get("id", b"").decode(),
        headers.get("cdc-position", b"").decode(),
        digest(message.value()),
        headers.get("cdc-sequence", b"").decode(),
    )
