"""When the relay looks, and when it may be taken over."""

from cdc.polling.schedule import (
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
    assert looking.due(room=True, ahead=0) <= 100.0
    looking.looked(100.0, found=True)
    assert looking.due(room=True, ahead=0) == 100.0 + BUSY_SECONDS
    for _ in range(10):
        looking.looked(200.0, found=False)
    assert looking.due(room=True, ahead=0) == 200.5


def test_snapshots_are_also_taken_while_nothing_can_be_sent_but_not_for_ever() -> None:
    looking = Looking(0.5, 100.0)
    looking.looked(100.0, found=True)
    assert looking.due(room=False, ahead=1) == 101.0
    assert looking.due(room=False, ahead=MOST_AHEAD) == float("inf")


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
