"""What an instance makes of the topic of its fleet, where real brokers cannot show it."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Uuid

from cdc.config.settings import Settings
from cdc.errors import KafkaError
from cdc.fleet import topic
from cdc.fleet.register import Plan, Register
from cdc.fleet.topic import FleetTopic
from tests.pipeline import eventually


class OldCluster:
    """Brokers before 2.8, whose topics have no ids."""

    def __init__(self, _: object) -> None:
        pass

    def identities(self, topics: list[str]) -> dict[str, "Future[Any]"]:
        described: Future[Any] = Future()
        described.set_result(SimpleNamespace(topic_id=Uuid(0, 0), partitions=[]))
        return dict.fromkeys(topics, described)


@pytest.fixture
def of_old_brokers(monkeypatch: pytest.MonkeyPatch) -> Iterator[FleetTopic]:
    monkeypatch.setattr(topic, "Cluster", OldCluster)
    with closing(FleetTopic(Settings(), Register())) as made:
        yield made


def test_brokers_that_are_too_old_are_named_in_one_line(of_old_brokers: FleetTopic) -> None:
    refused: list[KafkaError] = []

    def refuses() -> bool:
        try:
            of_old_brokers.look(Plan({}, 0), 1, {}, 0.0)
        except KafkaError as error:
            refused.append(error)
        return bool(refused)

    eventually(refuses, "the look ends")
    (error,) = refused
    assert "a fleet needs Kafka 2.8 or newer" in str(error)
    assert "\n" not in str(error)
    assert of_old_brokers.topic_id == ""
