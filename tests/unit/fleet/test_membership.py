"""What an instance does when the group calls back: it gives partitions back at once, whatever their units do."""

import threading
from collections.abc import Callable

import pytest
from confluent_kafka import TopicPartition

from cdc.config.settings import Settings
from cdc.fleet.membership import Membership
from cdc.fleet.placement import Placement
from cdc.kafka import client

PATIENCE = 5.0
Callback = Callable[["Group", list[TopicPartition]], None]


class Group:
    """A consumer of one test: `poll` calls what is due, as librdkafka does."""

    def __init__(self) -> None:
        self.due: list[tuple[str, list[int]]] = []
        self.assigned: set[int] = set()
        self._callbacks: dict[str, Callback] = {}

    def subscribe(self, _: list[str], **callbacks: Callback) -> None:
        self._callbacks = callbacks

    def poll(self, _: float) -> None:
        for kind, numbers in self.due:
            self._callbacks[kind](self, [TopicPartition("cdc.fleet.shop", number) for number in numbers])
        self.due.clear()

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned |= {one.partition for one in partitions}

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        self.assigned -= {one.partition for one in partitions}

    def pause(self, _: list[TopicPartition]) -> None:
        pass

    def close(self) -> None:
        self.due = [("on_revoke", sorted(self.assigned))]
        self.poll(0)


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    made = Group()
    monkeypatch.setattr(client, "consumer", lambda *_, **__: made)
    return made


@pytest.fixture
def member(group: Group) -> tuple[Membership, Placement]:
    placement = Placement()
    made = Membership(Settings(), "me", placement)
    group.due = [("on_assign", [0, 1, 2])]
    made.poll()
    return made, placement


def polled(member: Membership) -> bool:
    """Whether `poll` returns; a callback that waits would hold up the whole group."""
    thread = threading.Thread(target=member.poll, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return not thread.is_alive()


def test_a_revoked_partition_is_given_back_while_its_unit_still_runs(
    group: Group, member: tuple[Membership, Placement]
) -> None:
    instance, placement = member
    group.due = [("on_revoke", [1])]
    assert polled(instance)
    assert group.assigned == {0, 2}
    assert placement.held == {0, 1, 2}


def test_what_the_group_loses_is_not_revoked(group: Group, member: tuple[Membership, Placement]) -> None:
    instance, placement = member
    group.due = [("on_lost", [0, 1, 2])]
    assert polled(instance)
    assert group.assigned == set()
    assert (placement.lost, placement.doubtful) == ({0, 1, 2}, set())


def test_an_instance_that_leaves_drains_by_itself(group: Group, member: tuple[Membership, Placement]) -> None:
    instance, placement = member
    instance.leave()
    assert group.assigned == set()
    assert placement.assigned == {0, 1, 2}
