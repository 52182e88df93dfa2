"""When the relay looks, and when it may be taken over."""

from cdc.polling.schedule import (
    AHEAD_NUMBERS,
    AHEAD_SECONDS,
    BEAT_SECONDS,
    BUSY_SECONDS,
    LEASE_SECONDS,
    MOST_AHEAD,
    TRUST_SECONDS,
    Holding,
    Lease,
    Looking,
)

HELD = Holding("other", 3, 10, locked=False)


def test_looks_are_frequent_while_there_are_rows_and_rare_when_there_are_none() -> None:
    looking = Looking(0.5, 100.0)
    assert looking.due(behind=False, ahead=0) <= 100.0
    looking.looked(100.0, 0, found=True)
    assert looking.due(behind=False, ahead=0) == 100.0 + BUSY_SECONDS
    for _ in range(10):
        looking.looked(200.0, 0, found=False)
    assert looking.due(behind=False, ahead=0) == 200.5


def test_a_notification_ends_a_long_pause() -> None:
    looking = Looking(60.0, 100.0)
    for _ in range(20):
        looking.looked(200.0, 0, found=False)
    assert looking.due(behind=False, ahead=0) == 260.0
    looking.notified()
    assert looking.due(behind=False, ahead=0) == 200.0 + BUSY_SECONDS


def test_while_earlier_rows_wait_a_look_is_due_after_a_second_or_ten_thousand_numbers() -> None:
    looking = Looking(60.0, 100.0)
    looking.looked(100.0, 500, found=True)
    assert looking.due(behind=True, ahead=1) == 100.0 + BUSY_SECONDS
    assert not looking.glanced(100.05, 500 + AHEAD_NUMBERS - 1)
    assert looking.due(behind=True, ahead=1) == 100.05 + BUSY_SECONDS
    assert looking.glanced(100.1, 500 + AHEAD_NUMBERS)
    assert looking.glanced(100.0 + AHEAD_SECONDS, 500)


def test_the_number_of_snapshots_whose_rows_wait_is_limited() -> None:
    looking = Looking(0.5, 100.0)
    assert looking.due(behind=True, ahead=MOST_AHEAD - 1) <= 100.0
    assert looking.due(behind=True, ahead=MOST_AHEAD) == float("inf")


def test_a_relay_without_a_holder_is_free_at_once() -> None:
    assert Lease().free(Holding(None, 3, 10, locked=False), 0.0, lock_held=False)
    assert not Lease().free(Holding(None, 3, 10, locked=False), 0.0, lock_held=True)


def test_a_holder_is_replaced_when_its_heartbeat_stood_still_for_the_lease() -> None:
    lease = Lease()
    assert not lease.free(HELD, 0.0, lock_held=False)
    assert not lease.free(HELD, LEASE_SECONDS - 0.1, lock_held=False)
    assert lease.free(HELD, LEASE_SECONDS, lock_held=False)


def test_each_heartbeat_and_each_epoch_begin_the_lease_again() -> None:
    lease = Lease()
    assert not lease.free(HELD, 0.0, lock_held=False)
    assert not lease.free(HELD._replace(heartbeat=11), LEASE_SECONDS, lock_held=False)
    assert not lease.free(HELD._replace(heartbeat=11, epoch=4), 2 * LEASE_SECONDS, lock_held=False)
    assert lease.free(HELD._replace(heartbeat=11, epoch=4), 3 * LEASE_SECONDS, lock_held=False)


def test_the_lock_stands_for_the_lease_where_the_holder_has_it() -> None:
    lease, locked = Lease(), HELD._replace(locked=True)
    assert lease.free(locked, 0.0, lock_held=False)
    assert not lease.free(locked, 10 * LEASE_SECONDS, lock_held=True)


def test_a_holder_gives_up_well_before_another_takes_over() -> None:
    assert 3 * BEAT_SECONDS < TRUST_SECONDS < LEASE_SECONDS
