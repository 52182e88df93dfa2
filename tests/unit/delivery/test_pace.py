"""How fast frames come, and how the publisher waits for the next ones."""

from cdc.delivery.loop import BRISK_FRAMES, WINDOW_SECONDS, Pace, Publisher
from cdc.replication.settlement import Ledger
from tests.memory import Clock, MemorySink, MemorySource
from tests.unit.loop import Loop, failed
from tests.unit.shop import Topics, event, session, transaction

ROWS = 400
LOAD = [transaction(200 * number, *[event()] * ROWS) for number in range(1, 9)]


def test_many_frames_in_two_windows_are_brisk_and_time_takes_that_away() -> None:
    pace = Pace(0.0)
    pace.took(BRISK_FRAMES, 0.001)
    assert not pace.brisk()
    pace.took(1, WINDOW_SECONDS)
    assert pace.brisk()
    pace.took(0, 3 * WINDOW_SECONDS)
    assert not pace.brisk()


def test_a_window_that_nobody_looked_at_for_long_is_forgotten() -> None:
    pace = Pace(0.0)
    pace.took(BRISK_FRAMES, 0.0)
    pace.took(BRISK_FRAMES, 10.0)
    assert not pace.brisk()


def test_while_little_comes_it_is_sent_at_once_and_the_socket_wakes_the_publisher() -> None:
    loop = Loop(transaction(200, event()))
    loop.until(lambda: len(loop.sink.sent) == 1)
    loop.steps(2)
    assert loop.sink.hastened == 1
    assert loop.source.waits


def test_nothing_is_hastened_twice() -> None:
    loop = Loop(transaction(200, event()))
    loop.steps(50)
    assert loop.sink.hastened == 1


def test_under_load_batches_may_fill_until_a_pause() -> None:
    loop = Loop(*LOAD)
    loop.until(lambda: not loop.source.bursts)
    began = loop.clock.now
    loop.steps(1)
    assert (loop.sink.hastened, loop.source.waits) == (0, [])
    assert loop.clock.now >= began + 0.01, "frames may gather"
    loop.steps(1)
    assert loop.sink.hastened == 1


def test_an_event_that_waited_for_its_topic_is_sent_in_the_turn_in_which_that_is_known() -> None:
    clock, topics = Clock(), Topics(**{"outbox.event.order": None})
    sink = MemorySink(clock)
    source, target = MemorySource(clock, (transaction(200, event()),)), session(Ledger(100), topics=topics)
    publisher = Publisher(source, sink, target, failed, clock)
    for _ in range(2):
        publisher.step()
    assert target.pending
    topics.known["outbox.event.order"] = 1_000_000
    publisher.step()
    assert len(sink.sent) == 1
    assert max(sink.polls) <= 0.001  # it was known soon, so nothing waited for long
