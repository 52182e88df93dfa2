"""Quantities as people read them."""

import pytest

from cdc import quantities


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.9, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (75, "1 min 15 s"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (8_640_000, "100 d"),
    ],
)
def test_a_time_is_told_in_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert quantities.span(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "-"),
        (-5, "0 B"),
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (12_345_678, "12.3 MB"),
        (33_554_432_000, "33.6 GB"),
    ],
)
def test_a_size_is_told_in_powers_of_ten(size: int | None, text: str) -> None:
    assert quantities.size(size) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0, "0"), (0.25, "0.2"), (9.96, "10.0"), (10.4, "10"), (12_345.6, "12,346")]
)
def test_a_rate_has_a_fraction_only_where_it_matters(value: float | None, text: str) -> None:
    assert quantities.rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (1.234, "1.2 ms"), (250.4, "250 ms"), (9_999, "9,999 ms"), (61_000, "1 min 1 s")]
)
def test_a_latency_is_told_in_milliseconds_while_that_makes_sense(value: float | None, text: str) -> None:
    assert quantities.milliseconds(value) == text


@pytest.mark.parametrize(("number", "text"), [(None, "- rows"), (0, "0 rows"), (1, "1 row"), (1_200, "1,200 rows")])
def test_a_noun_is_in_the_plural_but_for_one(number: int | None, text: str) -> None:
    assert quantities.plural(number, "row") == text
