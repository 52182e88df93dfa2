"""The topic of positions: made, written and read back by hand."""

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource
from confluent_kafka.cimpl import NewPartitions, NewTopic

from cdc import errors
from cdc.config.settings import Settings
from cdc.kafka import positions
from cdc.kafka.cluster import Cluster
from tests.producing import in_order
from tests.servers import Servers

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def settings(servers: Servers, topic_prefix: str) -> Settings:
    return Settings.model_validate(
        {"kafka": {"bootstrap.servers": servers.kafka}, "topics": {"positions": f"{topic_prefix}positions"}}
    )


def test_the_topic_is_made_once_compacted_and_with_one_partition_c19(settings: Settings) -> None:
    assert [positions.ensure(settings), positions.ensure(settings)] == [True, False]
    cluster = Cluster(settings.kafka)
    found = cluster.describe(settings.topics.positions).result()
    assert found.identity.partitions == 1
    assert found.config["cleanup.policy"] == "compact"


def test_dead_letters_are_kept_whatever_the_age_of_their_commit_c8(settings: Settings, topic_prefix: str) -> None:
    topics = settings.topics.model_copy(update={"dead_letter": f"{topic_prefix}dead"})
    cluster = Cluster(settings.kafka)
    assert cluster.ensure_own_topics(topics) == {topics.positions: True, topics.dead_letter: True}
    admin = AdminClient({"bootstrap.servers": str(settings.kafka["bootstrap.servers"])})
    (answer,) = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topics.dead_letter)]).values()
    assert answer.result()["retention.ms"].value == "-1"


def test_a_topic_that_would_forget_positions_is_told_c19(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    admin = AdminClient({"bootstrap.servers": str(settings.kafka["bootstrap.servers"])})
    admin.create_topics([NewTopic(settings.topics.positions, 1)])[settings.topics.positions].result()
    assert positions.ensure(settings) is False
    assert "cleanup.policy delete: positions will be forgotten" in caplog.text


def test_a_missing_or_empty_topic_holds_nothing_c19(settings: Settings) -> None:
    assert list(positions.values(settings, "1/slot")) == []
    positions.ensure(settings)
    assert list(positions.values(settings, "1/slot")) == []


def test_the_values_of_one_key_are_read_in_their_order_c19(settings: Settings) -> None:
    positions.ensure(settings)
    for value in (b"1", b"2", None, b"3"):
        positions.write(settings, "1/slot", value)
        positions.write(settings, "1/other", b"x")
    assert list(positions.values(settings, "1/slot")) == [b"1", b"2", None, b"3"]


def test_partitions_that_were_added_hide_no_position_c19(settings: Settings) -> None:
    positions.ensure(settings)
    keys = [f"1/slot{number}" for number in range(4)]
    for key in keys:
        positions.write(settings, key, b"old")
    topic = settings.topics.positions
    admin = AdminClient({"bootstrap.servers": str(settings.kafka["bootstrap.servers"])})
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result()
    for key in keys:
        positions.write(settings, key, b"new")
    for key in keys:
        assert sorted(value or b"" for value in positions.values(settings, key)) == [b"new", b"old"]


def test_what_a_transaction_did_not_commit_is_not_read_c19(settings: Settings) -> None:
    positions.ensure(settings)
    positions.write(settings, "1/slot", b"1")
    producer = Producer({"bootstrap.servers": settings.kafka["bootstrap.servers"], "transactional.id": "1/slot"})
    producer.init_transactions(30)
    for end in (producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        producer.produce(settings.topics.positions, end.__name__.encode(), b"1/slot")
        producer.flush(30)
        end(30)
    assert list(positions.values(settings, "1/slot")) == [b"1", b"commit_transaction"]


def test_a_kafka_that_does_not_answer_is_temporary_c19(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"kafka": {"bootstrap.servers": "127.0.0.1:1"}})
    with pytest.raises(errors.KafkaUnavailable):
        list(positions.values(nowhere, "1/slot", seconds=0.5))
    with pytest.raises(errors.KafkaUnavailable, match=r"did not take a record within 0.5 s"):
        positions.write(nowhere, "1/slot", b"1", seconds=0.5)


def test_many_records_are_read_with_flat_memory_and_soon_c19(settings: Settings) -> None:
    positions.ensure(settings)
    producer = in_order(str(settings.kafka["bootstrap.servers"]))
    for number in range(50_000):
        producer.produce(settings.topics.positions, b"%d" % number, b"1/slot")
        producer.poll(0)
    producer.flush(30)
    seen = last = 0
    for value in positions.values(settings, "1/slot"):
        assert value
        seen, last = seen + 1, int(value)
    assert last == 49_999
    assert seen <= 50_000
