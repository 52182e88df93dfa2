"""Which partitions an instance holds: revoked is not lost, and a deleted topic is lost, not revoked."""

import pytest

from cdc.fleet.placement import Placement


@pytest.fixture
def placement() -> Placement:
    made = Placement()
    made.assign([1, 2, 3])
    return made


def test_what_is_assigned_is_held(placement: Placement) -> None:
    placement.assign([4])
    assert placement.joined
    assert placement.held == {1, 2, 3, 4}


def test_what_is_revoked_is_left_once_the_topic_is_known_to_be_the_same(placement: Placement) -> None:
    placement.revoke([2])
    assert placement.held == {1, 2, 3}
    placement.topic(same=True)
    assert placement.held == {1, 3}


def test_what_is_revoked_as_the_topic_was_deleted_is_lost(placement: Placement) -> None:
    placement.revoke([1, 2, 3])
    placement.topic(same=False)
    placement.topic(same=True)
    assert placement.held == placement.lost == {1, 2, 3}


def test_what_is_lost_is_held_until_the_next_assignment_says_otherwise(placement: Placement) -> None:
    placement.lose([1, 2, 3])
    assert placement.held == placement.lost == {1, 2, 3}
    assert placement.assigned == set()
    placement.assign([2])
    assert placement.held == {2}
    assert placement.lost == set()


def test_an_assignment_ends_the_doubt_about_what_is_in_it(placement: Placement) -> None:
    placement.revoke([2])
    placement.assign([2])
    placement.topic(same=True)
    assert placement.held == {1, 2, 3}


def test_lost_partitions_can_be_left_to_others(placement: Placement) -> None:
    placement.lose([])
    placement.give_up([1])
    assert placement.held == {2, 3}
