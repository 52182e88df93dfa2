"""Runs of plain rows: when they are taken, when the general road is gone, and that nobody sees a difference."""

from collections.abc import Sequence

import pytest

from cdc.delivery.deduplication import SentBefore
from cdc.errors import ProtocolError
from cdc.lsn import LSN
from cdc.outbox.columns import SEQUENCE_COLUMN
from cdc.records.fastpath.generated import Unrolled, source
from cdc.records.fastpath.layout import Layout, Make, Runs, layout
from cdc.records.record import Delivered, Record, Sendable
from cdc.records.router import Route
from cdc.replication.messages import Column, Insert, Relation, TupleData
from tests.memory import MemoryTail, MemoryTails
from tests.unit import frames, shop
from tests.unit.records.test_runs import MAKES
from tests.unit.shop import (
    BYTEA,
    EVENT_ID,
    INT4,
    OID,
    RELATION,
    TEXT,
    UUID,
    Topics,
    begin,
    commit,
    event,
    session,
)


class Counted:
    """Runs that tell how many rows each of them took."""

    made: list["Counted"]

    def __init__(self, layout: Layout, make: Make = Unrolled, took: list[int] | None = None) -> None:
        self._runs: Runs = make(layout)
        self.took: list[int] = [] if took is None else took
        self.forgotten = 0
        self.made.append(self)

    def learn(self, event_type: bytes, topic_cells: tuple[bytes, ...], route: Route, room: int) -> None:
        self._runs.learn(event_type, topic_cells, route, room)

    def take(
        self, frames: list[bytes], at: int, prefix: str, index: int, timestamp: int, report: Delivered
    ) -> list[Sendable]:
        records = self._runs.take(frames, at, prefix, index, timestamp, report)
        self.took.append(len(records))
        return records

    def forget(self) -> None:
        self._runs.forget()
        self.forgotten += 1


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Counted]:
    made: list[Counted] = []
    monkeypatch.setattr(Counted, "made", made, raising=False)
    return made


def positions(records: Sequence[Record]) -> list[str]:
    return [str(dict(record.headers)["cdc-position"])[-8:] for record in records]


def test_the_first_row_shows_the_way_and_the_others_are_taken_in_a_run(counted: list[Counted]) -> None:
    target = session(make=Counted)
    rows = [event(f'{{"n":{number}}}') for number in range(4)]
    records = target.receive(shop.transaction(200, *rows))
    assert counted[0].took == [3]
    assert positions(records) == ["00000000", "00000001", "00000002", "00000003"]
    assert [record.value for record in records] == [b'{"N":%d}' % number for number in range(4)]
    assert (target.events, target.ledger.undelivered) == (4, 4)
    assert {record.timestamp for record in records} == {shop.COMMIT_TIME_MS}


def test_a_run_ends_at_what_is_not_plain_and_goes_on_behind_it(counted: list[Counted]) -> None:
    target = session(make=Counted)
    rows = [event(), event(), event(event_type="Other"), event(event_type="Other"), frames.keepalive(0), event()]
    records = target.receive(shop.transaction(200, *rows))
    assert counted[0].took == [1, 0, 1, 1]
    assert positions(records) == [f"{number:08X}" for number in range(5)]


def test_a_run_goes_on_in_the_transactions_that_follow_at_once(counted: list[Counted]) -> None:
    target = session(make=Counted)
    later = [begin(300), event(), event(), commit(300), begin(400), event(), commit(400)]
    records = target.receive([*shop.transaction(200, event(), event()), *later])
    assert counted[0].took == [1, 2, 1]
    places = [(200, 0), (200, 1), (300, 0), (300, 1), (400, 0)]
    told = [f"0badcafe-{commit_lsn:016X}-{index:08X}" for commit_lsn, index in places]
    assert [dict(record.headers)["cdc-position"] for record in records] == told
    assert (target.events, target.transactions.committed) == (5, 3)
    assert target.ledger.settle() == LSN(0)
    for record in records:
        record.on_delivery(None, None)
    assert target.ledger.settle() == LSN(408)


@pytest.mark.parametrize(
    "between",
    [
        [commit(200), frames.keepalive(250), begin(300)],
        [commit(200), begin(250), commit(250), begin(300)],
        [event(event_type="Other"), commit(200), begin(300)],
    ],
)
def test_a_run_that_ends_between_two_transactions_loses_no_row(between: list[bytes]) -> None:
    target = session(make=Counted)
    stream = [begin(200), shop.relation(), event(), event(), *between, event(), commit(300)]
    rows = sum(frame[25:26] == b"I" for frame in stream)
    assert len(target.receive(stream)) == rows
    assert target.transactions.committed == 2 + (begin(250) in between)


def test_a_session_that_shall_finish_reads_no_further_than_to_the_end_of_the_open_transaction() -> None:
    target = session(make=Counted)
    records = target.receive([begin(200), shop.relation(), event(), event()])
    target.finish()
    records += target.receive([event(), commit(200), begin(300), event(), commit(300)])
    assert len(records) == 3
    assert target.ledger.open is None
    assert target.transactions.committed == 1


def test_a_commit_that_does_not_fit_is_no_way_to_the_next_transaction() -> None:
    target = session(make=Counted)
    with pytest.raises(ProtocolError, match="does not match the open transaction"):
        target.receive([begin(200), shop.relation(), event(), event(), commit(204), begin(300), event()])
    with pytest.raises(ProtocolError, match="comes after commit"):
        session(make=Counted).receive([begin(200), shop.relation(), event(), event(), commit(200), begin(100), event()])


def test_poison_within_a_run_stops_the_session_there_and_tells_which_it_was(counted: list[Counted]) -> None:
    target = session(make=Counted)
    records = target.receive(shop.transaction(200, event(), event(), event("bad"), event()))
    assert (len(records), sum(counted[0].took)) == (2, 1)
    assert target.poison is not None
    assert target.poison.position == "0badcafe-00000000000000C8-00000002"


def test_a_topic_that_is_gone_makes_its_events_wait(counted: list[Counted]) -> None:
    topics = Topics()
    target = session(topics=topics, make=Counted)
    assert len(target.receive([begin(200), shop.relation(), event(), event()])) == 2
    topics.known["outbox.event.order"] = None
    topics.changes += 1
    assert target.receive([event(), event(), commit(200)]) == []
    assert target.pending
    assert counted[0].forgotten == 1
    topics.known.clear()
    assert positions(target.resume()) == ["00000002", "00000003"]


def test_a_record_that_may_be_too_large_goes_the_general_road(counted: list[Counted]) -> None:
    size = len(event("x" * 100))
    target = session(topics=Topics(**{"outbox.event.order": 512 + 4 * size + 150}), make=Counted)
    records = target.receive(shop.transaction(200, event(), event("x" * 100), event("x" * 200), event("x" * 20)))
    assert counted[0].took == [1, 0, 1]
    assert [len(record.value or b"") for record in records] == [2, 100, 200, 20]


def test_rows_after_a_change_of_the_table_are_read_by_the_new_description(counted: list[Counted]) -> None:
    added = frames.relation(OID, "outbox", [("id", UUID), ("note", INT4), *shop.COLUMNS[1:]])
    later = frames.xlog(Insert(OID, frames.row(EVENT_ID, None, "order", "o-2", "OrderPlaced", "{}")), 100)
    target = session(make=Counted)
    records = target.receive(
        [begin(200), shop.relation(), event(), event(), shop.relation(added), later, later, commit(200)]
    )
    assert [record.key for record in records] == [b"o-1", b"o-1", b"o-2", b"o-2"]
    assert [one.took for one in counted] == [[1], [1]]


def changed(**types: int) -> list[tuple[str, int]]:
    return [(name, types.get(name, kind)) for name, kind in shop.COLUMNS]


BOTH_UUID = changed(aggregateid=UUID)
SWAPPED = [BOTH_UUID[2], BOTH_UUID[1], BOTH_UUID[0], *BOTH_UUID[3:]]
CELLS = {"id": bytes(16), "aggregatetype": b"order", "type": b"OrderPlaced", "payload": b"\x01{}"}
BY_TYPE = {UUID: bytes(range(16)), INT4: b"\x00abc"}


@pytest.mark.parametrize("make", sorted(MAKES))
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (changed(), changed(aggregateid=INT4)),
        (changed(aggregateid=INT4), changed()),
        (BOTH_UUID, SWAPPED),
        (changed(), [*changed(), ("note", TEXT)]),
        ([*changed(), ("note", TEXT)], changed()),
        (changed(), [*changed()[:3], ("kind", TEXT), ("type", TEXT), *changed()[4:]]),
    ],
    ids=["text to integer", "integer to text", "columns swapped", "added", "dropped", "added between"],
)
def test_the_first_row_after_a_change_of_the_table_takes_the_general_path_b7(
    before: list[tuple[str, int]], after: list[tuple[str, int]], make: str
) -> None:
    def row(columns: list[tuple[str, int]]) -> bytes:
        cells = [CELLS.get(name, BY_TYPE.get(kind, b"\x00abc")) for name, kind in columns]
        return frames.xlog(Insert(OID, TupleData(b"b" * len(cells), cells)), 100)

    took: list[int] = []

    def counting(layout: Layout) -> Runs:
        return Counted(layout, MAKES[make], took)

    def stream(columns: list[tuple[str, int]], at: int) -> list[bytes]:
        described = shop.relation(frames.relation(OID, "outbox", columns))
        return [begin(at), described, row(columns), row(columns), commit(at)]

    target, expected = session(make=counting), session().receive(stream(after, 300))
    target.receive(stream(before, 200))
    took.clear()
    records = target.receive(stream(after, 300))
    assert [record[:3] for record in records] == [record[:3] for record in expected]
    assert [record.headers for record in records] == [record.headers for record in expected]
    assert sum(took) == 1, "the first shows the way, the second is taken in a run"


def test_a_table_that_is_described_again_as_it_was_keeps_its_runs(counted: list[Counted]) -> None:
    target = session(make=Counted)
    records = target.receive([begin(200), shop.relation(), event(), shop.relation(), event(), commit(200)])
    assert len(records) == 2
    assert [one.took for one in counted] == [[1]]


def test_rows_of_other_tables_are_no_part_of_a_run() -> None:
    other = frames.relation(OID + 1, "other", shop.COLUMNS)
    row = frames.xlog(Insert(OID + 1, frames.row(EVENT_ID, "order", "o-9", "OrderPlaced", "{}")), 100)
    target = session()
    records = target.receive(
        [begin(200), shop.relation(), shop.relation(other), event(), row, event(), row, commit(200)]
    )
    assert [record.key for record in records] == [b"o-1", b"o-1"]


def again(*transactions: int) -> tuple[list[int], list[int]]:
    """Which of the transactions 200, 300 and so on, of three rows each, were sent; and how many rows in runs.

    Kafka has the first rows of those that are named.
    """
    tail = MemoryTail()
    tail.ids = {(0, commit_lsn, 0): EVENT_ID for commit_lsn in transactions}
    tails = MemoryTails(**{"outbox.event.order": tail})
    target = session(sent_before=SentBefore(LSN(1000), tails=tails), make=Counted)
    sent, runs = [], []
    for commit_lsn in range(200, 700, 100):
        before = sum(sum(one.took) for one in Counted.made)
        sent.append(len(target.receive(shop.transaction(commit_lsn, event(), event(), event()))))
        runs.append(sum(sum(one.took) for one in Counted.made) - before)
    return sent, runs


def test_rows_that_come_again_are_looked_up_one_by_one_up_to_the_last_transaction_that_kafka_has() -> None:
    # The first row of 400 follows rows of its key that were missing, so it is sent again behind them.
    assert again(200, 400) == ([2, 3, 3, 3, 3], [0, 0, 0, 3, 3])


def test_case_b1_rows_of_two_tables_in_turn_keep_their_layouts(counted: list[Counted]) -> None:
    child = RELATION._replace(oid=OID + 1)  # any table of this name is the outbox
    row = frames.xlog(Insert(OID + 1, frames.row(EVENT_ID, "order", "o-2", "OrderPlaced", "{}")))
    target = session(make=Counted)
    turns = [frame for _ in range(5) for frame in (event(), row, row)]
    records = target.receive([begin(200), shop.relation(), shop.relation(child), *turns, commit(200)])
    assert [record.key for record in records] == [b"o-1", b"o-2", b"o-2"] * 5
    assert len(counted) == 2
    assert sum(counted[1].took) == 5


def test_a_backlog_of_which_kafka_has_nothing_is_taken_in_runs() -> None:
    assert again() == ([3] * 5, [2, 3, 3, 3, 3])


def test_a_table_that_lacks_a_column_or_has_it_in_another_type_has_no_layout() -> None:
    def of(*columns: tuple[str, int], binary: bool = True) -> Layout | None:
        return layout(frames.relation(OID, "outbox", list(columns)), shop.outbox(), binary=binary)

    whole = [("id", UUID), ("aggregatetype", TEXT), ("aggregateid", TEXT), ("type", TEXT), ("payload", BYTEA)]
    assert of(*whole)
    assert of(*whole[:-1]) is None
    assert of(*whole[:-1], ("payload", INT4)) is None
    assert of(("id", 1114), *whole[1:]) is None
    assert of(*whole, binary=False) is None  # bytea as text


def test_a_number_as_key_is_left_to_the_general_road_in_the_text_format() -> None:
    columns = [("aggregateid", INT4) if name == "aggregateid" else (name, kind) for name, kind in shop.COLUMNS]
    relation = frames.relation(OID, "outbox", columns)
    assert layout(relation, shop.outbox(), binary=True)
    assert layout(relation, shop.outbox(), binary=False) is None


def test_the_source_of_a_layout_has_no_loop_over_columns() -> None:
    found = layout(RELATION, shop.outbox(headers=["type"]), binary=True)
    assert found
    text = source(found)
    assert text.count("for ") == 1
    assert "('type', c3.decode())" in text


def test_an_aggregate_that_the_topic_does_not_depend_on_is_still_asked_for() -> None:
    relation = Relation(OID, "public", "outbox", "d", tuple(Column(0, name, kind, -1) for name, kind in shop.COLUMNS))
    found = layout(relation, shop.outbox("events"), binary=True)
    assert found
    assert found.topic == (1,)


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("number", ["7", (7).to_bytes(8), None], ids=["text", "binary", "null"])
@pytest.mark.parametrize("place", [0, 3, 5])
def test_records_are_the_same_with_and_without_the_column_of_numbers(
    make: str, number: str | bytes | None, place: int
) -> None:
    columns = list(shop.COLUMNS)
    columns.insert(place, (SEQUENCE_COLUMN, shop.INT8))
    numbered, plain = (session(make=MAKES[make]) for _ in range(2))
    cells = [(EVENT_ID, "order", f"o-{key}", kind, "{}") for key in range(4) for kind in ("OrderPlaced", "Other")]

    def rows(*, with_number: bool) -> list[bytes]:
        found = []
        for one in cells:
            row: list[frames.Cell] = list(one)
            if with_number:
                row.insert(place, number)
            found.append(frames.xlog(Insert(OID, frames.row(*row)), 100))
        return found

    described = frames.xlog(frames.relation(OID, "outbox", columns))
    with_numbers = [begin(200), described, *rows(with_number=True), commit(200)]
    found = numbered.receive(with_numbers)
    expected = plain.receive(shop.transaction(200, *rows(with_number=False)))
    assert [record[:4] + record[5:] for record in found] == [record[:4] + record[5:] for record in expected]
    assert len(found) == len(cells)
