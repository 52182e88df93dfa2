"""A session: frames to records, and when PostgreSQL hears of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.delivery.confirmation import PROMPT_SECONDS
from cdc.errors import PoisonEvent, ProtocolError
from cdc.lsn import LSN
from cdc.records.record import Record
from cdc.replication.messages import Delete, Insert, LogicalMessage, Origin, Truncate, Update
from cdc.replication.settlement import Ledger
from tests.examples import examples
from tests.unit import frames, shop
from tests.unit.shop import OID, Target, event, session, transaction

NOON = 1_785_585_600.0


def deliver(records: list[Record]) -> None:
    for record in records:
        record.on_delivery(None, None)


def confirmed(status: bytes | None) -> int | None:
    return None if status is None else int.from_bytes(status[9:17], "big")


def test_a_transaction_becomes_records_in_order() -> None:
    target = session()
    records = target.receive(transaction(200, event('{"n":1}'), event('{"n":2}')))
    assert [record.value for record in records] == [b'{"N":1}', b'{"N":2}']
    assert [dict(record.headers)["cdc-position"] for record in records] == [
        "0badcafe-00000000000000C8-00000000",
        "0badcafe-00000000000000C8-00000001",
    ]
    assert target.events == 2


def test_the_slot_moves_behind_deliveries_and_not_behind_reading_a1() -> None:
    target = session(Ledger(100))
    records = target.receive(transaction(200, event(), event()))
    assert confirmed(target.confirmation.last_status(0, NOON)) == 100
    deliver(records[:1])
    assert confirmed(target.confirmation.last_status(0, NOON)) == 100
    deliver(records[1:])
    assert confirmed(target.confirmation.last_status(0, NOON)) == 208


def test_the_first_status_is_due_at_once_and_confirms_what_the_slot_says_a11() -> None:
    assert confirmed(session(Ledger(100)).confirmation.status(5.0, NOON)) == 100


def test_a_status_is_due_when_the_timer_ran_out_a12_a13() -> None:
    target = session(status_seconds=10)
    assert target.confirmation.status(5.0, NOON)
    assert target.confirmation.status(14.9, NOON) is None
    assert target.confirmation.due() == 15.0
    assert target.confirmation.status(15.0, NOON)
    assert target.confirmation.due() == 25.0


def test_a_requested_reply_is_due_at_once_and_once_a12() -> None:
    target = session(Ledger(100))
    target.confirmation.status(5.0, NOON)
    target.receive([frames.keepalive(0), frames.keepalive(0, reply=True), frames.keepalive(0)])
    assert confirmed(target.confirmation.status(5.0, NOON)) == 100
    assert target.confirmation.status(5.0, NOON) is None


def test_a_requested_reply_inside_a_transaction_confirms_nothing_of_it_a10() -> None:
    target = session(Ledger(100))
    target.confirmation.status(5.0, NOON)
    deliver(target.receive([shop.begin(200), shop.relation(), event(), frames.keepalive(999, reply=True)]))
    assert confirmed(target.confirmation.status(5.0, NOON)) == 100


def test_deliveries_are_confirmed_soon_and_not_one_by_one() -> None:
    target = session(Ledger(100))
    target.confirmation.status(5.0, NOON)
    deliver(target.receive(transaction(200, event())))
    assert target.confirmation.status(5.0 + PROMPT_SECONDS / 2, NOON) is None
    assert target.confirmation.due() == 5.0 + PROMPT_SECONDS
    assert confirmed(target.confirmation.status(5.0 + PROMPT_SECONDS, NOON)) == 208
    assert target.confirmation.due() == 15.0 + PROMPT_SECONDS


def test_deliveries_after_a_pause_are_confirmed_at_once() -> None:
    target = session(Ledger(100))
    target.confirmation.status(5.0, NOON)
    records = target.receive(transaction(200, event()))
    assert target.confirmation.status(9.0, NOON) is None
    deliver(records)
    assert confirmed(target.confirmation.status(9.0, NOON)) == 208


def test_a_short_timer_is_not_lengthened_by_the_prompt_one() -> None:
    target = session(status_seconds=PROMPT_SECONDS / 4)
    target.confirmation.status(5.0, NOON)
    assert target.confirmation.due() == 5.0 + PROMPT_SECONDS / 4
    assert target.confirmation.status(5.0 + PROMPT_SECONDS / 4, NOON)


def test_an_idle_slot_follows_keepalives_a8() -> None:
    target = session(Ledger(100))
    target.confirmation.status(5.0, NOON)
    target.receive([frames.keepalive(5000)])
    assert confirmed(target.confirmation.status(6.0, NOON)) == 5000


def test_a_status_carries_the_wall_clock() -> None:
    assert session().confirmation.last_status(0, NOON)[25:33] == (838_900_800_000_000).to_bytes(8, "big")


def test_poison_keeps_what_came_before_it_and_stops_reading_c8() -> None:
    target = session(Ledger(100))
    rows = [event('{"n":1}'), event("bad"), event('{"n":3}')]
    records = target.receive([*transaction(200, event()), *transaction(300, *rows), *transaction(400, event())])
    assert [dict(record.headers)["cdc-position"] for record in records] == [
        "0badcafe-00000000000000C8-00000000",
        "0badcafe-000000000000012C-00000000",
    ]
    assert target.poison is not None
    assert target.poison.position == "0badcafe-000000000000012C-00000001"
    assert target.events == 2
    deliver(records)
    assert confirmed(target.confirmation.last_status(0, NOON)) == 208


def test_after_poison_nothing_more_is_read_c8() -> None:
    target = session()
    target.receive(transaction(200, event("bad")))
    first = target.poison
    assert target.receive([*transaction(300, event()), frames.keepalive(9999)]) == []
    assert target.poison is first


@pytest.mark.parametrize("row", [event(payload=None), event(event_type="Unknown")])
def test_each_kind_of_poison_is_kept_and_not_raised_c8(row: bytes) -> None:
    target = session()
    assert target.receive(transaction(200, row)) == []
    assert isinstance(target.poison, PoisonEvent)
    assert target.poison.event_id == shop.EVENT_ID


def test_case_a5_a_row_whose_relation_lacks_a_needed_column_is_poison() -> None:
    narrow = frames.relation(OID, "outbox", [("id", shop.TEXT)])
    row = frames.xlog(Insert(OID, frames.row("x")))
    target = session()
    assert target.receive([shop.begin(200), shop.relation(narrow), row]) == []
    assert target.poison is not None
    assert "did not publish column 'aggregateid'" in target.poison.reason


def test_case_g3_a_null_key_is_a_record_without_a_key() -> None:
    (record,) = session().receive(transaction(200, event(key=None)))
    assert record.key is None


@pytest.mark.parametrize("kind", sorted(set(range(256)) - {ord("w"), ord("k")}))
def test_a_frame_of_unknown_kind_is_a_protocol_error_a23(kind: int) -> None:
    with pytest.raises(ProtocolError, match="unknown replication message"):
        session().receive([bytes([kind]) + bytes(24)])


def test_an_empty_frame_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        session().receive([b""])


@pytest.mark.parametrize("size", range(1, 26))
def test_a_frame_cut_within_its_header_is_a_protocol_error(size: int) -> None:
    for frame in (shop.begin(200), frames.keepalive(5)):
        if size < len(frame):
            with pytest.raises(ProtocolError):
                session().receive([frame[:size]])


OTHERS = [
    frames.xlog(Origin(LSN(1), "far away")),
    frames.xlog(LogicalMessage(True, LSN(1), "heartbeat", b"")),
    frames.xlog(Update(OID, None, None, frames.row("x"))),
    frames.xlog(Delete(OID, frames.row("x"), None)),
    frames.xlog(Truncate(0, (OID,))),
]


def test_frames_that_are_no_events_pass_and_settle_a23_b8_b9() -> None:
    target = session(Ledger(100))
    assert target.receive(transaction(200, *OTHERS)) == []
    assert confirmed(target.confirmation.last_status(0, NOON)) == 208
    assert (target.transactions.updates, target.transactions.truncates) == (1, 1)


some_frames = st.sampled_from([*OTHERS, event(), event('{"n":2}'), frames.keepalive(5)])


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Whole transactions with keepalives between and inside, the last one perhaps open."""
    stream: list[bytes] = []
    for number in range(1, draw(st.integers(1, 4))):
        stream += transaction(number * 100, *draw(st.lists(some_frames, max_size=5)))
        stream += draw(st.lists(st.just(frames.keepalive(number * 100 + 50)), max_size=1))
    tail = [shop.begin(1000), shop.relation(), *draw(st.lists(some_frames, max_size=3))]
    return stream + draw(st.sampled_from([[], tail]))


def outcome(target: Target, batches: list[list[bytes]]) -> tuple[list[tuple[object, ...]], int, bytes, int]:
    records = [record for batch in batches for record in target.receive(batch)]
    deliver(records)
    told = target.confirmation.last_status(0, NOON)
    return [(*record[:4], *record[5:]) for record in records], target.events, told, target.transactions.committed


@given(streams(), st.data())
@examples(200)
def test_frames_in_one_batch_or_in_many_make_the_same_session(stream: list[bytes], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    split = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = outcome(session(Ledger(10)), [stream])
    assert outcome(session(Ledger(10)), split) == whole
    assert outcome(session(Ledger(10)), [[frame] for frame in stream]) == whole
