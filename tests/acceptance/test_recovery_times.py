"""`recover` and times: the bound by commit timestamps, and the timestamps of recovered records."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from psycopg.conninfo import make_conninfo

from cdc.config import loading
from cdc.kafka import positions
from tests.acceptance.test_horizons import remembered
from tests.acceptance.test_recovery import drop_slot, published, recovers
from tests.pipeline import Pipeline, make_pipeline, prepare
from tests.servers import PrivatePostgres, Servers

pytestmark = pytest.mark.timeout(300)
Shop = Callable[..., Pipeline]


def make_topic(pipeline: Pipeline, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": pipeline.kafka})
    config = {name.replace("_", "."): value for name, value in config.items()}
    admin.create_topics([NewTopic(pipeline.topic, 1, config=config)])[pipeline.topic].result()


def forget_horizons(pipeline: Pipeline) -> None:
    record = remembered(pipeline).record
    assert record
    settings = loading.load(pipeline.configure(), environ={})
    positions.write(settings, record.key, replace(record, horizons=()).encode())


@pytest.fixture
def timed(private_postgres: PrivatePostgres, servers: Servers, topic_prefix: str, tmp_path: Path) -> Iterator[Pipeline]:
    """A pipeline of a server that keeps commit timestamps; its topic is still to be made."""
    server = private_postgres({"track_commit_timestamp": "on"}, None)
    pipeline = prepare(make_pipeline(make_conninfo(server.dsn), servers.kafka, topic_prefix, tmp_path), topic=False)
    yield pipeline
    pipeline.close()


def test_without_a_horizon_the_last_confirmed_commit_is_the_bound(timed: Pipeline) -> None:
    make_topic(timed, retention_ms="-1")
    published(timed, 1, 2)
    drop_slot(timed)
    forget_horizons(timed)
    timed.insert(3)
    timed.insert(4)
    done = recovers(timed)
    assert done["bound"].startswith("ten minutes before the last confirmed commit, ")
    assert (done["candidates"], done["sent"], done["order"]) == (4, 2, "commit timestamp")
    published(timed, 5)
    timed.judge()


def test_a_topic_with_times_of_its_own_says_nothing_about_commits(timed: Pipeline) -> None:
    make_topic(timed, retention_ms="-1", message_timestamp_type="LogAppendTime")
    published(timed, 1, 2)
    drop_slot(timed)
    forget_horizons(timed)
    timed.insert(3)
    refused = timed.run("recover")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "it is unknown how far the rows" in refused.stderr
    assert "recover --since TIME" in refused.stderr
    assert recovers(timed, "--since", "1h")["sent"] == 1
    published(timed, 4)
    timed.judge()


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_a_record_that_its_topic_would_soon_delete_has_the_time_of_sending(
    bare_pipeline: Pipeline, guarantee: str
) -> None:
    pipeline = prepare(bare_pipeline, topic=False)
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    make_topic(pipeline, retention_ms="3600000")
    published(pipeline, 1)
    drop_slot(pipeline)
    pipeline.insert(2)
    pipeline.insert(3)
    pipeline.sql("update outbox set created_at = now() - interval '40 minutes' where payload->>'seq' = '2'")
    ((old, young),) = pipeline.sql(
        "select min(created_at), max(created_at) from outbox where payload->>'seq' in ('2', '3')"
    )
    began = time.time() * 1000
    assert recovers(pipeline)["sent"] == 2
    second, third = pipeline.records()[1:]
    assert second.timestamp[1] >= began - 1000
    told = datetime.fromisoformat(second.header("cdc-committed"))
    assert abs((told - old.astimezone(UTC)).total_seconds()) < 0.002
    assert abs(third.timestamp[1] / 1000 - young.timestamp()) < 0.002
    assert "cdc-committed" not in dict(third.headers)
    published(pipeline, 4)
    pipeline.judge()
    assert pipeline.run("audit").returncode == 0
