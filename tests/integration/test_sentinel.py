"""The sentinel on real servers of each version there is: what it sees, what it is silent about, what it survives."""

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc.config.settings import Settings
from cdc.delivery.ports import Observation, SlotHealth, Stopping, StreamDefect, WalEnd
from cdc.errors import PostgresError
from cdc.local.postgres import PostgresServer
from cdc.lsn import LSN
from cdc.postgres import catalog, sentinel, slots
from cdc.postgres import outbox_table as table
from cdc.postgres import slot_health as health
from cdc.postgres.catalog import Catalog
from cdc.postgres.connection import connect
from cdc.postgres.sentinel import Sentinel
from cdc.replication.publication import PUT_RIGHT
from tests.pipeline import eventually
from tests.servers import PrivatePostgres, a_folder, a_postgres, drop_database
from tests.versions import OLD_POSTGRES

pytestmark = pytest.mark.timeout(120)

SECONDS = 20.0


@pytest.fixture(scope="module", params=[None, *OLD_POSTGRES], ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of each version, for this module alone."""
    with a_folder() as home, a_postgres(home, request.param) as server:
        yield server


@dataclass
class Desk:
    """A database with outbox, publication and slot, and sentinels that watch it."""

    dsn: str
    slot: str

    def __post_init__(self) -> None:
        self.settings = Settings.model_validate({"postgres": {"dsn": self.dsn, "slot": self.slot}})
        self.sentinels: list[Sentinel] = []
        with connect(self.dsn) as connection:
            table.execute(connection, table.missing(connection, self.settings))
            slots.create(connection, self.slot)

    def sql(self, *statements: str) -> None:
        """Each statement in a transaction of its own."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def inspect(self) -> Catalog:
        with connect(self.dsn) as connection:
            return catalog.inspect(connection, self.settings)

    def watch(self, dsn: str = "") -> "Watched":
        """A sentinel that has looked once."""
        watched = Watched(Sentinel(dsn or self.dsn, self.settings, self.inspect().definition))
        self.sentinels.append(watched.sentinel)
        if not dsn:
            watched.until(WalEnd)
        return watched


class Watched:
    """A sentinel, and all it has told."""

    def __init__(self, watching: Sentinel) -> None:
        self.sentinel = watching
        self.seen: list[Observation] = []

    def look(self) -> list[Observation]:
        self.seen += self.sentinel.observe()
        return self.seen

    def until(self, kind: type[Any]) -> Any:
        """The next observation of a kind."""
        given, deadline = len(self.seen), time.monotonic() + SECONDS
        while True:
            for observation in self.look()[given:]:
                if isinstance(observation, kind):
                    return observation
            assert time.monotonic() < deadline, f"no {kind.__name__} in {self.seen}"
            time.sleep(0.02)

    def stays_calm(self) -> None:
        """It looks twice more, and sees no defect."""
        self.until(WalEnd)
        self.until(WalEnd)
        assert not [seen for seen in self.seen if isinstance(seen, StreamDefect)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentinel, "LOOK_SECONDS", 0.1)


@pytest.fixture
def make_desk() -> Iterator[Callable[[PostgresServer], Desk]]:
    desks: list[tuple[Desk, str]] = []

    def make(server: PostgresServer) -> Desk:
        name = f"test_{secrets.token_hex(4)}"
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute(f"create database {name}".encode())
        desk = Desk(make_conninfo(server.dsn, dbname=name), name)
        desks.append((desk, server.dsn))
        return desk

    yield make
    for desk, admin_dsn in desks:
        for watching in desk.sentinels:
            watching.stop()
        drop_database(admin_dsn, desk.slot)


@pytest.fixture
def desk(server: PostgresServer, make_desk: Callable[[PostgresServer], Desk]) -> Desk:
    return make_desk(server)


def test_how_the_slot_fares_is_told_each_time(desk: Desk) -> None:
    seen = desk.watch().until(SlotHealth)
    assert (seen.wal_status, seen.limit, seen.safe) == ("reserved", None, None)
    assert seen.retained >= 0


def test_it_tells_how_far_the_wal_has_come(desk: Desk) -> None:
    watched = desk.watch()
    first = watched.until(WalEnd).lsn
    desk.sql("create table elsewhere (n int)")
    while watched.until(WalEnd).lsn == first:
        pass
    assert watched.until(WalEnd).lsn > first


SWAP = "alter table outbox rename to old_outbox; create table outbox (like old_outbox including all)"


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (["drop publication cdc_publisher"], "publication cdc_publisher does not exist any more (it had oid "),
        (
            ["drop publication cdc_publisher; create publication cdc_publisher for table outbox"],
            "publication cdc_publisher was dropped and created again (oid ",
        ),
        (
            ["alter publication cdc_publisher drop table outbox"],
            "publication cdc_publisher has no table public.outbox any more",
        ),
        (
            ["alter publication cdc_publisher drop table outbox; alter publication cdc_publisher add table outbox"],
            "publication cdc_publisher publishes table public.outbox by name (oid ",
        ),
        (["alter publication cdc_publisher set (publish = 'update')"], "publishes no inserts now"),
        (
            ["alter publication cdc_publisher set table outbox where (aggregateid <> 'x')"],
            "publication cdc_publisher got a row filter for table public.outbox: ((aggregateid)::text <> 'x'::text)",
        ),
        (
            ["alter publication cdc_publisher set table outbox (id, type)"],
            "publication cdc_publisher got a column list for table public.outbox: id, type",
        ),
        (["alter table outbox rename to old_outbox"], "table public.outbox does not exist any more (it had oid "),
        ([SWAP], "table public.outbox was replaced by another of its name (oid "),
        (
            [f"{SWAP}; alter publication cdc_publisher set table outbox"],
            "table public.outbox was replaced by another of its name (oid ",
        ),
        (["drop table outbox"], "table public.outbox does not exist any more (it had oid "),
    ],
)
def test_b4_b5_b6_a_changed_definition_is_told_with_the_suspect_rows_and_what_to_do(
    desk: Desk, statements: list[str], told: str
) -> None:
    watched = desk.watch()
    desk.sql("insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Noted', '{}')")
    before = watched.until(WalEnd).lsn
    desk.sql(*statements)
    error = watched.until(StreamDefect).error
    assert type(error) is PostgresError
    assert error.message.startswith(told) or told in error.message
    ends = [seen.lsn for seen in watched.seen if isinstance(seen, WalEnd)]
    assert f"rows committed between LSN {ends[-2]} and {ends[-1]}, and later" in error.message
    assert before <= ends[-2] <= ends[-1]  # the same where the change came between reading the end and looking
    assert error.hint == PUT_RIGHT
    assert [seen for seen in watched.look() if isinstance(seen, StreamDefect)] == [StreamDefect(error)]


def test_a_change_right_after_the_start_has_a_range_too(desk: Desk) -> None:
    found = desk.inspect()
    desk.sql("drop publication cdc_publisher")
    for since, words in ((None, "up to LSN "), (found.wal_end, f"between LSN {found.wal_end} and ")):
        watched = Watched(Sentinel(desk.dsn, desk.settings, found.definition, since))
        desk.sentinels.append(watched.sentinel)
        assert f"rows committed {words}" in watched.until(StreamDefect).error.message


def test_changes_that_keep_no_row_from_the_stream_are_no_defect(desk: Desk) -> None:
    watched = desk.watch()
    role = f"owner_{desk.slot}"
    desk.sql(
        "create table other (n int primary key)",
        "alter publication cdc_publisher add table other",
        "alter publication cdc_publisher set (publish = 'insert, update, delete')",
        "alter publication cdc_publisher set (publish_via_partition_root = true)",
        f"create role {role}; grant {role} to current_user; alter table outbox owner to {role}",
        "alter table outbox add column more text default 'x'",
        "truncate outbox",
        "create index on outbox (type)",
    )
    watched.stays_calm()
    desk.sql(f"reassign owned by {role} to current_user; drop owned by {role}; drop role {role}")


def test_tables_published_all_at_once_or_by_schema_are_watched_too(desk: Desk) -> None:
    desk.sql("drop publication cdc_publisher", "create publication cdc_publisher for all tables")
    watched = desk.watch()
    desk.sql("create table other (n int primary key)")
    watched.stays_calm()
    desk.sql("alter table outbox set unlogged")  # still among `all tables`, and published no more
    assert "has no table public.outbox any more" in watched.until(StreamDefect).error.message
    desk.sql("alter table outbox set logged", "drop publication cdc_publisher")
    desk.sql("create publication cdc_publisher for tables in schema public")
    watched = desk.watch()
    desk.sql("alter publication cdc_publisher drop tables in schema public")
    assert "has no table public.outbox any more" in watched.until(StreamDefect).error.message


def test_a_partitioned_outbox_must_stay_published_via_its_root(desk: Desk) -> None:
    desk.sql(
        "alter table outbox rename to plain",
        "create table outbox (like plain) partition by list (type)",
        "create table outbox_rest partition of outbox default",
        "alter publication cdc_publisher set table outbox",
        "alter publication cdc_publisher set (publish_via_partition_root = true)",
    )
    watched = desk.watch()
    desk.sql("create table outbox_noted partition of outbox for values in ('Noted')")
    watched.stays_calm()
    desk.sql("alter publication cdc_publisher set (publish_via_partition_root = false)")
    assert "via partition root: no now" in watched.until(StreamDefect).error.message


def test_b5_a_column_list_that_leaves_out_what_an_event_needs_is_refused_at_start(desk: Desk) -> None:
    desk.sql("alter publication cdc_publisher set table outbox (id, aggregatetype, aggregateid, type)")
    with pytest.raises(PostgresError, match=r"leaves out 'payload' of table public\.outbox"):
        desk.inspect()
    desk.sql("alter publication cdc_publisher set table outbox (id, aggregatetype, aggregateid, type, payload)")
    assert desk.inspect().definition["column list"] == "id, aggregatetype, aggregateid, type, payload"


def test_case_a6_a_generated_column_that_is_not_published_is_refused_at_start_with_the_fix(desk: Desk) -> None:
    desk.sql(
        "alter table outbox drop column type",
        "alter table outbox add column type text generated always as ('Noted') stored",
    )
    with connect(desk.dsn) as connection:
        publishable = connection.info.server_version >= 180000
    with pytest.raises(PostgresError) as caught:
        desk.inspect()
    if publishable:
        assert "leaves out 'type' of table public.outbox" in caught.value.message
        desk.sql(caught.value.hint.removeprefix("run: "))
        desk.inspect()
    else:
        assert "'type' (stored)" in caught.value.message
        assert "PostgreSQL publishes generated columns from 18 on" in caught.value.hint


def test_a_row_filter_that_is_there_at_the_start_is_allowed_and_its_change_is_not(desk: Desk) -> None:
    desk.sql("alter publication cdc_publisher set table outbox where (aggregateid < 'm')")
    watched = desk.watch()
    watched.stays_calm()
    desk.sql("alter publication cdc_publisher set table outbox where (aggregateid < 'n')")
    assert "has another row filter for table public.outbox" in watched.until(StreamDefect).error.message


def test_b1_a_slot_that_is_dropped_while_nobody_reads_it_is_told(desk: Desk) -> None:
    watched = desk.watch()
    desk.sql(f"select pg_drop_replication_slot('{desk.slot}')")
    error = watched.until(StreamDefect).error
    assert f"replication slot '{desk.slot}' was dropped while it was in use" in error.message
    assert error.hint == "run: cdc-publisher recover"
    with pytest.raises(PostgresError, match="does not exist"):
        desk.inspect()


def test_a_role_that_may_read_catalogs_only_sees_as_much(desk: Desk) -> None:
    role = f"weak_{desk.slot}"
    desk.sql(f"create role {role} login")
    watched = desk.watch(make_conninfo(desk.dsn, user=role))
    watched.stays_calm()
    desk.sql("alter publication cdc_publisher set table outbox where (type <> 'x')")
    assert "got a row filter" in watched.until(StreamDefect).error.message
    desk.sql(f"drop role {role}")


def test_a_server_that_does_not_answer_is_tried_again_and_no_defect(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "cdc.postgres.watch")
    watched = desk.watch(make_conninfo(desk.dsn, port="1"))
    time.sleep(0.5)
    assert watched.look() == []
    told = [record.getMessage() for record in caplog.records if record.name == "cdc.postgres.watch"]
    assert len(told) == 1
    assert "PostgresUnavailable" in told[0]


def test_b17_a_terminated_session_is_told_and_followed_by_another(desk: Desk) -> None:
    watched = desk.watch()

    def told() -> bool:
        """Of a session that ends amid a query, the client library may report that the connection was lost."""
        desk.sql(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name = 'cdc-publisher sentinel'"
        )
        time.sleep(0.3)
        return any(isinstance(each, Stopping) and "terminating connection" in each.reason for each in watched.look())

    eventually(told, "the end of a session is told")
    watched.until(WalEnd)
    desk.sql("drop publication cdc_publisher")
    assert "does not exist any more" in watched.until(StreamDefect).error.message


def test_an_unexpected_failure_is_logged_once_and_watching_goes_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watched = desk.watch()
    read = health.read

    def fail(*_: object) -> None:
        raise ZeroDivisionError("by a mistake of ours")

    monkeypatch.setattr(health, "read", fail)
    time.sleep(0.5)
    monkeypatch.setattr(health, "read", read)
    told = [record for record in caplog.records if "by a mistake of ours" in record.getMessage()]
    assert len(told) == 1
    assert told[0].levelno == logging.ERROR
    desk.sql("drop publication cdc_publisher")
    assert "does not exist any more" in watched.until(StreamDefect).error.message


def _fill(desk: Desk, megabytes: int) -> None:
    """Write so much WAL, most of it by leaving segments half empty."""
    desk.sql("create table if not exists filler (n int)")
    for _ in range(megabytes // 16):
        desk.sql("insert into filler values (1)", "select pg_switch_wal()")


@pytest.mark.parametrize("binaries", [None, *OLD_POSTGRES], ids=str)
def test_b2_a_slot_is_warned_about_before_it_is_lost_and_then_it_is_a_defect(
    private_postgres: PrivatePostgres,
    make_desk: Callable[[PostgresServer], Desk],
    binaries: Path | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "cdc.postgres.sentinel")
    limits = {"max_slot_wal_keep_size": "128MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}
    server = private_postgres(limits, binaries)
    desk = make_desk(server)
    watched = desk.watch()
    _fill(desk, 64)
    _until_logged(caplog, "more than max_wal_size", watched)
    for _ in range(8):
        if "more it invalidates the slot" in caplog.text:
            break
        _fill(desk, 16)
        watched.until(WalEnd)
        watched.until(WalEnd)
    for _ in range(3):  # what it still needs follows with the next running transactions that are logged
        desk.sql("checkpoint", f"select pg_replication_slot_advance('{desk.slot}', pg_current_wal_lsn())")
    _until_logged(caplog, "out of danger", watched)
    told = [record.getMessage() for record in caplog.records if "PostgreSQL keeps" in record.getMessage()]
    assert ["max_wal_size:" in told[0], "more it invalidates the slot" in told[1]] == [True, True]
    assert len(told) == 2  # each state once, however often it was seen
    _fill(desk, 192)
    desk.sql("checkpoint")
    error = watched.until(StreamDefect).error
    assert f"replication slot '{desk.slot}' is lost (" in error.message
    assert "events committed after LSN" in error.message
    assert "run: cdc-publisher recover" in error.hint
    with pytest.raises(PostgresError, match="is lost"):
        desk.inspect()


def _until_logged(caplog: pytest.LogCaptureFixture, words: str, watched: Watched) -> None:
    deadline = time.monotonic() + SECONDS
    while not any(words in record.getMessage() for record in caplog.records):
        assert time.monotonic() < deadline, (words, caplog.text)
        watched.until(WalEnd)


def test_b3_b12_dangers_of_newer_servers_are_told_at_the_start(
    private_postgres: PrivatePostgres,
    make_desk: Callable[[PostgresServer], Desk],
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = make_desk(private_postgres({"idle_replication_slot_timeout": "1h"}))
    desk.inspect()
    assert "idle_replication_slot_timeout is 1h" in caplog.text
    assert "synchronized_standby_slots" not in caplog.text
    with connect(desk.dsn) as connection:
        slots.drop(connection, desk.slot)
        slots.create(connection, desk.slot, failover=True)
        (found,) = slots.find(connection)
        assert (found.failover, found.synced) == (True, False)
    desk.inspect()
    assert "synchronized_standby_slots is empty" in caplog.text


def test_b12_a_server_before_17_has_no_failover_slots_and_says_so(desk: Desk) -> None:
    with connect(desk.dsn) as connection:
        version = connection.info.server_version // 10000
        failover = slots.get(connection, desk.slot).failover
        assert failover is (None if version < 17 else False)
        if version < 17:
            with pytest.raises(PostgresError, match=f"PostgreSQL {version} has no failover slots"):
                slots.create(connection, "other", failover=True)


def test_the_wal_end_of_the_start_is_told_for_the_first_suspect_range(desk: Desk) -> None:
    with psycopg.connect(desk.dsn) as connection:
        ((before,),) = connection.execute("select pg_current_wal_flush_lsn()::text").fetchall()
    found = desk.inspect()
    desk.sql("create table elsewhere (n int)")
    with psycopg.connect(desk.dsn) as connection:
        ((after,),) = connection.execute("select pg_current_wal_flush_lsn()::text").fetchall()
    assert LSN.parse(before) <= found.wal_end < LSN.parse(after)
