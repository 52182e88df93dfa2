"""A session and what is known of topics: missing ones are waited for, too large records are poison; dead letters."""

from unittest.mock import ANY

from cdc.errors import PoisonEvent
from cdc.outbox.events import Event
from cdc.records.record import Record, batch_size
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row
from tests.unit.shop import EVENT_ID, Topics, event, session, transaction

TOPIC = "outbox.event.order"


class DeadLetters:
    """Keeps the reason as the value."""

    def takes(self, poison: PoisonEvent) -> bool:  # noqa: ARG002 - all
        return True

    def record(self, row: Row, event: Event | None, poison: PoisonEvent) -> Record:
        key = event.key if event else None
        return Record.to("dead", key, poison.kind.encode(), 0, [("id", poison.event_id)], row.transaction.report)


def test_an_event_waits_for_its_topic_and_goes_first_when_it_is_there_c12() -> None:
    topics, ledger = Topics(**{TOPIC: None}), Ledger(100)
    target = session(ledger, topics=topics)
    assert target.receive(transaction(200, event('{"n":1}'), event('{"n":2}'))) == []
    assert target.resume() == []
    topics.known[TOPIC] = 1_000_000
    records = target.resume()
    assert [record.value for record in records] == [b'{"N":1}', b'{"N":2}']
    assert [str(dict(record.headers)["cdc-position"])[-1] for record in records] == ["0", "1"]
    assert not target.pending
    for record in records:
        record.on_delivery(None, None)
    assert ledger.settle() == 208


def test_a_record_of_the_largest_size_passes_and_one_byte_more_is_poison_c7() -> None:
    (fits,) = session().receive(transaction(200, event("x" * 100)))
    topics = Topics(**{TOPIC: batch_size(fits)})
    assert session(topics=topics).receive(transaction(200, event("x" * 100))) == [fits._replace(on_delivery=ANY)]
    target = session(topics=topics)
    assert target.receive(transaction(200, event("x" * 101), event("y"))) == []
    assert target.poison is not None
    assert target.poison.kind == "too-large"
    assert target.poison.event_id == EVENT_ID
    assert "topic 'outbox.event.order'" in str(target.poison)
    assert target.ledger.undelivered == 1


def test_a_dead_letter_takes_the_place_of_its_event_and_the_slot_waits_for_it_c8() -> None:
    ledger = Ledger(100)
    target = session(ledger, dead_letters=DeadLetters())
    records = target.receive(transaction(200, event('{"n":1}'), event("bad"), event(None), event('{"n":4}')))
    assert [record.topic for record in records] == [TOPIC, "dead", "dead", TOPIC]
    assert [record.value for record in records[1:3]] == [b"payload-mismatch", b"unreadable-row"]
    assert (target.poison, target.dead_lettered, target.events) == (None, 2, 4)
    for record in [records[0], records[1], records[3]]:
        record.on_delivery(None, None)
    assert ledger.settle() == 100
    records[2].on_delivery(None, None)
    assert ledger.settle() == 208


def test_what_is_too_large_for_its_topic_goes_to_the_dead_letters_and_if_too_large_there_it_stops_c7() -> None:
    target = session(topics=Topics(**{TOPIC: 10}), dead_letters=DeadLetters())
    (record,) = target.receive(transaction(200, event()))
    assert record.value == b"too-large"
    target = session(topics=Topics(**{TOPIC: 10, "dead": 10}), dead_letters=DeadLetters())
    assert target.receive(transaction(200, event())) == []
    assert target.poison is not None
    assert "topic 'dead'" in str(target.poison)


def test_a_dead_letter_waits_for_its_topic_like_any_event_c12() -> None:
    topics = Topics(dead=None)
    target = session(topics=topics, dead_letters=DeadLetters())
    records = target.receive(transaction(200, event('{"n":1}'), event("bad"), event('{"n":3}')))
    assert len(records) == 1
    topics.known["dead"] = 1_000_000
    assert [record.topic for record in target.resume()] == ["dead", TOPIC]
    assert target.dead_lettered == 1


def test_a_poison_event_that_has_to_wait_is_poison_when_its_topic_is_known() -> None:
    topics = Topics(**{TOPIC: None})
    target = session(topics=topics)
    assert target.receive(transaction(200, event(), event("bad"))) == []
    topics.known[TOPIC] = 1_000_000
    assert len(target.resume()) == 1
    assert target.poison is not None
    assert not target.pending
