"""What the topics hold of our stream, read back from a real Kafka."""

import contextlib
import itertools
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewPartitions, NewTopic

from cdc.config.settings import Settings
from cdc.errors import CdcError, KafkaError, KafkaUnavailable
from cdc.kafka.readback import backwards, chunks, consumer
from cdc.kafka.readback import partition as decisions
from cdc.kafka.readback.log import Entry
from cdc.kafka.readback.tail import Tail
from cdc.kafka.readback.tails import Tails
from cdc.local.kafka import KafkaBroker
from cdc.lsn import LSN
from tests.pipeline import eventually
from tests.producing import in_order
from tests.secured import named_listener
from tests.servers import Servers

pytestmark = pytest.mark.timeout(120)

OURS, OTHER = "0badcafe", "0badcaff"
SECOND = 1_785_542_400_000  # commit time of the first records, milliseconds
HOUR = 3_600_000
CONFIRMED = 100

Headers = list[tuple[str, str | bytes | None]]


def event(lsn: int, index: int = 0, *, stream: str = OURS, event_id: str = "", sequence: int | None = None) -> Headers:
    """The headers of an event as the publisher sends them."""
    told: Headers = [("id", event_id or f"{lsn}.{index}"), ("eventType", "Noted")]
    told.append(("cdc-position", f"{stream}-{lsn:016X}-{index:08X}"))
    return told if sequence is None else [*told, ("cdc-sequence", str(sequence))]


class Yard:
    """Topics that a test writes by itself."""

    def __init__(self, kafka: str, prefix: str) -> None:
        self.kafka = kafka
        self.settings = Settings.model_validate({"kafka": {"bootstrap.servers": kafka}})
        self.admin = AdminClient({"bootstrap.servers": kafka})
        self.tails: list[Tails] = []
        self._prefix = prefix
        self._names = itertools.count()
        self._ended: list[Producer] = []  # whose transactions ended: to begin the next takes far less time
        self._producer = in_order(kafka)

    def close(self) -> None:
        for tails in self.tails:
            tails.close()

    def topic(self, partitions: int = 1) -> str:
        name = f"{self._prefix}{next(self._names)}"
        # The records are older than the retention of a broker, which deletes them once in five minutes.
        new = NewTopic(name, partitions, config={"retention.ms": "-1"})
        self.admin.create_topics([new])[name].result()
        self.learns(name, partitions)
        return name

    def learns(self, topic: str, partitions: int) -> None:
        """Wait until the broker knows of partitions that were made."""

        def knows() -> bool:
            with contextlib.suppress(KafkaException):
                (described,) = self.admin.describe_topics(TopicCollection([topic])).values()
                return len(described.result().partitions) == partitions
            return False

        eventually(knows, f"{topic} has {partitions} partitions")

    def send(self, topic: str, *records: Headers, partition: int = 0, at: int = SECOND) -> None:
        for headers in records:
            self._produce(self._producer, topic, partition, headers, at)
        assert self._producer.flush(30) == 0

    def foreign(self, topic: str, count: int, partition: int = 0, at: int = SECOND) -> None:
        self.send(topic, *([[]] * count), partition=partition, at=at)

    def transaction(self, topic: str, *records: Headers, partition: int = 0) -> Producer:
        """An open transaction with records that are in the topic."""
        made = self._ended.pop() if self._ended else self._transactional()
        made.begin_transaction()
        for headers in records:
            self._produce(made, topic, partition, headers, SECOND)
        assert made.flush(30) == 0
        return made

    def commit(self, transaction: Producer) -> None:
        transaction.commit_transaction(30)
        self._ended.append(transaction)

    def abort(self, transaction: Producer) -> None:
        transaction.abort_transaction(30)
        self._ended.append(transaction)

    def open(
        self,
        *,
        confirmed: int = CONFIRMED,
        sequences: bool = False,
        settings: Settings | None = None,
        known: Sequence[str] = (),
        commit_times: bool = True,
    ) -> Tails:
        tails = Tails(
            settings or self.settings,
            OURS,
            LSN(confirmed),
            sequences=sequences,
            known=lambda: known,
            commit_times=commit_times,
        )
        self.tails.append(tails)
        return tails

    def read(self, topic: str, **options: Any) -> Tail:
        return asked(self.open(**options), topic)

    def _transactional(self) -> Producer:
        made = Producer({"bootstrap.servers": self.kafka, "transactional.id": f"{self._prefix}{next(self._names)}"})
        made.init_transactions(30)
        return made

    def _produce(self, producer: Producer, topic: str, partition: int, headers: Headers, at: int) -> None:
        producer.produce(topic, b"", b"k", partition=partition, headers=headers, timestamp=at)


def asked(tails: Tails, topic: str, since: int = SECOND) -> Tail:
    deadline = time.monotonic() + 60
    while (tail := tails.ask(topic, since)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return tail


def found(tail: Tail, lsns: Iterable[int], partition: int | None = 0, index: int = 0) -> list[int]:
    """Those of the commit LSNs that are there, each with its id."""
    there = [lsn for lsn in lsns if tail.id_at(partition, lsn, index) is not None]
    assert all(tail.id_at(partition, lsn, index) == f"{lsn}.{index}" for lsn in there)
    return there


@pytest.fixture
def yard(servers: Servers, topic_prefix: str) -> Iterator[Yard]:
    made = Yard(servers.kafka, topic_prefix)
    yield made
    made.close()


def test_each_position_is_found_in_its_partition_with_its_id(yard: Yard) -> None:
    topic = yard.topic(3)
    for partition in range(3):
        yard.send(topic, *(event(lsn, partition) for lsn in range(98, 104)), partition=partition)
    tail = yard.read(topic)
    assert tail.partitions == 3
    for partition in range(3):
        assert found(tail, range(110), partition, index=partition) == [100, 101, 102, 103]
        assert found(tail, range(110), None, index=partition) == [100, 101, 102, 103]
    assert [tail.elsewhere(partition, 101, 2) for partition in range(3)] == [True, True, False]
    assert not tail.elsewhere(0, 104, 0)
    assert tail.id_at(2, 101, 2) == "101.2"


def test_holes_and_what_comes_twice_are_as_they_are_b16(yard: Yard) -> None:
    holes, twice = yard.topic(), yard.topic()
    yard.send(holes, *(event(100 + n) for n in (1, 2, 4, 5, 3)))
    yard.send(twice, *(event(100 + n) for n in (1, 2, 3, 2, 3, 4)))
    tails = yard.open()
    assert found(asked(tails, holes), range(110)) == [101, 102, 103, 104, 105]
    assert found(asked(tails, twice), range(110)) == [101, 102, 103, 104]
    hole = yard.topic()
    yard.send(hole, *(event(100 + n) for n in (1, 2, 4, 5)))
    assert found(asked(tails, hole), range(110)) == [101, 102, 104, 105]


def test_records_of_others_are_never_taken_for_ours(yard: Yard) -> None:
    topic = yard.topic()
    yard.send(
        topic,
        event(101, stream=OTHER),
        event(102, stream=OURS.upper()),
        [("id", "x"), ("cdc-position", f"{OURS}-{103:016X}-{0:08X} ")],
        [("id", "x"), ("cdc-position", f"{OURS}-{0xABC:016x}-{0:08x}")],
        [("id", "x"), ("cdc-position", None)],
        [("id", "x"), ("eventType", b"\xff"), ("cdc-position", b"\xff")],
        [("id", "x"), ("cdc-position", f"{OURS}-FFFFFFFFFFFFFFFF-00000000")],
        [("cdc-position", f"{OURS}-{105:016X}-{0:08X}")],
        [("before", None), ("cdc-position", f"{OURS}-{106:016X}-{0:08X}"), ("eventType", "t"), ("id", "106.0")],
        [],
    )
    tail = yard.read(topic)
    there = [lsn for lsn in (*range(101, 107), 0xABC) if tail.id_at(0, lsn, 0) is not None]
    assert there == [105, 106]
    assert tail.id_at(0, 105, 0) == ""  # without an id it is no event of ours
    assert tail.id_at(0, 106, 0) == "106.0"


def test_the_whole_window_is_found_however_far_back_it_begins(yard: Yard) -> None:
    topic = yard.topic(2)
    yard.send(topic, event(99), event(100), partition=0)
    yard.foreign(topic, 3 * chunks.FIRST)
    yard.send(topic, *(event(lsn) for lsn in range(101, 200)))
    yard.foreign(topic, 4 * chunks.FIRST)
    yard.send(topic, *(event(lsn) for lsn in range(200, 300)), event(5000))
    yard.send(topic, *(event(lsn) for lsn in range(50, 400, 2)), partition=1)
    tail = yard.read(topic)
    assert found(tail, range(5001), 0) == [*range(100, 300), 5000]
    assert found(tail, range(5001), 1) == list(range(100, 400, 2))


def test_old_events_behind_newer_ones_do_not_end_the_search(yard: Yard) -> None:
    topic = yard.topic()
    yard.send(topic, event(50), event(150))
    yard.foreign(topic, 2 * chunks.FIRST)
    yard.send(topic, [*event(51), ("cdc-replayed", "2026-08-01")], [*event(52), ("cdc-repaired", "2026-08-01")])
    assert found(yard.read(topic), range(CONFIRMED, 200)) == [150]
    yard.send(topic, event(160), event(53))  # nor do those that filled a hole
    assert found(yard.read(topic), range(CONFIRMED, 200)) == [150, 160]


def late(tail: Tail, lsns: Iterable[int], key: bytes = b"k", partition: int = 0) -> list[int]:
    """Those of the commit LSNs that have an older event of the key behind them."""
    return [lsn for lsn in lsns if tail.overtaken(partition, key, lsn, 0)]


def test_case_d1_events_are_overtaken_by_older_ones_of_their_key_that_a_killed_replay_left(yard: Yard) -> None:
    topic, confirmed, apart, ordered = (yard.topic() for _ in range(4))
    lsns = range(CONFIRMED, 200)
    yard.send(topic, *(event(lsn) for lsn in (103, 104, 101, 102)))
    yard.send(confirmed, *(event(lsn) for lsn in (103, 104, 98, 99)))  # the slot has passed what was sent again
    yard.send(apart, event(103), event(104))
    yard.foreign(apart, 3 * chunks.FIRST)
    yard.send(apart, event(102), event(103))
    yard.send(ordered, *(event(lsn) for lsn in (101, 103, 101, 102, 103)))
    tails = yard.open()
    assert late(asked(tails, topic), lsns) == [103, 104]
    assert late(asked(tails, confirmed), lsns) == [103, 104]
    assert late(asked(tails, apart), lsns) == [104]
    assert late(asked(tails, ordered), lsns) == []
    assert found(asked(tails, ordered), lsns) == [101, 102, 103]


def test_what_is_older_than_the_first_that_comes_again_is_not_read(yard: Yard) -> None:
    topic = yard.topic(2)
    old, late = SECOND - HOUR, SECOND - backwards.MARGIN_MS + 1
    yard.foreign(topic, chunks.FIRST, at=old)
    yard.send(topic, event(101), at=old)
    yard.send(topic, event(102), at=late)
    yard.send(topic, event(103), partition=1, at=old)  # nothing in this partition is new
    tail = yard.read(topic)
    assert found(tail, range(200), 0) == [102]
    assert found(tail, range(200), 1) == []


def test_only_what_was_committed_is_there_c18(yard: Yard) -> None:
    topic = yard.topic()
    yard.send(topic, event(101))
    yard.abort(yard.transaction(topic, event(102)))
    yard.commit(yard.transaction(topic, event(103)))
    for _ in range(50):  # marks of transactions alone
        yard.abort(yard.transaction(topic, event(104)))
    assert found(yard.read(topic), range(200)) == [101, 103]


@pytest.mark.parametrize("end", [Yard.abort, Yard.commit])
def test_the_end_of_an_open_transaction_is_waited_for_c18(
    yard: Yard, end: Callable[[Yard, Producer], None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backwards, "_TELL_SECONDS", 0.05)
    topic = yard.topic(2)
    yard.send(topic, event(101))
    producer = yard.transaction(topic, event(102), partition=1)
    yard.send(topic, *(event(lsn) for lsn in range(103, 110)), partition=1)
    tails = yard.open()
    assert tails.ask(topic, SECOND) is None
    eventually(lambda: "is held back by an open transaction" in caplog.text, "it waits")
    assert tails.ask(topic, SECOND) is None
    assert caplog.text.count(topic) == 1
    end(yard, producer)
    tail = asked(tails, topic)
    assert found(tail, range(200), 0) == [101]
    committed = [102] if end is Yard.commit else []
    assert found(tail, range(200), 1) == [*committed, *range(103, 110)]


def test_a_transaction_that_stays_open_is_not_waited_for_without_end_c18(
    yard: Yard, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backwards, "PATIENCE_SECONDS", 0.3)
    first, second = yard.topic(2), yard.topic(2)
    tails = yard.open(sequences=True)
    open_ones = []
    for topic in (first, second):
        yard.foreign(topic, 3 * chunks.FIRST, partition=1)
        yard.send(topic, event(101, sequence=7), partition=1)
        yard.foreign(topic, 3 * chunks.FIRST, partition=1)
        open_ones.append(yard.transaction(topic, event(102), partition=1))
        yard.send(topic, event(103), partition=1)
        yard.send(topic, event(104))
    for topic in (first, second):
        tail = asked(tails, topic)
        assert found(tail, range(200), 1) == [101]
        assert found(tail, range(200), 0) == [104]
        assert tail.sequence(1) == 7
        assert f"{topic!r} has an open transaction of another producer" in caplog.text
    for producer in open_ones:
        yard.abort(producer)


def test_what_has_expired_is_not_there(yard: Yard) -> None:
    topic, emptied = yard.topic(), yard.topic()
    yard.send(topic, *(event(lsn) for lsn in range(100, 110)))
    yard.send(emptied, event(100))
    parts = [TopicPartition(topic, 0, 6), TopicPartition(emptied, 0, 1)]
    for answer in yard.admin.delete_records(parts).values():
        answer.result()
    tails = yard.open()
    assert found(asked(tails, topic), range(200)) == [106, 107, 108, 109]
    assert found(asked(tails, emptied), range(200)) == []


def test_what_expires_while_it_is_read_is_passed_over(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = yard.topic()
    yard.send(topic, *(event(lsn) for lsn in range(1000, 7000)))
    seek, ends = consumer.KafkaLog.seek, iter([4500, 5000, 6000])

    def deleting(log: consumer.KafkaLog, offsets: Any) -> None:
        """Before each chunk, more of the partition is deleted: at last all of it."""
        if offsets and (end := next(ends, None)) is not None:
            yard.admin.delete_records([TopicPartition(topic, 0, end)])[TopicPartition(topic, 0)].result()
        seek(log, offsets)

    monkeypatch.setattr(consumer.KafkaLog, "seek", deleting)
    tail = yard.read(topic)
    assert found(tail, range(1000, 7000)) == list(range(6000, 7000))


def test_two_ids_of_one_position_are_told(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    topic = yard.topic(2)
    yard.send(topic, event(101), event(101, event_id="other"), event(102), event(102))
    yard.send(topic, event(103), partition=0)
    yard.send(topic, event(103, event_id="elsewhere"), partition=1)
    tail = yard.read(topic)
    assert tail.id_at(0, 101, 0) == "101.0"
    assert [tail.id_at(partition, 103, 0) for partition in range(2)] == ["103.0", "elsewhere"]
    assert f"topic {topic!r} has 1 own positions with more than one id each" in caplog.text


def test_what_comes_late_of_another_topic_is_no_part_of_this(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    topic, other = yard.topic(), yard.topic()
    yard.send(topic, event(102), event(103))
    receive = consumer.KafkaLog.receive
    headers = tuple((name, str(value).encode()) for name, value in event(101))
    late: list[Entry] = [(other, 0, 0, b"k", headers), (other, 0, 2, None, None)]
    monkeypatch.setattr(consumer.KafkaLog, "receive", lambda log: [*late, *receive(log)])
    assert found(yard.read(topic), range(200)) == [102, 103]


def test_what_was_fetched_before_a_seek_does_not_arrive_after_it(yard: Yard) -> None:
    topic, chance = yard.topic(), random.Random(11640)
    yard.foreign(topic, 5000)
    log = consumer.KafkaLog(yard.settings, threading.Event())
    try:
        for _ in range(50):
            offset = chance.randrange(5000)
            log.seek({(topic, 0): offset})
            while not (entries := log.receive()):
                pass
            assert entries[0][2] == offset
            for _ in range(chance.randrange(3)):
                log.receive()
    finally:
        log.close()


def test_case_d8_topics_that_were_used_before_are_read_side_by_side(
    yard: Yard, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = [yard.topic() for _ in range(12)]
    for number, topic in enumerate(topics):
        yard.send(topic, event(200 + number))
    bounds, rounds = consumer.KafkaLog.bounds, list[int]()

    def counted(log: consumer.KafkaLog, places: Any, since: int | None) -> Any:
        rounds.append(len(places))
        return bounds(log, places, since)

    monkeypatch.setattr(consumer.KafkaLog, "bounds", counted)
    tails = yard.open(known=[*topics, f"{topic_prefix}gone"])
    for number, topic in enumerate(topics):
        assert found(asked(tails, topic), range(200, 220)) == [200 + number]
    assert sum(rounds) == len(topics)
    assert len(rounds) == 2  # and 200 topics take four


def test_case_d8_a_topic_held_back_by_a_transaction_does_not_delay_others(yard: Yard) -> None:
    wanted, held_back = yard.topic(), yard.topic()
    for topic in (wanted, held_back):
        yard.send(topic, event(200))
    producer = yard.transaction(held_back, event(201))
    tails = yard.open(known=[held_back])
    assert found(asked(tails, wanted), range(200, 220)) == [200]
    yard.commit(producer)
    assert found(asked(tails, held_back), range(200, 220)) == [200, 201]


def test_letters_without_a_key_and_markers_are_there(yard: Yard) -> None:
    topic = yard.topic(3)
    letter: Headers = [*event(101), ("cdc-topic", ""), ("cdc-error-class", "unreadable-row")]
    yard.send(topic, letter, partition=2)
    yard.send(topic, [*event(102), ("cdc-replayed", "2026-08-01T00:00:00Z")], partition=1)
    tail = yard.read(topic)
    assert found(tail, range(200), None) == [101, 102]
    assert tail.id_at(0, 101, 0) is None


def test_the_last_number_of_each_partition_is_found_also_where_nothing_is_new(yard: Yard) -> None:
    topic = yard.topic(5)
    old = SECOND - HOUR
    yard.send(topic, *(event(lsn, sequence=lsn - 40) for lsn in range(41, 51)), at=old)
    yard.foreign(topic, 12 * chunks.FIRST, at=old)  # far behind what is new
    yard.send(topic, event(51, sequence=1), event(151, sequence=2), partition=1)
    yard.foreign(topic, 2 * chunks.FIRST, partition=1)
    yard.send(topic, event(152, sequence=3), partition=1)
    yard.send(topic, event(52, stream=OTHER, sequence=99), partition=2)
    yard.send(topic, event(53, sequence=4), event(153, sequence=5), event(54), event(154), partition=3)
    yard.send(topic, [*event(55, sequence=8), ("cdc-replayed", "x")], event(156), partition=3)
    yard.send(topic, [*event(56)[:3], ("cdc-sequence", "-1")], [*event(56), ("cdc-sequence", None)], partition=4)
    tail = yard.read(topic, sequences=True)
    assert [tail.sequence(partition) for partition in range(5)] == [10, 3, 0, 5, 0]
    assert found(tail, range(CONFIRMED, 200), 3) == [153, 154, 156]
    assert yard.read(topic).sequence(7) == 0


def test_the_search_for_a_number_has_an_end(
    yard: Yard, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "FARTHEST", 5000)
    monkeypatch.setattr(backwards, "FARTHEST", 5000)
    monkeypatch.setattr(decisions, "UNNUMBERED", 1000)
    topic = yard.topic(2)
    yard.send(topic, event(50, sequence=3), at=SECOND - HOUR)
    yard.foreign(topic, 6000, at=SECOND - HOUR)
    yard.send(topic, event(50, sequence=3), partition=1)
    yard.send(topic, *(event(60) for _ in range(3000)), partition=1)
    tail = yard.read(topic, sequences=True)
    assert [tail.sequence(partition) for partition in range(2)] == [0, 0]
    assert f"no own record with cdc-sequence among the last 5000 of topic {topic!r}, partition 0" in caplog.text
    assert "partition 1" not in caplog.text  # numbers are new here


def test_after_forgetting_only_numbers_are_known(yard: Yard) -> None:
    before, after = yard.topic(2), yard.topic(2)
    for topic in (before, after):
        yard.send(topic, event(101, sequence=3), partition=1)
    tails = yard.open(sequences=True)
    assert found(asked(tails, before), range(200), 1) == [101]
    tails.forget()
    for topic in (before, after):
        tail = asked(tails, topic)
        assert (tail.partitions, tail.sequence(1), tail.id_at(1, 101, 0)) == (2, 3, None)
    without = yard.open()
    without.forget()
    assert asked(without, before).partitions == 2


def test_partitions_are_those_of_the_time_of_reading(yard: Yard) -> None:
    topic = yard.topic(2)
    yard.send(topic, event(101), partition=1)
    assert yard.read(topic).partitions == 2
    yard.admin.create_partitions([NewPartitions(topic, 5)])[topic].result()
    yard.learns(topic, 5)
    tail = yard.read(topic)
    assert tail.partitions == 5
    assert found(tail, range(200), 1) == [101]


def test_records_with_times_of_a_column_are_found_by_their_positions_alone(yard: Yard) -> None:
    topic = yard.topic()
    yard.send(topic, event(99), event(101), at=SECOND - 1000 * HOUR)
    yard.send(topic, event(102), at=SECOND + HOUR)
    yard.send(topic, event(103), at=1)
    assert found(yard.read(topic, commit_times=False), range(200)) == [101, 102, 103]


def test_a_missing_and_an_empty_topic_hold_nothing(yard: Yard, topic_prefix: str) -> None:
    tails = yard.open(sequences=True)
    tail = asked(tails, f"{topic_prefix}missing")
    assert (tail.partitions, tail.id_at(0, 101, 0), tail.id_at(None, 101, 0), tail.sequence(0)) == (0, None, None, 0)
    empty = asked(tails, yard.topic(4))
    assert (empty.partitions, empty.id_at(3, 101, 0), empty.sequence(3)) == (4, None, 0)


def test_a_kafka_that_is_not_there_is_temporary_and_asked_again(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backwards, "SECONDS", 0.3)
    nowhere = Settings.model_validate({"kafka": {"bootstrap.servers": "127.0.0.1:1"}})
    tails = yard.open(settings=nowhere)
    for _ in range(2):
        with pytest.raises(KafkaUnavailable, match="reading topic 'any'"):
            asked(tails, "any")


def test_a_full_disk_is_told_with_what_to_do(yard: Yard) -> None:
    topic = yard.topic()
    yard.send(topic, *(event(lsn) for lsn in range(101, 2000)))
    tails = yard.open()
    tails._seen._opened().run("pragma max_page_count = 4")
    with pytest.raises(CdcError, match="database or disk is full; set TMPDIR to a folder with more free space"):
        asked(tails, topic)


def test_it_ends_soon_while_kafka_does_not_answer_or_a_transaction_is_open(yard: Yard) -> None:
    nowhere = yard.open(settings=Settings.model_validate({"kafka": {"bootstrap.servers": "127.0.0.1:1"}}))
    topic = yard.topic()
    producer = yard.transaction(topic, event(101))
    waiting = yard.open()
    for tails in (nowhere, waiting):
        assert tails.ask(topic, SECOND) is None
    worker = waiting._background._thread
    for tails in (nowhere, waiting, yard.open()):
        tails.close()  # while neither Kafka nor the end of the transaction comes
        assert tails.ask(topic, SECOND) is None
    worker.join(10)
    assert not worker.is_alive()
    yard.abort(producer)


def test_hundreds_of_chunks_and_topics_are_read_exactly(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks, so that much of each is still on its way when the next begins; while others go on writing."""
    monkeypatch.setattr(chunks, "FIRST", 2)
    monkeypatch.setattr(chunks, "LARGEST", 7)
    chance = random.Random(6)
    topics = [yard.topic(2) for _ in range(4)]
    expected: dict[tuple[str, int], set[int]] = defaultdict(set)
    for topic in topics:
        for _ in range(8):
            partition = chance.randrange(2)
            lsns = sorted(chance.sample(range(100, 3000), 40))
            if chance.random() < 0.3:
                yard.abort(yard.transaction(topic, *map(event, lsns), partition=partition))
            elif chance.random() < 0.3:
                yard.foreign(topic, 40, partition)
            else:
                yard.send(topic, *map(event, lsns), partition=partition)
                expected[topic, partition].update(lsns)
    for _ in range(2):
        tails = yard.open()
        for topic in topics:
            yard.foreign(topic, 5, chance.randrange(2))
            tail = asked(tails, topic)
            for partition in range(2):
                assert set(found(tail, range(3000), partition)) == expected[topic, partition]
        tails.close()


def test_records_are_read_quickly_and_with_flat_memory(yard: Yard) -> None:
    topic = yard.topic(2)
    for partition in range(2):
        yard.send(topic, *(event(lsn) for lsn in range(101, 25_101)), partition=partition)
    tail = yard.read(topic)
    assert all(tail.id_at(partition, 25_100, 0) and tail.id_at(partition, 101, 0) for partition in range(2))


def test_a_topic_that_may_not_be_read_is_told_and_stops_only_numbers_c7(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = KafkaBroker(folder, 1)
    user = named_listener(broker)
    with contextlib.ExitStack() as stack:
        stack.callback(broker.stop)
        broker.start()
        yard = Yard(broker.address, "t")
        stack.callback(yard.close)
        settings = Settings.model_validate({"kafka": user})
        hidden, described, readable = topics = [yard.topic(2) for _ in range(3)]
        for topic, right in zip(topics, (None, AclOperation.WRITE, AclOperation.READ), strict=True):
            yard.send(topic, event(101, sequence=1))
            if right is not None:
                of_app = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:app", "*", right)
                (given,) = yard.admin.create_acls([AclBinding(*of_app, AclPermissionType.ALLOW)]).values()
                given.result()
        tails = yard.open(settings=settings)
        eventually(lambda: asked(yard.open(settings=settings), readable).partitions == 2, "the rights are known")
        caplog.clear()
        assert [asked(tails, topic).partitions for topic in (hidden, described, readable)] == [0, 2, 2]
        assert [found(asked(tails, topic), [101]) for topic in (hidden, described, readable)] == [[], [], [101]]
        assert caplog.text.count("events may be sent twice after a crash; grant the principal READ on the topic") == 1
        numbering = yard.open(settings=settings, sequences=True)
        for topic in (hidden, described):
            with pytest.raises(KafkaError, match=f"grant the principal READ on the topic '{topic}'"):
                asked(numbering, topic)
        assert asked(numbering, readable).sequence(0) == 1
