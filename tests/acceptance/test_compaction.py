"""Compacted topics: what a replay leaves in them, once the cleaner ran while no publisher did."""

import json
import time
from collections.abc import Sequence

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from cdc.consumer import Decoder
from tests.pipeline import Pipeline, eventually, prepare
from tests.reader import read_all

COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "50",
    "min.cleanable.dirty.ratio": "0.0001",
    "retention.ms": "-1",
}
FILLER = b"filler"
AT_LEAST_ONCE, EXACTLY_ONCE = "at-least-once", "exactly-once"

Content = list[tuple[str, int | None]]
"""Key and number of each record; a tombstone has None."""


def content(pipeline: Pipeline) -> Content:
    """All that the topic holds of the publisher, in its order."""
    consumer = Consumer(
        {
            "bootstrap.servers": pipeline.kafka,
            "group.id": "none",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(pipeline.topic, 0, 0)])
    found: Content = []
    decode = Decoder(folder=pipeline.folder / "schemas")
    while True:
        (message,) = consumer.consume(1, 30)
        error = message.error()
        if error and error.code() == KafkaError._PARTITION_EOF:
            consumer.close()
            return found
        assert not error, error
        if message.key() != FILLER:
            value = message.value()
            found.append(((message.key() or b"").decode(), None if value is None else decode(value)["seq"]))


def newest(records: Content) -> dict[str, int | None]:
    """The last number of each key: what compaction keeps."""
    return dict(records)


def compact(pipeline: Pipeline) -> Content:
    """Let the cleaner run over all that the topic holds; returns what is left."""
    producer = Producer({"bootstrap.servers": pipeline.kafka})

    def cleaned() -> bool:
        # The active segment is never cleaned: another record begins a new one.
        time.sleep(0.1)
        producer.produce(pipeline.topic, b"{}", FILLER)
        assert producer.flush(30) == 0
        keys = [key for key, _ in content(pipeline)]
        return len(keys) == len(set(keys))

    eventually(cleaned, "one record is left of each key", 120)
    return content(pipeline)


@pytest.fixture
def compacted(bare_pipeline: Pipeline) -> Pipeline:
    """A pipeline whose topic is compacted, with one partition; null payloads are tombstones."""
    return prepare_compacted(bare_pipeline)


def prepare_compacted(bare: Pipeline) -> Pipeline:
    bare.settings["outbox"] = {"tombstones": True}
    pipeline = prepare(bare, topic=False)
    new = NewTopic(pipeline.topic, 1, config=COMPACTED)
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    admin.create_topics([new])[pipeline.topic].result()
    pipeline.sql("alter table outbox alter column payload drop not null")
    return pipeline


def insert(pipeline: Pipeline, key: str, *numbers: int | None) -> None:
    """Insert a transaction for each event; None is a tombstone."""
    for number in numbers:
        pipeline.sql(
            "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', %s, 'Noted', %s)",
            key,
            None if number is None else json.dumps({"seq": number}),
        )


def publish(pipeline: Pipeline, guarantee: str) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0


class Crash:
    """The slot as it is when this is made, which `restore` gives back: what followed is redelivered.

    That is what a kill leaves, which comes before the slot is moved, and what a crash of PostgreSQL leaves.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._copy = f"{pipeline.slot}_copy"
        pipeline.sql("select pg_copy_logical_replication_slot(%s, %s)", pipeline.slot, self._copy)

    def restore(self) -> None:
        slot = self._pipeline.slot
        self._pipeline.sql("select pg_drop_replication_slot(%s)", slot)
        self._pipeline.sql("select pg_copy_logical_replication_slot(%s, %s)", self._copy, slot)
        self._pipeline.sql("select pg_drop_replication_slot(%s)", self._copy)


CHANGES: Sequence[tuple[str, str]] = [
    (AT_LEAST_ONCE, AT_LEAST_ONCE),
    (AT_LEAST_ONCE, EXACTLY_ONCE),
    (EXACTLY_ONCE, AT_LEAST_ONCE),
    (EXACTLY_ONCE, EXACTLY_ONCE),
]


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_case_d1_a_replay_leaves_the_newest_event_of_each_key(compacted: Pipeline, before: str, after: str) -> None:
    crash = Crash(compacted)
    insert(compacted, "k", 1, 2, 3)
    insert(compacted, "gone", 4, None)
    insert(compacted, "back", 5, None, 6)
    insert(compacted, "one", 7)
    publish(compacted, before)
    wanted = {"k": 3, "gone": None, "back": 6, "one": 7}
    assert newest(compact(compacted)) == wanted
    crash.restore()
    publish(compacted, after)
    records = content(compacted)
    assert newest(records) == wanted
    assert len([key for key, _ in records if key == "one"]) == 1
    if before == EXACTLY_ONCE:  # its position says that Kafka had them all
        assert len(records) == len(wanted)
    assert newest(compact(compacted)) == wanted


def test_audit_finds_a_key_that_ends_with_an_older_event_until_a_newer_one_is_inserted(compacted: Pipeline) -> None:
    insert(compacted, "k", 1, 2, 3)
    insert(compacted, "other", 4, 5)
    publish(compacted, AT_LEAST_ONCE)
    assert compacted.run("audit").returncode == 0
    first, newest = (
        str(compacted.sql("select id from outbox where payload->>'seq' = %s", number)[0][0]) for number in ("1", "3")
    )
    (record,) = (one for one in read_all(compacted.kafka, compacted.topic, bytes) if one.id == first)
    producer = Producer({"bootstrap.servers": compacted.kafka})
    place = record.topic, record.raw, record.key.encode(), record.partition
    producer.produce(*place, timestamp=record.timestamp[1], headers=record.headers)  # type: ignore[arg-type]
    assert producer.flush(30) == 0
    wanted = f"but event {newest} is newer: insert an event with the key's current state"
    assert ends(compacted, "k") == (1, {first: wanted})
    assert dict(compact(compacted))["k"] == 1
    assert ends(compacted, "k") == (1, {first: wanted})
    insert(compacted, "k", 6)
    publish(compacted, AT_LEAST_ONCE)
    assert dict(compact(compacted))["k"] == 6
    assert ends(compacted, "k") == (0, {})


def ends(pipeline: Pipeline, key: str) -> tuple[int, dict[str, str]]:
    """What `audit` says of keys that end with an older event: its exit code, and by their last record what is wrong."""
    done = pipeline.run("audit", "--json")
    stale = [one for one in json.loads(done.stdout)["findings"] if one["finding"] == "stale"]
    assert all(one["key"] == key for one in stale)
    return done.returncode, {one["id"]: one["meaning"].partition(", ")[2].partition(", ")[2] for one in stale}
