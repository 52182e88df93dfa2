"""The stored offsets of Debezium's connector, and the proof of a take-over."""

import contextlib
from collections.abc import Iterator

import pytest

from cdc.delivery.positions import ForeignWindow, SlotRecord
from cdc.kafka.foreign import foreign_id
from cdc.lsn import LSN
from cdc.outbox.columns import Columns
from cdc.outbox.events import Outbox
from cdc.outbox.topic_template import TopicTemplate
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row
from cdc.takeover import offsets
from cdc.takeover.proof import Found, Proof
from tests.unit import frames, shop

OFFSET: dict[str, object] = {"lsn": 500, "lsn_proc": 500, "lsn_commit": 400, "txId": 7, "ts_usec": 1}
STORED: dict[str, object] = {"partition": {"server": "orders"}, "offset": OFFSET}


def stored(**more: object) -> list[dict[str, object]]:
    return [{**STORED, "offset": {**OFFSET, **more}}]


def test_offsets_that_fit_the_slot_have_no_problem() -> None:
    assert offsets.problem(stored(), LSN(500)) == ""
    assert offsets.problem(stored(last_snapshot_record=True, snapshot="INITIAL"), LSN(450)) == ""


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([], "no offsets"),
        ([{"partition": {}, "offset": None}], "no offsets"),
        ([STORED, STORED], "offsets of 2 partitions"),
        (stored(last_snapshot_record=False), "snapshot of the connector is not finished"),
        (stored(last_snapshot_record="false"), "snapshot of the connector is not finished"),
        (stored(incremental_snapshot_collections="x"), "incremental snapshot"),
        (stored(lsn=1, lsn_proc=1, lsn_commit=1), "ahead of the stored offset"),
    ],
)
def test_offsets_from_which_events_could_be_lost_are_refused(given: list[dict[str, object]], problem: str) -> None:
    assert problem in offsets.problem(given, LSN(450))


def test_new_offsets_stand_between_all_changes_and_at_the_last_commit() -> None:
    assert offsets.moved(stored(), LSN(904)) == stored(lsn=903, lsn_proc=903, lsn_commit=904)
    assert offsets.moved([{"partition": {}, "offset": {"lsn": 1, "snapshot": "INITIAL"}}], LSN(904)) == [
        {"partition": {}, "offset": {"snapshot": "INITIAL", "lsn": 903, "lsn_proc": 903, "lsn_commit": 904}}
    ]
    assert offsets.moved([{"partition": {}, "offset": None}], LSN(904)) == []


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"id": b"e-1"}, "e-1"),
        ({"id": b'"e-1"'}, "e-1"),
        ({"id": b'{"schema":{"type":"string"},"payload":"e-1"}'}, "e-1"),
        ({"id": b'"e-1'}, '"e-1'),
        ({"id": None}, None),
        ({"id": b"e-1", "cdc-position": b"x"}, None),
        ({}, None),
    ],
)
def test_the_id_of_a_foreign_record_is_read_in_each_form(headers: dict[str, bytes | None], expected: str) -> None:
    assert foreign_id(headers) == expected


def test_a_slots_record_keeps_the_window_of_a_takeover() -> None:
    window = ForeignWindow(LSN(900), {"orders": {0: 5, 12: 7}})
    record = SlotRecord("7300", 1, "shop", LSN(100), {}, {}, foreign=window)
    assert SlotRecord.decode(record.encode()) == record
    assert b"foreign" not in SlotRecord("7300", 1, "shop", LSN(100), {}, {}).encode()


@pytest.fixture
def proof() -> Iterator[Proof]:
    with contextlib.closing(Proof()) as made:
        template = TopicTemplate("t.{aggregatetype}")
        transaction = Ledger().begin(LSN(200), 1_000)
        rows = [
            Row(transaction, n, shop.RELATION, frames.row(f"e-{n}", "order", f"k-{n % 2}", "OrderPlaced", "{}"))
            for n in range(4)
        ]
        made.expect(rows, Outbox("x", Columns(), template))
        yield made


def found(*events: tuple[int, int, int]) -> list[Found]:
    """Records of (event, partition, offset)."""
    return [Found("t.order", part, at, f"e-{number}", b"k-%d" % (number % 2)) for number, part, at in events]


GOOD = ((0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1))


def test_a_takeover_with_one_record_for_each_event_in_order_is_proven(proof: Proof) -> None:
    proof.found(found(*GOOD))
    assert (proof.events, proof.first_commit, proof.topics()) == (4, 1_000, ["t.order"])
    assert proof.findings(any_key=False) == {}


@pytest.mark.parametrize(
    ("records", "finding"),
    [
        (GOOD[:3], "lost"),
        ((*GOOD, (3, 1, 2)), "duplicate"),
        (((0, 0, 1), (1, 1, 0), (2, 0, 0), (3, 1, 1)), "out of order"),
        (((0, 0, 0), (1, 1, 0), (2, 1, 1), (3, 1, 2)), "two partitions"),
    ],
)
def test_a_faulty_takeover_is_not_proven(proof: Proof, records: tuple[tuple[int, int, int], ...], finding: str) -> None:
    proof.found(found(*records))
    assert list(proof.findings(any_key=False)) == [finding]


def test_ids_that_repeat_prove_only_that_none_is_lost(proof: Proof) -> None:
    proof.found(found(*GOOD[:3], (2, 0, 2)))
    assert proof.findings(any_key=False, any_ids=True) == {"lost": ["e-3"]}


def test_a_record_with_another_key_is_found(proof: Proof) -> None:
    proof.found(found(*GOOD[:3]))
    proof.found([Found("t.order", 1, 1, "e-3", b"other")])
    assert list(proof.findings(any_key=False)) == ["other key"]
    assert proof.findings(any_key=True) == {}
