"""`outbox purge` on a real PostgreSQL: which rows go, and which stay however tempting they look."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.local.postgres import PostgresServer
from cdc.replication.horizon import BELOW
from tests.integration.purging import OLD, Confirming, Yard, end, insert
from tests.pipeline import Pipeline, make_pipeline
from tests.servers import PrivatePostgres, a_database
from tests.versions import OLD_POSTGRES


@pytest.fixture
def database(quiet_postgres: str) -> Iterator[str]:
    """A database on a server of the module's own: any open transaction holds back the rows that may be deleted."""
    with a_database(quiet_postgres) as dsn:
        yield dsn


@pytest.fixture
def yard(bare_pipeline: Pipeline) -> Yard:
    return Yard(bare_pipeline)


@pytest.fixture(params=[None, *OLD_POSTGRES], ids=lambda folder: folder.parent.name if folder else "newest")
def bare(private_postgres: PrivatePostgres, tmp_path: Path, request: pytest.FixtureRequest) -> Pipeline:
    """A pipeline on a server of its own, where transactions can be prepared and commit timestamps are kept."""
    server = private_postgres({"max_prepared_transactions": "5", "track_commit_timestamp": "on"}, request.param)
    return make_pipeline(server.dsn, "", "unused-", tmp_path)


def test_rows_go_that_are_confirmed_and_older_than_the_grace(yard: Yard) -> None:
    yard.insert(5000, OLD, "old")
    yard.insert(10, "now() - interval '2 hours'", "today")
    would = yard.purge("--dry-run", "--grace", "12h")
    assert (would["deleted"], would["dry_run"], yard.kinds()) == (5000, True, {"old": 5000, "today": 10})
    found = yard.purge("--grace", "12h", "--batch", "300")
    assert {**found, "confirmed": "", "before": ""} == {
        "table": "public.outbox",
        "dry_run": False,
        "deleted": 5000,
        "dropped": {},
        "busy": [],
        "confirmed": "",
        "before": "",
    }
    assert yard.kinds() == {"today": 10}
    with Confirming(yard):
        done = yard.run("--grace", "0")
    assert done.stdout == "deleted 10 rows of public.outbox\n"
    assert done.stderr == (
        "cdc-publisher: warning: without [kafka] settings, only the slot shows which rows are published, and any"
        " program may have moved it\n"
    )
    assert yard.kinds() == {}


def test_while_nobody_confirms_every_row_stays_and_the_exit_code_is_75(yard: Yard) -> None:
    yard.confirm()
    yard.insert(3)
    done = yard.run("--wait", "1s")
    assert (done.returncode, done.stdout) == (75, "")
    assert f"replication slot '{yard.slot}' has confirmed" in done.stderr
    assert "start the publisher" in done.stderr
    assert yard.kinds() == {"k": 3}


def test_no_row_of_a_transaction_that_was_open_at_the_horizon_goes_when_only_that_is_confirmed(bare: Pipeline) -> None:
    """Rows of savepoints have ids of their own, which are not in the snapshot; prepared ones have no process."""
    yard = Yard(bare)
    yard.insert(4, OLD, "before")
    with yard.pipeline.connect() as long, yard.pipeline.connect() as other:
        long.execute("begin")
        insert(long, 1, OLD, "open")
        for number in range(150):  # more than the 64 that a process has room for
            long.execute("savepoint a")
            insert(long, 1, OLD, "kept" if number % 3 else "undone")
            long.execute("release a" if number % 3 else "rollback to a")
        other.execute("begin")
        insert(other, 2, OLD, "prepared")
        other.execute("prepare transaction 'p'")
        yard.insert(2, OLD, "between")  # ended, but newer than the oldest that is open
        ids = yard.ids()
        with yard.begun("--grace", "0") as process:
            yard.insert(1, OLD, "after")
            until = yard.pipeline.wal_end()
            long.execute("commit")
            yard.sql("commit prepared 'p'")
            ids |= yard.ids()
            yard.confirm(until)
            assert end(process)["deleted"] == 4
    assert yard.kinds() == {"open": 1, "kept": 100, "prepared": 2, "between": 2, "after": 1}
    assert ids - yard.ids() <= yard.published()
    assert not yard.published() & {row for (row,) in yard.sql("select id::text from outbox where aggregateid = 'kept'")}
    assert yard.purge("--grace", "0")["deleted"] == 106


def test_prepared_transactions_hold_the_horizon_like_open_ones(bare: Pipeline) -> None:
    yard = Yard(bare, "create table other (n int)")
    with yard.pipeline.connect() as connection:
        connection.execute("begin")
        connection.execute("insert into other values (1)")
        connection.execute("prepare transaction 'elsewhere'")
    yard.insert(2)
    assert yard.purge()["deleted"] == 0
    yard.sql("rollback prepared 'elsewhere'")
    assert yard.purge()["deleted"] == 2


def test_a_row_that_somebody_has_locked_stays_and_nobody_waits(yard: Yard) -> None:
    yard.insert(10)
    with yard.pipeline.connect() as other:
        other.execute("begin")
        other.execute("select from outbox limit 3 for update")
        assert yard.purge()["deleted"] == 7
        other.execute("commit")
    assert yard.purge()["deleted"] == 3


def test_a_table_that_somebody_has_locked_is_temporary(yard: Yard) -> None:
    yard.insert(10)
    with yard.pipeline.connect() as other:
        other.execute("begin")
        other.execute("lock table outbox in share mode")
        assert "lock timeout" in yard.refused(code=75)


TABLE = (
    "create table outbox (id uuid primary key default gen_random_uuid(), aggregatetype text, aggregateid text,"
    " type text, payload jsonb, {})"
)


def test_without_a_column_the_time_of_the_commit_tells_the_age(bare: Pipeline) -> None:
    yard = Yard(bare, TABLE.format("note text"))
    yard.sql(
        "insert into outbox (aggregatetype, aggregateid, type) select 'note', 'k', 'Noted' from generate_series(1, 3)"
    )
    assert yard.purge("--grace", "1h")["deleted"] == 0
    assert yard.purge("--grace", "1s", "--dry-run")["before"] is not None
    for _ in range(100):
        if yard.purge("--grace", "1s")["deleted"] == 3:
            break
    assert yard.kinds() == {}


def test_the_column_of_the_age_can_be_named_and_is_checked(bare_pipeline: Pipeline) -> None:
    yard = Yard(bare_pipeline, TABLE.format("day date, at timestamp"))
    yard.sql(
        "insert into outbox (aggregatetype, aggregateid, type, day, at) values"
        " ('note', 'old', 'Noted', current_date - 3, localtimestamp), ('note', 'none', 'Noted', null, null),"
        " ('note', 'new', 'Noted', current_date, localtimestamp - interval '3 days')"
    )
    assert "name a column with --age-column (columns that hold a time: day, at)" in yard.refused()
    assert "no column 'when'" in yard.refused("--age-column", "when")
    assert "'payload' is jsonb" in yard.refused("--age-column", "payload")
    assert yard.purge("--age-column", "day", "--grace", "36h")["deleted"] == 1
    assert yard.purge("--age-column", "at", "--grace", "36h")["deleted"] == 1
    assert yard.kinds() == {"none": 1}  # nobody knows how old it is
    assert yard.purge("--grace", "0")["deleted"] == 1


def test_what_stands_in_the_way_is_told_with_its_fix(yard: Yard) -> None:
    yard.insert(2)
    yard.sql("create table reader (event uuid references outbox)")
    yard.sql("insert into reader select id from outbox limit 1")
    assert "drop its foreign key" in yard.refused()
    yard.sql("drop table reader")

    yard.sql("create function no() returns trigger language plpgsql as $$ begin raise 'not today'; end $$")
    yard.sql("create trigger no before delete on outbox for each row execute function no()")
    assert "not today (SQLSTATE P0001); a trigger of the table raised this error" in yard.refused()
    yard.sql("drop trigger no on outbox")

    yard.sql("alter publication cdc_publisher set (publish = 'insert, delete')")
    yard.sql("alter table outbox replica identity nothing")
    assert "SET (publish = 'insert')" in yard.refused()
    yard.sql("alter table outbox replica identity default")
    assert yard.purge()["deleted"] == 2


def test_what_the_role_may_not_do_is_told_with_its_fix(yard: Yard) -> None:
    yard.insert(2)
    dsn = yard.pipeline.settings["postgres"]["dsn"]
    ((role,),) = yard.sql("select 'reader_' || current_database()")
    yard.sql(f'create role "{role}" login')
    try:
        yard.pipeline.settings["postgres"]["dsn"] = psycopg.conninfo.make_conninfo(dsn, user=role)
        assert f"run: GRANT SELECT, UPDATE, DELETE ON public.outbox TO {role}" in yard.refused()
        yard.sql(f'grant select, update, delete on outbox to "{role}"')
        yard.sql("alter table outbox enable row level security")
        assert "BYPASSRLS" in yard.refused()
        yard.sql("alter table outbox disable row level security")
        assert yard.purge()["deleted"] == 2
    finally:
        yard.sql(f'drop owned by "{role}"')
        yard.sql(f'drop role "{role}"')


def test_a_slot_or_publication_that_is_not_right_is_refused(yard: Yard) -> None:
    yard.insert(2)
    postgres = yard.pipeline.settings["postgres"]
    for change, told in (
        ({"slot": "nosuch"}, "replication slot 'nosuch' does not exist"),
        ({"publication": "nosuch"}, "publication 'nosuch' does not exist"),
    ):
        yard.pipeline.settings["postgres"] = {**postgres, **change}
        assert told in yard.refused()
    yard.pipeline.settings["postgres"] = postgres
    yard.sql("alter publication cdc_publisher set (publish = 'update')")
    assert "does not publish inserts" in yard.refused()
    yard.sql("drop publication cdc_publisher")
    yard.sql("create publication cdc_publisher for all tables with (publish = 'insert')")
    yard.sql("alter table outbox set unlogged")
    assert "outbox" in yard.refused()


def test_options_that_make_no_sense_together_or_at_all_are_refused(bare_pipeline: Pipeline) -> None:
    for options in (["--watch", "--json"], ["--watch", "--dry-run"], ["--grace", "1 day"], ["--grace", "99999d"]):
        assert bare_pipeline.run("outbox", "purge", *options).returncode == 2


def test_postgresql_does_the_sum_as_python_does(yard: Yard) -> None:
    numbers = [3, 4, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33 + 7, 5 * 2**32]
    trials = [(x % 2**32, h, n) for x in numbers for h in numbers for n in numbers]
    expression = BELOW.format(next="n", xmin="x", horizon="h")
    rows = yard.sql(
        f"select {expression} from unnest(%s::int8[], %s::int8[], %s::int8[]) with ordinality as t (x, h, n, i)"
        " order by i",
        *map(list, zip(*trials, strict=True)),
    )
    assert [row[0] for row in rows] == [bool(eval(expression, {"x": x, "h": h, "n": n})) for x, h, n in trials]


def test_the_wrap_of_the_transaction_counter_neither_loses_a_row_nor_keeps_it(
    private_postgres: PrivatePostgres, tmp_path: Path
) -> None:
    server = private_postgres()
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("update pg_database set datallowconn = true")
    # Step by step, as no id may be more than two billion ahead of the oldest row.
    for xid in (2_000_000_000, 4_000_000_000, 2**32 - 100):
        advance(server, xid)
        for database in ("postgres", "template0", "template1"):
            with psycopg.connect(server.dsn, dbname=database, autocommit=True) as connection:
                connection.execute("vacuum (freeze)")
    yard = Yard(make_pipeline(server.dsn, "", "unused-", tmp_path))
    with yard.pipeline.connect() as writer:
        first = transaction_id(writer)
        for _ in range(150):
            insert(writer, 1, OLD, "wraps")
        assert first < 2**32 < transaction_id(writer)
        with yard.pipeline.connect() as open_:
            open_.execute("begin")
            insert(open_, 1, OLD, "open")
            insert(writer, 5, OLD, "after")
            assert yard.purge("--batch", "7")["deleted"] == 150
            open_.execute("commit")
        yard.sql("vacuum (freeze) outbox")
        assert yard.kinds() == {"open": 1, "after": 5}
        assert yard.purge()["deleted"] == 6


def transaction_id(connection: "psycopg.Connection[tuple[Any, ...]]") -> int:
    row = connection.execute("select pg_current_xact_id()::text::int8").fetchone()
    assert row is not None
    return int(row[0])


def advance(server: PostgresServer, xid: int) -> None:
    """Let a stopped server go on with another transaction id, whose page of the commit log is made up."""
    assert server.process
    program = Path(server.process.exe()).with_name("pg_resetwal")
    server.stop()
    page = server.data / "pg_xact" / f"{xid // (4 * 8192 * 32):04X}"
    owner = server.data.stat()
    if not page.exists():
        page.write_bytes(bytes(8192 * 32))
        os.chown(page, owner.st_uid, owner.st_gid)
    reset = [str(program), "-D", str(server.data), "-x", str(xid)]
    subprocess.run(reset, user=owner.st_uid, group=owner.st_gid, check=True, capture_output=True, cwd="/")
    server.start()
