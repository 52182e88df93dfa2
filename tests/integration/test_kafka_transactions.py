"""The transactional sink on a real Kafka: what counts as delivered, who is fenced, and what the next one finds."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from cdc import errors
from cdc.config.settings import Settings
from cdc.delivery.positions import SlotRecord, latest
from cdc.kafka import positions
from cdc.kafka.cluster import Cluster
from cdc.kafka.topics import KnownTopics
from cdc.kafka.transactional_producer import TransactionalSink, hand_over
from cdc.lsn import LSN
from cdc.records.record import Record
from tests.pipeline import eventually
from tests.reader import read_all
from tests.servers import Servers

pytestmark = pytest.mark.timeout(120)

KEY = "7300/shop"
MARK = SlotRecord("7300", 1, "shop", LSN(100), {}, {})


class Sending:
    """A sink as a publisher uses it, and what was reported."""

    def __init__(self, settings: Settings) -> None:
        topics = KnownTopics(settings)
        topics.renew()
        self.positions = settings.topics.positions
        self.sink = TransactionalSink(settings, topics, KEY)
        self.reports: list[Any] = []

    def send(self, topic: str, *values: bytes) -> None:
        for value in values:
            key = KEY.encode() if topic == self.positions else b"k"
            record = Record.to(topic, key, value, int(time.time() * 1000), [("id", "1")], self._report)
            while not self.sink.send([record]):
                self.sink.poll(0.05)

    def end(self, mark: SlotRecord = MARK) -> None:
        """End the transaction, and wait until that is proven."""
        self.send(self.positions, mark.encode())
        self.settle()

    def settle(self) -> None:
        while len(self.sink):
            self.sink.poll(0.05)

    def _report(self, error: Any, message: Any) -> None:
        self.reports.append((error, message))


Begin = Callable[..., Sending]


@pytest.fixture
def settings(servers: Servers, topic_prefix: str) -> Settings:
    given = Settings.model_validate(
        {"kafka": {"bootstrap.servers": servers.kafka}, "topics": {"positions": f"{topic_prefix}positions"}}
    )
    positions.ensure(given)
    return given


@pytest.fixture
def topic(servers: Servers, topic_prefix: str) -> str:
    return create(servers.kafka, f"{topic_prefix}events")


@pytest.fixture
def begin(settings: Settings) -> Iterator[Begin]:
    begun: list[Sending] = []

    def start() -> Sending:
        begun.append(Sending(settings))
        return begun[-1]

    yield start
    for sending in begun:
        sending.sink.close()


def create(kafka: str, name: str, **config: str) -> str:
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(name, 1, config=config)])[name].result()
    return name


def visible(settings: Settings, topic: str) -> list[bytes]:
    """What a consumer of committed records gets now."""
    return [record.raw for record in read_all(str(settings.kafka["bootstrap.servers"]), topic, bytes)]


def becomes_visible(settings: Settings, topic: str, *values: bytes) -> None:
    """The coordinator answers before the partitions know of the commit."""
    eventually(lambda: visible(settings, topic) == list(values), f"{values} in {topic}")


def held_back(settings: Settings, topic: str) -> bool:
    """Whether an open transaction keeps readers of committed records from the end of the topic."""
    bootstrap = {"bootstrap.servers": settings.kafka["bootstrap.servers"], "group.id": "unused"}
    ends = []
    for level in ("read_committed", "read_uncommitted"):
        with closing(Consumer({**bootstrap, "isolation.level": level})) as consumer:
            ends.append(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)[1])
    return ends[0] != ends[1]


def remembered(settings: Settings) -> SlotRecord | None:
    return latest(positions.values(settings, KEY))


def test_nothing_is_delivered_or_visible_before_the_commit_and_then_all_is_at_once_c18(
    settings: Settings, topic: str, begin: Begin
) -> None:
    sending = begin()
    sending.send(topic, b"1", b"2")
    for _ in range(20):
        sending.sink.poll(0.02)
    assert (sending.reports, visible(settings, topic), len(sending.sink)) == ([], [], 2)
    sending.end()
    assert [error for error, _ in sending.reports] == [None, None, None]
    becomes_visible(settings, topic, b"1", b"2")
    assert remembered(settings) == MARK
    assert len(sending.sink) == 0
    sending.send(topic, b"3")
    sending.end()
    becomes_visible(settings, topic, b"1", b"2", b"3")


def test_a_record_of_the_position_ends_the_transaction_and_nothing_passes_it(
    settings: Settings, topic: str, begin: Begin
) -> None:
    sending = begin()
    sending.send(topic, b"1")
    sending.send(sending.positions, MARK.encode())
    late = Record.to(topic, b"k", b"late", 0, [], sending._report)
    assert sending.sink.send([late]) == 0
    sending.settle()
    becomes_visible(settings, topic, b"1")


def test_a_second_publisher_ends_what_the_first_had_begun_and_fences_it_b16(
    settings: Settings, topic: str, begin: Begin
) -> None:
    first = begin()
    first.send(topic, b"open")
    first.sink.poll(0.2)
    second = begin()
    second.send(topic, b"2")
    second.end()
    with pytest.raises(errors.Fenced, match="another producer uses the same transactional id"):
        first.end()
    with pytest.raises(errors.Fenced):
        first.end()
    becomes_visible(settings, topic, b"2")


def test_what_a_publisher_left_open_is_taken_back_when_it_closes_and_nobody_waits_for_it(
    settings: Settings, topic: str
) -> None:
    leaving = Sending(settings)
    leaving.send(topic, b"open")
    leaving.sink.poll(0.2)
    eventually(lambda: held_back(settings, topic), "the record is in the topic")
    leaving.sink.close()
    eventually(lambda: not held_back(settings, topic), "no open transaction holds readers back")
    following = Sending(settings)
    following.send(topic, b"2")
    following.end()
    following.sink.close()
    becomes_visible(settings, topic, b"2")


def test_a_refused_record_takes_its_transaction_with_it_and_is_told_with_its_reason_c6_c18(
    servers: Servers, settings: Settings, topic: str, topic_prefix: str, begin: Begin
) -> None:
    small = create(servers.kafka, f"{topic_prefix}small", **{"max.message.bytes": "1000"})
    sending = begin()
    sending.send(topic, b"1")
    sending.send(small, b"x" * 5000)
    with pytest.raises(errors.KafkaUnavailable, match=r"MSG_SIZE_TOO_LARGE.*sending each record alone"):
        sending.end()
    # Others of the transaction were purged because of it, which is no reason.
    assert {(error.name(), message.topic()) for error, message in sending.reports} <= {("MSG_SIZE_TOO_LARGE", small)}
    Sending(settings).sink.close()  # the next one ends what is open
    assert visible(settings, topic) == []
    assert remembered(settings) is None


def test_a_transaction_that_failed_is_told_although_it_takes_nothing_more_c18(
    servers: Servers, topic_prefix: str, begin: Begin
) -> None:
    small = create(servers.kafka, f"{topic_prefix}small", **{"max.message.bytes": "1000"})
    sending = begin()
    sending.send(small, b"x" * 5000)
    time.sleep(1.0)  # it is refused meanwhile
    with pytest.raises(errors.KafkaUnavailable, match=r"MSG_SIZE_TOO_LARGE.*sending each record alone"):
        sending.end()


def test_handing_over_ends_what_is_open_fences_who_had_it_and_writes_the_mark_b16(
    settings: Settings, topic: str, begin: Begin
) -> None:
    sending = begin()
    sending.send(topic, b"open")
    sending.sink.poll(0.2)
    hand_over(settings, MARK)
    assert remembered(settings) == MARK
    with pytest.raises(errors.Fenced):
        sending.end()
    assert visible(settings, topic) == []


def test_positions_behind_a_transaction_of_another_publisher_are_waited_for_c19(
    settings: Settings, topic: str, begin: Begin
) -> None:
    sending = begin()
    sending.end()
    cluster, positions_topic = Cluster(settings.kafka), settings.topics.positions
    eventually(lambda: cluster.ends(positions_topic)[0] == 2, "a record, and the mark of its commit")
    sending.send(topic, b"1")
    sending.send(sending.positions, b"not committed yet")
    eventually(lambda: cluster.ends(positions_topic)[0] == 3, "the record")
    with pytest.raises(errors.KafkaUnavailable, match="could not be read beyond offset"):
        list(positions.values(settings, KEY, seconds=3))
    hand_over(settings, MARK)
    with pytest.raises(errors.Fenced):
        sending.settle()
    assert latest(positions.values(settings, KEY)) == MARK


def test_brokers_that_refuse_transactions_are_named_in_one_line(settings: Settings) -> None:
    given = settings.model_copy(update={"kafka": {**settings.kafka, "transaction.timeout.ms": 2_000_000}})
    with pytest.raises(errors.KafkaError, match="preparing transactions") as caught:
        Sending(given)
    assert 'lower "transaction.timeout.ms" in [kafka]' in caught.value.hint
    nowhere = settings.model_copy(update={"kafka": {"bootstrap.servers": "127.0.0.1:1"}})
    with pytest.raises(errors.KafkaUnavailable, match="preparing transactions"):
        Sending(nowhere)
