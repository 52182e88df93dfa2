"""Stopping: what was read is delivered and confirmed, or the answer is that it was not (A16)."""

import pytest

from cdc.errors import KafkaUnavailable
from tests.unit import frames, shop
from tests.unit.loop import Loop
from tests.unit.shop import event, transaction


def drain(loop: Loop, seconds: float = 25.0) -> bool:
    return loop.publisher.drain(loop.clock.now + seconds)


def test_draining_an_idle_publisher_confirms_and_is_done() -> None:
    loop = Loop()
    assert drain(loop)
    assert loop.source.confirmed == [100]
    assert loop.source.reads == 0


def test_draining_waits_for_deliveries_and_confirms_them() -> None:
    loop = Loop(transaction(200, event(), event()), transaction(300, event()))
    loop.sink.settles_at_once = True
    loop.steps(1)
    assert drain(loop)
    assert loop.source.confirmed[-1] == 208
    assert loop.source.reads == 1  # the next transaction is left for the next start


def test_draining_finishes_the_open_transaction_and_then_stops_reading_a6() -> None:
    first, rest = [shop.begin(200), shop.relation(), event()], [event(), shop.commit(200)]
    loop = Loop(first, [rest[0]], [], [rest[1], *transaction(300, event())], transaction(400, event()), tick=0.001)
    loop.sink.settles_at_once = True
    loop.steps(1)
    assert drain(loop)
    assert [str(dict(record.headers)["cdc-position"])[9:] for record in loop.sink.sent] == [
        "00000000000000C8-00000000",
        "00000000000000C8-00000001",
    ]
    assert loop.source.confirmed[-1] == 208
    assert loop.session.ledger.open is None
    assert len(loop.source.bursts) == 1


def test_draining_an_open_transaction_does_not_read_while_the_sink_is_full_c9() -> None:
    loop = Loop([shop.begin(200), shop.relation(), event(), event()], [shop.commit(200)], room=1, tick=0.001)
    loop.steps(1)
    assert not drain(loop, 2.0)
    assert loop.source.reads == 1


def test_draining_past_the_deadline_says_so_and_confirms_no_more_than_was_delivered() -> None:
    loop = Loop(transaction(200, event(), event()))
    loop.steps(1)
    loop.sink.settle(0)
    began = loop.clock.now
    assert not drain(loop, 5.0)
    assert began + 5.0 <= loop.clock.now < began + 5.2
    assert set(loop.source.confirmed) == {100}


def test_draining_with_a_transaction_that_never_ends_meets_its_deadline_a6() -> None:
    loop = Loop([shop.begin(200), shop.relation(), event()], tick=0.001)
    loop.sink.settles_at_once = True
    loop.steps(1)
    assert not drain(loop, 5.0)
    assert set(loop.source.confirmed) == {100}


@pytest.mark.parametrize("last", [event(), event("bad")], ids=["open transaction", "poison"])
def test_waiting_for_kafka_or_for_the_rest_of_a_transaction_does_not_spin(last: bytes) -> None:
    loop = Loop([*transaction(200, event()), shop.begin(300), last], tick=0.0001)
    loop.steps(1)
    polls, reads = len(loop.sink.polls), loop.source.reads
    assert not drain(loop, 5.0)
    waited = sum(loop.sink.polls[polls:]) + sum(loop.source.waits)
    turns = len(loop.sink.polls) - polls
    assert waited > 2.5, f"{turns} polls and {loop.source.reads - reads} reads in 5 s, {waited:.3f} s of them waiting"


def test_draining_with_no_time_left_still_sends_the_last_status() -> None:
    loop = Loop(transaction(200, event()))
    loop.sink.settles_at_once = True
    loop.steps(2)
    assert drain(loop, 0.0)
    assert loop.source.confirmed[-1] == 208


def test_a_long_drain_keeps_telling_postgresql_a12() -> None:
    loop = Loop(transaction(200, event()))
    loop.steps(1)
    assert not drain(loop, 60.0)
    assert len(loop.source.written) >= 7


def test_draining_after_poison_delivers_what_came_before_it_and_reads_no_more_c8() -> None:
    loop = Loop([*transaction(200, event()), shop.begin(300), event(), event("bad"), event()], [shop.commit(300)])
    loop.sink.settles_at_once = True
    loop.steps(1)
    assert drain(loop)
    assert [str(dict(record.headers)["cdc-position"])[9:] for record in loop.sink.sent] == [
        "00000000000000C8-00000000",
        "000000000000012C-00000000",
    ]
    assert loop.source.confirmed[-1] == 208
    assert loop.source.reads == 1


def test_poison_in_the_open_transaction_ends_the_drain_too_c8() -> None:
    loop = Loop([shop.begin(200), shop.relation(), event()], [event("bad"), event(), shop.commit(200)])
    loop.sink.settles_at_once = True
    loop.steps(1)
    assert drain(loop)
    assert loop.session.poison is not None
    assert len(loop.sink.sent) == 1
    assert set(loop.source.confirmed) == {100}


def test_draining_after_poison_waits_for_what_came_before_it() -> None:
    loop = Loop([*transaction(200, event()), shop.begin(300), event("bad")], tick=0.001)
    loop.steps(1)
    assert not drain(loop, 1.0)
    loop.sink.settle_all()
    assert drain(loop, 1.0)
    assert loop.source.confirmed[-1] == 208


def test_a_delivery_that_fails_in_a_drain_raises() -> None:
    loop = Loop(transaction(200, event()))
    loop.steps(1)
    loop.sink.refuse("broken")
    with pytest.raises(KafkaUnavailable):
        drain(loop)
    assert set(loop.source.confirmed) <= {100}


def test_frames_after_the_transaction_are_left_for_the_next_start() -> None:
    burst = [shop.commit(200), frames.keepalive(9999), *transaction(300, event())]
    loop = Loop([shop.begin(200), shop.relation(), event()], burst)
    loop.sink.settles_at_once = True
    loop.steps(1)
    assert drain(loop)
    assert loop.source.confirmed[-1] == 208
    assert len(loop.sink.sent) == 1
