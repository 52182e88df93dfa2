"""When children start, drain and end."""

import pytest

from cdc.fleet.supervision import (
    KILL_SECONDS,
    LONGEST_PAUSE_SECONDS,
    STEADY_SECONDS,
    TEMPORARY_PAUSE_SECONDS,
    Act,
    Supervision,
    Wanted,
)

SHOP = Wanted(1, 25.0)


@pytest.fixture
def supervision() -> Supervision:
    return Supervision(10.0, lambda: 1.0)


def turn(supervision: Supervision, now: float, **wanted: Wanted) -> list[tuple[Act, str]]:
    return list(supervision.turn(wanted, now))


def test_a_wanted_unit_is_started_once(supervision: Supervision) -> None:
    assert turn(supervision, 0, shop=SHOP) == [(Act.START, "shop")]
    assert turn(supervision, 1, shop=SHOP) == []


def test_a_unit_that_is_not_wanted_any_more_is_drained_once(supervision: Supervision) -> None:
    turn(supervision, 0, shop=SHOP)
    assert turn(supervision, 1) == [(Act.DRAIN, "shop")]
    assert turn(supervision, 2) == []


def test_a_unit_that_comes_back_waits_for_the_end_of_its_child(supervision: Supervision) -> None:
    turn(supervision, 0, shop=SHOP)
    turn(supervision, 1)
    assert turn(supervision, 2, shop=SHOP) == []
    assert supervision.ended("shop", 3) == 0
    assert turn(supervision, 3, shop=SHOP) == [(Act.START, "shop")]


def test_changed_settings_replace_the_child(supervision: Supervision) -> None:
    turn(supervision, 0, shop=SHOP)
    assert turn(supervision, 1, shop=Wanted(2, 25.0)) == [(Act.DRAIN, "shop")]
    supervision.ended("shop", 2)
    assert turn(supervision, 2, shop=Wanted(2, 25.0)) == [(Act.START, "shop")]


def test_a_child_that_does_not_drain_in_its_time_is_ended_and_then_killed(supervision: Supervision) -> None:
    turn(supervision, 0, shop=SHOP)
    turn(supervision, 0)
    assert turn(supervision, 25 + KILL_SECONDS - 1) == []
    assert turn(supervision, 25 + KILL_SECONDS) == [(Act.EXIT, "shop")]
    assert turn(supervision, 25 + KILL_SECONDS + 1) == []
    assert turn(supervision, 25 + 2 * KILL_SECONDS) == [(Act.KILL, "shop")]


@pytest.mark.parametrize(
    ("needs_operator", "longest"), [(True, LONGEST_PAUSE_SECONDS), (False, TEMPORARY_PAUSE_SECONDS)]
)
def test_a_child_that_ends_by_itself_is_started_again_after_pauses_that_grow(
    supervision: Supervision, needs_operator: bool, longest: float
) -> None:
    now, pauses = 0.0, []
    for _ in range(12):
        assert turn(supervision, now, shop=SHOP) == [(Act.START, "shop")]
        pauses.append(supervision.ended("shop", now, needs_operator=needs_operator))
        assert turn(supervision, now + pauses[-1] / 2, shop=SHOP) == []
        now += pauses[-1]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == longest


def test_the_pause_is_short_again_after_a_long_life_and_for_a_unit_that_was_away(supervision: Supervision) -> None:
    turn(supervision, 0, shop=SHOP)
    first = supervision.ended("shop", 0)
    turn(supervision, 10, shop=SHOP)
    assert supervision.ended("shop", 10) > first
    turn(supervision, 20, shop=SHOP)
    assert supervision.ended("shop", 20 + STEADY_SECONDS) == first
    turn(supervision, 100)
    assert turn(supervision, 100, shop=SHOP) == [(Act.START, "shop")]
    assert supervision.ended("shop", 100) == first


def test_one_unit_that_fails_delays_no_other(supervision: Supervision) -> None:
    turn(supervision, 0, shop=SHOP)
    supervision.ended("shop", 0)
    assert turn(supervision, 0, shop=SHOP, cart=SHOP) == [(Act.START, "cart")]


def test_a_lost_unit_is_given_up_when_kafka_has_blocked_it_for_a_session(supervision: Supervision) -> None:
    lost = {"shop": Wanted(1, 25.0, lost=True)}
    turn(supervision, 0, **lost)
    assert supervision.given_up(lost, 100) == set()  # it works
    supervision.blocked("shop", 100, by_kafka=True)
    supervision.blocked("shop", 105, by_kafka=True)
    assert supervision.given_up(lost, 109) == set()
    assert supervision.given_up(lost, 110) == {"shop"}
    assert supervision.given_up({"shop": SHOP}, 110) == set()  # the group is there: nobody else waits
    supervision.blocked("shop", 110, by_kafka=False)
    assert supervision.given_up(lost, 110) == set()


def test_a_unit_that_is_given_up_ends_at_once(supervision: Supervision) -> None:
    turn(supervision, 0, shop=SHOP)
    assert list(supervision.give_up({"shop", "cart"}, 10)) == [(Act.GIVE_UP, "shop")]
    assert list(supervision.give_up({"shop"}, 11)) == []
    assert turn(supervision, 11) == []
