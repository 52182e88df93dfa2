"""What an instance makes of its folder, its partitions and the ends of its children."""

import pytest

from cdc.fleet.instance import CRASHES, File, Instance
from cdc.fleet.readiness import FILE_SECONDS, NO_FILE
from cdc.fleet.register import entry, state, state_key
from cdc.fleet.supervision import Act

SHOP, CART = File(1, 25.0), File(2, 25.0)


@pytest.fixture
def instance() -> Instance:
    made = Instance("me", 10.0, lambda: 1.0)
    made.see({"shop": SHOP, "cart": CART}, {})
    made.register.take(b"shop", entry(1))
    made.register.take(b"cart", entry(2))
    made.register.ends()
    return made


def turn(instance: Instance, now: float = 0.0) -> list[tuple[Act, str]]:
    return sorted(instance.turn(now), key=lambda each: each[1])


def works_elsewhere(instance: Instance, unit: str) -> None:
    instance.register.take(state_key(unit).encode(), state(True, "other"))


def test_an_instance_runs_the_units_of_its_partitions(instance: Instance) -> None:
    assert turn(instance) == []
    instance.placement.assign([0, 1])
    assert turn(instance) == [(Act.START, "shop")]
    instance.placement.assign([2])
    assert turn(instance) == [(Act.START, "cart")]


def test_a_revoked_unit_drains_and_a_lost_one_goes_on(instance: Instance) -> None:
    instance.placement.assign([1, 2])
    turn(instance)
    instance.placement.revoke([1])
    instance.placement.topic(same=True)
    assert turn(instance) == [(Act.DRAIN, "shop")]
    instance.placement.lose([2])
    assert turn(instance, 20.0) == []


def test_a_lost_unit_that_kafka_blocks_ends_and_is_not_started_before_an_assignment(instance: Instance) -> None:
    instance.placement.assign([1, 2])
    turn(instance)
    instance.placement.lose([1, 2])
    instance.saw("shop", 0.0, works=False, blocked_by_kafka=True)
    assert turn(instance, 9.0) == []
    assert turn(instance, 10.0) == [(Act.GIVE_UP, "shop")]
    instance.ended("shop", None, "", 11.0)
    assert turn(instance, 60.0) == []
    instance.placement.assign([1, 2])
    assert turn(instance, 61.0) == [(Act.START, "shop")]


def test_a_unit_whose_file_becomes_invalid_goes_on_and_is_not_started_again(instance: Instance) -> None:
    instance.placement.assign([1])
    turn(instance)
    instance.see({"cart": CART}, {"shop": "unknown setting"})
    assert turn(instance) == []
    instance.ended("shop", 0, "", 1.0)
    assert turn(instance, 100.0) == []
    assert instance.readiness.failing == {"shop": "unknown setting"}
    assert instance.readiness.problems(100.0) == []


def test_an_invalid_file_of_a_unit_that_works_elsewhere_stops_a_rollout(instance: Instance) -> None:
    works_elsewhere(instance, "shop")
    instance.see({"cart": CART}, {"shop": "unknown setting"})
    instance.placement.assign([1])
    turn(instance)
    assert instance.readiness.problems(0.0) == ["unit shop fails here and worked elsewhere: unknown setting"]
    instance.placement.revoke([1])
    instance.placement.topic(same=True)
    turn(instance)
    assert instance.readiness.problems(0.0) == []


def test_a_unit_without_a_file_is_not_started_and_makes_the_instance_unready_after_a_minute(instance: Instance) -> None:
    instance.placement.assign([1, 2])
    turn(instance)
    instance.see({"cart": CART}, {})
    assert turn(instance) == [(Act.DRAIN, "shop")]
    turn(instance, FILE_SECONDS)
    (problem,) = instance.readiness.problems(FILE_SECONDS)
    assert problem == f"unit shop is placed here, and has no file in the folder: {NO_FILE}"


@pytest.mark.parametrize("code", [1, 78])
def test_a_child_that_needs_a_person_is_told_and_started_again(instance: Instance, code: int) -> None:
    instance.placement.assign([1])
    turn(instance)
    pause, word = instance.ended("shop", code, "poison", 0.0)
    assert word is None
    assert instance.readiness.failing == {"shop": "poison"}
    assert turn(instance, pause) == [(Act.START, "shop")]


@pytest.mark.parametrize("code", [0, 75])
def test_a_child_that_ends_for_a_while_is_no_failure(instance: Instance, code: int) -> None:
    works_elsewhere(instance, "shop")
    instance.placement.assign([1])
    turn(instance)
    instance.ended("shop", code, "the database is down", 0.0)
    assert instance.readiness.failing == {}


def test_crashes_are_a_failure_when_the_unit_never_worked_between_them(instance: Instance) -> None:
    works_elsewhere(instance, "shop")
    instance.placement.assign([1])
    for number in range(CRASHES):
        assert instance.readiness.failing == {}
        turn(instance, 100.0 * number)
        instance.ended("shop", None, "crashed", 100.0 * number)
    assert instance.readiness.problems(0.0) == ["unit shop fails here and worked elsewhere: crashed"]


def test_a_unit_that_works_between_crashes_does_not_fail(instance: Instance) -> None:
    instance.placement.assign([1])
    for number in range(2 * CRASHES):
        turn(instance, 100.0 * number)
        instance.saw("shop", 100.0 * number, works=True, blocked_by_kafka=False)
        instance.ended("shop", None, "crashed", 100.0 * number)
    assert instance.readiness.failing == {}


def test_all_units_drain_together_when_the_instance_stops(instance: Instance) -> None:
    instance.placement.assign([1, 2])
    turn(instance)
    instance.stop()
    assert not instance.stopped
    assert turn(instance) == [(Act.DRAIN, "cart"), (Act.DRAIN, "shop")]
    instance.ended("cart", 0, "", 1.0)
    assert turn(instance, 2.0) == []
    instance.ended("shop", 0, "", 2.0)
    assert instance.stopped
