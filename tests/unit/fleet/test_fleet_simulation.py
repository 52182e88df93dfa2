"""Worlds of a fleet: whatever happens, each unit ends with one reader, and only what must move does."""

import pytest

from tests.simulation import fleet


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_every_unit_has_one_reader_after_faults(first: int) -> None:
    for seed in range(first, first + 10):
        assert fleet.run(seed) is None, f"seed {seed}"
