"""Messages to rows: what counts, what passes, and what is no stream PostgreSQL would send."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import CdcError, ProtocolError
from cdc.lsn import LSN
from cdc.replication.frames import XLOG_HEADER_SIZE
from cdc.replication.messages import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    Truncate,
    Type,
    Update,
)
from cdc.replication.pgoutput import decode
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row, Transactions
from tests import payloads
from tests.unit import frames

TABLE = ("public", "outbox")
OUTBOX = frames.relation(1, "outbox", [("id", 25)])
OTHER = frames.relation(2, "orders", [("id", 25)])
COMMIT_TIME = 838_857_600_123_456  # 2026-08-01 00:00:00.123456 UTC, from PostgreSQL's epoch
COMMIT_TIME_MS = 1_785_542_400_123

BEGIN, COMMIT = Begin(LSN(200), COMMIT_TIME, 7), Commit(0, LSN(200), LSN(208), COMMIT_TIME)


def insert(oid: int, text: str = "x") -> Insert:
    return Insert(oid, frames.row(text))


def transactions() -> Transactions:
    return Transactions(TABLE, Ledger())


def feed(target: Transactions, *messages: Message) -> list[Row]:
    return [row for row in map(target.feed, messages) if row]


def test_rows_that_share_one_lsn_keep_their_index_a5() -> None:
    rows = feed(transactions(), BEGIN, OUTBOX, *[insert(1, str(number)) for number in range(200)], COMMIT)
    assert [row.index for row in rows] == list(range(200))
    assert [row.data.cells for row in rows] == [[str(number).encode()] for number in range(200)]
    assert {row.transaction.commit_lsn for row in rows} == {200}


def test_the_index_counts_rows_of_the_outbox_only() -> None:
    rows = feed(transactions(), BEGIN, OUTBOX, OTHER, insert(2), insert(1), insert(2), insert(1), COMMIT)
    assert [(row.index, row.relation.name) for row in rows] == [(0, "outbox"), (1, "outbox")]


def test_the_index_starts_again_in_each_transaction() -> None:
    second = Begin(LSN(300), COMMIT_TIME, 8), Commit(0, LSN(300), LSN(308), COMMIT_TIME)
    target = transactions()
    rows = feed(target, BEGIN, OUTBOX, insert(1), insert(1), COMMIT, second[0], insert(1), second[1])
    assert [(row.transaction.commit_lsn, row.index) for row in rows] == [(200, 0), (200, 1), (300, 0)]
    assert target.committed == 2


def test_a_row_knows_the_commit_time_in_milliseconds_since_1970() -> None:
    (row,) = feed(transactions(), BEGIN, OUTBOX, insert(1), COMMIT)
    assert row.transaction.timestamp == COMMIT_TIME_MS


def test_a_row_is_passed_on_before_its_commit_is_read_a20() -> None:
    target = transactions()
    (row,) = feed(target, BEGIN, OUTBOX, insert(1))
    assert row.transaction.end_lsn is None
    assert target.committed == 0


@pytest.mark.parametrize("column", ["added", "dropped", "renamed"])
def test_rows_after_a_changed_relation_come_with_the_new_one_b7(column: str) -> None:
    changed = frames.relation(1, "outbox", {
        "added": [("id", 25), ("extra", 25)],
        "dropped": [],
        "renamed": [("key", 25)],
    }[column])  # fmt: skip
    rows = feed(transactions(), BEGIN, OUTBOX, insert(1), changed, Insert(1, frames.row("y")), COMMIT)
    assert [row.relation for row in rows] == [OUTBOX, changed]
    assert [row.index for row in rows] == [0, 1]


def test_a_relation_is_remembered_across_transactions() -> None:
    later = Begin(LSN(300), COMMIT_TIME, 8)
    rows = feed(transactions(), BEGIN, OUTBOX, COMMIT, later, insert(1))
    assert [row.relation for row in rows] == [OUTBOX]


def test_a_table_of_the_same_name_in_another_schema_is_not_the_outbox() -> None:
    elsewhere = frames.relation(9, "outbox", [("id", 25)], namespace="archive")
    assert feed(transactions(), BEGIN, elsewhere, insert(9), COMMIT) == []


def test_rows_of_a_renamed_outbox_are_never_passed_over_in_silence_b6() -> None:
    renamed = frames.relation(1, "outbox_old", [("id", 25)])
    target = transactions()
    feed(target, BEGIN, OUTBOX, insert(1), COMMIT, Begin(LSN(300), COMMIT_TIME, 8))
    try:
        rows = feed(target, renamed, insert(1))
    except CdcError:
        return
    assert len(rows) == 1, "the row is lost: the slot would move past it"


def test_rows_that_came_while_the_outbox_had_another_name_are_rows_of_the_outbox_b6() -> None:
    target = Transactions(("public", "outbox"), Ledger(), oid=1)
    renamed = frames.relation(1, "outbox_for_a_while", [("id", 25)])
    assert len(feed(target, BEGIN, renamed, insert(1), COMMIT)) == 1


def test_updates_deletes_and_truncates_make_no_row_b8_b9_b10() -> None:
    target = transactions()
    row = frames.row("x")
    changes: list[Message] = [
        Update(1, None, None, row),
        Update(1, row, None, row),
        Delete(1, row, None),
        Truncate(0, (1,)),
    ]
    assert feed(target, BEGIN, OUTBOX, OTHER, *changes, COMMIT) == []
    assert (target.updates, target.truncates) == (2, 1)


def test_an_insert_whose_row_is_deleted_in_the_same_transaction_is_still_an_event_b9() -> None:
    rows = feed(transactions(), BEGIN, OUTBOX, insert(1), Delete(1, frames.row("x"), None), COMMIT)
    assert len(rows) == 1


def test_a_truncate_takes_nothing_back_b8() -> None:
    rows = feed(transactions(), BEGIN, OUTBOX, insert(1), Truncate(0, (2, 1)), insert(1), COMMIT)
    assert [row.index for row in rows] == [0, 1]


def test_changes_of_other_tables_are_not_counted() -> None:
    target = transactions()
    feed(target, BEGIN, OUTBOX, OTHER, Update(2, None, None, frames.row("x")), Truncate(0, (2, 3)), COMMIT)
    assert (target.updates, target.truncates) == (0, 0)


def test_origins_types_and_logical_messages_pass_a23() -> None:
    target = transactions()
    at_once = LogicalMessage(False, LSN(150), "note", b"")
    inside = LogicalMessage(True, LSN(190), "heartbeat", b"")
    origin, kind = Origin(LSN(1), "far away"), Type(9, "public", "mood")
    rows = feed(target, at_once, BEGIN, origin, kind, inside, OUTBOX, insert(1), COMMIT, at_once)
    assert [row.index for row in rows] == [0]


def test_an_empty_transaction_is_settled_at_its_commit_a23() -> None:
    ledger = Ledger()
    target = Transactions(TABLE, ledger)
    feed(target, BEGIN, COMMIT)
    assert ledger.settle() == 208


def test_a_row_outside_of_a_transaction_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="outside of a transaction"):
        feed(transactions(), OUTBOX, insert(1))


def test_a_row_of_a_relation_that_was_never_described_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="relation 5, which was never described"):
        feed(transactions(), BEGIN, OUTBOX, insert(5))


@pytest.mark.parametrize("messages", [(BEGIN, BEGIN), (COMMIT,), (BEGIN, Commit(0, LSN(201), LSN(208), 0))])
def test_a_begin_or_commit_out_of_place_is_a_protocol_error(messages: tuple[Message, ...]) -> None:
    with pytest.raises(ProtocolError):
        feed(transactions(), *messages)


def test_the_golden_stream_gives_the_golden_row() -> None:
    golden = [payloads.BEGIN, payloads.OUTBOX_RELATION, payloads.INSERT_TEXT, payloads.COMMIT]
    rows = feed(transactions(), *[each.message for each in golden])
    assert isinstance(payloads.OUTBOX_RELATION.message, Relation)
    assert [(row.relation, row.index) for row in rows] == [(payloads.OUTBOX_RELATION.message, 0)]


few = st.integers(1, 4).map(LSN)
times = st.integers(-(1 << 63), (1 << 63) - 1)
boundaries = st.one_of(st.builds(Begin, few, times, st.just(7)), st.builds(Commit, st.just(0), few, few, times))


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Frames in which transactions begin and end, some of them cut, too long, or with a wrong kind."""
    drawn = draw(st.lists(boundaries | boundaries | frames.messages(), max_size=8))
    whole = [frames.xlog(message, draw(few)) for message in drawn]
    hurt = st.sampled_from([lambda frame: frame[:-1], lambda frame: frame + b"C", lambda frame: frame[:25] + b"I" * 25])
    return [draw(hurt)(frame) if draw(st.integers(0, 19)) == 0 else frame for frame in whole]


def seen(target: Transactions, ledger: Ledger, read: Callable[[], Row | None]) -> object:
    """What came of a frame, and what is known after it."""
    try:
        row = read()
    except CdcError as error:
        return str(error)
    opened = ledger.open
    known = opened and (opened.commit_lsn, opened.timestamp, str(opened.commit_lsn))
    return row and (row.index, row.relation, row.data), known, str(ledger.settle()), target.committed


@given(streams())
def test_a_frame_is_read_as_its_message_is(stream: list[bytes]) -> None:
    ledgers = Ledger(), Ledger()
    quick, plain = (Transactions(TABLE, ledger) for ledger in ledgers)
    for frame in stream:
        expected = seen(plain, ledgers[1], lambda: plain.feed(decode(frame, XLOG_HEADER_SIZE)))  # noqa: B023
        assert seen(quick, ledgers[0], lambda: quick.read(frame)) == expected  # noqa: B023


DOMAINS = [Type(16500, "", "uuid"), Type(16501, "", "bytea"), Type(16502, "public", "uuid"), Type(16503, "", "xml")]


def test_case_a3_columns_of_domains_are_described_by_their_base_types() -> None:
    # PostgreSQL sends the base type of a domain, to the bottom, under the domain's oid; pg_catalog as an empty name.
    described = frames.relation(1, "outbox", [(f"c{oid}", oid) for oid in (16500, 16501, 16502, 16503, 25)])
    (row,) = feed(transactions(), BEGIN, *DOMAINS, described, Insert(1, frames.row(*"12345")))
    assert [column.type_oid for column in row.relation.columns] == [2950, 17, 16502, 16503, 25]


def test_case_a3_an_oid_that_names_another_type_later_makes_another_relation() -> None:
    described, target = frames.relation(1, "outbox", [("id", 16500)]), transactions()
    rows = feed(
        target, BEGIN, Type(16500, "", "uuid"), described, insert(1), Type(16500, "", "int8"), described, insert(1)
    )
    assert [row.relation.columns[0].type_oid for row in rows] == [2950, 20]
    assert rows[0].relation is not rows[1].relation
