"""librdkafka properties: defaults, overrides and refused values."""

import pytest

from cdc.config import librdkafka as properties
from cdc.config.librdkafka import Value


def test_own_defaults_keep_the_delivery_guarantee() -> None:
    assert properties.refused(properties.PRODUCER_DEFAULTS) == {}
    assert properties.refused(properties.producer({})) == {}
    assert properties.producer({})["acks"] == "all"
    assert properties.producer({})["enable.idempotence"] == "true"


def test_the_users_properties_override_the_defaults_and_become_text() -> None:
    made = properties.producer({"linger.ms": 50, "compression.type": "zstd", "socket.keepalive.enable": True})
    assert (made["linger.ms"], made["compression.type"], made["socket.keepalive.enable"]) == ("50", "zstd", "true")
    assert made["batch.size"] == "1000000"
    assert all(isinstance(value, str) for value in made.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("acks", "all"),
        ("acks", -1),
        ("request.required.acks", "-1"),
        ("enable.idempotence", True),
        ("enable.idempotence", "True"),
        ("message.timeout.ms", 0),
        ("delivery.timeout.ms", "0"),
        ("partitioner", "murmur2"),
        ("allow.auto.create.topics", False),
        ("retries", 2147483647),
        ("message.send.max.retries", "2147483647"),
        ("queuing.strategy", "fifo"),
        ("linger.ms", 100),
        ("bootstrap.servers", "h:1"),
    ],
)
def test_a_property_that_keeps_the_delivery_guarantee_is_accepted(name: str, value: Value) -> None:
    assert properties.refused({name: value}) == {}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("acks", 1, "only acks=all"),
        ("acks", "0", "only acks=all"),
        ("request.required.acks", 1, "only acks=all"),
        ("enable.idempotence", False, "duplicate and reorder"),
        ("enable.gapless.guarantee", "false", "overtake a refused record"),
        ("message.timeout.ms", 300000, "breaks the order"),
        ("delivery.timeout.ms", 1, "breaks the order"),
        ("partitioner", "consistent_random", "other partitions"),
        ("allow.auto.create.topics", True, "[topics] create"),
        ("delivery.report.only.error", True, "only a delivery report"),
        ("queuing.strategy", "lifo", "reordered"),
        ("test.mock.num.brokers", 3, "mock cluster"),
        ("transactional.id", "mine", "the publisher sets it"),
        ("retries", 5, "giving up"),
        ("message.send.max.retries", 0, "giving up"),
    ],
)
def test_a_property_that_breaks_the_delivery_guarantee_is_refused(name: str, value: Value, reason: str) -> None:
    (problem,) = properties.refused({name: value}).values()
    assert reason in problem
    assert "is refused: " in problem


@pytest.mark.parametrize("name", properties.CODE)
def test_case_d10_a_property_that_runs_foreign_code_is_refused_unless_it_is_allowed_by_name(name: str) -> None:
    (problem,) = properties.refused({name: "libfoo"}).values()
    assert f'allow it with [delivery] kafka_code = ["{name}"]' in problem
    assert properties.refused({name: "libfoo"}, [name]) == {}
    assert len(properties.refused({name: "libfoo"}, ["another"])) == 1


def test_every_refused_property_is_reported() -> None:
    assert len(properties.refused({"acks": 1, "retries": 1, "linger.ms": 1, "partitioner": "random"})) == 3


@pytest.mark.parametrize(
    ("name", "alias", "kept", "broken"),
    [
        ("acks", "request.required.acks", "all", "1"),
        ("message.timeout.ms", "delivery.timeout.ms", "0", "1000"),
        ("retries", "message.send.max.retries", "2147483647", "5"),
    ],
)
def test_an_alias_cannot_override_its_property_with_a_refused_value(
    name: str, alias: str, kept: str, broken: str
) -> None:
    for given in ({name: kept, alias: broken}, {alias: kept, name: broken}, {alias: broken, name: kept}):
        assert len(properties.refused(given)) == 1, given


def test_an_alias_overrides_the_default() -> None:
    made = properties.producer({"request.required.acks": "-1", "delivery.timeout.ms": 0})
    assert made["acks"] == "-1"
    assert "request.required.acks" not in made
    assert "delivery.timeout.ms" not in made


def test_the_topic_limits_the_size_of_records_not_the_client_c7() -> None:
    assert properties.producer({})["message.max.bytes"] == "100000000"
    assert properties.producer({"message.max.bytes": 2_000_000})["message.max.bytes"] == "2000000"


def test_compression_codec_is_an_alias_of_compression_type_c7() -> None:
    assert properties.producer({"compression.codec": "zstd"})["compression.type"] == "zstd"


def test_a_connection_gets_only_the_properties_that_reach_the_cluster() -> None:
    given: dict[str, Value] = {
        "bootstrap.servers": "h:1",
        "security.protocol": "SASL_SSL",
        "sasl.username": "u",
        "ssl.ca.location": "/ca",
        "enable.ssl.certificate.verification": False,
        "linger.ms": 5,
        "acks": "all",
        "compression.type": "zstd",
    }
    assert properties.connection(given) == {
        "bootstrap.servers": "h:1",
        "security.protocol": "SASL_SSL",
        "sasl.username": "u",
        "ssl.ca.location": "/ca",
        "enable.ssl.certificate.verification": "false",
    }
