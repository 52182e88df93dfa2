"""The producer's shell: what a refusal, a fatal error and a change of topics mean for the session above it."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError as ClientError
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from cdc import errors
from cdc.config.settings import Settings
from cdc.kafka import positions
from cdc.kafka.producer import Sink
from cdc.kafka.topics import KnownTopics
from cdc.kafka.transactional_producer import TransactionalSink
from cdc.lsn import LSN
from cdc.records.partitioner import partition
from cdc.records.record import Record
from cdc.replication.settlement import Failure
from tests.mock import PRODUCE, MockCluster
from tests.pipeline import Pipeline, eventually
from tests.reader import read_all
from tests.servers import Servers

pytestmark = pytest.mark.timeout(120)


class Session:
    """A sink as a session has it: what was reported, and the topics that know its limits."""

    def __init__(self, settings: Settings, topics: KnownTopics | None = None) -> None:
        self.now = 0.0
        self.topics = topics or KnownTopics(settings)
        self.topics.renew()
        self.sink = Sink(settings, self.topics, lambda: self.now)
        self.reports: list[Any] = []

    def record(self, topic: str, value: bytes, key: bytes = b"k") -> Record:
        return Record.to(topic, key, value, int(time.time() * 1000), [("id", "1")], self._report)

    def send(self, topic: str, *values: bytes) -> None:
        for value in values:
            while not self.sink.send([self.record(topic, value)]):
                self.sink.poll(0.1)

    def settle(self) -> None:
        while len(self.sink):
            self.sink.poll(0.1)

    def end(self) -> None:
        """Poll until that raises, or for 10 s."""
        for _ in range(100):
            self.sink.poll(0.1)

    def publish(self) -> None:
        """The same as a publisher does it: the first refused record ends the session."""
        for _ in range(100):
            self.sink.poll(0.1)
            for error, message in self.reports:
                if error:
                    raise self.topics.failed(Failure(error, message, LSN(1)))

    def largest(self, topic: str) -> int:
        eventually(lambda: self.topics.largest(topic) is not None, f"topic {topic}")
        largest = self.topics.largest(topic)
        assert largest
        return largest

    def _report(self, error: Any, message: Any) -> None:
        self.reports.append((error, message))


Open = Callable[..., Session]


@pytest.fixture
def sessions() -> Iterator[Open]:
    made: list[Session] = []

    def open_session(kafka: str, topics: KnownTopics | None = None, **properties: Any) -> Session:
        settings = Settings.model_validate({"kafka": {"bootstrap.servers": kafka, **properties}})
        made.append(Session(settings, topics))
        return made[-1]

    yield open_session
    for session in made:
        session.sink.close()


def create(kafka: str, topic: str, partitions: int = 1, **config: Any) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    new = NewTopic(topic, num_partitions=partitions, config={n.replace("_", "."): str(v) for n, v in config.items()})
    admin.create_topics([new])[topic].result()


def test_a_refused_record_is_reported_before_the_fatal_error_that_follows_from_it_c3_c6(
    servers: Servers, topic_prefix: str, sessions: Open
) -> None:
    topic = f"{topic_prefix}small"
    create(servers.kafka, topic, max_message_bytes=1000)
    session = sessions(servers.kafka, **{"linger.ms": 0})
    session.send(topic, b"1")
    session.settle()
    with contextlib.suppress(errors.KafkaUnavailable):  # the producer may have failed before all is queued
        session.send(topic, b"x" * 2000, *[b"later"] * 20)
        session.end()
    refused = [(error, message) for error, message in session.reports if error]
    assert refused[0][0].code() == ClientError.MSG_SIZE_TOO_LARGE
    assert refused[0][1].value() == b"x" * 2000
    with pytest.raises(errors.KafkaUnavailable, match="the producer failed"):
        session.end()
    assert session.sink.send([session.record(topic, b"never")]) == 0
    with pytest.raises(errors.KafkaUnavailable, match="the producer failed"):
        session.sink.poll(0)
    assert [record.raw for record in read_all(servers.kafka, topic, bytes)] == [b"1"]


def test_nothing_passes_a_refused_record_that_is_the_first_of_its_producer_c6(
    servers: Servers, topic_prefix: str, sessions: Open
) -> None:
    topic = f"{topic_prefix}small"
    create(servers.kafka, topic, max_message_bytes=1000)
    session = sessions(servers.kafka, **{"linger.ms": 0, "batch.size": 1000})
    session.largest(topic)
    with pytest.raises(errors.KafkaUnavailable, match=r"MSG_SIZE_TOO_LARGE|Message size too large"):
        session.send(topic, b"x" * 2000, *[b"later"] * 20)
    assert read_all(servers.kafka, topic, bytes) == []


def test_the_order_of_keys_and_their_partitions_is_the_one_that_is_reckoned_with_c6(
    servers: Servers, topic_prefix: str, sessions: Open
) -> None:
    topic = f"{topic_prefix}keys"
    create(servers.kafka, topic, partitions=7)
    session = sessions(servers.kafka)
    session.largest(topic)
    keys = [b"", *(b"key-%d" % number for number in range(500)), "größe".encode()]
    for key in keys:
        while not session.sink.send([session.record(topic, b"v", key)]):
            session.sink.poll(0.1)
    session.settle()
    assert {error for error, _ in session.reports} == {None}
    assert {message.key(): message.partition() for _, message in session.reports} == {
        key: partition(key, 7) for key in keys
    }


@pytest.mark.parametrize("proven", ["both", "one", "none"])
def test_what_found_no_room_is_sent_later_once_and_in_its_order_c1(
    servers: Servers, topic_prefix: str, sessions: Open, proven: str
) -> None:
    topics = [f"{topic_prefix}{name}" for name in "ab"]
    for topic in topics:
        create(servers.kafka, topic)
    session = sessions(servers.kafka, **{"queue.buffering.max.messages": 7})
    for topic in topics:
        session.largest(topic)
    ahead = topics[: ["none", "one", "both"].index(proven)]
    for topic in ahead:
        session.send(topic, b"first")
        session.settle()
    waiting = [session.record(topics[number % 3 % 2], b"%d" % number) for number in range(200)]
    taken = []
    while waiting:
        taken.append(session.sink.send(waiting))
        del waiting[: taken[-1]]
        session.sink.poll(0.1)
    session.settle()
    assert max(taken) <= 7
    for place, topic in enumerate(topics):
        expected = [b"first"] * (topic in ahead) + [b"%d" % number for number in range(200) if number % 3 % 2 == place]
        assert [record.raw for record in read_all(servers.kafka, topic, bytes)] == expected


@pytest.mark.parametrize("code", [ClientError.OUT_OF_ORDER_SEQUENCE_NUMBER, ClientError.INVALID_PRODUCER_EPOCH])
def test_a_fatal_error_of_the_idempotent_producer_ends_the_session_and_a_new_producer_goes_on_c3(
    sessions: Open, code: int
) -> None:
    with MockCluster("t") as mock:
        session = sessions(mock.bootstrap)
        session.send("t", b"1")
        session.settle()
        mock.push(PRODUCE, code)
        session.send("t", b"2", b"3")
        with pytest.raises(errors.KafkaUnavailable, match=r"the producer failed|delivering"):
            session.publish()
        assert [error for error, _ in session.reports[:1]] == [None]
        again = sessions(mock.bootstrap)
        again.send("t", b"2", b"3")
        again.settle()
        assert [error for error, _ in again.reports] == [None, None]


def test_batches_fit_a_topic_whose_limit_is_below_the_batch_size_c7(
    servers: Servers, topic_prefix: str, sessions: Open
) -> None:
    topic = f"{topic_prefix}small"
    create(servers.kafka, topic, max_message_bytes=1000)
    first = sessions(servers.kafka)
    with pytest.raises(errors.KafkaUnavailable, match="at most 1000 bytes"):
        first.largest(topic)
    second = sessions(servers.kafka, first.topics)
    assert second.largest(topic) == 1000
    values = [b"%d" % number for number in range(5000)]
    second.send(topic, *values)
    second.settle()
    assert {error for error, _ in second.reports} == {None}
    assert [record.raw for record in read_all(servers.kafka, topic, bytes)] == values


def test_a_record_of_megabytes_goes_to_a_topic_that_takes_it_c7(
    servers: Servers, topic_prefix: str, sessions: Open
) -> None:
    topic = f"{topic_prefix}large"
    create(servers.kafka, topic, max_message_bytes=20_000_000)
    session = sessions(servers.kafka)
    assert session.largest(topic) == 20_000_000
    session.send(topic, b"x" * 19_999_000, b"small")
    session.settle()
    assert [error for error, _ in session.reports] == [None, None]


def test_added_partitions_let_everything_arrive_that_was_sent_before_the_session_ends_c13(
    servers: Servers, topic_prefix: str, sessions: Open
) -> None:
    topic = f"{topic_prefix}grows"
    create(servers.kafka, topic)
    session = sessions(servers.kafka, **{"linger.ms": 3000})
    session.largest(topic)
    session.send(topic, *[b"x"] * 10)
    admin = AdminClient({"bootstrap.servers": servers.kafka})
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result()

    def leaves() -> bool:
        session.now += 10
        session.sink.poll(0.01)
        return session.topics.leaving is not None

    eventually(leaves, "the partitions are noticed")
    assert len(session.sink), "nothing is in flight: the test shows nothing"
    assert session.sink.send([session.record(topic, b"not any more")]) == 0
    with pytest.raises(errors.KafkaUnavailable, match="has 4 partitions instead of 1"):
        session.end()
    assert [error for error, _ in session.reports] == [None] * 10
    assert [record.raw for record in read_all(servers.kafka, topic, bytes)] == [b"x"] * 10


def test_a_topic_that_is_created_again_is_told_from_the_old_one_c13(
    servers: Servers, topic_prefix: str, sessions: Open
) -> None:
    topic = f"{topic_prefix}again"
    create(servers.kafka, topic)
    session = sessions(servers.kafka)
    session.largest(topic)
    admin = AdminClient({"bootstrap.servers": servers.kafka})
    admin.delete_topics([topic])[topic].result()

    def waits() -> bool:
        session.now += 10
        session.sink.poll(0.01)
        return session.topics.largest(topic) is None

    eventually(waits, "the topic is noticed to be gone")
    create(servers.kafka, topic)
    with pytest.raises(errors.KafkaError, match="deleted and re-created"):
        eventually(lambda: not waits(), "the topic is noticed to be another", 10)


# Threads are counted per user, hence one that has none yet.
NO_THREADS = """
import os, resource
from cdc.config.settings import Settings
from cdc.errors import CdcError
from cdc.kafka.producer import validate
if os.getuid() == 0:
    os.setuid(64321)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    validate(Settings.model_validate({"kafka": {"bootstrap.servers": "127.0.0.1:1"}}))
except CdcError as error:
    print(type(error).__name__, error, flush=True)
os._exit(0)
"""
NO_FILES = """
import os, resource, sys
from cdc.config.settings import Settings
from cdc.errors import CdcError
from cdc.kafka.producer import validate
given = {"bootstrap.servers": "127.0.0.1:1", "security.protocol": "ssl", "ssl.ca.location": sys.argv[1]}
settings = Settings.model_validate({"kafka": given})
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while int(sys.argv[2]):
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
try:
    validate(settings)
except CdcError as error:
    print(type(error).__name__, error, flush=True)
"""


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads as Linux does")
def test_a_system_without_threads_left_is_no_matter_of_settings_d9() -> None:
    told = run(NO_THREADS)
    assert told.startswith("KafkaUnavailable the Kafka client cannot be created")
    assert "check the limits" in told


def test_a_certificate_that_no_file_descriptor_is_left_for_is_no_matter_of_settings_d9() -> None:
    assert run(NO_FILES, "/no/such/file", "0").startswith("ConfigError [kafka]")
    assert run(NO_FILES, "/no/such/file", "1").startswith("KafkaUnavailable the Kafka client cannot be created")


def test_a_session_that_ends_leaves_nothing_on_its_way_and_one_that_stood_still_sends_nothing_more_d6(
    servers: Servers, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = f"{topic_prefix}last"
    create(servers.kafka, topic)
    settings = Settings.model_validate({"kafka": {"bootstrap.servers": servers.kafka, "linger.ms": 300}})

    def leave() -> None:
        session = Session(settings)
        session.largest(topic)
        session.send(topic, b"first")  # goes alone
        session.settle()
        session.send(topic, *[b"queued"] * 100)
        session.sink.close()

    leave()
    assert len(read_all(servers.kafka, topic, bytes)) == 101
    monkeypatch.setattr("cdc.kafka.producer._STOOD_STILL_SECONDS", -1.0)
    leave()
    time.sleep(0.5)
    assert len(read_all(servers.kafka, topic, bytes)) == 102


OLD = {"api.version.request": False, "broker.version.fallback": "0.9.0"}


def test_case_d5_fatal_error_is_one_line_with_the_reason_for_every_producer(
    servers: Servers, topic_prefix: str, sessions: Open
) -> None:
    create(servers.kafka, f"{topic_prefix}t")
    session = sessions(servers.kafka, **OLD)

    def hastens() -> bool:
        session.sink.send([session.record(f"{topic_prefix}t", b"v")])
        session.sink.hasten()
        return False

    with pytest.raises(errors.KafkaError, match="the producer failed: Idempotent producer not supported"):
        eventually(hastens, "the fatal error")
    settings = Settings.model_validate({"kafka": {"bootstrap.servers": servers.kafka, **OLD}})
    with pytest.raises(errors.KafkaError, match="Idempotent producer not supported") as raised:
        positions.write(settings, "7/slot", b"v")
    assert "api.version.request" in raised.value.hint
    with pytest.raises(errors.KafkaError, match="preparing transactions"):
        TransactionalSink(settings, session.topics, "7/slot")


def test_case_d5_commands_end_in_one_line_after_a_fatal_error(pipeline: Pipeline) -> None:
    pipeline.settings["kafka"] |= OLD
    pipeline.settings["postgres"]["slot"] += "_2"
    done = pipeline.run_process("slot", "create")
    assert done.returncode == 0, done.stderr
    warned = [line for line in done.stderr.splitlines() if line.startswith("cdc-publisher:")]
    assert len(warned) == 1
    assert "the start of the slot was not recorded in Kafka" in warned[0]
    assert "Traceback" not in done.stderr
    pipeline.insert(1)
    running = pipeline.start()
    running.process.wait(40)
    assert running.wait() == 1
    assert "Idempotent producer not supported" in running.messages()[-1]
    assert running.count("Traceback") == 0
