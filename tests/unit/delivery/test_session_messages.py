"""Messages in a session: alone and beside rows, of other prefixes, and outside of transactions."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from cdc.delivery.deduplication import SentBefore
from cdc.errors import ProtocolError
from cdc.lsn import LSN
from cdc.outbox.events import Event, Outbox
from cdc.records.dead_letters import DeadLetters
from cdc.records.fastpath.layout import Layout, Make, Runs
from cdc.records.fastpath.path import SHAPES
from cdc.records.record import Record, Sendable
from cdc.replication.messages import Insert
from cdc.replication.prefixes import MOST, OTHERS, Prefixes
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row
from tests.memory import MemoryTail, MemoryTails
from tests.unit import frames, shop
from tests.unit.records.test_runs import MAKES
from tests.unit.shop import EVENT_ID, OID, Target, Topics, content, event, message, relation, transaction

TOPIC, DEAD = "outbox.event.order", "cdc.dead-letter"
ALONE_AT = f"{shop.STREAM}-00000000000001F3-00000000"  # a message at 500 that is not transactional


def session(ledger: Ledger | None = None, prefix: str | None = "outbox", **options: Any) -> Target:
    return shop.session(ledger or Ledger(100), prefixes=Prefixes(prefix), **options)


def dead_letters(only: tuple[str, ...] | None = None) -> DeadLetters:
    return DeadLetters(DEAD, shop.outbox(), only)


def values(records: list[Record]) -> list[bytes | None]:
    return [record.value for record in records]


def indexes(records: list[Record]) -> list[int]:
    return [int(str(dict(record.headers)["cdc-position"])[-8:], 16) for record in records]


def deliver(records: list[Record]) -> None:
    for record in records:
        record.on_delivery(None, None)


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_rows_and_messages_of_one_transaction_keep_their_order_and_count_together(make: Make) -> None:
    ledger = Ledger(100)
    target = session(ledger, make=make)
    first = [event('{"n":1}'), message(content('{"n":2}')), event('{"n":3}'), event('{"n":4}')]
    records = target.receive(transaction(200, *first, message(content('{"n":5}')), message(prefix="other")))
    records += target.receive(transaction(300, message(content('{"n":6}')), event('{"n":7}')))
    assert values(records) == [f'{{"N":{n}}}'.encode() for n in range(1, 8)]
    assert indexes(records) == [0, 1, 2, 3, 4, 0, 1]
    deliver(records[:4])
    assert ledger.settle() == 100
    deliver(records[4:])
    assert ledger.settle() == 308


def test_messages_need_no_row_and_no_relation() -> None:
    (record,) = session().receive([shop.begin(200), message(content("1.0e400")), shop.commit(200)])
    assert (record.topic, record.key, record.value) == (TOPIC, b"o-1", b"1.0E400")
    assert record.headers[:2] == [("id", EVENT_ID), ("eventType", "OrderPlaced")]


def test_without_the_setting_messages_are_nothing() -> None:
    target = session(prefix=None)
    records = target.receive([*transaction(200, message(), event('{"n":1}')), message(lsn=500, transactional=False)])
    assert (values(records), indexes(records)) == ([b'{"N":1}'], [0])


def test_other_prefixes_are_counted_and_each_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    prefixes = Prefixes("outbox")
    for _ in range(2):  # sessions
        target = shop.session(Ledger(100), prefixes=prefixes)
        with caplog.at_level(logging.INFO):
            names = ["outbox2", "OUTBOX", "", "cdc-publisher", "outbox2"]
            records = target.receive(transaction(200, *(message(prefix=name) for name in names)))
            target.receive([message(b"\xff", "alone", lsn=300, transactional=False)])
        assert records == []
    assert prefixes.others == {"outbox2": 4, "OUTBOX": 2, "": 2, "alone": 2}
    assert [vars(record)["prefix"] for record in caplog.records] == ["outbox2", "OUTBOX", "", "alone"]


def test_no_more_than_a_hundred_prefixes_are_told_apart() -> None:
    prefixes = Prefixes("outbox")
    names = [f"p{number}" for number in range(2 * MOST)] + ["x" * 5000]
    shop.session(Ledger(100), prefixes=prefixes).receive(transaction(200, *(message(prefix=name) for name in names)))
    assert len(prefixes.others) == MOST + 1
    assert prefixes.others[OTHERS] == MOST + 1


def test_a_message_that_is_not_transactional_is_poison_at_its_lsn_less_one() -> None:
    ledger = Ledger(100)
    target = session(ledger)
    records = target.receive([*transaction(200, event()), message(lsn=500, transactional=False), *transaction(600)])
    assert len(records) == 1
    assert target.poison is not None
    assert (target.poison.kind, target.poison.position, target.poison.event_id) == (
        "not-transactional", ALONE_AT, EVENT_ID,
    )  # fmt: skip
    assert f"start --skip {ALONE_AT}" in str(target.poison)
    deliver(records)
    assert ledger.settle() == 208


@pytest.mark.parametrize("only", [None, (ALONE_AT,)], ids=["policy", "skip"])
def test_it_becomes_a_dead_letter_and_the_slot_passes_the_message_when_that_is_there(only: Any) -> None:
    ledger = Ledger(100)
    target = session(ledger, dead_letters=dead_letters(only))
    alone = message(content('{"n":1}'), lsn=500, transactional=False, sent=1_000_000)
    records = target.receive([alone, *transaction(600, event('{"n":2}'))])
    assert [record.topic for record in records] == [DEAD, TOPIC]
    letter = dict(records[0].headers)
    assert (letter["cdc-position"], letter["cdc-error-class"]) == (ALONE_AT, "not-transactional")
    assert (records[0].key, records[0].value) == (b"o-1", b'{"n":1}')
    assert records[0].timestamp == 946_684_801_000
    deliver(records[1:])
    assert ledger.settle() == 100
    deliver(records[:1])
    assert ledger.settle() == 608


def test_the_slot_passes_the_beginning_of_a_message_alone_so_that_it_does_not_come_again() -> None:
    ledger = Ledger(100)
    target = session(ledger, dead_letters=dead_letters())
    deliver(target.receive([message(lsn=500, transactional=False)]))
    assert ledger.settle() == 501


def test_another_position_is_not_skipped() -> None:
    target = session(dead_letters=dead_letters((ALONE_AT,)))
    assert target.receive(transaction(200, message(b"broken"))) == []
    assert target.poison is not None
    assert target.poison.kind == "unreadable-row"


def test_a_broken_message_becomes_a_dead_letter_as_a_whole() -> None:
    (letter,) = session(dead_letters=dead_letters()).receive(transaction(200, message(b"{broken \xff")))
    assert (letter.topic, letter.key, letter.value) == (DEAD, None, b"{broken \xff")
    assert dict(letter.headers)["cdc-payload"] == "text"


def test_a_message_alone_waits_for_its_topic_and_goes_on_where_it_was() -> None:
    topics, ledger = Topics(**{DEAD: None}), Ledger(100)
    target = session(ledger, topics=topics, dead_letters=dead_letters())
    assert target.receive([message(lsn=500, transactional=False), *transaction(600, event())]) == []
    assert target.pending
    topics.known[DEAD] = 1_000_000
    records = target.resume()
    assert [record.topic for record in records] == [DEAD, TOPIC]
    deliver(records)
    assert ledger.settle() == 608


def test_nothing_is_read_behind_a_message_alone_when_the_session_finishes() -> None:
    topics = Topics(**{DEAD: None})
    target = session(topics=topics, dead_letters=dead_letters())
    target.receive([message(lsn=500, transactional=False), *transaction(600, event())])
    target.finish()
    topics.known[DEAD] = 1_000_000
    assert [record.topic for record in target.resume()] == [DEAD]
    assert target.ledger.open is None


def test_a_message_above_the_limit_is_poison_before_it_is_parsed() -> None:
    topics = Topics()
    topics.most = 1000
    target = session(topics=topics)
    target.receive(transaction(200, message(b"x" * 1001)))
    assert target.poison is not None
    assert (target.poison.kind, target.poison.reason[:22]) == ("too-large", "a message of 1001 byte")
    assert "raise these limits" in target.poison.hint


def test_a_message_above_the_limit_of_its_topic_is_poison_although_its_record_would_fit() -> None:
    held = content('"{}"', padding="x" * 2000)
    target = session(topics=Topics(**{TOPIC: 1000}))
    target.receive(transaction(200, message(held)))
    assert target.poison is not None
    assert target.poison.kind == "too-large"
    assert "topic 'outbox.event.order', which takes 1000" in target.poison.reason


def test_a_dead_letter_of_a_message_above_every_limit_holds_it_unparsed() -> None:
    topics = Topics()
    topics.most = 1000
    held = content(f'"{"x" * 1000}"')
    (letter,) = session(topics=topics, dead_letters=dead_letters()).receive(transaction(200, message(held)))
    assert (letter.value, dict(letter.headers)["id"]) == (held, "")


@pytest.mark.parametrize(
    "stream",
    [
        lambda: [message()],
        lambda: [shop.begin(200), message(transactional=False)],
        lambda: [event()],
        lambda: [*transaction(200, event()), message(lsn=200, transactional=False)],
    ],
    ids=["transactional outside", "not transactional inside", "row outside", "before the last commit"],
)
def test_messages_where_postgresql_would_not_send_them_end_the_session(stream: Callable[[], list[bytes]]) -> None:
    with pytest.raises(ProtocolError):
        session().receive(stream())


def row(event_id: str) -> bytes:
    return frames.xlog(Insert(OID, frames.row(event_id, "order", "o-1", "OrderPlaced", "{}")))


def reading(tail: MemoryTail, *, by_id: bool, dead: MemoryTail | None = None) -> Target:
    tails = MemoryTails(**{TOPIC: tail, DEAD: dead or MemoryTail()})
    sent = SentBefore(LSN(1000), tails=tails, dead_letters=DEAD, by_id=by_id)
    return session(sent_before=sent, dead_letters=dead_letters())


def test_a_redelivered_message_is_known_by_its_position_as_a_row_is() -> None:
    tail = MemoryTail()
    tail.ids = {(0, 200, 1): EVENT_ID}
    target = reading(tail, by_id=False)
    records = target.receive(transaction(200, event('{"n":1}', "o-2"), message(content('{"n":2}'))))
    assert values(records) == [b'{"N":1}']


def test_a_redelivered_message_is_read_once_to_look_for_it_and_to_send_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tail = MemoryTail()
    tail.ids = {(0, 200, 1): "another"}
    read: list[object] = []
    event_of = Outbox.event

    def counted(outbox: Outbox, row: Row) -> Event:
        read.append(row)
        return event_of(outbox, row)

    monkeypatch.setattr(Outbox, "event", counted)
    target = reading(tail, by_id=False)
    assert len(target.receive(transaction(200, message(), message(), event()))) == 3
    assert len(read) == 3


class Taken:
    """Runs that say which of them took how many messages."""

    def __init__(self, make: Make) -> None:
        self.took: list[tuple[int, int]] = []  # number of the runs in the order in which they were made, and messages
        self.made = 0
        self._make = make

    def __call__(self, layout: Layout) -> Runs:
        runs, number = self._make(layout), self.made
        self.made += 1

        class Counted:
            learn, forget = runs.learn, runs.forget

            def take(_, *given: Any) -> list[Sendable]:  # noqa: N805 - of the closure
                records = runs.take(*given)
                if records:
                    self.took.append((number, len(records)))
                return records

        return Counted()


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_messages_are_taken_in_runs_across_transactions_and_beside_rows(make: Make) -> None:
    taken = Taken(make)
    target = session(make=taken)
    numbered = [message(content(f'{{"n":{n}}}')) for n in range(9)]
    rows = [event('{"n":10}'), event('{"n":11}')]
    records = target.receive([*transaction(200, *numbered[:3]), shop.begin(300), *numbered[3:6], shop.commit(300)])
    records += target.receive(transaction(400, *rows, *numbered[6:], *rows, message(prefix="other"), numbered[0]))
    order = [*range(9), 10, 11, 0]
    order[6:6] = [10, 11]
    assert values(records) == [f'{{"N":{n}}}'.encode() for n in order]
    assert indexes(records) == [0, 1, 2, 0, 1, 2, *range(8)]
    assert taken.took == [(0, 2), (0, 3), (1, 1), (0, 3), (1, 2), (0, 1)]


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_messages_of_two_shapes_in_turn_are_taken_in_runs(make: Make) -> None:
    taken = Taken(make)
    target = session(make=taken)
    turns = [message(), message(content(headers={"tenant": "acme"}))] * 3
    records = target.receive(transaction(200, *turns))
    assert [len(record.headers) for record in records] == [3, 4] * 3
    assert taken.took == [(0, 1), (1, 1)] * 2


def test_a_shape_beyond_the_first_is_taken_in_runs_once_it_is_frequent() -> None:
    taken = Taken(MAKES["python"])
    target = session(make=taken)
    for number in range(SHAPES):
        target.receive(transaction(200 + number, message(content(headers={f"h{number}": "x"}))))
    later = message(content(headers={"later": "x"}))
    assert len(target.receive(transaction(300, *[later] * 120))) == 120
    assert taken.took == [(SHAPES, 20)]
    target.receive(transaction(400, message(content(headers={"h1": "x"})), message(content(headers={"h0": "x"}))))
    assert taken.took[1:] == [(1, 1)], "the shape that was used least recently has made room"


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_messages_wait_for_a_topic_that_is_gone(make: Make) -> None:
    topics = Topics()
    target = session(topics=topics, make=make)
    assert len(target.receive([shop.begin(200), message(), message()])) == 2
    topics.known[TOPIC] = None
    topics.changes += 1
    assert target.receive([message(), message(), shop.commit(200)]) == []
    assert target.pending
    topics.known.clear()
    assert indexes(target.resume()) == [2, 3]


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_a_message_near_the_limit_of_its_topic_takes_the_general_path(make: Make) -> None:
    topics = Topics(**{TOPIC: 3000})
    target = session(topics=topics, make=make)
    small, large = message(), message(content(f'"{"x" * 3000}"'))
    assert len(target.receive([shop.begin(200), small, small, large])) == 2
    assert target.poison is not None
    assert target.poison.kind == "too-large"


def test_the_dead_letter_of_a_message_alone_is_searched_without_a_bound_in_time() -> None:
    dead = MemoryTail()
    dead.ids = {(0, 499, 0): EVENT_ID}
    target = reading(MemoryTail(), by_id=False, dead=dead)
    assert target.receive([message(lsn=500, transactional=False, sent=1_000_000_000), *transaction(600)]) == []
    assert target.sent_before.skipped == 1
    tails: Any = target.sent_before._tails
    assert {since for _, since in tails.asked} == {0}


def test_rows_that_had_other_numbers_are_known_by_id_when_messages_count_too() -> None:
    """The rows were sent as 0 and 1 when only they counted."""
    tail = MemoryTail()
    tail.ids = {(0, 200, 0): "a", (0, 200, 1): "b"}
    more = [message(content(key="o-2", id=event_id)) for event_id in ("m", "n")]
    records = reading(tail, by_id=True).receive(transaction(200, more[0], row("a"), more[1], row("b")))
    assert [dict(record.headers)["id"] for record in records] == ["m", "n"]
    assert indexes(records) == [0, 2]


def test_of_two_rows_with_one_id_only_those_are_known_that_kafka_has() -> None:
    tail = MemoryTail()
    tail.ids = {(0, 200, 5): "a"}
    records = reading(tail, by_id=True).receive([*transaction(200, row("a"), row("a")), *transaction(300, row("a"))])
    assert indexes(records) == [1, 0]


def test_a_relation_between_messages_changes_nothing() -> None:
    stream = [shop.begin(200), message(), relation(), message(), event(), shop.commit(200)]
    assert indexes(session().receive(stream)) == [0, 1, 2]
