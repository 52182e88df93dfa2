"""Sizes of records as a real broker measures them."""

import functools
import random
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from cdc.records.record import Headers, Record, batch_size
from tests.servers import Servers

pytestmark = pytest.mark.timeout(120)

LIMITS = (1000, 20_000, 2_200_000)  # lengths of one, two, three and four bytes


def records(limit: int, chance: random.Random) -> tuple[Record, Record]:
    """A record of any shape whose batch has exactly `limit` bytes, and the same with one byte more."""
    key = chance.choice([None, b"", b"k", chance.randbytes(chance.randrange(200))])
    headers: Headers = [
        (chance.choice(["id", "größe", "x" * 70]), chance.choice([None, "", "ä", "v" * 80, b"\xff" * 63, b"b" * 64]))
        for _ in range(chance.randrange(6))
    ]

    def record(size: int) -> Record:
        return Record.to("", key, b"x" * size, 0, headers, lambda *_: None)

    size = limit - batch_size(record(0))
    while batch_size(record(size)) > limit:
        size -= 1
    exact, over = record(size), record(size + 1)
    if batch_size(exact) < limit:  # no record has this size: one byte more needs a longer length as well
        return records(limit, chance)
    return exact, over


@pytest.mark.parametrize("limit", LIMITS)
def test_a_topic_takes_a_record_of_exactly_its_limit_and_not_one_byte_more_c7(
    servers: Servers, topic_prefix: str, limit: int
) -> None:
    topic = f"{topic_prefix}limited"
    admin = AdminClient({"bootstrap.servers": servers.kafka})
    new = NewTopic(topic, num_partitions=1, config={"max.message.bytes": str(limit)})
    admin.create_topics([new])[topic].result()
    # Not idempotent: a refusal must not end this producer. One record to a batch.
    producer = Producer(
        {
            "bootstrap.servers": servers.kafka,
            "batch.num.messages": 1,
            "linger.ms": 0,
            "message.max.bytes": 10_000_000,
        }
    )
    chance = random.Random(limit)
    verdicts: dict[int, Any] = {}

    def keep(number: int, error: Any, _: object) -> None:
        verdicts[number] = error

    pairs = [records(limit, chance) for _ in range(60)]
    for number, record in enumerate(record for pair in pairs for record in pair):
        assert batch_size(record) == limit if number % 2 == 0 else batch_size(record) > limit
        producer.produce(
            topic,
            record.value,
            record.key,
            headers=record.headers,
            on_delivery=functools.partial(keep, number),
        )
        producer.poll(0)
    producer.flush(60)
    assert len(verdicts) == 120
    for number, error in verdicts.items():
        told = pairs[number // 2][number % 2]._replace(value=None)
        if number % 2 == 0:
            assert error is None, told
        else:
            assert error.code() == KafkaError.MSG_SIZE_TOO_LARGE, told
