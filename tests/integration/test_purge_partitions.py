"""`outbox purge` of partitioned outboxes: whole partitions go, and nobody who writes is held up."""

import json
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.integration.purging import Confirming, Yard, end, insert
from tests.pipeline import PATIENCE, Pipeline, eventually
from tests.servers import a_database

COLUMNS = """
    id uuid not null default gen_random_uuid(), aggregatetype text, aggregateid text, type text, payload jsonb,
    created_at timestamptz not null default now()
"""
DAY = f"'{datetime.now(UTC) - timedelta(hours=12)}'::timestamptz"  # today has half a day left


def days(table: str, oldest: int, newest: int, suffix: str = "") -> str:
    """SQL that makes partitions by day, from so many days ago; `p5` is the day that began five days ago."""
    return f"""do $do$ begin for d in {newest}..{oldest} loop
        execute format('create table p%s partition of {table} for values from (%L) to (%L) {suffix}',
            d, {DAY} - make_interval(days => d), {DAY} - make_interval(days => d - 1));
    end loop; end $do$"""


@pytest.fixture
def database(quiet_postgres: str) -> Iterator[str]:
    """A database on a server of the module's own: any open transaction holds back the rows that may be deleted."""
    with a_database(quiet_postgres) as dsn:
        yield dsn


@pytest.fixture
def yard(bare_pipeline: Pipeline) -> Yard:
    """Days 5 to 1, and a default one."""
    table = f"create table outbox ({COLUMNS}) partition by range (created_at)"
    return Yard(bare_pipeline, f"{table};\n{days('outbox', 5, 1)};\ncreate table rest partition of outbox default")


def fill(yard: Yard, *ago: int, kind: str = "k") -> None:
    """Ten rows in the morning of each of these days."""
    for day in ago:
        yard.insert(10, f"{DAY} - make_interval(days => {day}) + interval '6 hours'", kind)


def partitions(yard: Yard) -> set[str]:
    return {
        name for (name,) in yard.sql("select relid::regclass::text from pg_partition_tree('outbox') where level > 0")
    }


def test_days_that_are_over_are_dropped_and_the_newest_and_the_default_one_stay(yard: Yard) -> None:
    fill(yard, 5, 4, 3, 2, 1)
    fill(yard, 40, kind="rest")
    would = yard.purge("--dry-run", "--grace", "48h")
    assert (would["deleted"], would["dropped"]) == (20, {"public.p5": 10, "public.p4": 10, "public.p3": 10})
    assert len(partitions(yard)) == 6
    found = yard.purge("--grace", "48h")
    assert (found["deleted"], found["dropped"]) == (20, would["dropped"])
    assert partitions(yard) == {"p2", "p1", "rest"}
    assert yard.kinds() == {"k": 10}
    # All days are over now; the last is kept for its shape.
    assert yard.purge("--grace", "0")["dropped"] == {"public.p2": 0}
    assert partitions(yard) == {"p1", "rest"}
    assert yard.kinds() == {}


def test_partitions_can_be_kept(yard: Yard) -> None:
    fill(yard, 5, 4)
    assert yard.purge("--keep-partitions")["deleted"] == 20
    assert len(partitions(yard)) == 6


def test_a_day_with_a_row_that_is_not_confirmed_loses_the_others_only(yard: Yard) -> None:
    fill(yard, 5, 4)
    ids = yard.ids()
    with yard.begun("--grace", "48h") as process:
        fill(yard, 5, kind="late")  # ended before the purge comes to it, and after its horizon
        # Up to before these were committed.
        ((until,),) = yard.sql(
            "select max(lsn)::text from pg_logical_slot_peek_binary_changes("
            "%s, null, null, 'proto_version', '1', 'publication_names', 'cdc_publisher') where get_byte(data, 0) = 66",
            f"{yard.slot}_copy"[:63],
        )
        yard.sql("select pg_replication_slot_advance(%s, %s::pg_lsn)", yard.slot, until)
        end(process)
    assert partitions(yard) == {"p5", "p2", "p1", "rest"}
    assert yard.kinds() == {"late": 10}
    assert ids - yard.ids() <= yard.published()  # a slot that stands further back has them, without their table


def test_writers_are_not_held_up_by_a_partition_that_waits_for_its_lock(yard: Yard) -> None:
    """Detaching wants the whole outbox, which an open transaction has; a queue of writers behind it would be a stop."""
    fill(yard, 5, 4)
    done = threading.Event()
    failed: list[psycopg.Error] = []

    def write() -> None:
        with psycopg.connect(yard.pipeline.dsn, autocommit=True) as connection:
            connection.execute("set lock_timeout = '10s'")  # it would come to that if the purge waited for the other
            try:
                while not done.wait(0.01):
                    insert(connection, 1, "now()", "new")
            except psycopg.Error as error:
                failed.append(error)

    writer = threading.Thread(target=write)
    with yard.pipeline.connect() as other:
        other.execute("begin")
        insert(other, 1, "now()", "open")
        writer.start()
        try:
            found = yard.purge("--grace", "72h", code=75)
            assert (found["busy"], found["dropped"]) == (["public.p5", "public.p4"], {})
            assert len(partitions(yard)) == 6
            before = yard.kinds()["new"]
            eventually(lambda: yard.kinds()["new"] > before, "the writer goes on")
        finally:
            done.set()
            writer.join()
        other.execute("commit")
    assert not failed
    assert yard.purge("--grace", "72h")["dropped"] == {"public.p5": 10, "public.p4": 10}


def test_a_row_that_is_committed_while_its_partition_waits_to_be_dropped_stays(yard: Yard) -> None:
    fill(yard, 5)
    done = threading.Event()
    with yard.pipeline.connect() as late:
        late.execute("begin")
        late.execute(f"insert into p5 (aggregateid, created_at) values ('late', {DAY} - interval '5 days')")

        def commit() -> None:
            waits = (
                "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
                " and application_name = 'cdc-publisher purge'"
            )
            with yard.pipeline.connect() as connection:
                while not done.is_set() and not connection.execute(waits).fetchall():
                    pass
            late.execute("commit")

        writer = threading.Thread(target=commit)
        writer.start()
        try:
            with Confirming(yard):
                assert yard.run("--grace", "72h", "--wait", "60s").returncode in (0, 75)
        finally:
            done.set()
            writer.join()
    assert yard.kinds()["late"] == 1
    assert "p5" in partitions(yard)


def test_partitions_of_partitions_go_with_them(bare_pipeline: Pipeline) -> None:
    yard = Yard(
        bare_pipeline,
        f"create table outbox ({COLUMNS}) partition by range (created_at);\n"
        + days("outbox", 4, 0, "partition by hash (aggregateid)")
        + ";\n"
        + "do $do$ begin for d in 0..4 loop for h in 0..1 loop execute format('create table p%s_%s partition of p%s"
        " for values with (modulus 2, remainder %s)', d, h, d, h); end loop; end loop; end $do$",
    )
    fill(yard, 4, 3, 0)
    assert yard.purge("--grace", "30h")["dropped"] == {"public.p4": 10, "public.p3": 10, "public.p2": 0}
    assert yard.kinds() == {"k": 10}
    assert len(partitions(yard)) == 6


def test_days_within_a_list_are_dropped_and_what_wants_to_see_each_row_is_not(bare_pipeline: Pipeline) -> None:
    yard = Yard(
        bare_pipeline,
        f"create table outbox ({COLUMNS}) partition by list (aggregatetype);\n"
        "create table notes partition of outbox for values in ('note') partition by range (created_at);\n"
        "create unlogged table others partition of outbox for values in ('other');\n" + days("notes", 5, 1),
    )
    fill(yard, 5, 4)
    yard.sql(
        "insert into others (aggregatetype, aggregateid, created_at) values ('other', 'unpublished', '2020-01-01')"
    )
    yard.sql("create table gone (id uuid)")
    yard.sql(
        "create function note() returns trigger language plpgsql as"
        " $$ begin insert into gone values (old.id); return old; end $$"
    )
    yard.sql("create trigger note before delete on p4 for each row execute function note()")
    with Confirming(yard):
        done = yard.run("--grace", "30h")
    assert (
        done.stdout
        == "deleted 10 rows of public.outbox; dropped public.p5 (10 rows), public.p3 (0 rows), public.p2 (0 rows)\n"
    )
    assert "public.others is foreign or unlogged" in done.stderr
    assert yard.sql("select count(*)::int from gone") == [(10,)]
    assert partitions(yard) == {"notes", "others", "p4", "p1"}
    assert yard.kinds() == {"unpublished": 1}


def test_case_h9_a_partition_that_cannot_be_dropped_is_emptied_and_the_others_go(yard: Yard) -> None:
    fill(yard, 5, 4, 3)
    yard.sql("create view watched as select * from p4")
    with Confirming(yard):
        done = yard.run("--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["deleted"]) == (1, 10), done.stderr
    assert found["dropped"] == {"public.p5": 10, "public.p3": 10, "public.p2": 0}
    assert list(found["failed"]) == ["public.p4"]
    assert "--keep-partitions" in found["failed"]["public.p4"]
    assert "cdc-publisher: public.p4: PostgreSQL refuses" in done.stderr
    assert partitions(yard) == {"p4", "p1", "rest"}
    assert yard.kinds() == {}


def test_case_h9_rows_that_a_foreign_key_holds_stay_and_those_of_other_partitions_go(yard: Yard) -> None:
    fill(yard, 5, 4)
    yard.sql("alter table p4 add primary key (id)")
    yard.sql("create table uses (id uuid references p4)")
    yard.sql("insert into uses select id from p4 limit 1")
    fill(yard, 1, kind="young")
    with Confirming(yard):
        done = yard.run("--json", "--keep-partitions", "--grace", "40h")
    found = json.loads(done.stdout)
    assert (done.returncode, found["deleted"], list(found["failed"])) == (1, 10, ["public.p4"])
    assert "foreign key" in found["failed"]["public.p4"]
    assert yard.kinds() == {"k": 10, "young": 10}


def test_case_h9_watching_goes_on_after_the_error_of_one_table(yard: Yard, tmp_path: Path) -> None:
    fill(yard, 5, 4)
    yard.sql("create view watched as select * from p4")
    command = yard.pipeline.command("--log-format", "json", "outbox", "purge", "--watch", "--interval", "0")
    with Confirming(yard), (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            eventually(lambda: yard.kinds() == {}, "all rows are deleted")
            fill(yard, 3)
            eventually(lambda: yard.kinds() == {}, "and those that came later")
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
    assert (tmp_path / "log").read_text().count("public.p4 could not be purged") == 1


def test_partitions_that_the_role_does_not_own_are_emptied_instead(yard: Yard) -> None:
    fill(yard, 5)
    ((role,),) = yard.sql("select 'purger_' || current_database()")
    yard.sql(f'create role "{role}" login')
    try:
        yard.sql(f'grant select, update, delete on all tables in schema public to "{role}"')
        dsn = yard.pipeline.settings["postgres"]["dsn"]
        yard.pipeline.settings["postgres"]["dsn"] = psycopg.conninfo.make_conninfo(dsn, user=role)
        with Confirming(yard):
            done = yard.run()
        assert done.stdout == "deleted 10 rows of public.outbox\n"
        assert "public.p5 could be dropped, but the role does not own it" in done.stderr
        assert len(partitions(yard)) == 6
    finally:
        yard.sql(f'drop owned by "{role}"')
        yard.sql(f'drop role "{role}"')


def test_what_depends_on_a_partition_is_told(yard: Yard) -> None:
    fill(yard, 5)
    yard.sql("create view seen as select * from p5")
    found = yard.purge(code=1)
    assert found["deleted"] == 10
    assert "run with --keep-partitions" in found["failed"]["public.p5"]
    fill(yard, 5)
    assert yard.purge("--keep-partitions")["deleted"] == 10
