"""Charts and bars of characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.cli.screen import figures


def test_a_moment_that_is_none_has_no_age() -> None:
    assert figures.age("2026-01-31T10:00:00.500Z", "2026-01-31T10:00:02.000Z") == 1.5
    for moment in (None, "", "yesterday", "2026-01-31T10:00:00"):
        assert figures.age(moment, "2026-01-31T10:00:02.000Z") is None


@pytest.mark.parametrize(
    ("part", "whole", "text", "colour"),
    [
        (1, 100, "━─────────", "green"),
        (50, 100, "━━━━━─────", "yellow"),
        (80, 100, "━━━━━━━━──", "red"),
        (250, 100, "━━━━━━━━━━", "red"),
        (1, 0, "━━━━━━━━━━", "red"),
    ],
)
def test_a_bar_fills_with_its_share_and_turns_red(part: int, whole: int, text: str, colour: str) -> None:
    bar = figures.bar(part, whole, 10)
    assert bar.plain == text
    assert bar.spans[0].style == colour


def test_a_chart_shows_the_newest_values_at_the_right() -> None:
    assert figures.chart([0, 1, 2, 4], 4, 1) == ["▁▂▄█"]
    assert figures.chart([0, 1, 2, 4], 2, 1) == ["▄█"]
    assert figures.chart([4, None, 2], 6, 2) == ["   █  ", "   █ █"]
    assert figures.chart([0, 0], 3, 2) == ["   ", " ▁▁"]
    assert figures.chart([], 3, 1) == ["   "]


def test_a_chart_needs_no_special_characters() -> None:
    (line,) = figures.chart([0, 1, 2, 4], 4, 1, glyphs=figures.ASCII)
    assert line.isascii()
    assert len(set(line)) == 4


@given(
    st.lists(st.none() | st.floats(0, 1e300), max_size=80),
    st.integers(0, 60),
    st.integers(1, 10),
)
def test_a_chart_always_fits(values: list[float | None], width: int, height: int) -> None:
    lines = figures.chart(values, width, height)
    assert [len(line) for line in lines] == [width] * height
    for column, value in enumerate(reversed(values[-width:] if width else [])):
        assert (lines[-1][width - 1 - column] == " ") == (value is None)
