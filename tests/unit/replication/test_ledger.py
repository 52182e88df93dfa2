"""The ledger, one rule at a time; test_ledger_interleavings.py has them all at once."""

import pytest

from cdc.errors import ProtocolError
from cdc.lsn import LSN
from cdc.replication.settlement import Failure, Ledger, Transaction


def transaction(ledger: Ledger, commit_lsn: int, events: int) -> Transaction:
    """A whole transaction, of which nothing is delivered; it ends at `commit_lsn` + 8."""
    opened = ledger.begin(LSN(commit_lsn), 0)
    assert [opened.add_event() for _ in range(events)] == list(range(events))
    ledger.commit(LSN(commit_lsn), LSN(commit_lsn + 8))
    return opened


def deliver(events_of: Transaction, count: int = 1) -> None:
    for _ in range(count):
        events_of.report(None, None)


def test_a_new_ledger_confirms_what_the_slot_had_confirmed_a11() -> None:
    assert Ledger(100).settle() == 100
    assert isinstance(Ledger(100).settle(), LSN)


def test_reading_a_transaction_confirms_nothing_a1() -> None:
    ledger = Ledger(100)
    transaction(ledger, 200, 2)
    assert ledger.settle() == 100


def test_a_part_of_a_transaction_confirms_nothing_a1() -> None:
    ledger = Ledger(100)
    deliver(transaction(ledger, 200, 2))
    assert ledger.settle() == 100
    assert ledger.undelivered == 1


def test_a_delivered_transaction_confirms_its_end_and_not_its_commit_a3_a4() -> None:
    ledger = Ledger(100)
    deliver(transaction(ledger, 200, 2), 2)
    assert ledger.settle() == 208
    assert ledger.oldest is None


def test_delivered_events_of_an_open_transaction_confirm_nothing_a20() -> None:
    ledger = Ledger(100)
    opened = ledger.begin(LSN(200), 0)
    opened.add_event()
    deliver(opened)
    assert ledger.settle() == 100
    ledger.commit(LSN(200), LSN(208))
    assert ledger.settle() == 208


def test_a_late_ack_of_an_early_transaction_holds_the_slot_back_a2() -> None:
    ledger = Ledger(100)
    early, late = transaction(ledger, 200, 1), transaction(ledger, 300, 1)
    deliver(late)
    assert ledger.settle() == 100
    assert ledger.oldest is early
    deliver(early)
    assert ledger.settle() == 308


def test_a_transaction_without_events_waits_for_those_before_it_a23() -> None:
    ledger = Ledger(100)
    first = transaction(ledger, 200, 1)
    transaction(ledger, 300, 0)
    assert ledger.settle() == 100
    deliver(first)
    assert ledger.settle() == 308


def test_a_keepalive_is_confirmed_at_once_when_nothing_is_in_flight_a8() -> None:
    ledger = Ledger(100)
    ledger.idle_at(LSN(500))
    assert ledger.settle() == 500


def test_a_keepalive_inside_an_open_transaction_is_passed_over_a10() -> None:
    ledger = Ledger(100)
    opened = ledger.begin(LSN(200), 0)
    ledger.idle_at(LSN(500))
    assert ledger.settle() == 100
    opened.add_event()
    ledger.idle_at(LSN(501))
    deliver(opened)
    ledger.commit(LSN(200), LSN(208))
    assert ledger.settle() == 208


def test_a_keepalive_behind_transactions_in_flight_is_confirmed_after_them_a10() -> None:
    ledger = Ledger(100)
    first, second = transaction(ledger, 200, 1), transaction(ledger, 300, 1)
    ledger.idle_at(LSN(500))
    deliver(second)
    assert ledger.settle() == 100
    deliver(first)
    assert ledger.settle() == 500


def test_a_keepalive_between_two_transactions_in_flight_waits_for_the_first_only_a10() -> None:
    ledger = Ledger(100)
    first = transaction(ledger, 200, 1)
    ledger.idle_at(LSN(250))
    transaction(ledger, 300, 1)
    deliver(first)
    assert ledger.settle() == 250


@pytest.mark.parametrize("wal_end", [0, 99, 207])
def test_an_older_keepalive_moves_nothing_back_a11(wal_end: int) -> None:
    ledger = Ledger(100)
    first = transaction(ledger, 200, 1)
    ledger.idle_at(LSN(wal_end))
    deliver(first)
    assert ledger.settle() == 208
    ledger.idle_at(LSN(wal_end))
    assert ledger.settle() == 208


def test_a_transaction_below_the_slot_never_moves_it_back_a11() -> None:
    ledger = Ledger(1000)
    deliver(transaction(ledger, 200, 1))
    assert ledger.settle() == 1000


def test_the_end_of_one_transaction_may_lie_within_the_next_a5() -> None:
    ledger = Ledger()
    first = ledger.begin(LSN(0x152B300), 0)
    ledger.commit(LSN(0x152B300), LSN(0x152B3D0))
    second = ledger.begin(LSN(0x152B3D0), 0)  # finding 2: a row or a commit at the end of the one before
    second.add_event()
    assert first.events == 0
    assert ledger.settle() == 0x152B3D0


def test_a_begin_inside_a_transaction_is_a_protocol_error() -> None:
    ledger = Ledger()
    ledger.begin(LSN(200), 0)
    with pytest.raises(ProtocolError, match="0/12C begins inside transaction 0/C8"):
        ledger.begin(LSN(300), 0)


@pytest.mark.parametrize("commit_lsn", [199, 200])
def test_a_commit_that_does_not_ascend_is_a_protocol_error_a7(commit_lsn: int) -> None:
    ledger = Ledger()
    transaction(ledger, 200, 0)
    with pytest.raises(ProtocolError, match="comes after commit"):
        ledger.begin(LSN(commit_lsn), 0)


def test_a_commit_without_a_begin_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="does not match"):
        Ledger().commit(LSN(200), LSN(208))


@pytest.mark.parametrize(("commit_lsn", "end_lsn"), [(201, 208), (199, 208), (200, 200), (200, 199), (200, 0)])
def test_a_commit_that_does_not_match_its_begin_is_a_protocol_error(commit_lsn: int, end_lsn: int) -> None:
    ledger = Ledger()
    ledger.begin(LSN(200), 0)
    with pytest.raises(ProtocolError, match="does not match"):
        ledger.commit(LSN(commit_lsn), LSN(end_lsn))


def test_the_first_failure_is_remembered() -> None:
    ledger = Ledger()
    first, second = transaction(ledger, 200, 2), transaction(ledger, 300, 1)
    first.report("refused", "record 1")
    second.report("purged", "record 2")
    assert ledger.failure == Failure("refused", "record 1", LSN(200))


class Message:
    """What librdkafka reports of a record."""

    def __init__(self, offset: int | None) -> None:
        self._offset = offset

    def offset(self) -> int | None:
        return self._offset


def test_a_delivery_counts_when_it_has_an_offset_c6() -> None:
    ledger = Ledger()
    transaction = ledger.begin(LSN(100), 0)
    transaction.add_events(2)
    transaction.report(None, Message(0))
    assert (transaction.undelivered, ledger.failure) == (1, None)
    unproven = Message(None)
    transaction.report(None, unproven)
    assert transaction.undelivered == 1
    assert ledger.failure == Failure(None, unproven, LSN(100))


def test_a_failed_delivery_is_never_confirmed_whatever_comes_after_c11() -> None:
    ledger = Ledger(100)
    first, second = transaction(ledger, 200, 1), transaction(ledger, 300, 1)
    first.report("refused", None)
    deliver(second)
    ledger.idle_at(LSN(900))
    assert ledger.settle() == 100
    assert ledger.undelivered == 1


def test_lsns_at_the_32_bit_boundary_are_numbers_a24() -> None:
    ledger = Ledger(0xFFFFFF00)
    first = transaction(ledger, 0xFFFFFFF8, 1)
    second = transaction(ledger, 0x1_00000010, 1)
    deliver(first)
    assert str(ledger.settle()) == "1/0"
    deliver(second)
    assert str(ledger.settle()) == "1/18"
