"""The loop, driven with twins in memory and a clock of its own."""

import pytest

from cdc.delivery.ports import Ahead
from cdc.errors import KafkaUnavailable
from tests.unit import frames
from tests.unit.loop import Loop
from tests.unit.shop import event, transaction


def test_records_go_out_as_frames_come_in_and_the_slot_follows_deliveries_a1() -> None:
    loop = Loop(transaction(200, event(), event()))
    loop.steps(2)
    assert len(loop.sink.sent) == 2
    assert loop.source.confirmed == [100]
    loop.sink.settle_all()
    loop.until(lambda: loop.source.confirmed[-1] == 208)


def test_deliveries_in_any_order_confirm_only_the_settled_prefix_a2() -> None:
    loop = Loop(transaction(200, event()), transaction(300, event()))
    loop.until(lambda: len(loop.sink.sent) == 2)
    loop.sink.settle(1)
    loop.clock.advance(20)
    loop.steps(2)
    assert set(loop.source.confirmed) == {100}
    loop.sink.settle(0)
    loop.clock.advance(20)
    loop.steps(2)
    assert loop.source.confirmed[-1] == 308


def test_while_the_sink_is_full_nothing_is_read_and_status_updates_go_on_a12_c9() -> None:
    loop = Loop(transaction(200, *[event()] * 5), transaction(300, event()), room=2)
    loop.steps(1)
    assert (loop.source.reads, len(loop.sink.sent)) == (1, 2)
    began = loop.clock.now
    loop.until(lambda: loop.clock.now > began + 60, limit=2000)
    assert (loop.source.reads, len(loop.sink.sent)) == (1, 2)
    assert set(loop.source.confirmed) == {100}
    gaps = [after - before for before, after in zip(loop.source.written_at, loop.source.written_at[1:], strict=False)]
    assert len(gaps) >= 5
    assert max(gaps) < 10.1


def test_what_waits_for_room_keeps_its_order_and_none_is_lost_c9() -> None:
    rows = [event(f'{{"n":{number}}}') for number in range(20)]
    loop = Loop(transaction(200, *rows[:10]), transaction(300, *rows[10:]), room=3)
    for _ in range(200):
        loop.publisher.step()
        if loop.sink.waiting:
            loop.sink.settle(len(loop.sink.waiting) - 1)
    assert [record.value for record in loop.sink.sent] == [f'{{"N":{number}}}'.encode() for number in range(20)]
    loop.clock.advance(20)
    loop.steps(1)
    assert loop.source.confirmed[-1] == 308


def test_a_requested_reply_is_answered_at_the_next_step_a12() -> None:
    loop = Loop([], [frames.keepalive(50, reply=True)])
    loop.steps(2)
    assert len(loop.source.written) == 1
    loop.steps(1)
    assert len(loop.source.written) == 2


def test_an_idle_loop_waits_for_frames_and_wakes_for_the_next_status() -> None:
    loop = Loop()
    loop.until(lambda: len(loop.source.waits) > 100)
    assert max(loop.source.waits) <= 0.25
    assert loop.source.written_at[1] - loop.source.written_at[0] == pytest.approx(10.0, abs=0.01)


def test_with_records_in_flight_the_loop_looks_for_reports_often() -> None:
    loop = Loop(transaction(200, event()))
    loop.until(lambda: len(loop.source.waits) > 10)
    assert max(loop.source.waits) <= 0.001


def test_a_failed_delivery_raises_and_nothing_of_it_is_confirmed_c11() -> None:
    loop = Loop(transaction(200, event()), transaction(300, event()))
    loop.until(lambda: len(loop.sink.sent) == 2)
    loop.sink.refuse("MSG_SIZE_TOO_LARGE")
    loop.sink.settle(0)
    loop.clock.advance(20)
    with pytest.raises(KafkaUnavailable, match="refused: MSG_SIZE_TOO_LARGE in 0/C8"):
        loop.steps(1)
    assert set(loop.source.confirmed) == {100}


def test_poison_stops_after_what_came_before_it_was_sent_c8() -> None:
    loop = Loop([*transaction(200, event()), *transaction(300, event(), event("bad"), event())])
    loop.steps(1)
    assert loop.session.poison is not None
    assert len(loop.sink.sent) == 2


def test_while_a_kafka_transaction_is_committed_the_next_one_is_made_ready_up_to_a_bound() -> None:
    bursts = [transaction(200 + 10 * number, event('{"n":1}')) for number in range(9)]
    loop = Loop(*bursts, room=0, ahead=Ahead(3, 1000))
    loop.steps(9)
    assert len(loop.source.bursts) == 9 - 4
    loop = Loop(*bursts, room=0, ahead=Ahead(100, 20))
    loop.steps(9)
    assert len(loop.source.bursts) == 9 - 3  # 7 bytes each
    loop.sink.room = 100
    loop.steps(20)
    assert len(loop.sink.sent) == 9
    assert [record.value for record in loop.sink.sent] == [b'{"N":1}'] * 9
