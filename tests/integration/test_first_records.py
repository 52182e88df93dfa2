"""First records of a partition that the broker refuses for now, while those behind them are under way already.

A broker takes any first sequence number of a producer, so it would take the second batch; librdkafka then counts the
first as delivered, with no offset. The proxy spoils the first request of each partition, which the broker refuses for
its checksum; the client tries it again.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from cdc import errors
from cdc.config.settings import Settings
from cdc.delivery.positions import SlotRecord
from cdc.kafka import positions
from cdc.kafka.first_records import Firsts, Target
from cdc.kafka.producer import Sink
from cdc.kafka.topics import KnownTopics
from cdc.kafka.transactional_producer import TransactionalSink
from cdc.local.kafka import KafkaBroker
from cdc.local.stack import Stack
from cdc.lsn import LSN
from cdc.records.partitioner import partition
from cdc.records.record import Delivered, Record
from cdc.replication.settlement import Ledger
from tests.pipeline import eventually, make_pipeline, prepare
from tests.reader import read_all
from tests.torture.behind import before
from tests.torture.connection import Weather
from tests.torture.kafka_fields import PRODUCE, Partition, produce_request
from tests.torture.kafka_frames import KafkaFrames
from tests.torture.postgres_frames import Tape
from tests.torture.proxy import Loop
from tests.torture.watch import Watch

pytestmark = pytest.mark.timeout(120)

TOPIC: Final = "t-events"
PARTITIONS: Final = 2
KEYS: Final[list[list[bytes | None]]] = [[b"a", b"b", b"c", b"d"] * 3, [None] * 12, [b"a", None, b"b", None] * 3]
FORGETFUL: Final = {"producer.id.expiration.ms": "1000", "producer.id.expiration.check.interval.ms": "100"}


class Spoiling(KafkaFrames):
    """Changes the last byte of the first request to each partition."""

    def __init__(self, spoiled: set[Partition]) -> None:
        super().__init__(Tape(Watch(), lambda *_: None, lambda _: None), {})
        self._spoiled = spoiled

    def up(self, data: bytearray) -> Iterator[bytes]:
        for frame in super().up(data):
            yield self._spoil(frame) if int.from_bytes(frame[4:6], "big") == PRODUCE else frame

    def _spoil(self, frame: bytes) -> bytes:
        ((place, batch),) = produce_request(frame, int.from_bytes(frame[6:8], "big"))
        if place in self._spoiled or not place[0].startswith("t-"):
            return frame
        self._spoiled.add(place)
        at = frame.index(batch) + len(batch) - 1
        return frame[:at] + bytes([frame[at] ^ 0xFF]) + frame[at + 1 :]


class Broker:
    """A broker that refuses the first records of each partition of TOPIC, and is slow to say so."""

    def __init__(self, kafka: str, spoiled: set[Partition]) -> None:
        self.kafka = kafka
        self.spoiled = spoiled
        self.settings = Settings.model_validate(
            {
                "kafka": {
                    "bootstrap.servers": kafka,
                    "compression.type": "none",
                    "batch.num.messages": 1,
                    "linger.ms": 0,
                },
            }
        )
        self.topics = KnownTopics(self.settings)
        self.topics.renew()

    def values(self) -> list[bytes]:
        return [record.value for record in read_all(self.kafka, TOPIC, bytes)]

    def holds(self, keys: Sequence[bytes | None]) -> None:
        """All of `numbered(keys)` once, those of each key in their order."""
        found = self.values()
        assert sorted(found) == [b"%02d" % number for number in range(len(keys))]
        for key in set(keys) - {None}:
            of_key = [value for value in found if keys[int(value)] == key]
            assert of_key == sorted(of_key)


def test_what_a_broker_lost_that_had_forgotten_the_producer_is_sent_again_c3_c6(
    private_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    stack = private_stack(kafka=None)
    (broker,) = stack.brokers
    keys = [f"key {n}" for n in range(20) if partition(b"key %d" % n, 3) == 0]
    nothing = {("t-note", 0)}
    spoiled = nothing.copy()
    with (
        Loop() as loop,
        before(loop, broker, lambda: Spoiling(spoiled)) as proxy,
        closing(make_pipeline(stack.postgres.dsn, broker.address, "t-", tmp_path)) as pipeline,
    ):
        broker.settings |= FORGETFUL
        broker.start()
        prepare(pipeline)
        pipeline.settings["kafka"] = {"bootstrap.servers": f"127.0.0.1:{proxy.port}", "compression.type": "none"}
        running = pipeline.start().streams()
        pipeline.insert(1, key=keys[0])
        pipeline.settles()
        time.sleep(3)  # until it is forgotten
        proxy.set("down", Weather(delay=0.5))
        spoiled.clear()
        pipeline.insert(2, key=keys[1])
        eventually(lambda: spoiled == nothing, "the request that the broker refuses")
        pipeline.insert(3, key=keys[2])
        running.logs("the broker accepted a later record, and this one may be lost")
        proxy.heal()
        pipeline.settles()
        assert running.stop() == 0
        assert [record.value["seq"] for record in pipeline.judge()] == [1, 3, 2]
        assert proxy.roads.errors == []


@pytest.fixture
def broker(folder: Path) -> Iterator[Broker]:
    broker = KafkaBroker(folder, 1)
    spoiled: set[Partition] = set()
    with ExitStack() as ends:
        loop = ends.enter_context(Loop())
        proxy = ends.enter_context(before(loop, broker, lambda: Spoiling(spoiled)))
        ends.callback(broker.stop)
        broker.start()
        admin = AdminClient({"bootstrap.servers": broker.address})
        admin.create_topics([NewTopic(TOPIC, PARTITIONS)])[TOPIC].result()
        made = Broker(f"127.0.0.1:{proxy.port}", spoiled)
        eventually(lambda: made.topics.largest(TOPIC) is not None, "the topic")
        proxy.set("down", Weather(delay=0.05))
        yield made
        assert proxy.roads.errors == []


def numbered(keys: Sequence[bytes | None], report: Delivered) -> list[Record]:
    return [Record.to(TOPIC, key, b"%02d" % number, 1_000, [], report) for number, key in enumerate(keys)]


def publish(sink: Sink | TransactionalSink, waiting: list[Record]) -> None:
    """Send, and poll until nothing is under way."""
    while waiting or len(sink):
        del waiting[: sink.send(waiting)]
        sink.poll(0.05)


def test_a_plain_client_is_told_that_a_record_is_delivered_which_is_nowhere(broker: Broker) -> None:
    told: list[Any] = []
    producer = Producer({**broker.settings.kafka, "acks": "all", "enable.idempotence": True})
    producer.list_topics(TOPIC)
    for record in numbered([b"k"] * 3, lambda *report: told.append(report)):
        producer.produce(*record)
    assert producer.flush(30) == 0
    assert [(error, message.offset()) for error, message in told] == [(None, None), (None, 0), (None, 1)]
    assert broker.values() == [b"01", b"02"]


@pytest.mark.parametrize("keys", KEYS, ids=repr)
def test_records_behind_a_refused_first_one_neither_replace_nor_pass_it_c6(
    broker: Broker, keys: list[bytes | None]
) -> None:
    told: list[Any] = []
    sink = Sink(broker.settings, broker.topics)
    publish(sink, numbered(keys, lambda *report: told.append(report)))
    sink.close()
    assert len(broker.spoiled) == PARTITIONS
    assert None not in [message.offset() for _, message in told]
    broker.holds(keys)


@pytest.mark.parametrize("keys", KEYS, ids=repr)
def test_the_same_in_a_kafka_transaction_c6(broker: Broker, keys: list[bytes | None]) -> None:
    reports: list[Any] = []
    key = "7300/shop"
    positions.ensure(broker.settings)
    mark = SlotRecord("7300", 1, "shop", LSN(100), {}, {}).encode()
    end = Record.to(broker.settings.topics.positions, key.encode(), mark, 1_000, [], lambda *_: None)
    sink = TransactionalSink(broker.settings, broker.topics, key)
    publish(sink, [*numbered(keys, lambda error, _: reports.append(error)), end])
    sink.close()
    assert len(broker.spoiled) == PARTITIONS
    assert reports == [None] * len(keys)
    broker.holds(keys)


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """First records do not go alone."""
    monkeypatch.setattr(Firsts, "place", lambda *_: Target(0, first=False, partition=0))


@pytest.mark.usefixtures("careless")
def test_a_delivery_without_an_offset_is_none_and_ends_the_session_c6(broker: Broker) -> None:
    ledger = Ledger()
    transaction = ledger.begin(LSN(1), 0)
    waiting = numbered([b"k"] * 3, transaction.report)
    transaction.add_events(len(waiting))
    sink = Sink(broker.settings, broker.topics)
    assert sink.send(waiting) == len(waiting)
    publish(sink, [])
    sink.close()
    assert broker.values() == [b"01", b"02"]
    assert transaction.undelivered == 1
    assert ledger.failure
    problem = broker.topics.failed(ledger.failure)
    assert isinstance(problem, errors.KafkaUnavailable)  # which a new session mends
    assert f"delivering to topic '{TOPIC}', key 'k', transaction 0/1: the broker accepted a later" in str(problem)


@pytest.mark.usefixtures("careless")
def test_a_kafka_transaction_that_fails_while_its_records_are_under_way_ends_the_session_c6(broker: Broker) -> None:
    sink = TransactionalSink(broker.settings, broker.topics, "7300/shop")
    assert sink.send(numbered([b"k"] * 3, lambda *_: None)) == 3
    sink.hasten()
    end = Record.to(broker.settings.topics.positions, b"7300/shop", b"", 1_000, [], lambda *_: None)
    assert sink.send([end]) == 1
    with pytest.raises(errors.KafkaUnavailable, match="committing a transaction"):
        publish(sink, [])
    sink.close()
    assert broker.values() == []
