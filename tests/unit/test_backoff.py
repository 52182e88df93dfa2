"""Pauses between attempts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.backoff import FIRST_SECONDS, LONGEST_SECONDS, Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.pause() for _ in range(9)] == [
        min(FIRST_SECONDS * 2**attempt, LONGEST_SECONDS) for attempt in range(9)
    ]


@pytest.mark.parametrize(("random", "share"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_jitter_takes_at_most_half_of_a_pause(random: float, share: float) -> None:
    assert Backoff(lambda: random).pause() == FIRST_SECONDS * share


def test_pauses_are_short_again_after_a_success() -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(5):
        backoff.pause()
    backoff.reset()
    assert backoff.pause() == FIRST_SECONDS


@given(st.floats(0, 1), st.integers(0, 200))
def test_every_pause_is_positive_and_at_most_the_longest(random: float, attempts: int) -> None:
    backoff = Backoff(lambda: random)
    pauses = [backoff.pause() for _ in range(attempts + 1)]
    assert max(pauses) <= LONGEST_SECONDS
    assert min(pauses) >= FIRST_SECONDS / 2


def test_a_year_of_attempts_costs_no_more_than_the_first() -> None:
    backoff = Backoff(lambda: 1.0)
    backoff._attempts = 10**9
    assert backoff.pause() == LONGEST_SECONDS
