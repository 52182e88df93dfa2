"""What is remembered of a slot in Kafka: noticed when somebody else moved it, and told before it is moved."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.delivery.positions import (
    MESSAGES,
    Memory,
    RememberedTopic,
    SlotRecord,
    counts_otherwise,
    differences,
    latest,
    memory,
)
from cdc.delivery.reports import Positions
from cdc.lsn import LSN
from cdc.replication.horizon import Horizon
from cdc.replication.settlement import Ledger
from tests.unit.shop import Target, event, session, transaction

DEFINITION = {"table": "public.outbox", "table oid": "5", "publication": "shop", "publication oid": "1"}
MARK = SlotRecord("7300", 1, "shop", LSN(100), DEFINITION, {"[topics] name": "a"})
NOON = 1_785_585_600.0


def told(target: Target, now: float) -> bool:
    """Whether something was to be told; Kafka has it at once."""
    record = target.confirmation.position(now, NOON)
    if record:
        record.on_delivery(None, None)
    return record is not None


def confirmed(status: bytes | None) -> int | None:
    return None if status is None else int.from_bytes(status[9:17], "big")


def remembering(seconds: float = 0.5) -> Target:
    ledger = Ledger(100)
    return session(ledger, positions=Positions("cdc.positions", MARK, ledger.fail, seconds))


@given(st.integers(0, 0xFFFFFFFF_FFFFFFFF).map(LSN), st.dictionaries(st.text(), st.text()))
def test_a_mark_survives_its_record(lsn: LSN, words: dict[str, str]) -> None:
    mark = SlotRecord("7300", 3, "shop", lsn, words, words)
    assert SlotRecord.decode(mark.encode()) == mark
    assert mark.key == "7300/shop"


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"null", b"{}", MARK.encode().replace(b"0/64", b"nowhere")])
def test_a_record_of_something_else_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="not a position record"):
        SlotRecord.decode(value)


def test_a_newer_version_may_know_more_d11() -> None:
    assert SlotRecord.decode(MARK.encode().replace(b'"version":1', b'"version":2,"more":[1]')) == MARK


def test_the_highest_position_of_a_timeline_counts_and_the_newest_words_b16() -> None:
    late = replace(MARK, confirmed=LSN(90), definition=DEFINITION | {"publication oid": "2"})
    assert latest([MARK.encode(), late.encode()]) == replace(late, confirmed=LSN(100))
    promoted = replace(MARK, timeline=2, confirmed=LSN(50))
    assert latest([MARK.encode(), promoted.encode()]) == promoted
    assert latest([MARK.encode(), None]) is None
    assert latest([MARK.encode(), None, late.encode()]) == late
    assert latest([]) is None


def test_a_slot_ahead_of_what_was_told_was_moved_by_somebody_else_a19_b1() -> None:
    assert differences(MARK, MARK) == []
    assert differences(replace(MARK, confirmed=LSN(99)), MARK) == []  # PostgreSQL crashed and forgot (A17)
    (problem,) = differences(replace(MARK, confirmed=LSN(101)), MARK)
    assert "'shop' stands at 0/65" in problem
    assert "only to 0/64" in problem


def test_positions_of_another_timeline_are_not_compared_b13() -> None:
    assert differences(replace(MARK, timeline=2, confirmed=LSN(500)), MARK) == []


def test_what_the_stream_depends_on_is_compared_word_by_word_b4_b6_d10() -> None:
    changed = replace(
        MARK, definition=DEFINITION | {"publication oid": "2"}, settings={"[topics] name": "b", "new in 2.0": "x"}
    )
    assert differences(changed, MARK) == [
        "publication shop was dropped and created again (oid 2, was 1)",
        "[topics] name is 'b', and was 'a'",
    ]


def test_a_record_of_an_earlier_version_had_no_topic_map() -> None:
    mapped = replace(MARK, settings={**MARK.settings, "[topics] map": '{"order": "orders"}'})
    (problem,) = differences(mapped, MARK)
    assert problem == """[topics] map is '{"order": "orders"}', and was '{}'"""
    assert differences(replace(MARK, settings={**MARK.settings, "[topics] map": "{}"}), MARK) == []
    assert differences(mapped, replace(MARK, settings={})) == [], "of a slot that was only created"


def test_a_record_of_an_earlier_version_had_keys_of_text() -> None:
    keyed = replace(MARK, settings={**MARK.settings, "[record] key": "json", "start of keys": '"'})
    assert differences(keyed, MARK) == ["[record] key is 'json', and was 'text'"]
    assert differences(replace(keyed, settings={**keyed.settings, "start of keys": ""}), keyed) == [
        "start of keys is '', and was '\"'"
    ]


def test_the_slot_moves_only_to_where_kafka_was_told_a19() -> None:
    target = remembering()
    assert told(target, 0.0)  # the first thing: what the slot is
    (record,) = target.receive(transaction(200, event()))
    record.on_delivery(None, None)
    assert confirmed(target.confirmation.status(10.0, NOON)) == 100
    telling = target.confirmation.position(11.0, NOON)
    assert telling is not None
    assert telling.topic == "cdc.positions"
    assert telling.key == b"7300/shop"
    assert SlotRecord.decode(telling.value or b"").confirmed == 208
    assert target.confirmation.position(12.0, NOON) is None  # one at a time
    assert confirmed(target.confirmation.status(21.0, NOON)) == 100
    telling.on_delivery(None, None)
    assert confirmed(target.confirmation.status(21.5, NOON)) == 208


def test_it_is_told_rarely_and_only_when_there_is_something_new() -> None:
    target = remembering()
    assert told(target, 0.0)
    assert not told(target, 5.0)
    for number in range(1, 4):
        (record,) = target.receive(transaction(number * 200, event()))
        record.on_delivery(None, None)
    assert told(target, 6.0)
    (record,) = target.receive(transaction(800, event()))
    record.on_delivery(None, None)
    assert not told(target, 6.4)
    assert told(target, 6.5)


def test_when_it_ends_it_tells_at_once() -> None:
    target = remembering()
    assert told(target, 0.0)
    (record,) = target.receive(transaction(200, event()))
    record.on_delivery(None, None)
    target.finish()
    assert told(target, 0.1)
    assert confirmed(target.confirmation.last_status(0.1, NOON)) == 208


def test_a_position_that_kafka_refuses_ends_the_session() -> None:
    target = remembering()
    telling = target.confirmation.position(0.0, NOON)
    assert telling is not None
    telling.on_delivery("refused", None)
    assert target.ledger.failure is not None
    assert target.confirmation.lsn == 100


def test_case_d4_records_of_topics_are_read_beside_that_of_their_slot() -> None:
    key, topic = MARK.key.encode(), RememberedTopic("id", 3)
    records = [
        (f"{MARK.key}/orders".encode(), RememberedTopic("old", 1).encode()),
        (key, MARK.encode()),
        (f"{MARK.key}/orders".encode(), topic.encode()),
        (f"{MARK.key}/gone".encode(), topic.encode()),
        (f"{MARK.key}/gone".encode(), None),
        (f"{MARK.key}2/others".encode(), topic.encode()),
        (None, b"{}"),
    ]
    assert memory(MARK.key, records) == Memory(MARK, forgotten=True, topics={"orders": topic})
    assert memory("7300/none", records) == Memory(None, forgotten=False)
    with pytest.raises(ValueError, match="not a record of a topic"):
        memory(MARK.key, [(f"{MARK.key}/orders".encode(), b"[]")])


def test_case_d4_the_id_of_the_cluster_survives_its_record_and_may_be_unknown() -> None:
    mark = replace(MARK, cluster="abc")
    assert SlotRecord.decode(mark.encode()) == mark
    assert b"cluster" not in MARK.encode()
    assert differences(mark, MARK) == differences(MARK, mark) == []


HORIZON = Horizon(900, LSN(150), NOON, 1)


def records(target: Target, now: float) -> SlotRecord | None:
    """The record that is due; Kafka has it at once."""
    record = target.confirmation.position(now, NOON)
    if record is None:
        return None
    record.on_delivery(None, None)
    return SlotRecord.decode(record.value or b"")


def test_a_record_has_a_horizon_once_it_is_confirmed() -> None:
    target = remembering()
    assert told(target, 0.0)
    target.confirmation.taken(HORIZON)
    assert records(target, 1.0) is None
    (record,) = target.receive(transaction(120, event()))
    record.on_delivery(None, None)
    before = records(target, 2.0)
    assert before
    assert (before.confirmed, before.horizons) == (128, ())
    (record,) = target.receive(transaction(200, event()))
    record.on_delivery(None, None)
    after = records(target, 3.0)
    assert after
    assert (after.confirmed, after.horizons) == (208, (HORIZON,))
    assert records(target, 9.0) is None


def test_a_horizon_that_was_confirmed_before_it_was_taken_is_recorded_too() -> None:
    target = remembering()
    assert told(target, 0.0)
    early = replace(HORIZON, lsn=LSN(100))
    target.confirmation.taken(early)
    positions = target.confirmation.positions
    assert positions
    assert positions.due(LSN(100)) == 0.5
    record = records(target, 1.0)
    assert record
    assert record.horizons == (early,)
    assert positions.due(LSN(100)) == float("inf")


def test_a_horizon_of_another_timeline_is_not_confirmed_by_this_one() -> None:
    target = remembering()
    assert told(target, 0.0)
    target.confirmation.taken(replace(HORIZON, lsn=LSN(100), timeline=2))
    assert records(target, 1.0) is None


def test_a_horizon_is_recorded_again_after_a_record_that_kafka_refused() -> None:
    ledger = Ledger(100)
    positions = Positions("cdc.positions", MARK, ledger.fail, 0.0)
    positions.taken(replace(HORIZON, lsn=LSN(100)))
    first = positions.report(LSN(100), 0.0, NOON)
    assert first
    first.on_delivery("refused", None)
    again = positions.report(LSN(100), 1.0, NOON)
    assert again
    assert again.value == first.value
    assert SlotRecord.decode(again.value or b"").horizons


def test_records_without_horizons_stay_as_they_were() -> None:
    assert b"horizons" not in MARK.encode()
    assert b"dropped" not in MARK.encode()
    assert SlotRecord.decode(MARK.encode()).horizons == ()


def test_a_dropped_slot_is_forgotten_but_its_horizons_are_not() -> None:
    key = MARK.key.encode()
    dropped = replace(MARK, confirmed=LSN(900), horizons=(HORIZON,), dropped=True)
    assert SlotRecord.decode(dropped.encode()) == dropped
    assert memory(MARK.key, [(key, MARK.encode()), (key, dropped.encode())]) == Memory(
        None, forgotten=True, horizons=(HORIZON,)
    )
    new = replace(MARK, confirmed=LSN(50))
    assert memory(MARK.key, [(key, dropped.encode()), (key, new.encode())]).record == new
    assert memory(MARK.key, [(key, dropped.encode()), (key, None)]) == Memory(None, forgotten=True)


def test_another_prefix_of_messages_is_a_change_and_none_was_that_of_earlier_records() -> None:
    now = replace(MARK, settings={"[topics] name": "a", MESSAGES: "outbox"})
    assert differences(now, MARK) == ["[outbox] messages is 'outbox', and was ''"]
    assert differences(MARK, replace(MARK, settings={**MARK.settings, MESSAGES: ""})) == []


def test_events_count_otherwise_when_messages_do_or_tables_are_added_but_not_where_nothing_was_sent() -> None:
    messages = replace(MARK, settings={"[topics] name": "a", MESSAGES: "outbox"})
    assert counts_otherwise(messages, MARK)
    assert counts_otherwise(MARK, messages)
    assert counts_otherwise(MARK, replace(MARK, definition={**DEFINITION, "child oids": "7"}))
    assert not counts_otherwise(messages, messages)
    assert not counts_otherwise(messages, SlotRecord("7300", 1, "shop", LSN(100), {}, {}))


def test_that_events_had_other_numbers_is_remembered_by_later_sessions() -> None:
    mark = replace(MARK, renumbered=LSN(700))
    assert SlotRecord.decode(mark.encode()) == mark
    assert b"renumbered" not in MARK.encode()
