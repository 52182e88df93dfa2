"""Rows that are read from the table without a slot: kills, standbys, long transactions, and what becomes of rows."""

import contextlib
import json
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests import ROOT
from tests.load import Load
from tests.pipeline import Pipeline, eventually, make_pipeline, prepare
from tests.pooler import POOLERS, pooler
from tests.reader import end_offset
from tests.servers import Servers
from tests.standby import PrivatePair
from tests.versions import OLD_POSTGRES

pytestmark = [pytest.mark.timeout(240), pytest.mark.parametrize("source", ["polling"], indirect=True)]

GUARANTEES = ("at-least-once", "exactly-once")
COPIES = """
    create table written (id uuid, aggregateid text, payload jsonb);
    create function copy_row() returns trigger language plpgsql as $$ begin
        insert into written values (new.id, new.aggregateid, new.payload); return null; end $$;
    create trigger copied after insert on outbox for each row execute function copy_row();
"""


def deleting(pipeline: Pipeline) -> Pipeline:
    """Let confirmed rows be deleted; the table `written` keeps what was committed."""
    pipeline.settings["outbox"] = {}
    pipeline.sql(COPIES)
    return pipeline


def insert(connection: "psycopg.Connection[Any]", key: str, seq: int) -> None:
    connection.execute(
        "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', %s, 'Noted', %s)",
        [key, json.dumps({"seq": seq})],
    )


@contextmanager
def writers(dsn: str, count: int) -> Iterator[None]:
    """Writers that share keys and lock each before they insert; half have their transaction's id long before.

    They connect again when their server fails.
    """
    stop, failures = threading.Event(), list[BaseException]()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create table aggregates (key text primary key, seq int not null)")
        connection.execute("insert into aggregates select 'k' || n, 0 from generate_series(0, 4) n")

    def write(number: int) -> None:
        chance = random.Random(number)
        try:
            while not stop.is_set():
                with contextlib.suppress(psycopg.OperationalError), psycopg.connect(dsn) as connection:
                    while not stop.is_set():
                        one_transaction(connection, chance, early=number % 2 == 0)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def one_transaction(connection: "psycopg.Connection[Any]", chance: random.Random, *, early: bool) -> None:
    if early:
        connection.execute("select pg_current_xact_id()")
        time.sleep(chance.random() * (0.5 if chance.random() < 0.05 else 0.01))
    key = f"k{chance.randrange(5)}"
    row = connection.execute("update aggregates set seq = seq + 10 where key = %s returning seq", [key]).fetchone()
    assert row
    for number in range(chance.randint(1, 4)):
        connection.execute("savepoint before")
        insert(connection, key, row[0] + number)
        connection.execute("rollback to before" if chance.random() < 0.2 else "release before")
    time.sleep(chance.random() * 0.004)
    if chance.random() < 0.1:
        connection.rollback()
    else:
        connection.commit()


@pytest.mark.parametrize(
    ("database", "guarantee"),
    [*((None, each) for each in GUARANTEES), *((each, "exactly-once") for each in OLD_POSTGRES)],
    indirect=["database"],
    ids=str,
)
def test_kills_lose_repeat_and_reorder_nothing_for_writers_that_lock_their_aggregate(
    pipeline: Pipeline, guarantee: str
) -> None:
    deleting(pipeline).settings["delivery"] = {"guarantee": guarantee}
    chance = random.Random(guarantee)
    with writers(pipeline.dsn, 6):
        for _ in range(12):
            running = pipeline.start().streams()
            time.sleep(chance.uniform(0, 1.2))
            running.kill()
        running = pipeline.start().streams()
        time.sleep(0.5)
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.judge(table="written")) > 300
    assert pipeline.sql("select count(*) from outbox") == [(0,)]


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_promoted_standby_that_lagged_goes_on_and_only_what_it_never_had_is_lost(
    private_pair: PrivatePair, servers: Servers, topic_prefix: str, tmp_path: Path, source: str, guarantee: str
) -> None:
    pair = private_pair()
    pipeline = prepare(make_pipeline(pair.dsn, servers.kafka, topic_prefix, tmp_path, source))
    deleting(pipeline).settings["delivery"] = {"guarantee": guarantee}
    with contextlib.closing(pipeline):
        running = pipeline.start().streams()
        with writers(pair.dsn, 4):
            eventually(lambda: end_offset(pipeline.kafka, pipeline.topic) > 50, "events that the standby has, too")
            pair.standby.stop()
            lag = end_offset(pipeline.kafka, pipeline.topic)
            eventually(lambda: end_offset(pipeline.kafka, pipeline.topic) > lag + 50, "events that it has not")
            pair.primary.kill()
            pair.standby.start()
            pair.promote()
            running.logs("streaming", times=2)
            time.sleep(0.5)
            running.kill()
            running = pipeline.start().streams()
            lag = end_offset(pipeline.kafka, pipeline.topic)
            eventually(lambda: end_offset(pipeline.kafka, pipeline.topic) > lag + 50, "events of the new primary")
        pipeline.settles()
        assert running.stop() == 0
        published = pipeline.records()
        assert len(published) > len(pipeline.judge(table="written", phantoms=True))  # the old primary had more
        assert len({record.position for record in published}) == len(published)
        assert pipeline.sql("select count(*) from outbox") == [(0,)]


def test_rows_of_a_long_transaction_come_when_it_commits_and_nothing_waits_for_them(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    with psycopg.connect(pipeline.dsn) as slow:
        insert(slow, "slow", 1)
        for seq in range(3):
            pipeline.insert(seq)
            eventually(lambda: len(pipeline.records()) == seq + 1, "the others")  # noqa: B023
        slow.commit()
    pipeline.settles()
    assert running.stop() == 0
    assert [(r.key, r.value["seq"]) for r in sorted(pipeline.judge(), key=lambda r: r.position)][-1] == ("slow", 1)


def test_confirmed_rows_are_deleted_and_one_that_is_locked_later(pipeline: Pipeline) -> None:
    deleting(pipeline)
    pipeline.insert(1, 2, 3)
    with psycopg.connect(pipeline.dsn) as locking:
        locking.execute("select from outbox where payload->>'seq' = '2' for update")
        running = pipeline.start().streams()
        eventually(lambda: pipeline.sql("select count(*) from outbox") == [(1,)], "the others are deleted")
        pipeline.insert(4)
        eventually(lambda: pipeline.sql("select count(*) from outbox") == [(1,)], "so is a later one")
    eventually(lambda: pipeline.sql("select count(*) from outbox") == [(0,)], "the locked one is deleted")
    eventually(lambda: pipeline.sql("select count(*) from cdc_ticks") == [(1,)], "the last snapshot stays")
    assert running.stop() == 0
    pipeline.judge(table="written")


def test_a_writer_may_wake_the_relay_as_the_documentation_shows(pipeline: Pipeline) -> None:
    (statements,) = re.findall(r"```sql\n(.*?NOTIFY shop.*?)```", (ROOT / "docs/polling.md").read_text(), re.DOTALL)
    pipeline.settings["postgres"]["poll_seconds"] = 60
    running = pipeline.start().streams()
    for line in statements.replace("shop", pipeline.slot).replace("'order'", "'note'").splitlines():
        pipeline.sql(line.replace("OrderPlaced", "Noted").replace('"order_id": "o-1"', '"seq": 1'))
    pipeline.settles()
    assert running.stop() == 0
    assert [record.key for record in pipeline.judge()] == ["o-1"]


def test_a_standby_takes_over_at_once_when_the_holder_is_killed(pipeline: Pipeline) -> None:
    first = pipeline.start().streams()
    second = pipeline.start().logs("standby")
    with Load(pipeline.dsn) as load:
        load.goes_on()
        first.kill()
        second.logs("streaming")
        load.goes_on()
    pipeline.settles()
    assert second.stop() == 0
    pipeline.judge()


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_rows_that_wait_come_in_one_batch_of_many_parts_also_through_kills(pipeline: Pipeline, guarantee: str) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee, "transaction_ms": 20}
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) select 'note', 'k' || n % 50, 'Noted',"
        " jsonb_build_object('seq', n) from generate_series(1, 60000) n"
    )
    for _ in range(3):
        before = end_offset(pipeline.kafka, pipeline.topic)
        running = pipeline.start().streams()
        eventually(lambda: end_offset(pipeline.kafka, pipeline.topic) > before, "some rows are there")  # noqa: B023
        running.kill()
    running = pipeline.start()
    pipeline.settles()
    assert running.stop() == 0
    records = pipeline.judge()
    assert len(records) == 60_000
    assert len({record.position[:25] for record in records}) > 5  # parts, each with a number of its own


def test_a_database_that_was_restored_elsewhere_is_not_published(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    assert running.stop() == 0
    pipeline.sql("create table kept as table cdc_ticks")  # as a dump does: other transactions write the same rows
    pipeline.sql("truncate cdc_ticks")
    pipeline.sql("insert into cdc_ticks table kept")
    refused = pipeline.run_process("start")
    assert refused.returncode == 1
    assert "is not of this database" in refused.stderr
    assert "--reset" in refused.stderr


@pytest.mark.parametrize("kind", [kind for kind in POOLERS if kind != "later stand-in"])
def test_a_pooler_in_transaction_mode_may_be_in_between(pipeline: Pipeline, kind: str, folder: Path) -> None:
    direct = pipeline.settings["postgres"]["dsn"]
    with pooler(kind, int(str(conninfo_to_dict(direct)["port"])), folder) as port:
        pipeline.settings["postgres"]["dsn"] = make_conninfo(direct, port=port)
        deleting(pipeline).settings["delivery"] = {"guarantee": "exactly-once"}
        with Load(direct) as load:
            for _ in range(2):
                running = pipeline.start().streams()
                load.goes_on()
                assert running.stop() == 0
        running = pipeline.start().streams()
        assert pipeline.sql("select locked from cdc_relay") == [(False,)]
        pipeline.settles()
        assert running.stop() == 0
    pipeline.judge(table="written")
    assert pipeline.sql("select count(*) from outbox") == [(0,)]


def test_an_instance_that_was_frozen_while_another_took_over_adds_nothing(pipeline: Pipeline) -> None:
    deleting(pipeline).settings["delivery"] = {"guarantee": "exactly-once"}
    first = pipeline.start().streams()
    with Load(pipeline.dsn, pause=0.02) as load:
        load.goes_on()
        first.signal(signal.SIGSTOP)
        second = pipeline.start().logs("standby")
        second.logs("streaming")  # when the server has ended the silent session that has the lock
        load.goes_on()
        first.signal(signal.SIGCONT)
        first.logs("standby")
        load.goes_on()
    pipeline.settles()
    assert second.stop() == 0
    first.logs("streaming", times=2)
    assert first.stop() == 0
    pipeline.judge(table="written")
