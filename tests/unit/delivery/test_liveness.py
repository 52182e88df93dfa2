"""A server that is silent though connected, and a process that stood still: both end the session."""

import itertools

import pytest

from cdc.delivery.loop import Publisher
from cdc.errors import PostgresUnavailable
from cdc.replication.settlement import Ledger
from tests.memory import Clock, MemorySink, MemorySource
from tests.unit import frames, shop
from tests.unit.loop import Loop, failed
from tests.unit.shop import event, transaction


def test_a_server_that_answers_may_be_idle_for_ever_a14() -> None:
    loop = Loop()
    loop.until(lambda: loop.clock.now > 1000.0 + 300, limit=10_000)
    assert len([frame for frame in loop.source.written if frame[-1]]) >= 10  # it was asked, and answered each time


def test_a_server_that_does_not_answer_for_three_status_updates_is_given_up_a14() -> None:
    loop = Loop()
    loop.source.answers = False
    with pytest.raises(PostgresUnavailable, match="silent for 30 s"):
        loop.until(lambda: loop.clock.now > 1000.0 + 300, limit=10_000)
    assert 1030 < loop.clock.now < 1032


def test_only_updates_that_the_timer_sends_ask_for_a_reply_so_that_two_idle_ends_do_not_talk_without_end_a14() -> None:
    loop = Loop([frames.keepalive(50, reply=True)], transaction(200, event()))
    loop.sink.settles_at_once = True
    loop.until(lambda: loop.clock.now > 1000.0 + 60, limit=10_000)
    asked = [at for frame, at in zip(loop.source.written, loop.source.written_at, strict=True) if frame[-1]]
    assert len(asked) >= 5
    assert min(after - before for before, after in itertools.pairwise(asked)) >= 10
    assert any(not frame[-1] for frame in loop.source.written)


def test_while_kafka_takes_nothing_the_server_is_not_listened_to_and_not_given_up_a12_a14() -> None:
    loop = Loop(transaction(200, *[event()] * 5), room=2)
    loop.source.answers = False
    loop.until(lambda: loop.clock.now > 1000.0 + 300, limit=10_000)
    assert len(loop.sink.sent) == 2


def test_a_process_that_stood_still_sends_nothing_more_in_its_session_d6() -> None:
    loop = Loop(transaction(200, *[event()] * 5), room=2)
    loop.steps(3)
    sent = len(loop.sink.sent)
    loop.sink.settle_all()
    loop.clock.advance(31)
    with pytest.raises(PostgresUnavailable, match="stood still for 31 s"):
        loop.steps(1)
    assert len(loop.sink.sent) == sent


def test_a_process_that_stood_still_for_as_long_as_the_server_waits_takes_its_slot_for_lost_d6_b16() -> None:
    session = shop.session(Ledger(100), status_seconds=2 / 3)  # a wal_sender_timeout of 2 s
    clock = Clock()
    source, sink = MemorySource(clock, [transaction(200, event())]), MemorySink(clock)
    publisher = Publisher(source, sink, session, failed, clock)
    publisher.step()
    clock.advance(1.9)
    publisher.step()
    source.bursts.append(transaction(300, event()))
    clock.advance(2.1)
    with pytest.raises(PostgresUnavailable, match="stood still"):
        publisher.step()
    assert len(sink.sent) == 1  # what the kernel still held of the stream may be another publisher's by now
