"""The consumer on real servers: retries, dead letters, commits, transactions and missing topics."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from cdc.config import librdkafka
from cdc.consumer import (
    AlreadyRun,
    Consumer,
    Decoder,
    Event,
    GapDetector,
    HandlerFailed,
    Inbox,
    Rejected,
    Retry,
    Verdict,
)
from cdc.consumer.properties import connection
from cdc.errors import ConfigError, KafkaError, KafkaUnavailable, PostgresUnavailable, Temporary
from cdc.kafka import client
from tests.consuming import (
    APPLIED,
    QUICK,
    Handler,
    Running,
    Sent,
    applied,
    committed,
    ends,
    make_topic,
    read,
    send,
    texts,
)
from tests.pipeline import eventually
from tests.servers import PrivateStack, Servers


@pytest.fixture
def kafka(servers: Servers, topic_prefix: str) -> dict[str, Any]:
    """The properties of a consumer group for one test."""
    return {"bootstrap.servers": servers.kafka, "group.id": f"{topic_prefix}group"}


@pytest.fixture
def topic(servers: Servers, topic_prefix: str) -> str:
    """Create a topic of two partitions."""
    return make_topic(servers.kafka, f"{topic_prefix}events", 2)


@pytest.fixture
def dead(servers: Servers, topic_prefix: str) -> str:
    """Create a topic for dead letters."""
    return make_topic(servers.kafka, f"{topic_prefix}dead")


def test_a_failing_event_blocks_only_its_partition_and_is_dead_lettered(
    servers: Servers, kafka: dict[str, Any], topic: str, dead: str
) -> None:
    bad = Sent(1, "bad", partition=0, headers=(("trace", "x"),))
    send(servers.kafka, topic, [bad, *(Sent(lsn, "behind", partition=0) for lsn in (2, 3))])
    go = threading.Event()
    handler = Handler({b"bad": ValueError("no such customer")})

    def handle(event: Event) -> None:
        if event.key == b"bad" and not go.is_set():
            handler.attempts.append(("bad", 0))
            raise Temporary("not yet")
        handler(event)

    consumer = Consumer(kafka, [topic], handle, dead_letter=dead, retry=QUICK, commit_seconds=0.05)
    with Running(consumer) as running:
        running.until(lambda: len(handler.attempts) >= 2, "two attempts")
        send(servers.kafka, topic, [Sent(lsn, "good", partition=1) for lsn in range(4, 24)])
        running.until(lambda: len(handler.handled) == 20, "the other partition continues")
        assert handler.handled == [("good", lsn) for lsn in range(4, 24)]
        running.until(lambda: committed(servers.kafka, kafka["group.id"], topic, 2)[1] == 20, "and is committed")
        assert committed(servers.kafka, kafka["group.id"], topic, 2)[0] < 0
        go.set()
        running.until(lambda: len(handler.handled) == 22, "the events behind it")
    assert handler.handled[20:] == [("behind", 2), ("behind", 3)]
    assert handler.attempts.count(("bad", 1)) == 3
    assert committed(servers.kafka, kafka["group.id"], topic, 2) == [3, 20]

    (letter,) = read(servers.kafka, dead, 1)
    assert (letter.key(), letter.value()) == (b"bad", b"value")
    headers = texts(letter)
    assert list(headers.items())[: len(bad.all_headers)] == bad.all_headers
    assert headers["cdc-error-class"] == "builtins.ValueError"
    assert headers["cdc-error-message"] == "no such customer"
    assert [headers[f"cdc-error-{name}"] for name in ("topic", "partition", "offset")] == [topic, "0", "0"]
    assert int(headers["cdc-error-attempts"]) == handler.attempts.count(("bad", 0)) + 3
    assert headers["cdc-error-group"] == kafka["group.id"]


def test_without_a_dead_letter_topic_it_ends_and_resumes_there(
    servers: Servers, kafka: dict[str, Any], topic: str
) -> None:
    send(servers.kafka, topic, [Sent(lsn, key, partition=0) for lsn, key in enumerate(("a", "b", "bad", "c"))])
    handler = Handler({b"bad": ValueError("no such customer")})
    with pytest.raises(HandlerFailed, match=r"ValueError: no such customer; fix the cause") as raised:
        Consumer(kafka, [topic], handler, retry=QUICK).run()
    failed = raised.value
    assert (failed.topic, failed.partition, failed.offset, failed.event_id) == (topic, 0, 2, Sent(2, "bad").id)
    assert isinstance(failed.__cause__, ValueError)
    assert handler.attempts == [("a", 0), ("b", 1), *[("bad", 2)] * 3]
    assert committed(servers.kafka, kafka["group.id"], topic) == [2]

    with Running(Consumer(kafka, [topic], mended := Handler())) as running:
        running.until(lambda: len(mended.handled) == 2, "the rest")
    assert mended.handled == [("bad", 2), ("c", 3)]
    assert committed(servers.kafka, kafka["group.id"], topic) == [4]


def test_temporary_errors_are_retried_indefinitely(
    servers: Servers, kafka: dict[str, Any], topic: str, dead: str
) -> None:
    send(servers.kafka, topic, [Sent(1, "k", partition=0), Sent(2, "k", partition=0)])
    handler = Handler({b"k": Temporary("the service is away")}, times=8)
    with Running(Consumer(kafka, [topic], handler, dead_letter=dead, retry=QUICK)) as running:
        running.until(lambda: len(handler.handled) == 2, "handled after all")
    assert handler.attempts == [("k", 1)] * 9 + [("k", 2)]


def test_rejected_and_undecodable_events_are_dead_lettered_at_once(
    servers: Servers, kafka: dict[str, Any], topic: str, dead: str, database: str
) -> None:
    foreign = Producer({"bootstrap.servers": servers.kafka})
    foreign.produce(topic, b"of somebody else", b"foreign", 0)
    foreign.flush(30)
    records = [Sent(1, "undecodable", partition=0, value=b"\xc3\x01\xff"), Sent(2, "rejected", partition=0)]
    send(servers.kafka, topic, [*records, Sent(3, "gone", partition=0, value=None)])
    attempts: list[int] = []

    def handle(event: Event, _: "psycopg.Connection[Any]") -> None:
        attempts.append(event.attempt)
        if event.key == b"rejected":
            raise Rejected("there is no such order")
        assert event.value is None

    inbox = Inbox("tests")
    with psycopg.connect(database) as connection:
        inbox.create(connection)
    consumer = Consumer(
        kafka,
        [topic],
        handle,
        inbox=inbox,
        connect=lambda: psycopg.connect(database),
        decoder=Decoder(schemas=lambda number: str(number)),
        dead_letter=dead,
        commit_seconds=0.05,
    )
    with Running(consumer) as running:
        running.until(lambda: committed(servers.kafka, kafka["group.id"], topic) == [4], "all is done")
    assert attempts == [1, 1, 1]
    letters = list(read(servers.kafka, dead, 3))
    assert [letter.key() for letter in letters] == [b"foreign", b"undecodable", b"rejected"]
    assert [texts(letter)["cdc-error-class"].rpartition(".")[2] for letter in letters] == [
        "MissingId",
        "UnknownFraming",
        "Rejected",
    ]


def test_records_of_transactions_that_were_aborted_are_never_seen_c18(
    servers: Servers, kafka: dict[str, Any], topic: str
) -> None:
    producer = Producer({"bootstrap.servers": servers.kafka, "transactional.id": topic})
    producer.init_transactions(30)
    number = 0
    for attempt in range(6):
        producer.begin_transaction()
        first = number + 1
        send(servers.kafka, topic, [Sent(first + at, "k", first + at, 0) for at in range(5)], producer)
        if attempt % 2:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
            number += 5
    handler, verdicts = Handler(), list[Verdict]()
    detector = GapDetector()
    detector.on(Verdict, verdicts.append)
    with Running(Consumer(kafka, [topic], handler, detector=detector)) as running:
        running.until(lambda: len(handler.handled) == 15, "all that was committed")
    assert handler.handled == [("k", lsn) for lsn in range(1, 16)]
    assert [type(verdict).__name__ for verdict in verdicts] == ["Started"] + ["InOrder"] * 14


def test_a_topic_that_is_missing_is_waited_for_with_a_warning(
    servers: Servers, kafka: dict[str, Any], topic_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"{topic_prefix}later"
    handler = Handler()
    properties = {**kafka, "topic.metadata.refresh.interval.ms": 500}
    with caplog.at_level(logging.WARNING, "cdc.consumer"), Running(Consumer(properties, [name], handler)) as running:
        running.until(lambda: f"topic {name!r} does not exist" in caplog.text, "the warning")
        make_topic(servers.kafka, name)
        send(servers.kafka, name, [Sent(1)])
        running.until(lambda: handler.handled == [("k", 1)], "consumed once it is there")


def test_a_failed_start_reports_the_reason(
    servers: Servers, kafka: dict[str, Any], topic: str, topic_prefix: str
) -> None:
    with pytest.raises(KafkaError, match="does not exist; create it"):
        Consumer(kafka, [topic], Handler(), dead_letter=f"{topic_prefix}nowhere").run()
    nowhere = "postgresql://postgres@127.0.0.1:1/postgres"
    with pytest.raises(PostgresUnavailable, match="cannot connect"):
        Consumer(kafka, [topic], print, inbox=Inbox("x"), connect=lambda: psycopg.connect(nowhere)).run()
    with pytest.raises(KafkaError, match="this group has never read"):
        Consumer({**kafka, "auto.offset.reset": "error"}, [topic], Handler()).run()
    stopped = Consumer(kafka, [topic], Handler())
    stopped.stop()
    stopped.run()
    with Consumer(kafka, [topic], Handler()) as unused:
        assert unused
    assert servers.kafka == kafka["bootstrap.servers"]


def test_a_rebalance_forgets_retries_and_leaves_no_partition_paused(
    servers: Servers, kafka: dict[str, Any], topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    send(servers.kafka, topic, [Sent(1, "bad", partition=0), Sent(2, "bad", partition=1)])
    handler, go = Handler(), threading.Event()

    def handle(event: Event) -> None:
        handler.attempts.append(("any", event.partition))
        if not go.is_set():
            raise Temporary("not yet")
        handler(event)

    def assignments() -> int:
        return sum(record.getMessage().startswith("assigned: ") for record in caplog.records)

    properties = {**kafka, "heartbeat.interval.ms": 300}
    retry, detector = Retry(first_seconds=0.01, longest_seconds=0.05), GapDetector()
    one = Consumer(properties, [topic], handle, retry=retry, detector=detector)
    with caplog.at_level(logging.INFO, "cdc.consumer"), Running(one) as first:
        first.until(lambda: {("any", 0), ("any", 1)} <= set(handler.attempts), "both partitions wait")
        with Running(Consumer(properties, [topic], handle, retry=retry)) as second:
            second.until(lambda: assignments() == 3, "one partition for each")
            assert len(detector.state()["partitions"]) <= 1
        first.until(lambda: assignments() == 4, "both are back")
        send(servers.kafka, topic, [Sent(3, "k", partition=0), Sent(4, "k", partition=1)])
        go.set()
        first.until(lambda: len(handler.handled) == 4, "nothing is left paused")
    assert sorted(handler.handled) == [("bad", 1), ("bad", 2), ("k", 3), ("k", 4)]
    assert committed(servers.kafka, kafka["group.id"], topic, 2) == [2, 2]


def test_second_process_with_the_same_instance_id_ends_the_first(
    servers: Servers, kafka: dict[str, Any], topic: str
) -> None:
    send(servers.kafka, topic, [Sent(1, partition=0)])
    properties = {**kafka, "group.instance.id": "only", "heartbeat.interval.ms": 300}
    handler = Handler()
    first = Running(Consumer(properties, [topic], handler, commit_seconds=0.05))
    with contextlib.suppress(KafkaError), first:
        first.until(lambda: committed(servers.kafka, kafka["group.id"], topic)[0] == 1, "the first works")
        with Running(Consumer(properties, [topic], handler)):
            eventually(lambda: first.error is not None, "the first is fenced")
    assert 'another process has the same "group.instance.id"' in str(first.error)


def test_a_lost_inbox_connection_is_re_created_and_each_event_applied_once(
    servers: Servers, kafka: dict[str, Any], topic: str, database: str
) -> None:
    inbox = Inbox("tests")
    with psycopg.connect(database) as connection:
        inbox.create(connection)
        connection.execute(APPLIED)
    tries: list[str] = []

    def handle(event: Event, connection: "psycopg.Connection[Any]") -> None:
        assert event.position
        lsn = event.position.commit_lsn
        connection.execute("insert into applied (id, key, seq) values (%s, 'k', %s)", [event.id, lsn])
        tries.append(str(lsn))
        if lsn % 3 == 0 and tries.count(str(lsn)) <= 4:
            with psycopg.connect(servers.dsn, autocommit=True) as admin:
                admin.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
            if lsn % 2:
                raise ValueError("whatever a handler makes of it")

    records = [Sent(lsn, partition=0) for lsn in range(1, 8)]
    send(servers.kafka, topic, [*records, *records])
    consumer = Consumer(
        kafka, [topic], handle, inbox=inbox, connect=lambda: psycopg.connect(database), retry=QUICK, commit_seconds=0.05
    )
    with Running(consumer) as running:
        running.until(lambda: committed(servers.kafka, kafka["group.id"], topic) == [14], "all is done")
    assert [seq for _, _, seq in applied(database)] == list(range(1, 8))
    assert tries.count("3") == tries.count("6") == 5


def test_long_retries_keep_the_membership_and_a_slow_handler_loses_it(
    servers: Servers, kafka: dict[str, Any], topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    properties = {**kafka, "session.timeout.ms": 6000, "max.poll.interval.ms": 6000, "heartbeat.interval.ms": 500}
    send(servers.kafka, topic, [Sent(1, "retried", partition=0)])
    admin = AdminClient({"bootstrap.servers": servers.kafka})
    handled: list[tuple[bytes | None, int]] = []
    pauses: list[float] = []

    class Slow(Retry):
        def pause(self, failures: int, random: Callable[[], float]) -> float:
            pauses.append(super().pause(failures, random))
            return pauses[-1]

    def members() -> int:
        return len(admin.describe_consumer_groups([kafka["group.id"]])[kafka["group.id"]].result().members)

    def handle(event: Event) -> None:
        if event.key == b"retried" and sum(pauses) < 8:
            raise ValueError("not yet")
        if event.key == b"slow" and (b"slow", 1) not in handled:
            handled.append((event.key, event.attempt))
            eventually(lambda: members() == 0, "the group has given up this member")
            return
        handled.append((event.key, event.attempt))

    retry = Slow(attempts=100, first_seconds=4, longest_seconds=4)
    consumer = Consumer(properties, [topic], handle, retry=retry, commit_seconds=0.05)
    with caplog.at_level(logging.INFO, "cdc.consumer"), Running(consumer) as running:
        running.until(lambda: len(handled) == 1, "retried for longer than max.poll.interval.ms")
        assert "lost partitions to other consumers" not in caplog.text
        assert caplog.text.count("assigned: ") == 1
        running.until(lambda: committed(servers.kafka, kafka["group.id"], topic) == [1], "it is committed")

        send(servers.kafka, topic, [Sent(2, "slow", partition=0)])
        running.until(lambda: len(handled) == 3, "the slow event is redelivered: its offset was not committed")
        assert "longer than max.poll.interval.ms" in caplog.text
        assert "lost partitions to other consumers" in caplog.text
    assert handled[1:] == [(b"slow", 1), (b"slow", 1)]
    assert committed(servers.kafka, kafka["group.id"], topic) == [2]


def test_case_h12_the_lag_is_zero_behind_markers_and_aborted_records(
    servers: Servers, kafka: dict[str, Any], topic: str
) -> None:
    producer = Producer({"bootstrap.servers": servers.kafka, "transactional.id": topic})
    producer.init_transactions(30)

    def transact(first: int, *, commit: bool) -> None:
        producer.begin_transaction()
        send(servers.kafka, topic, [Sent(first + at, "k", partition=0) for at in range(3)], producer)
        (producer.commit_transaction if commit else producer.abort_transaction)(30)

    def lag() -> int:
        return ends(servers.kafka, topic)[0] - committed(servers.kafka, kafka["group.id"], topic)[0]

    transact(1, commit=True)
    handler = Handler({b"k": Temporary("not yet")})
    consumer = Consumer(kafka, [topic], handler, retry=QUICK, commit_seconds=0.05)
    with Running(consumer) as running:
        running.until(lambda: len(handler.attempts) > 3, "an event is in hand")
        assert committed(servers.kafka, kafka["group.id"], topic)[0] <= 0
        handler.failing.clear()
        running.until(lambda: lag() == 0, "the marker behind the last event is passed")
        transact(4, commit=False)
        running.until(lambda: lag() == 0, "aborted records are passed")
        transact(7, commit=True)
        running.until(lambda: lag() == 0, "and the marker behind those that follow")
    assert handler.handled == [("k", lsn) for lsn in (1, 2, 3, 7, 8, 9)]
    with Running(Consumer(kafka, [topic], again := Handler(), commit_seconds=0.05)) as running:
        transact(10, commit=True)
        running.until(lambda: lag() == 0, "the next process goes on behind it")
    assert again.handled == [("k", lsn) for lsn in (10, 11, 12)]


def test_case_h13_callbacks_of_the_properties_are_called(
    servers: Servers, kafka: dict[str, Any], topic: str, dead: str
) -> None:
    statistics, commits = list[str](), list[Any]()
    given = {
        **kafka,
        "statistics.interval.ms": 100,
        "stats_cb": statistics.append,
        "on_commit": lambda error, parts: commits.append((error, parts)),
        "error_cb": print,
        "throttle_cb": print,
        "client.rack": None,
    }
    send(servers.kafka, topic, [Sent(1, partition=0)])
    consumer = Consumer(given, [topic], Handler(), dead_letter=dead, commit_seconds=0.05)
    with Running(consumer) as running:
        running.until(lambda: bool(statistics) and bool(commits), "both are called")
        running.until(lambda: committed(servers.kafka, kafka["group.id"], topic) == [1], "and the consumer works")
    assert commits[0][0] is None


def test_case_h13_a_token_is_asked_for_by_the_consumer_and_its_dead_letter_producer(kafka: dict[str, Any]) -> None:
    asked, failing = list[str](), list[bool]()

    def token(config: str) -> tuple[str, float]:
        asked.append(config)
        if failing:
            raise ValueError("no token today")
        return "token", time.time() + 3600

    given = {**kafka, "security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "OAUTHBEARER", "oauth_cb": token}
    with Running(Consumer(given, ["t"], Handler())) as running:
        running.until(lambda: bool(asked), "the consumer asks")
    asked.clear()
    producer = client.producer({**librdkafka.producer({}), **connection(given)})
    eventually(lambda: producer.poll(0.1) is not None and bool(asked), "the producer asks")
    failing.append(True)
    with pytest.raises(KafkaUnavailable, match="token not set"):
        Consumer(given, ["t"], Handler()).run()


@pytest.mark.parametrize(
    "wrong",
    [
        {"oauth_cb": "no function"},
        {"stats_cb": 5},
        {"error_cb": "no function"},
        {"on_commit": []},
        {"session.timeout.ms": "soon"},
        {"no.such.property": "x"},
        {"client.id": "\ud800"},
        {"session.timeout.ms": []},
        {5: "five"},
        {"logger": "no logger"},
    ],
    ids=str,
)
def test_case_h13_properties_that_librdkafka_refuses_are_configuration_errors(
    kafka: dict[str, Any], wrong: dict[Any, Any]
) -> None:
    with pytest.raises(ConfigError):
        Consumer({**kafka, **wrong}, ["t"], Handler()).run()


def test_case_h15_a_consumer_runs_once(kafka: dict[str, Any], topic: str) -> None:
    consumer = Consumer(kafka, [topic], Handler())
    with Running(consumer):
        pass
    with pytest.raises(AlreadyRun, match="runs once; create another"):
        consumer.run()
    with Consumer(kafka, [topic], Handler()) as closed:
        pass
    with pytest.raises(RuntimeError):
        closed.run()


def test_case_h4_a_consumer_ends_while_kafka_does_not_answer(
    private_stack: PrivateStack, caplog: pytest.LogCaptureFixture
) -> None:
    stack = private_stack()
    (broker,) = stack.brokers
    addresses = stack.addresses()
    assert addresses
    topic, dead = make_topic(addresses.kafka, "events"), make_topic(addresses.kafka, "dead")
    send(addresses.kafka, topic, [Sent(lsn, partition=0) for lsn in (1, 2, 3)])

    def ends_within(
        group: str,
        silence: Callable[[], object],
        *,
        fails: bool = False,
        dead_letter: str | None = None,
        frozen: bool = True,
    ) -> None:
        def handle(event: Event) -> None:
            assert event.position
            if event.position.commit_lsn == 2:
                silence()  # with an offset to commit
                if fails:
                    raise Rejected("never")
                consumer.stop()

        kafka = {"bootstrap.servers": addresses.kafka, "group.id": group}
        consumer = Consumer(kafka, [topic], handle, dead_letter=dead_letter, retry=QUICK, commit_seconds=600)
        running = Running(consumer)
        with contextlib.suppress(HandlerFailed), running:
            eventually(lambda: not running.alive, f"run of {group} has returned", 40)
        assert ("leaving the group failed: Kafka does not answer in time" in caplog.text) == frozen
        assert (type(running.error) is HandlerFailed) == fails
        caplog.clear()

    ends_within("stopped", broker.freeze)
    broker.thaw()
    ends_within("failed", broker.freeze, fails=True)
    broker.thaw()
    ends_within("with a dead-letter producer", broker.freeze, dead_letter=dead)
    broker.thaw()
    ends_within("killed", broker.kill, frozen=False)
