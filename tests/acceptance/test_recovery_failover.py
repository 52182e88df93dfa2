"""A standby without the slot takes over: `recover` publishes what the new primary has, and nothing twice."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.audit.verdicts import FINDINGS
from cdc.config import loading
from cdc.kafka import positions
from cdc.lsn import LSN
from cdc.postgres import slots
from cdc.postgres.connection import connect
from cdc.replication.horizon import Horizon
from tests.load import Load
from tests.pipeline import Pipeline, eventually, make_pipeline, prepare
from tests.servers import Servers
from tests.standby import Pair, PrivatePair
from tests.versions import OLD_POSTGRES

pytestmark = pytest.mark.timeout(600)

MakePipeline = Callable[[str], Pipeline]
GUARANTEES = pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
VERSIONS = pytest.mark.parametrize("binaries", [None, *OLD_POSTGRES], ids=str)


@pytest.fixture
def make(servers: Servers, topic_prefix: str, tmp_path: Path) -> Iterator[MakePipeline]:
    """`make(dsn)` returns a pipeline between the servers of the test and Kafka, with a slot that no standby knows."""
    made: list[Pipeline] = []

    def one(dsn: str) -> Pipeline:
        pipeline = make_pipeline(dsn, servers.kafka, topic_prefix, tmp_path)
        made.append(pipeline)
        return prepare(pipeline)

    yield one
    for pipeline in made:
        pipeline.close()


def recovers(pipeline: Pipeline) -> dict[str, Any]:
    done = pipeline.run("recover", "--json")
    assert done.returncode == 0, (done.stdout, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def horizons(pipeline: Pipeline) -> tuple[Horizon, ...]:
    """What the slot's record in Kafka has."""
    settings = loading.load(pipeline.configure(), environ={})
    with connect(pipeline.dsn) as connection:
        key = f"{slots.system_identifier(connection)}/{pipeline.slot}"
    return positions.remembered(settings, key).horizons


def audited(pipeline: Pipeline) -> dict[str, int]:
    """The findings of an audit, by kind."""
    found = json.loads(pipeline.run("audit", "--json").stdout)
    return {kind: found["counts"][kind] for kind in FINDINGS if found["counts"][kind]}


def caught_up(pair: Pair) -> None:
    """Wait until the standby has what the primary has now."""
    with psycopg.connect(pair.primary.dsn) as primary, psycopg.connect(pair.standby.dsn, autocommit=True) as standby:
        (end,) = primary.execute("select pg_current_wal_flush_lsn()::text").fetchone() or ("",)
        eventually(
            lambda: standby.execute("select pg_last_wal_replay_lsn() >= %s::pg_lsn", [end]).fetchone() == (True,),
            "the standby has replayed the WAL",
        )


@VERSIONS
@GUARANTEES
def test_a_slot_lost_by_a_failover_under_load_is_recovered(
    private_pair: PrivatePair, make: MakePipeline, guarantee: str, binaries: Path | None
) -> None:
    pair = private_pair(binaries=binaries)
    pipeline = make(pair.dsn)
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    running = pipeline.start().streams()
    with Load(pipeline.dsn, pause=0.02) as load:
        load.goes_on(100)
        pair.primary.kill()
        pair.promote()
        assert running.wait() == 1
        assert "does not exist" in running.messages()[-1]
        load.goes_on(100)
        assert recovers(pipeline)["sent"]
        running = pipeline.start().streams()
        load.goes_on(50)
    pipeline.settles()
    assert running.stop() == 0
    # What only the former primary had may be in Kafka: the standby is asynchronous.
    pipeline.judge(phantoms=True)
    assert audited(pipeline).keys() <= {"phantom"}


def test_a_slot_lost_by_a_failover_that_loses_no_row_is_recovered_by_the_publisher(
    private_pair: PrivatePair, make: MakePipeline
) -> None:
    pair = private_pair()
    pipeline = make(pair.dsn)
    pipeline.settings["delivery"] = {"guarantee": "exactly-once", "on_slot_lost": "recover"}
    running = pipeline.start().streams()
    pipeline.insert(1, 2)
    pipeline.settles()
    caught_up(pair)
    pair.primary.kill()
    pair.promote()
    pipeline.insert(3, 4)
    running.logs("recovered the slot").logs("streaming", times=2)
    pipeline.insert(5)
    pipeline.settles()
    assert running.stop() == 0
    pipeline.judge()
    assert audited(pipeline) == {}


@GUARANTEES
def test_a_horizon_that_the_new_primary_never_had_does_not_count(
    private_pair: PrivatePair, make: MakePipeline, guarantee: str
) -> None:
    pair = private_pair()
    pipeline = make(pair.dsn)
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    caught_up(pair)
    pair.standby.stop()
    assert running.stop() == 0
    for _ in range(50):
        pipeline.sql("select pg_current_xact_id()")
    known = horizons(pipeline)[-1:]
    running = pipeline.start().streams()  # which takes a horizon
    pipeline.insert(2)
    pipeline.settles()
    eventually(lambda: horizons(pipeline)[-1:] != known, "the horizon is recorded")
    assert running.stop() == 0
    lost = horizons(pipeline)[-1]
    pair.primary.kill()
    pair.standby.start()
    pair.promote()
    pipeline.insert(3, 4)
    while pipeline.wal_end() < LSN(lost.lsn + 1_000_000):  # the same LSN means something else now
        pipeline.sql("select pg_logical_emit_message(true, 'filler', repeat('x', 100000))")
    ((newest,),) = pipeline.sql("select max(xmin::text::int8) from outbox")
    assert newest < lost.xid
    assert pipeline.start().wait() == 1
    assert recovers(pipeline)["sent"] == 2
    running = pipeline.start().streams()
    pipeline.insert(5)
    pipeline.settles()
    assert running.stop() == 0
    records = pipeline.judge(phantoms=True)
    assert [record.value["seq"] for record in records] == [1, 3, 4, 5]
