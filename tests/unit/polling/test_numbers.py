"""Numbers are given out once, and ascend over all sessions."""

import pytest

from cdc.errors import PostgresError
from cdc.polling.numbers import LAST_EPOCH, RECOGNIZED, Numbers, next_epoch


def test_numbers_ascend_within_an_epoch_and_over_epochs() -> None:
    first, second = Numbers(3), Numbers(4)
    found = [first.next(), first.next()]
    first.catch_up()
    found += [first.next(), second.next()]
    assert found == sorted(set(found))
    assert found[2] == first.fresh == (3 << 42) + RECOGNIZED


def test_catching_up_never_goes_back() -> None:
    numbers = Numbers(1)
    numbers.catch_up()
    last = numbers.next()
    numbers.catch_up()
    assert numbers.next() > last


def test_the_last_number_fits_into_a_positive_bigint() -> None:
    assert (LAST_EPOCH + 1) << 42 == 1 << 63


def test_an_epoch_is_above_all_that_are_known() -> None:
    assert next_epoch(3, 7) == 8
    with pytest.raises(PostgresError, match="epochs"):
        next_epoch(LAST_EPOCH)
