"""The statements of a relay on a real server: what is read, and what a relay that was taken over cannot do."""

from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import cast

import psycopg
import pytest

from cdc.errors import PostgresUnavailable
from cdc.lsn import LSN
from cdc.polling import reader
from cdc.polling.numbers import Numbers
from cdc.polling.progress import Progress
from cdc.polling.reader import Batch, Handed, Reader, Tick
from cdc.polling.snapshots import NOTHING
from cdc.postgres import relay as relays
from cdc.postgres.connection import connect
from cdc.postgres.relay import Relay, RowSource
from cdc.postgres.relay_thread import Heart, RelaySource
from cdc.replication.messages import Column, Insert, Relation
from cdc.replication.pgoutput import decode
from cdc.replication.values import JSONB, TEXT
from tests.pipeline import Pipeline, eventually
from tests.versions import OLD_POSTGRES

pytestmark = [
    pytest.mark.parametrize("source", ["polling"], indirect=True),
    pytest.mark.parametrize("database", [None, *OLD_POSTGRES], indirect=True, ids=str),
]


@pytest.fixture
def table(pipeline: Pipeline) -> Pipeline:
    return pipeline


def opened(pipeline: Pipeline, *, binary: bool = True) -> Relay:
    ((oid,),) = pipeline.sql("select 'outbox'::regclass::oid::int8")
    columns = (Column(0, "aggregateid", TEXT, -1), Column(0, "payload", JSONB, -1))
    ((shape,),) = pipeline.sql(f"select {relays.SHAPE} from pg_class c where c.oid = 'outbox'::regclass")
    source = RowSource(Relation(oid, "public", "outbox", "d", columns), binary, False, shape)
    return Relay(connect(pipeline.dsn), ("public", "outbox"), pipeline.slot, source)


@pytest.fixture
def held(table: Pipeline) -> Iterator[Relay]:
    """A relay that this test holds."""
    with closing(opened(table)) as relay:
        assert take(relay)
        yield relay


def take(relay: Relay) -> bool:
    row = relay.row()
    assert row
    return relay.take(row, row.holding.epoch + 1, "me", locked=False)


def tick(relay: Relay) -> Tick:
    return relay.tick(LSN(relay.last + 1))


def cells(frames: list[bytes]) -> list[list[bytes]]:
    found = []
    for frame in frames:
        message = decode(frame, 25)
        assert isinstance(message, Insert)
        found.append(message.new.cells)
    return found


def test_a_row_is_read_as_the_slot_would_send_it(table: Pipeline, held: Relay) -> None:
    table.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'é', 't', '{\"a\": 1}'),"
        " ('note', 'k', 't', null)"
    )
    rows = held.read(NOTHING, tick(held).snapshot, None)
    assert cells(rows.frames) == [["é".encode(), b'\x01{"a": 1}'], [b"k", b""]]
    assert list(rows.numbers) == [1, 2]
    assert not rows.more
    with closing(opened(table, binary=False)) as text:
        text.epoch, text.last = held.epoch, held.last
        assert cells(text.read(NOTHING, tick(text).snapshot, None).frames)[0] == ["é".encode(), b'{"a": 1}']


def test_a_batch_has_the_rows_of_transactions_that_ended_since(table: Pipeline, held: Relay) -> None:
    with psycopg.connect(table.dsn) as early, psycopg.connect(table.dsn) as rolled_back:
        for connection, key in ((early, "early"), (rolled_back, "never")):
            connection.execute(
                "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', %s, 't', '{}')", [key]
            )
        table.insert(1, key="first")
        first = tick(held)
        assert [row[0] for row in cells(held.read(NOTHING, first.snapshot, None).frames)] == [b"first"]
        assert not held.has_rows(first.snapshot, held.present().snapshot)
        table.insert(2, key="second")
        early.commit()
        rolled_back.rollback()
    assert held.has_rows(first.snapshot, held.present().snapshot)
    second = tick(held)
    assert [row[0] for row in cells(held.read(first.snapshot, second.snapshot, None).frames)] == [b"early", b"second"]
    assert not held.has_rows(second.snapshot, held.present().snapshot)


@pytest.mark.parametrize("limit", ["rows", "bytes"])
def test_a_large_batch_is_read_in_parts(
    table: Pipeline, held: Relay, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "PART_ROWS" if limit == "rows" else "PART_BYTES", 7 if limit == "rows" else 350)
    monkeypatch.setattr(reader, "PART_ROWS", 7 if limit == "rows" else 10_000)
    table.insert(*range(40))
    table.sql("delete from outbox where cdc_seq between 15 and 30 and cdc_seq <> 22")
    numbers, found, ends = Numbers(1), array("q"), False
    batch = Batch(held, Progress(NOTHING), tick(held))
    parts = 0
    while not ends:
        part, frames = batch.part(numbers.next())
        assert len(frames) == len(part.numbers)
        if parts == 1:
            table.sql("delete from outbox where cdc_seq > 38")  # by somebody, before they are read
        found, ends, parts = found + part.numbers, part.ends, parts + 1
    batch.close()
    assert list(found) == [*range(1, 15), 22, *range(31, 39)]
    assert parts > 3
    assert part.done == Progress(batch.tick.snapshot, None, None, batch.tick.number, batch.tick.xid, len(found))


def test_the_rest_of_a_batch_comes_behind_the_number_that_was_sent(table: Pipeline, held: Relay) -> None:
    table.insert(1, 2, 3)
    taken = tick(held)
    begun = Progress(NOTHING, taken.snapshot, 2, taken.number, taken.xid, 2)
    part, _ = Batch(held, begun, taken).part(LSN(1 << 50))
    assert list(part.numbers) == [3]
    assert part.done == Progress(taken.snapshot, None, None, taken.number, taken.xid, 3)


@pytest.mark.parametrize("read", ["read", "portion", "numbers"])
def test_a_batch_is_whole_though_its_reader_waits_for_a_change_that_rewrites_the_table(
    table: Pipeline, held: Relay, read: str
) -> None:
    """After it, the table is empty for snapshots from before:
    <https://www.postgresql.org/docs/current/mvcc-caveats.html>"""
    table.insert(1, 2, 3)
    snapshot = tick(held).snapshot
    reads = {
        "read": lambda: len(held.read(NOTHING, snapshot, None).frames),
        "portion": lambda: len(held.portion(NOTHING, snapshot, 1, 3).frames),
        "numbers": lambda: sum(map(len, held.numbers(NOTHING, snapshot, None))),
    }
    with ThreadPoolExecutor(1) as reader, psycopg.connect(table.dsn) as changing:
        changing.execute("alter table outbox alter payload type jsonb using payload || '{}'")
        found = reader.submit(reads[read])
        waiting = "select from pg_locks where relation = 'outbox'::regclass and not granted"
        eventually(lambda: len(table.sql(waiting)) == 1, "the reader waits")
        changing.commit()
        assert found.result() == 3


def test_columns_that_were_changed_since_the_session_began_are_not_read(table: Pipeline, held: Relay) -> None:
    table.insert(1)
    snapshot = tick(held).snapshot
    assert len(held.read(NOTHING, snapshot, None).frames) == 1
    table.sql("alter table outbox alter payload type json using payload::json")
    with pytest.raises(PostgresUnavailable, match="columns of the outbox have changed"):
        held.read(NOTHING, snapshot, None)


def test_a_relay_that_was_taken_over_does_nothing_more(table: Pipeline, held: Relay) -> None:
    table.insert(1)
    before = tick(held)
    with closing(opened(table)) as other:
        assert take(other)
        for act in (
            lambda: tick(held),
            held.beat,
            lambda: held.read(NOTHING, before.snapshot, None),
            lambda: held.confirm(LSN(99), Progress(before.snapshot)),
            lambda: held.clear(before.snapshot, before.snapshot),
        ):
            with pytest.raises(PostgresUnavailable, match="took it over"):
                act()
        assert held.delete(NOTHING, before.snapshot) == 0
        held.release()
        row = other.row()
        assert row
        assert (row.holding.holder, row.confirmed, row.last) == ("me", 0, before.number)
        assert len(other.read(NOTHING, tick(other).snapshot, None).numbers) == 1


def test_a_relay_whose_server_was_set_back_is_fenced_too(table: Pipeline, held: Relay) -> None:
    taken = tick(held)
    table.sql("update cdc_relay set last_batch = last_batch - 1")  # the last tick did not arrive at the standby
    with pytest.raises(PostgresUnavailable, match="set back"):
        held.read(NOTHING, taken.snapshot, None)
    with pytest.raises(PostgresUnavailable, match="set back"):
        tick(held)


def test_only_one_of_two_takes_a_relay_over(table: Pipeline, held: Relay) -> None:
    with closing(opened(table)) as other:
        row = other.row()
        assert row
        held.beat()
        assert not other.take(row, row.holding.epoch + 1, "other", locked=False)


def test_what_is_confirmed_is_stored_and_what_it_sees_may_be_deleted(table: Pipeline, held: Relay) -> None:
    table.insert(1, 2)
    taken = tick(held)
    partly = Progress(NOTHING, taken.snapshot, 1, taken.number, taken.xid, 1)
    held.confirm(LSN(7), partly)
    row = held.row()
    assert row
    assert (row.progress, row.confirmed) == (partly, 7)
    assert held.delete(row.cleared, row.progress.seen) == 0
    table.insert(3)
    last = tick(held)
    held.confirm(LSN(8), Progress(taken.snapshot, None, None, taken.number, taken.xid, 2))
    row = held.row()
    assert row
    assert row.progress.tick == taken.number
    with psycopg.connect(table.dsn) as locking:
        locking.execute("select from outbox where cdc_seq = 1 for update")
        assert held.delete(row.cleared, row.progress.seen) == 1
        assert not held.clear(row.cleared, row.progress.seen)
    assert held.delete(row.cleared, row.progress.seen) == 1
    assert held.clear(row.cleared, row.progress.seen)
    assert table.sql("select cdc_seq from outbox") == [(3,)]
    assert table.sql("select cleared_snapshot::text from cdc_relay") == [(str(taken.snapshot),)]
    held.confirm(LSN(9), Progress(last.snapshot, None, None, last.number, last.xid, 3))
    assert table.sql("select batch from cdc_ticks") == [(last.number,)]


def test_a_tick_is_known_by_its_number_and_its_transaction(held: Relay) -> None:
    taken = tick(held)
    assert held.has_tick(taken.number, taken.xid)
    assert not held.has_tick(taken.number, taken.xid + 1)
    assert held.restored() == ""


def test_rows_are_looked_for_among_those_that_were_committed_since(table: Pipeline, held: Relay) -> None:
    before = held.present()
    with psycopg.connect(table.dsn) as running:
        running.execute("insert into outbox (aggregatetype, aggregateid, type) values ('note', 'k', 't')")
        now = held.present()
        assert not held.has_rows(before.snapshot, now.snapshot)
    after = held.present()
    assert held.has_rows(now.snapshot, after.snapshot)
    table.insert(2)
    assert held.present().number == after.number + 1


class Told:
    """A reader without rows that notes when it is to look soon."""

    def __init__(self) -> None:
        self.told = 0

    def notified(self) -> None:
        self.told += 1

    def step(self, now: float, *, room: bool) -> tuple[list[Handed], float]:  # noqa: ARG002
        return [], now + 3600

    def delete(self, now: float) -> bool:  # noqa: ARG002
        return False

    def close(self) -> None: ...


def test_a_notification_on_the_channel_of_the_relay_wakes_the_reader(table: Pipeline, held: Relay) -> None:
    reader = Told()
    with closing(opened(table)) as rows:
        row = held.row()
        assert row
        heart = Heart(held, listens=True)
        rows.epoch = held.epoch
        source = RelaySource(rows, heart, cast(Reader, reader), row.progress)
        source.begin()
        table.sql("notify another_channel")
        table.sql(f"notify {table.slot}, 'any'")
        eventually(lambda: reader.told == 1, "the reader is told")
        table.sql("select pg_terminate_backend(%s)", held.connection.info.backend_pid)
        with pytest.raises(PostgresUnavailable):
            eventually(lambda: source.read() == [b"none"], "the end of the connection is seen")
        source.close()
        heart.stop()


def test_the_lock_ends_with_its_connection(table: Pipeline) -> None:
    with closing(opened(table)) as one, closing(opened(table)) as other:
        assert one.direct
        assert one.lock("x", 30)
        assert not other.lock("x", 30)
        assert other.is_locked("x")
        assert not other.is_locked("y")
        one.close()
        eventually(lambda: other.lock("x", 30), "the lock is free")
