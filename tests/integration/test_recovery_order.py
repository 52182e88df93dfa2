"""Which rows a recovery looks at, and their order, on servers of each version: in SQL, as the rows show it."""

import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from cdc.local.postgres import PostgresServer
from cdc.postgres import horizons, numbers
from cdc.recovery.bound import BEGINNING, Bound, BoundFacts, BoundKind, candidates, choose, since
from cdc.recovery.order import OrderFacts, OrderKind, order_by
from tests.servers import a_database, a_folder
from tests.versions import OLD_POSTGRES

pytestmark = pytest.mark.timeout(120)

COLUMNS = "key text, seq int, created_at timestamptz default clock_timestamp()"
TABLE = "public", "outbox"


@pytest.fixture(scope="module", params=[None, *OLD_POSTGRES], ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of each version that keeps commit timestamps."""
    with a_folder() as home:
        server = PostgresServer(
            home / "postgres",
            settings={"track_commit_timestamp": "on", "max_prepared_transactions": "5"},
            binaries=request.param,
        )
        try:
            server.start()
            yield server
        finally:
            server.purge()


@dataclass
class Table:
    """An outbox in a database of its own."""

    dsn: str
    connection: psycopg.Connection[Any]

    def sql(self, *statements: str) -> list[Any]:
        cursor = None
        for statement in statements:
            cursor = self.connection.execute(statement.encode())
        return cursor.fetchall() if cursor and cursor.description else []

    def session(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn)

    def found(self, bound: Bound, age: str | None = None, *, commits: bool = False) -> list[str]:
        """The keys of the candidates."""
        wanted = candidates(bound, age, commits=commits, alias="r")
        statement = sql.SQL("select key from outbox r where {} order by key").format(wanted.condition)
        return [key for (key,) in self.connection.execute(statement, wanted.values)]

    def ordered(self, facts: OrderFacts) -> list[int]:
        """The numbers `seq` in the order of a recovery."""
        statement = sql.SQL("select seq from outbox order by {}").format(order_by(facts).sql)
        return [seq for (seq,) in self.connection.execute(statement)]


@pytest.fixture
def table(server: PostgresServer) -> Iterator[Table]:
    with a_database(server.dsn) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        made = Table(dsn, connection)
        made.sql(f"create table outbox ({COLUMNS})")
        yield made


def test_rows_are_candidates_unless_their_transaction_had_ended_at_the_horizon(table: Table) -> None:
    with table.session() as early, table.session() as late:
        table.sql("insert into outbox values ('before', 1)")
        early.execute("insert into outbox values ('open', 1)")
        table.sql("insert into outbox values ('above the open one', 1)")
        horizon = horizons.take(table.connection, TABLE)
        early.commit()
        late.execute("insert into outbox values ('after', 1)")
        late.commit()
    assert table.found(Bound.of(horizon)) == ["above the open one", "after", "open"]
    assert table.found(BEGINNING) == ["above the open one", "after", "before", "open"]


def test_rows_of_savepoints_and_of_prepared_transactions_are_candidates(table: Table) -> None:
    with table.session() as writer:
        writer.execute("insert into outbox values ('top', 1)")
        writer.execute("savepoint one")
        writer.execute("insert into outbox values ('sub', 1)")
        with closing(psycopg.connect(table.dsn)) as other:
            other.execute("insert into outbox values ('prepared', 1)")
            other.execute("prepare transaction 'p'")
            horizon = horizons.take(table.connection)
        writer.execute("savepoint two")
        writer.execute("insert into outbox values ('later sub', 1)")
        writer.commit()
    table.sql("commit prepared 'p'")
    assert table.found(Bound.of(horizon)) == ["later sub", "prepared", "sub", "top"]


def test_rows_below_stay_below_when_they_are_frozen(table: Table) -> None:
    table.sql("insert into outbox values ('below', 1)")
    horizon = horizons.take(table.connection)
    table.sql("insert into outbox values ('above', 1)", "vacuum (freeze) outbox")
    assert table.found(Bound.of(horizon)) == ["above"]


def test_a_row_that_is_a_day_older_than_the_bound_is_no_candidate(table: Table) -> None:
    horizon = horizons.take(table.connection)
    table.sql(
        "insert into outbox values ('old', 1, now() - interval '25 hours'),"
        " ('a bit old', 1, now() - interval '23 hours'), ('new', 1, now()), ('unknown', 1, null)"
    )
    assert table.found(Bound.of(horizon), "created_at") == ["a bit old", "new", "unknown"]
    assert table.found(Bound.of(horizon)) == ["a bit old", "new", "old", "unknown"]
    assert table.found(Bound(kind=BoundKind.CATALOG_XMIN, xid=horizon.xid), "created_at") == [
        *("a bit old", "new", "old", "unknown")
    ]


def test_a_time_is_compared_with_the_commit_and_else_with_the_age_column(table: Table) -> None:
    table.sql("insert into outbox values ('before', 1, now()), ('before, unknown', 1, null)")
    time.sleep(0.05)
    ((now,),) = table.sql("select extract(epoch from clock_timestamp())::float8")
    table.sql(
        "insert into outbox values ('after', 1, now()), ('after, written long ago', 1, now() - interval '1 hour')"
    )
    assert table.found(since(now), commits=True) == ["after", "after, written long ago"]
    assert table.found(since(now), "created_at") == ["after", "before, unknown"]
    assert table.found(since(now)) == ["after", "after, written long ago", "before", "before, unknown"]


def test_the_catalog_xmin_of_a_slot_is_a_bound(table: Table) -> None:
    slot = f"test_{secrets.token_hex(4)}"
    table.sql("insert into outbox values ('before', 1)")
    table.sql(f"select pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    try:
        table.sql("insert into outbox values ('after', 1)")
        ((xmin, following),) = table.sql(
            "select catalog_xmin::text::int8, pg_snapshot_xmax(pg_current_snapshot())::text::int8"
            f" from pg_replication_slots where slot_name = '{slot}'"
        )
    finally:
        table.sql(f"select pg_drop_replication_slot('{slot}')")
    horizon = horizons.take(table.connection)
    facts = BoundFacts(
        horizons=(), timeline=1, timelines={}, wal_end=horizon.lsn, next_xid=following, catalog_xmin=xmin
    )
    bound = choose(facts)
    assert bound
    assert table.found(bound) == ["after"]


def test_horizons_count_updates_and_deletes_in_all_partitions(table: Table) -> None:
    table.sql(
        "drop table outbox",
        f"create table outbox ({COLUMNS}) partition by list (key)",
        "create table outbox_a partition of outbox for values in ('a')",
        "create table outbox_b partition of outbox for values in ('b')",
    )
    before = horizons.take(table.connection, TABLE)
    assert (before.updates, before.deletes) == (0, 0)
    with table.session() as writer:
        writer.execute("insert into outbox values ('a', 1), ('b', 1), ('b', 2)")
        writer.execute("update outbox set seq = 3 where seq = 1")
        writer.execute("delete from outbox where key = 'a'")
    deadline = time.monotonic() + 30
    while (after := horizons.take(table.connection, TABLE)).updates != 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert after.deletes == 1
    assert horizons.take(table.connection, ("public", "nowhere")).updates is None


FACTS = OrderFacts(commits=True, untimed=False, sequence=None)


def test_statistics_restart_with_another_beginning_when_the_server_crashes(server: PostgresServer) -> None:
    def beginning() -> float:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            counted = horizons.take(connection, ("pg_catalog", "pg_class")).counted
        assert counted is not None
        return counted

    before = beginning()
    server.stop()
    server.start()
    assert beginning() == before
    server.kill()
    server.start()
    assert beginning() > before


def test_rows_are_in_the_order_of_commits_although_ids_and_places_are_not(table: Table) -> None:
    table.sql(*numbers.additions(table.connection, TABLE))
    with table.session() as first, table.session() as second:
        # The writer that takes its id first locks the key last.
        second.execute("select pg_current_xact_id()")
        first.execute("insert into outbox (key, seq) values ('k', 1)")
        first.execute("savepoint one")
        first.execute("insert into outbox (key, seq) values ('k', 2)")
        first.execute("release one")
        first.execute("insert into outbox (key, seq) values ('k', 3)")
        first.commit()
        second.execute("insert into outbox (key, seq) values ('k', 4)")
        second.commit()
    assert table.ordered(FACTS) == [1, 2, 3, 4]
    assert table.ordered(replace(FACTS, sequence="cdc_seq")) == [1, 2, 3, 4]
    assert table.ordered(OrderFacts(commits=False, untimed=True, sequence="cdc_seq")) == [1, 2, 3, 4]
    # Not exact: the id of the second is lower, and that of a savepoint higher than what follows it.
    assert table.ordered(OrderFacts(commits=False, untimed=True, sequence=None)) == [4, 1, 3, 2]


def test_an_updated_row_keeps_its_place_in_the_order_of_the_sequence(table: Table) -> None:
    table.sql(*numbers.additions(table.connection, TABLE))
    for seq in (1, 2, 3):
        table.sql(f"insert into outbox (key, seq) values ('k', {seq})")
    table.sql("update outbox set key = 'k' where seq = 1")
    facts = replace(FACTS, sequence="cdc_seq", updated=True)
    assert table.ordered(facts) == [1, 2, 3]
    assert order_by(facts).kind is OrderKind.SEQUENCE
    assert table.ordered(replace(facts, sequence=None)) == [2, 3, 1]
    assert not order_by(replace(facts, sequence=None)).exact


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("n bigserial", "n"),
        ("n int generated always as identity", "n"),
        ("n bigint generated by default as identity (cache 20)", None),
        ("n bigint generated by default as identity (increment -1)", None),
        ("n smallint generated by default as identity (cycle)", None),
        ("n bigint default nextval('free')", "n"),
        ("n bigint default nextval('free') % 10", None),
        ("n bigint", None),
    ],
)
def test_a_column_orders_rows_when_a_sequence_without_a_cache_numbers_them(
    table: Table, column: str, expected: str | None
) -> None:
    table.sql("create sequence free", f"alter table outbox add column {column}")
    assert numbers.ordering(table.connection, TABLE) == expected


def test_without_a_cache_comes_before_with_one(table: Table) -> None:
    table.sql("alter table outbox add column a bigint generated by default as identity (cache 20), add column b serial")
    assert [one[:2] for one in numbers.columns(table.connection, TABLE)] == [("b", 1), ("a", 20)]


SHAPES = {
    "plain": [],
    "partitioned": [
        "drop table outbox",
        f"create table outbox ({COLUMNS}) partition by list (key)",
        "create table outbox_k partition of outbox for values in ('k')",
    ],
    "inherited": ["create table outbox_k () inherits (outbox)"],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_column_is_added_without_a_rewrite_and_numbers_what_every_writer_inserts(table: Table, shape: str) -> None:
    role = f"writer_{secrets.token_hex(4)}"
    table.sql(*SHAPES[shape])
    below = "outbox_k" if SHAPES[shape] else "outbox"
    table.sql("insert into outbox (key, seq) values ('k', 1), ('k', 2)")
    table.sql(f'create role "{role}"', f'grant insert on outbox, {below} to "{role}"')
    files = "select relname, pg_relation_filenode(oid) from pg_class where relname like 'outbox%' order by 1"
    before = table.sql(files)
    try:
        added = numbers.additions(table.connection, TABLE)
        with table.connection.transaction():
            table.sql(*added)
        assert [row for row in table.sql(files) if row in before] == before
        for seq, into in enumerate(("outbox", below, "outbox"), 3):
            table.sql(f'set role "{role}"', f"insert into {into} (key, seq) values ('k', {seq})", "reset role")
        assert table.sql("select seq, cdc_seq from outbox order by seq") == [(1, 0), (2, 0), (3, 1), (4, 2), (5, 3)]
        assert table.ordered(OrderFacts(commits=False, untimed=True, sequence="cdc_seq")) == [1, 2, 3, 4, 5]
        assert numbers.ordering(table.connection, TABLE) == "cdc_seq"
        assert numbers.additions(table.connection, TABLE) == []
        if shape == "partitioned":
            table.sql("create table outbox_l partition of outbox for values in ('l')")
            table.sql("insert into outbox_l (key, seq) values ('l', 6)")
            assert table.sql("select cdc_seq from outbox_l") == [(4,)]
    finally:
        table.sql("reset role", f'drop owned by "{role}"', f'drop role "{role}"')


def test_a_column_of_the_name_that_is_not_numbered_is_refused(table: Table) -> None:
    table.sql("alter table outbox add column cdc_seq bigint")
    with pytest.raises(Exception, match="has a column 'cdc_seq' that no sequence with CACHE 1 numbers"):
        numbers.additions(table.connection, TABLE)
