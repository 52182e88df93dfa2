"""Which of the rows that come again are sent again, judged one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.delivery.deduplication import SentBefore
from cdc.delivery.positions import SlotRecord
from cdc.delivery.reports import Batch, Positions
from cdc.delivery.sequence import Sequences
from cdc.lsn import LSN, EventPosition
from cdc.records.dead_letters import DeadLetters
from cdc.records.partitioner import partition
from cdc.records.record import Record
from cdc.replication.messages import Insert
from cdc.replication.settlement import Ledger
from tests.memory import MemoryTail, MemoryTails
from tests.unit import frames, shop
from tests.unit.shop import OID, Target, event, session, transaction

TOPIC = "outbox.event.order"
DEAD = "cdc.dead-letter"
MARK = SlotRecord("7300", 1, "shop", LSN(100), {}, {})


def row_of(number: int, key: str = "o-1", payload: str = "{}") -> bytes:
    return frames.xlog(Insert(OID, frames.row(f"id-{number}", "order", key, "OrderPlaced", payload)), 100)


def holding(*numbers: int, at: int = 200, partitions: int = 1) -> MemoryTail:
    """A tail that holds the events of these indexes of one transaction."""
    tail = MemoryTail(partitions)
    place = partition(b"o-1", partitions)
    tail.ids = {(place, at, number): f"id-{number}" for number in numbers}
    return tail


def resumed(target: Target) -> tuple[int, int, int]:
    return target.sent_before.skipped, target.sent_before.sent_again, target.sent_before.suspicious


def ids(records: list[Record]) -> list[str]:
    return [str(dict(record.headers)["id"]) for record in records]


def reading(tail: MemoryTail | None, until: int = 1000, dead: MemoryTail | None = None) -> Target:
    tails = MemoryTails(**{TOPIC: tail, DEAD: dead or MemoryTail()})
    return session(Ledger(100), sent_before=SentBefore(LSN(until), tails=tails, dead_letters=DEAD))


def rows(*numbers: int, at: int = 200) -> list[bytes]:
    return transaction(at, *map(row_of, numbers))


def test_case_d1_the_events_of_a_key_that_follow_a_missing_one_are_sent_again_too() -> None:
    target = reading(holding(0, 1, 3, 4))
    assert ids(target.receive(rows(0, 1, 2, 3, 4, 5))) == ["id-2", "id-3", "id-4", "id-5"]
    assert resumed(target) == (2, 4, 0)
    assert target.ledger.undelivered == 4


def test_case_d1_other_keys_are_not_sent_again_for_a_missing_event() -> None:
    target = reading(holding(0, 2, 4))
    frames = transaction(200, row_of(0), row_of(1, "o-2"), row_of(2), row_of(3, "o-2"), row_of(4))
    assert ids(target.receive(frames)) == ["id-1", "id-3"]


def test_case_d1_an_event_that_has_an_older_one_of_its_key_behind_it_is_sent_again() -> None:
    tail = holding(0, 1, 2)
    tail.late = {(200, 1)}
    target = reading(tail)
    assert ids(target.receive(rows(0, 1, 2))) == ["id-1", "id-2"]


def test_case_d1_a_dead_letter_is_not_sent_again_for_an_event_before_it() -> None:
    target = reading(holding(2), dead=holding(1))
    assert ids(target.receive(rows(0, 1, 2))) == ["id-0", "id-2"]


@given(st.sets(st.integers(0, 30)), st.integers(1, 31))
def test_every_event_is_there_or_sent_and_from_the_first_missing_one_on_all_are_sent(
    there: set[int], count: int
) -> None:
    target = reading(holding(*there))
    sent = ids(target.receive(rows(*range(count))))
    first = min(set(range(count)) - there, default=count)
    assert sent == [f"id-{number}" for number in range(first, count)]


def relayed(*numbers: int, dead: MemoryTail | None = None, partitions: int = 1) -> Target:
    """A session of a relay: the topic has these events, in this order, at positions of earlier sessions."""
    tail = MemoryTail(partitions)
    place = partition(b"o-1", partitions)
    tail.ids = {(place, 120 + offset, 0): f"id-{number}" for offset, number in enumerate(numbers)}
    tails = MemoryTails(**{TOPIC: tail, DEAD: dead or MemoryTail()})
    sent = SentBefore(LSN(1000), tails=tails, dead_letters=DEAD, anywhere=True)
    return session(Ledger(100), sent_before=sent)


def test_events_of_a_relay_are_known_by_their_ids_whatever_their_positions() -> None:
    target = relayed(7, 8)
    assert ids(target.receive([*rows(7, at=700), *rows(8, 9, at=800), *rows(7, at=1000)])) == ["id-9", "id-7"]
    assert resumed(target) == (2, 1, 0)


class Asked(MemoryTail):
    """Remembers the ids that were looked for."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: list[str] = []

    def last(self, partition: int | None, event_id: str, /) -> int | None:
        self.looked.append(event_id)
        return super().last(partition, event_id)


def test_once_each_record_of_a_relay_has_met_its_row_no_other_row_is_looked_for() -> None:
    tail = Asked()
    tail.ids = {(0, 120, 0): "id-1", (0, 121, 0): "id-3"}
    sent = SentBefore(LSN(1000), tails=MemoryTails(**{TOPIC: tail}), anywhere=True)
    target = session(Ledger(100), sent_before=sent)
    assert ids(target.receive(rows(*range(1, 9), at=700))) == ["id-2", "id-3", "id-4", "id-5", "id-6", "id-7", "id-8"]
    assert tail.looked == ["id-1", "id-2", "id-3"]
    assert target.sent_before.until == 1000


def test_a_row_that_is_looked_for_again_has_met_only_one_record() -> None:
    tail = holding(0, 1)
    sent = SentBefore(LSN(1000), tails=MemoryTails(**{TOPIC: tail}), anywhere=True)
    target = session(Ledger(100), sent_before=sent)
    begin, relation, *inserts, _ = rows(0, 1, at=700)
    target.receive([begin, relation])
    for number, left in ((0, True), (0, True), (1, False)):
        row = target.transactions.insert(inserts[number])
        assert row is not None
        sent.holds(row, TOPIC, b"o-1", f"id-{number}")
        assert sent.beyond(LSN(700)) != left


def test_a_dead_letter_of_a_relay_is_known_by_its_id() -> None:
    assert ids(relayed(2, dead=holding(1)).receive(rows(0, 1, 2, at=700))) == ["id-0", "id-2"]


@given(st.lists(st.integers(0, 7), max_size=20), st.integers(1, 8))
def test_after_a_session_of_a_relay_the_last_records_of_all_events_are_there_and_in_order(
    there: list[int], count: int
) -> None:
    there = [number for number in there if number < count]
    sent = [int(each.removeprefix("id-")) for each in ids(relayed(*there).receive(rows(*range(count), at=700)))]
    log = [*there, *sent]
    last = {number: offset for offset, number in enumerate(log)}
    assert sorted(last, key=last.__getitem__) == list(range(count))


@given(st.permutations(range(6)), st.integers(0, 6))
def test_a_relay_sends_nothing_again_that_is_there_in_order(order: list[int], count: int) -> None:
    there = sorted(order[:count])
    complete = there == list(range(count))
    sent = ids(relayed(*there).receive(rows(*range(count), at=700)))
    assert (sent == []) == complete


def test_a_transaction_that_is_there_as_a_whole_is_confirmed_without_being_sent() -> None:
    target = reading(holding(0, 1))
    assert target.receive(rows(0, 1)) == []
    assert target.confirmation.lsn == 208


def test_another_event_at_the_position_is_not_it() -> None:
    tail = holding(0)
    tail.ids = dict.fromkeys(tail.ids, "another")
    target = reading(tail)
    assert ids(target.receive(rows(0))) == ["id-0"]
    assert resumed(target) == (0, 1, 1)


def test_an_event_in_a_partition_that_is_not_the_key_s_is_sent_again_c13() -> None:
    tail = holding(0, partitions=7)
    tail.ids = {((place + 1) % 7, lsn, index): name for (place, lsn, index), name in tail.ids.items()}
    target = reading(tail)
    assert ids(target.receive(rows(0))) == ["id-0"]
    assert resumed(target) == (0, 1, 1)


def test_a_topic_that_is_being_read_is_waited_for() -> None:
    target = reading(None)
    assert target.receive(rows(0, 1)) == []
    assert target.pending
    tails = target.sent_before._tails
    assert isinstance(tails, MemoryTails)
    assert tails.asked == [(name, shop.COMMIT_TIME_MS) for name in (TOPIC, DEAD)]
    tails.tails[TOPIC] = holding(0)
    assert ids(target.resume()) == ["id-1"]


def test_an_event_among_the_dead_letters_is_there_although_it_would_be_none_today_c8() -> None:
    target = reading(MemoryTail(), dead=holding(1))
    assert ids(target.receive(rows(0, 1))) == ["id-0"]


def test_rows_of_transactions_that_nobody_can_have_sent_are_not_looked_for() -> None:
    target = reading(holding(0), until=200)
    assert ids(target.receive(rows(0))) == ["id-0"]
    assert resumed(target) == (0, 0, 0)
    assert target.sent_before.until == 0


def test_a_keepalive_from_beyond_the_end_ends_the_search_and_one_within_a_transaction_does_not() -> None:
    target = reading(holding(0), until=150)
    target.receive([*rows(0, at=140)[:1], frames.keepalive(500)])
    assert target.sent_before.until == 150
    target = reading(holding(0), until=150)
    target.receive([frames.keepalive(150)])
    assert target.sent_before.until == 0
    tails = target.sent_before._tails
    assert isinstance(tails, MemoryTails)
    assert tails.forgotten


def test_up_to_the_position_everything_is_skipped_and_nothing_beyond_it_c18() -> None:
    target = session(Ledger(100), sent_before=SentBefore(LSN(301), EventPosition(LSN(300), 1)))
    records = target.receive(rows(0, 1) + rows(0, 1, 2, at=300) + rows(0, at=400))
    assert [str(dict(record.headers)["cdc-position"])[9:] for record in records] == [
        str(EventPosition(LSN(300), 2)),
        str(EventPosition(LSN(400), 0)),
    ]
    assert resumed(target) == (4, 1, 0)


def batches(seconds: float = 0.1, events: int = 10, size: int = 1000) -> tuple[Target, Positions]:
    ledger = Ledger(100)
    positions = Positions("cdc.positions", MARK, ledger.fail, 0.5, Batch(events, size, seconds))
    return session(ledger, positions=positions), positions


def told(target: Target, now: float) -> SlotRecord | None:
    record = target.confirmation.position(now, 0.0)
    if record is None:
        return None
    assert record.value
    record.on_delivery(None, None)
    return SlotRecord.decode(record.value)


def test_a_kafka_transaction_ends_with_the_position_of_its_last_event() -> None:
    target, _ = batches()
    first = told(target, 0.0)
    assert first
    assert (first.position, first.caught_up) == (None, True)
    target.receive(rows(0, 1, 2))
    assert told(target, 1.0) is None
    assert told(target, 1.09) is None
    mark = told(target, 1.11)
    assert mark
    assert mark.position == EventPosition(LSN(200), 2)
    assert told(target, 1.2) is None


@pytest.mark.parametrize(("events", "size"), [(3, 1000), (1000, 6)])
def test_a_kafka_transaction_ends_when_it_is_full(events: int, size: int) -> None:
    target, _ = batches(events=events, size=size)
    told(target, 0.0)
    target.receive(rows(0, 1))
    assert told(target, 0.001) is None
    target.receive(rows(0, at=300))
    mark = told(target, 0.002)
    assert mark
    assert mark.position == EventPosition(LSN(300), 0)


def test_a_huge_transaction_ends_in_another_kafka_transaction_than_it_began_in_a6() -> None:
    target, _ = batches(events=2)
    told(target, 0.0)
    target.receive(rows(*range(5))[:5])
    mark = told(target, 0.001)
    assert mark
    assert mark.position == EventPosition(LSN(200), 2)
    assert mark.confirmed == 100


def test_the_position_tells_all_only_when_what_was_sent_before_has_come_again() -> None:
    ledger = Ledger(100)
    positions = Positions("cdc.positions", MARK, ledger.fail, 0.0, Batch(10, 1000, 0.1))
    target = session(ledger, positions=positions, sent_before=SentBefore(LSN(500), tails=MemoryTails()))
    first = told(target, 0.0)
    assert first
    assert not first.caught_up
    target.receive(rows(0))
    second = told(target, 1.0) or told(target, 2.0)
    assert second
    assert not second.caught_up
    target.receive(rows(0, at=600))
    third = told(target, 3.0) or told(target, 4.0)
    assert third
    assert third.caught_up


def numbered(**tails: MemoryTail | None) -> tuple[Target, MemoryTails]:
    known = MemoryTails(**tails)
    topics = shop.Topics()
    return session(topics=topics, sequences=Sequences(known, topics.partitions)), known


def numbers(records: list[Record]) -> list[tuple[int, object]]:
    assert all(record.headers[-1][0] == "cdc-sequence" for record in records)
    return [(record.partition, record.headers[-1][1]) for record in records]


def test_records_of_a_partition_are_numbered_behind_what_it_holds() -> None:
    tail = MemoryTail()
    tail.numbers = {0: 41}
    target, _ = numbered(**{TOPIC: tail})
    assert numbers(target.receive(rows(0, 1))) == [(0, "42"), (0, "43")]
    assert numbers(target.receive(rows(0, at=300))) == [(0, "44")]


def test_numbers_wait_for_the_partition_to_be_read() -> None:
    target, known = numbered(**{TOPIC: None})
    assert target.receive(rows(0)) == []
    known.tails[TOPIC] = MemoryTail()
    assert numbers(target.resume()) == [(0, "1")]


def test_a_record_that_is_not_sent_takes_no_number_c7() -> None:
    known = MemoryTails()
    topics = shop.Topics(**{TOPIC: 400})
    target = session(
        topics=topics, sequences=Sequences(known, topics.partitions), dead_letters=DeadLetters(DEAD, shop.outbox())
    )
    records = target.receive(transaction(200, row_of(0), row_of(1, payload="x" * 500), row_of(2)))
    assert [(record.topic, record.headers[-1][1]) for record in records] == [(TOPIC, "1"), (DEAD, "1"), (TOPIC, "2")]


def test_a_replayed_event_that_is_skipped_takes_no_number() -> None:
    tail = holding(0, 1)
    tail.numbers = {0: 2}
    known = MemoryTails(**{TOPIC: tail})
    target = session(
        sent_before=SentBefore(LSN(1000), tails=known), sequences=Sequences(known, shop.Topics().partitions)
    )
    assert numbers(target.receive(rows(0, 1, 2))) == [(0, "3")]


def test_an_event_without_a_header_of_its_own_position_keeps_the_usual_record() -> None:
    (record,) = session().receive(transaction(200, event()))
    assert record.partition == -1
    assert [name for name, _ in record.headers] == ["id", "eventType", "cdc-position"]


class ForeignIds:
    """The port `Foreign` in memory; None means that the topic is being read."""

    def __init__(self, ids: set[str] | None) -> None:
        self.ids = ids

    def holds(self, topic: str, event_id: str) -> bool | None:
        return None if self.ids is None else topic == TOPIC and event_id in self.ids

    def count(self, topic: str) -> int:
        return len(self.ids or ()) if topic == TOPIC else 0

    def forget(self) -> None:
        self.ids = set()


def taken_over(foreign: ForeignIds, until: int = 500) -> Target:
    sent = SentBefore(
        LSN(400),
        tails=MemoryTails(**{TOPIC: MemoryTail(1), DEAD: MemoryTail()}),
        foreign=foreign,
        foreign_until=LSN(until),
    )
    return session(Ledger(100), sent_before=sent)


def test_events_that_another_program_sent_are_recognised_by_their_id() -> None:
    target = taken_over(ForeignIds({"id-0", "id-1"}))
    assert ids(target.receive(rows(0, 1, 2))) == ["id-2"]
    assert resumed(target) == (2, 1, 0)


def test_an_event_behind_the_window_is_sent_even_if_its_id_is_known() -> None:
    target = taken_over(ForeignIds({"id-0"}), until=300)
    assert ids(target.receive(rows(0, at=300))) == ["id-0"]


def test_events_of_a_key_behind_one_that_the_other_program_left_out_are_sent_again() -> None:
    target = taken_over(ForeignIds({"id-0", "id-2"}))
    assert ids(target.receive(rows(0, 1, 2))) == ["id-1", "id-2"]


def test_an_event_waits_until_the_other_programs_records_are_read() -> None:
    foreign = ForeignIds(None)
    target = taken_over(foreign)
    assert ids(target.receive(rows(0, 1))) == []
    foreign.ids = {"id-0"}
    assert ids(target.resume()) == ["id-1"]


def test_the_window_lasts_as_long_as_it_says_although_the_session_began_before_its_end() -> None:
    target = taken_over(ForeignIds({"id-0"}), until=600)
    assert ids(target.receive(rows(0, at=550))) == []
