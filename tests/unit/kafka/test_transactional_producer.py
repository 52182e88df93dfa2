"""Kafka transactions by a twin of the client library: what is reported when, and what ends a session."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from cdc.config.loading import load
from cdc.errors import KafkaUnavailable
from cdc.kafka.transactional_producer import TransactionalSink
from cdc.records.record import Record

POSITIONS = "cdc.positions"
RETRIABLE = KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, retriable=True)
ABORTABLE = KafkaError(KafkaError.INVALID_TXN_STATE, txn_requires_abort=True)
REFUSED = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
PURGED = KafkaError(KafkaError._PURGE_QUEUE)


class Client:
    """A producer that delivers what it was given at each flush; the test says what the coordinator answers."""

    def __init__(self) -> None:
        self.queued: list[Callable[..., None]] = []
        self.produced: list[tuple[str, bytes]] = []
        self.errors: list[KafkaError] = []  # of records, in their order
        self.answers: list[KafkaError] = []  # to commits; then they succeed
        self.open = False
        self.room = 1_000_000
        self.begun = self.commits = self.aborts = 0

    def init_transactions(self, seconds: float) -> None:
        """Nothing was open."""

    def begin_transaction(self) -> None:
        if self.open:
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.open = True
        self.begun += 1

    def produce(self, topic: str, value: bytes, *rest: Any) -> None:
        if len(self.queued) >= self.room:
            raise BufferError
        self.produced.append((topic, value))
        self.queued.append(rest[2])

    def poll(self, seconds: float) -> int:  # noqa: ARG002
        while self.errors and self.queued:
            self.queued.pop(0)(self.errors.pop(0), None)
        return 0

    def flush(self, seconds: float) -> int:
        self.poll(seconds)
        self.queued.clear()
        return 0

    def commit_transaction(self, seconds: float) -> None:  # noqa: ARG002
        self.commits += 1
        if self.answers:
            raise KafkaException(self.answers.pop(0))
        self.open = False

    def abort_transaction(self, seconds: float) -> None:  # noqa: ARG002
        self.aborts += 1

    def purge(self) -> None:
        self.queued.clear()

    def __len__(self) -> int:
        return len(self.queued)


class Topics:
    """Topics of one partition."""

    batch_bytes = 1000
    careful = False
    leaving = None

    def partitions(self, topic: str) -> int:  # noqa: ARG002
        return 1

    def look(self, now: float) -> None:
        """Nothing changes."""

    def transaction_failed(self, error: KafkaError, doing: str, last: object) -> Exception:  # noqa: ARG002
        return KafkaUnavailable(f"{doing}: {error.name()}")


class Pair:
    """A sink, its client, and what was reported."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.sink = TransactionalSink(load(environ={}), Topics(), "slot")  # type: ignore[arg-type]
        self.reports: list[tuple[bytes, object]] = []

    def record(self, topic: str, value: bytes) -> Record:
        return Record.to(topic, b"k", value, 0, [], lambda error, _: self.reports.append((value, error)))

    def send(self, topic: str, *values: bytes) -> int:
        return self.sink.send([self.record(topic, value) for value in values])

    def polls(self, until: Callable[[], object]) -> None:
        for _ in range(1000):
            self.sink.poll(0.01)
            if until():
                return
        raise AssertionError("it did not come")


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    client = Client()
    monkeypatch.setattr("cdc.kafka.client.producer", lambda *_, **__: client)
    made = Pair(client)
    yield made
    made.sink.close()


def test_records_are_reported_when_their_transaction_is_committed_and_not_before(pair: Pair) -> None:
    assert pair.send("orders", b"1") == 1
    pair.polls(lambda: not len(pair.client))
    assert pair.reports == []
    assert len(pair.sink) == 1
    pair.send(POSITIONS, b"mark")
    pair.polls(lambda: pair.reports)
    assert pair.reports == [(b"1", None), (b"mark", None)]
    assert (pair.client.begun, pair.client.commits, len(pair.sink)) == (1, 1, 0)


def test_nothing_is_sent_behind_the_position_until_the_commit(pair: Pair) -> None:
    pair.send(POSITIONS, b"mark")
    assert pair.send("orders", b"1") == 0
    pair.polls(lambda: pair.reports)
    assert pair.send("orders", b"1") == 1
    assert pair.client.begun == 2


def test_the_first_record_of_a_partition_is_sent_alone(pair: Pair) -> None:
    assert pair.send("orders", b"1", b"2", b"3") == 1
    pair.sink.poll(0)
    pair.sink.poll(0)
    assert pair.send("orders", b"2", b"3") == 2


def proven(pair: Pair) -> Pair:
    """The pair, once its topic has had a delivery."""
    pair.send("orders", b"0")
    pair.polls(lambda: not len(pair.client))
    pair.sink.poll(0)
    return pair


def test_what_the_queue_has_no_room_for_is_sent_again_and_reported_once(pair: Pair) -> None:
    proven(pair).client.room = 2
    assert pair.send("orders", b"1", b"2", b"3") == 2
    pair.client.room = 9
    assert pair.send("orders", b"3") == 1
    assert pair.send("orders", b"4", b"5") == 2
    pair.send(POSITIONS, b"mark")
    pair.polls(lambda: pair.reports)
    assert [value for value, _ in pair.reports] == [b"0", b"1", b"2", b"3", b"4", b"5", b"mark"]


def test_records_behind_the_position_wait_although_they_are_given_with_it(pair: Pair) -> None:
    proven(pair)
    values = [pair.record("orders", b"1"), pair.record(POSITIONS, b"mark"), pair.record("orders", b"2")]
    assert pair.sink.send(values) == 2
    assert [value for _, value in pair.client.produced] == [b"0", b"1", b"mark"]


def test_records_linger_until_they_are_hastened_or_their_transaction_ends(pair: Pair) -> None:
    proven(pair)
    pair.send("orders", b"1")
    pair.sink.poll(0)
    assert len(pair.client) == 1
    pair.sink.hasten()
    assert len(pair.client) == 0
    assert pair.reports == []


def test_a_refused_record_is_reported_and_those_purged_because_of_it_are_not(pair: Pair) -> None:
    pair.send("orders", b"1")
    pair.polls(lambda: not len(pair.client))
    pair.sink.poll(0)
    pair.send("orders", b"2", b"3")
    pair.client.errors = [REFUSED, PURGED]
    pair.sink.poll(0)
    assert pair.reports == [(b"2", REFUSED)]


def test_a_commit_is_repeated_while_its_error_may_pass(pair: Pair) -> None:
    pair.client.answers = [RETRIABLE, RETRIABLE]
    pair.send(POSITIONS, b"mark")
    pair.polls(lambda: pair.reports)
    assert pair.client.commits == 3


def test_a_commit_that_failed_ends_the_session_and_reports_nothing(pair: Pair) -> None:
    pair.client.answers = [ABORTABLE]
    pair.send("orders", b"1")
    pair.polls(lambda: not len(pair.client))
    pair.send(POSITIONS, b"mark")
    with pytest.raises(KafkaUnavailable, match="committing a transaction"):
        pair.polls(lambda: pair.reports)
    assert pair.reports == []
    assert len(pair.sink) == 2


def test_an_open_transaction_is_aborted_when_the_sink_is_closed(pair: Pair) -> None:
    pair.send("orders", b"1")
    pair.sink.close()
    assert pair.client.aborts == 1
    pair.sink = TransactionalSink(load(environ={}), Topics(), "slot")  # type: ignore[arg-type]
