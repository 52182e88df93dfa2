"""When a status update and a position record are due, and that the loop waits for exactly that."""

from cdc.delivery.confirmation import PROMPT_SECONDS, Confirmation
from cdc.delivery.loop import Publisher
from cdc.delivery.positions import SlotRecord
from cdc.delivery.reports import Batch, Positions
from cdc.lsn import LSN, EventPosition
from cdc.records.record import Record
from cdc.replication.settlement import Ledger
from tests.memory import NOON, Clock, MemorySink, MemorySource
from tests.unit.loop import failed
from tests.unit.shop import event, session, transaction

MARK = SlotRecord("7300", 1, "shop", LSN(100), {}, {})


def settled_to(ledger: Ledger, commit_lsn: int) -> None:
    """Read a transaction without events."""
    ledger.begin(LSN(commit_lsn), 0)
    ledger.commit(commit_lsn, LSN(commit_lsn + 8))


def started(seconds: float = PROMPT_SECONDS, batch: Batch | None = None) -> Confirmation:
    """A confirmation that has sent its first status update at 0.0, and reported its first position at 10.0."""
    ledger = Ledger(100)
    target = Confirmation(ledger, 60.0, Positions("cdc.positions", MARK, ledger.fail, seconds, batch))
    target.status(0.0, NOON)
    deliver(target.position(10.0, NOON))
    return target


def deliver(record: Record | None) -> None:
    assert record
    record.on_delivery(None, None)


def test_an_lsn_that_is_not_reported_to_kafka_makes_its_position_due_and_no_status() -> None:
    target = started()
    settled_to(target.ledger, 200)
    assert target.due() == 10.0 + PROMPT_SECONDS
    assert target.status(10.1, NOON) is None


def test_a_position_on_its_way_to_kafka_leaves_the_status_timer_alone() -> None:
    target = started()
    settled_to(target.ledger, 200)
    record = target.position(11.0, NOON)
    assert target.due() == 60.0
    deliver(record)
    assert target.due() == PROMPT_SECONDS, "overdue: the next turn sends it"
    assert target.status(11.1, NOON)
    assert target.due() == 71.1


def test_an_open_kafka_transaction_is_due_to_end_when_its_time_is_over() -> None:
    target = started(batch=Batch(10, 1000, 2.0))
    assert target.positions
    target.positions.handed_on(EventPosition(LSN(200), 0), [Record.to("t", b"", b"", 0, [], lambda *_: None)])
    assert target.position(11.0, NOON) is None
    assert target.due() == 13.0
    assert target.position(13.0, NOON)


def test_case_c8_a_publisher_for_which_commits_wait_confirms_each_of_them_at_once() -> None:
    target = started(seconds=5.0)
    target.hasten()
    for number in range(1, 4):
        now = 10.0 + number / 1000
        settled_to(target.ledger, 100 * number + 100)
        assert target.due() <= now
        deliver(target.position(now, NOON))
        assert target.due() <= now
        assert target.status(now, NOON)
        assert target.status(now, NOON) is None, "once"


def test_an_idle_loop_sleeps_until_the_position_of_a_settled_transaction_is_due() -> None:
    clock, ledger = Clock(now=0.0), Ledger(100)
    source, sink = MemorySource(clock), MemorySink(clock)
    sink.settles_at_once = True
    target = session(ledger, 60.0, positions=Positions("cdc.positions", MARK, ledger.fail, 5.0))
    publisher = Publisher(source, sink, target, failed, clock)
    publisher.step()
    while not sink.sent or len(sink):
        publisher.step()
    source.bursts.append(transaction(200, event()))
    while len(sink.sent) < 2 or len(sink):
        publisher.step()
    began, waits = clock.now, len(source.waits)
    while clock.now < began + 2:
        publisher.step()
    assert len(source.waits) - waits <= 2 / 0.25 + 2, "wakes more often than a signal needs"
