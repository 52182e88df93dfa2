"""What is known of topics, against a cluster that answers when the test says so."""

import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException

from cdc import errors
from cdc.config.settings import Settings
from cdc.kafka.cluster import Description
from cdc.kafka.topics import KnownTopics
from cdc.lsn import LSN
from cdc.records.headers import ID, POSITION
from cdc.records.record import Headers, Record
from cdc.replication.settlement import Failure
from tests.memory import Clock

MISSING = KafkaException(ClientError(ClientError.UNKNOWN_TOPIC_OR_PART))
DENIED = KafkaException(ClientError(ClientError.TOPIC_AUTHORIZATION_FAILED))
TIMED_OUT = KafkaException(ClientError(ClientError._TIMED_OUT))


class Partition:
    def __init__(self, replicas: int) -> None:
        self.replicas = list(range(replicas))


class Described:
    def __init__(self, topic_id: str, partitions: int, replicas: int) -> None:
        self.topic_id = topic_id
        self.partitions = [Partition(replicas) for _ in range(partitions)]


class Entry:
    def __init__(self, value: str | None) -> None:
        self.value = value


class MemoryCluster:
    """Topics by name: what describing them and their settings answers. Answers come at once unless `slow`."""

    def __init__(self) -> None:
        self.identity: dict[str, Described | KafkaException] = {}
        self.config: dict[str, Mapping[str, str] | KafkaException] = {}
        self.created: list[str] = []
        self.asked: list[str] = []
        self.slow = False
        self.refusal: KafkaException | None = None  # of creating topics
        self.waiting: list[tuple[Future[Any], Any]] = []

    def add(self, topic: str, topic_id: str = "one", partitions: int = 1, replicas: int = 3, **config: str) -> None:
        self.identity[topic] = Described(topic_id, partitions, replicas)
        self.config[topic] = {"max.message.bytes": "2000000", "min.insync.replicas": "2"} | {
            name.replace("_", "."): value for name, value in config.items()
        }

    def answer(self) -> None:
        for future, value in self.waiting:
            if isinstance(value, KafkaException):
                future.set_exception(value)
            else:
                future.set_result(value)
        self.waiting.clear()

    def identities(self, topics: Iterable[str]) -> dict[str, "Future[Any]"]:
        return {topic: self._future(self.identity.get(topic, MISSING)) for topic in topics}

    def describe(self, topic: str) -> Description:
        self.asked.append(topic)
        config = self.config.get(topic, MISSING)
        if not isinstance(config, KafkaException):
            config = {name: Entry(value) for name, value in config.items()}  # type: ignore[misc]
        return Description(self.identities([topic])[topic], self._future(config))

    def create(self, topic: str, topics: object, config: object) -> "Future[Any]":  # noqa: ARG002 - by shape
        self.created.append(topic)
        if self.refusal:
            return self._future(self.refusal)
        self.add(topic)
        return self._future(None)

    def _future(self, value: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        self.waiting.append((future, value))
        if not self.slow:
            self.answer()
        return future


class Refused:
    """What the client library says about a delivery."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def topic(self) -> str:
        return self._topic

    def key(self) -> bytes:
        return b"k"


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(cluster: MemoryCluster, clock: Clock, **topics: Any) -> KnownTopics:
    settings = Settings.model_validate({"topics": topics})
    made = KnownTopics(settings, lambda: cluster, lambda: clock.now)  # type: ignore[arg-type,return-value]
    made.renew()
    return made


def asked(topics: KnownTopics, topic: str, times: int = 3) -> int | None:
    """Ask as often as it takes to ask and to look at the answer."""
    answers = [topics.largest(topic) for _ in range(times)]
    return answers[-1]


def looks(topics: KnownTopics, clock: Clock) -> None:
    clock.advance(6)
    topics.look(clock.now)
    topics.look(clock.now)


def test_a_topic_is_looked_up_once_in_a_session_and_nothing_waits_c7(cluster: MemoryCluster, clock: Clock) -> None:
    cluster.add("t")
    cluster.slow = True
    topics = make(cluster, clock)
    assert [topics.largest("t") for _ in range(3)] == [None, None, None]
    cluster.answer()
    assert [topics.largest("t") for _ in range(3)] == [2_000_000] * 3
    assert cluster.asked == ["t"]
    topics.renew()
    assert topics.largest("t") is None
    cluster.answer()
    assert topics.largest("t") == 2_000_000


def test_limits_are_asked_again_in_the_next_session_c7(cluster: MemoryCluster, clock: Clock) -> None:
    cluster.add("t")
    topics = make(cluster, clock)
    assert asked(topics, "t") == 2_000_000
    cluster.add("t", max_message_bytes="1000")
    assert asked(topics, "t") == 2_000_000
    topics.renew()
    with pytest.raises(errors.KafkaUnavailable, match=r"at most 1000 bytes"):
        asked(topics, "t")
    topics.renew()
    assert asked(topics, "t") == 1000
    assert topics.batch_bytes == 1000


def test_a_refused_size_asks_for_the_limit_again_and_then_for_the_record_c7(
    cluster: MemoryCluster, clock: Clock
) -> None:
    cluster.add("t")
    topics = make(cluster, clock)
    asked(topics, "t")
    failure = Failure(ClientError(ClientError.MSG_SIZE_TOO_LARGE), Refused("t"), LSN(16))
    first = topics.failed(failure)
    assert isinstance(first, errors.KafkaUnavailable)
    assert "topic 't', key 'k', transaction 0/10" in first.message
    assert "asking for the limit again" in first.message
    topics.renew()
    assert not topics.careful
    asked(topics, "t")
    assert "sending each record alone" in topics.failed(failure).message
    topics.renew()
    assert topics.careful


def test_settings_that_may_not_be_read_leave_the_clients_limit_and_smaller_batches_c7(
    cluster: MemoryCluster, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cluster.add("t")
    cluster.config["t"] = DENIED
    topics = make(cluster, clock)
    cluster.add("u")
    cluster.config["u"] = DENIED
    assert [asked(topics, topic) for topic in ("t", "u")] == [32 * 1024 * 1024] * 2
    assert caplog.text.count("the settings of topics cannot be read") == 1
    before = topics.batch_bytes
    problem = topics.failed(Failure(ClientError(ClientError.MSG_SIZE_TOO_LARGE), Refused("t"), LSN(16)))
    assert "sending each record alone" in problem.message
    assert topics.batch_bytes == before // 2


def test_a_segment_limits_batches_like_the_topics_own_limit_c7(cluster: MemoryCluster, clock: Clock) -> None:
    cluster.add("t", segment_bytes="1048576")
    assert asked(make(cluster, clock), "t") == 1_048_576


def test_case_d3_an_error_of_a_topic_that_rows_choose_is_theirs_and_one_of_a_common_topic_everybodys(
    cluster: MemoryCluster, clock: Clock
) -> None:
    cluster.add("t")
    failure = Failure(DENIED.args[0], Refused("t"), LSN(16))
    topics = make(cluster, clock)
    assert isinstance(topics.failed(failure), errors.KafkaUnavailable)
    topics.renew()
    with pytest.raises(errors.Unfit, match="grant the principal WRITE") as raised:
        topics.largest("t")
    assert raised.value.kind == "kafka-refused"
    clock.advance(301)
    assert asked(topics, "t") == 2_000_000  # the right may have been granted
    assert isinstance(make(cluster, clock, name="t").failed(failure), errors.KafkaError)
    own = Failure(DENIED.args[0], Refused("cdc.dead-letter"), LSN(16))
    assert isinstance(topics.failed(own), errors.KafkaError)
    assert isinstance(topics.failed(Failure(TIMED_OUT.args[0], Refused("t"), LSN(16))), errors.KafkaUnavailable)


def test_case_d3_a_refused_record_that_was_sent_alone_names_its_row_until_nothing_is_refused_any_more(
    cluster: MemoryCluster, clock: Clock
) -> None:
    topics = make(cluster, clock)
    late = ClientError(ClientError.INVALID_TIMESTAMP)
    problem = topics.failed(Failure(late, Refused("t"), LSN(16)))
    assert isinstance(problem, errors.KafkaUnavailable)
    assert not topics.refused
    topics.renew()
    reports: list[object] = []
    record = Record.to("t", b"k", b"v", 0, [(ID, "7"), (POSITION, "ab-1-0")], lambda *report: reports.append(report))
    topics.reporting(record)(None, Refused("t"))
    assert not topics.refused
    topics.reporting(record)(late, Refused("t"))
    assert "message.timestamp" in topics.refused["ab-1-0"]
    assert len(reports) == 2
    topics.renew()
    assert topics.refused
    clock.advance(31)
    topics.look(clock.now)
    assert "refused no record for 30 s" in str(topics.leaving)
    topics.renew()
    assert not topics.careful
    assert not topics.refused


def test_case_d3_with_dead_letters_one_careful_session_finds_many_refused_records(
    cluster: MemoryCluster, clock: Clock
) -> None:
    settings = Settings.model_validate({"delivery": {"on_poison": "dead-letter"}})
    topics = KnownTopics(settings, lambda: cluster, lambda: clock.now)  # type: ignore[arg-type,return-value]
    topics.renew()
    large = ClientError(ClientError.INVALID_RECORD)
    assert "sending each record alone" in topics.failed(Failure(large, Refused("t"), LSN(16))).message
    topics.renew()
    assert topics.alone["enable.gapless.guarantee"] is False
    assert topics.alone["max.in.flight.requests.per.connection"] == 1
    reports: list[object] = []
    for number in range(3):
        headers: Headers = [(ID, str(number)), (POSITION, f"ab-1-{number}")]
        record = Record.to("t", b"k", b"v", 0, headers, lambda *report: reports.append(report))
        topics.reporting(record, passing=True)(large, Refused("t"))
        topics.look(clock.now)
        assert topics.leaving is None
    assert reports == []  # nothing of them settles
    clock.advance(1)
    topics.look(clock.now)
    assert "its row becomes a poison event" in str(topics.leaving)
    assert len(topics.refused) == 3
    down = ClientError(ClientError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    topics.reporting(record, passing=True)(down, Refused("t"))
    assert len(reports) == 1
    assert "enable.gapless.guarantee" not in make(cluster, clock).alone  # a row that stops must not be passed


@pytest.mark.parametrize(
    ("code", "theirs"),
    [
        (ClientError.TOPIC_EXCEPTION, True),
        (ClientError.POLICY_VIOLATION, True),
        (ClientError.TOPIC_AUTHORIZATION_FAILED, True),
        (ClientError.INVALID_REPLICATION_FACTOR, False),
        (ClientError.INVALID_CONFIG, False),
        (ClientError.CLUSTER_AUTHORIZATION_FAILED, False),
    ],
)
def test_case_d3_a_topic_that_cannot_be_created_is_its_rows_unless_the_settings_are_wrong(
    cluster: MemoryCluster, clock: Clock, code: int, theirs: bool
) -> None:
    cluster.refusal = KafkaException(ClientError(code))
    with pytest.raises(errors.Unfit if theirs else errors.KafkaError, match="creating topic 't'"):
        asked(make(cluster, clock, create=True), "t", 5)


def test_case_d3_rows_may_not_choose_the_topic_of_positions(cluster: MemoryCluster, clock: Clock) -> None:
    cluster.add("cdc.positions")
    with pytest.raises(errors.Unfit, match="publisher's own"):
        asked(make(cluster, clock), "cdc.positions")


def test_a_missing_topic_is_waited_for_and_told_now_and_then_c12(
    cluster: MemoryCluster, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    topics = make(cluster, clock)
    for _ in range(300):
        assert topics.largest("t") is None
        clock.advance(0.1)
    assert 20 <= len(cluster.asked) <= 31
    assert 1 <= caplog.text.count("topic 't' does not exist: create it") <= 2
    cluster.add("t")
    clock.advance(1)
    assert asked(topics, "t") == 2_000_000
    assert cluster.created == []


def test_a_missing_topic_is_created_when_the_settings_say_so_c12(cluster: MemoryCluster, clock: Clock) -> None:
    topics = make(cluster, clock, create=True)
    for _ in range(5):
        topics.largest("t")
        clock.advance(1)
    assert topics.largest("t") == 2_000_000
    assert cluster.created == ["t"]


@pytest.mark.parametrize("create", [False, True])
def test_a_topic_that_is_deleted_while_running_is_waited_for_and_never_created_c12(
    cluster: MemoryCluster, clock: Clock, caplog: pytest.LogCaptureFixture, create: bool
) -> None:
    cluster.add("t")
    topics = make(cluster, clock, create=create)
    asked(topics, "t")
    del cluster.identity["t"]
    looks(topics, clock)
    for _ in range(5):
        assert asked(topics, "t") is None
        clock.advance(1)
    assert cluster.created == []
    assert "topic 't' does not exist any more" in caplog.text
    cluster.add("t", topic_id="two")
    with pytest.raises(errors.KafkaError, match="deleted and re-created"):
        asked(topics, "t")


def test_a_topic_that_was_created_again_is_noticed_at_the_next_look_and_in_the_next_session_c13(
    cluster: MemoryCluster, clock: Clock
) -> None:
    cluster.add("t")
    topics = make(cluster, clock)
    asked(topics, "t")
    looks(topics, clock)
    cluster.add("t", topic_id="two")
    with pytest.raises(errors.KafkaError, match="topic 't' was deleted and re-created"):
        looks(topics, clock)
    topics.renew()
    with pytest.raises(errors.KafkaError, match="topic 't' was deleted and re-created"):
        asked(topics, "t")


def test_partitions_that_were_added_end_the_session_once_with_a_warning_c13(
    cluster: MemoryCluster, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.add("t", partitions=3)
    topics = make(cluster, clock)
    asked(topics, "t")
    looks(topics, clock)
    assert topics.leaving is None
    cluster.add("t", partitions=6)
    looks(topics, clock)
    assert "topic 't' has 6 partitions instead of 3" in str(topics.leaving)
    topics.renew()
    assert topics.leaving is None
    asked(topics, "t")
    looks(topics, clock)
    assert topics.leaving is None
    assert caplog.text.count("partitions were added to topic 't'") == 1


def test_an_answer_from_a_broker_that_lags_behind_takes_no_partitions_away_c13(
    cluster: MemoryCluster, clock: Clock
) -> None:
    cluster.add("t", partitions=6)
    topics = make(cluster, clock)
    asked(topics, "t")
    cluster.add("t", partitions=3)
    looks(topics, clock)
    assert topics.leaving is None


def test_a_look_waits_for_nobody_and_passes_over_temporary_errors_c13(cluster: MemoryCluster, clock: Clock) -> None:
    cluster.add("t")
    topics = make(cluster, clock)
    asked(topics, "t")
    cluster.slow = True
    looks(topics, clock)
    assert len(cluster.waiting) == 1
    looks(topics, clock)
    assert len(cluster.waiting) == 1
    cluster.waiting = [(future, TIMED_OUT) for future, _ in cluster.waiting]
    cluster.answer()
    looks(topics, clock)
    assert topics.largest("t") == 2_000_000


def test_many_topics_are_looked_at_in_turn_c13(cluster: MemoryCluster, clock: Clock) -> None:
    topics = make(cluster, clock)
    for number in range(1200):
        cluster.add(f"t{number}")
        asked(topics, f"t{number}")
    for _ in range(2):
        looks(topics, clock)
    cluster.add("t1199", topic_id="two")
    with pytest.raises(errors.KafkaError, match="t1199"):
        looks(topics, clock)
    cluster.add("t0", topic_id="two")
    with pytest.raises(errors.KafkaError, match="'t0'"):
        looks(topics, clock)


@pytest.mark.parametrize(
    ("replicas", "in_sync", "told"),
    [
        (1, "1", "replication factor 1 and min.insync.replicas 1"),
        (3, "1", "has min.insync.replicas 1:"),
        (2, "2", "has replication factor 2:"),
        (3, "2", ""),
    ],
)
def test_topics_that_may_lose_what_they_confirmed_are_named_once_c15(
    cluster: MemoryCluster, clock: Clock, caplog: pytest.LogCaptureFixture, replicas: int, in_sync: str, told: str
) -> None:
    cluster.add("t", replicas=replicas, min_insync_replicas=in_sync)
    topics = make(cluster, clock)
    for _ in range(3):
        assert asked(topics, "t") == 2_000_000
        topics.renew()
    assert len(caplog.messages) == bool(told)
    assert told in caplog.text


def test_topics_that_may_lose_what_they_confirmed_are_refused_or_accepted_as_the_settings_say_c15(
    cluster: MemoryCluster, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.add("t", replicas=1)
    with pytest.raises(errors.KafkaError, match="replication factor 1"):
        asked(make(cluster, clock, replication="refuse"), "t")
    assert asked(make(cluster, clock, replication="any"), "t") == 2_000_000
    assert caplog.messages == []


def test_a_topic_that_may_not_be_described_is_a_permanent_error_with_the_right_to_grant_c14(
    cluster: MemoryCluster, clock: Clock
) -> None:
    cluster.identity["t"] = DENIED
    with pytest.raises(errors.Unfit, match=r"looking up topic 't'.*grant the principal"):
        asked(make(cluster, clock), "t")
    with pytest.raises(errors.KafkaError, match="looking up topic 't'") as raised:
        asked(make(cluster, clock, name="t"), "t")
    assert "grant the principal" in raised.value.hint


def test_a_cluster_that_does_not_answer_is_asked_again_c1(
    cluster: MemoryCluster, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.add("t")
    cluster.config["t"] = TIMED_OUT
    topics = make(cluster, clock)
    assert asked(topics, "t") is None
    assert "looking up topic 't'" in caplog.text
    cluster.add("t")
    clock.advance(1)
    assert asked(topics, "t") == 2_000_000
