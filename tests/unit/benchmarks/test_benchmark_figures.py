"""The arithmetic of the benchmark: a wrong percentile flatters as much as a wrong clock."""

import math
import random

import pytest

from benchmarks import figures


def test_a_percentile_is_the_smallest_value_that_enough_values_do_not_exceed() -> None:
    values = list(range(1, 101))
    assert [figures.percentile(values, share) for share in (1, 50, 99, 100)] == [1, 50, 99, 100]


def test_the_percentile_of_few_values_is_never_below_the_share() -> None:
    assert figures.percentile([1.0, 2.0, 9.0], 50) == 2.0
    assert figures.percentile([1.0, 2.0, 9.0], 99) == 9.0
    assert figures.percentile([4.0], 0.001) == 4.0


@pytest.mark.parametrize("share", [1, 17, 50, 95, 99, 99.9])
def test_a_percentile_covers_its_share_and_the_value_below_it_does_not(share: float) -> None:
    chance = random.Random(7)
    values = sorted(chance.sample(range(10_000), 357))
    found = figures.percentile(values, share)
    covered = sum(value <= found for value in values)
    assert covered >= share / 100 * len(values) > covered - 1


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        figures.percentile([], 50)
    with pytest.raises(ValueError, match="nothing was measured"):
        figures.spread([])


def test_the_steady_rate_leaves_out_the_first_twentieth_and_the_time_before_it() -> None:
    # 50 events at the end of a slow start, then 950 in 950 ms.
    appended = {5_000: 50} | {5_000 + moment: 1 for moment in range(1, 951)}
    assert figures.steady_rate(appended) == pytest.approx(1000)


def test_burst_across_the_first_twentieth_is_left_out() -> None:
    # All of the first burst is behind the moment from which is measured, not only its first twentieth.
    assert figures.steady_rate({1_000: 500, 2_000: 500}) == pytest.approx(500)


def test_the_order_of_the_times_does_not_matter() -> None:
    assert figures.steady_rate({3_000: 10, 1_000: 10, 2_000: 10}) == pytest.approx(10)


def test_events_of_one_millisecond_have_no_rate() -> None:
    assert math.isnan(figures.steady_rate({1_000: 500}))
    assert math.isnan(figures.steady_rate({}))


def test_ratios_are_taken_within_rounds() -> None:
    # The machine was twice as slow in the second round; the ratio of the medians would say 0.67.
    assert figures.paired([50, 25, 50], [100, 50, 100]) == figures.Spread(0.5, 0.5, 0.5)


def test_rounds_that_do_not_match_are_an_error() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        figures.paired([1.0, 2.0], [1.0])


def test_each_item_is_first_once_and_none_is_left_out() -> None:
    orders = [figures.rotated("abc", by) for by in range(3)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]
    assert figures.rotated("abc", 3) == orders[0]
    assert figures.rotated("", 2) == []


def test_the_exponent_says_how_cost_grows() -> None:
    assert figures.exponent((10, 100), (5, 5)) == pytest.approx(0)
    assert figures.exponent((10, 100), (5, 50)) == pytest.approx(1)
    assert figures.exponent((10, 100), (5, 500)) == pytest.approx(2)
    assert figures.exponent((10, 100), (5, 0.5)) == pytest.approx(-1)


@pytest.mark.parametrize(("x", "y"), [((0, 10), (1, 2)), ((10, 10), (1, 2)), ((1, 10), (0, 2)), ((1, 10), (-1, 2))])
def test_undefined_exponent_is_nan(x: tuple[float, float], y: tuple[float, float]) -> None:
    assert math.isnan(figures.exponent(x, y))
