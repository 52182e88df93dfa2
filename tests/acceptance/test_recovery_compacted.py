"""`recover` and compacted topics: each key ends with its newest event, also one that has no row any more."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer
from psycopg.conninfo import make_conninfo

from tests.acceptance.test_compaction import (
    AT_LEAST_ONCE,
    EXACTLY_ONCE,
    compact,
    compacted,
    content,
    insert,
    newest,
    prepare_compacted,
)
from tests.acceptance.test_recovery import drop_slot, recovers
from tests.pipeline import Pipeline, make_pipeline
from tests.reader import read_all
from tests.servers import PrivatePostgres, Servers

__all__ = ["compacted"]

pytestmark = pytest.mark.timeout(300)
GUARANTEES = pytest.mark.parametrize("guarantee", [AT_LEAST_ONCE, EXACTLY_ONCE])


@contextmanager
def session(pipeline: Pipeline, guarantee: str) -> Iterator[None]:
    """Publish what is inserted meanwhile, which no horizon covers, and lose the slot."""
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    with pipeline.connect() as open_one:  # keeps every horizon below what is inserted
        open_one.autocommit = False
        open_one.execute("select pg_current_xact_id()")
        running = pipeline.start().streams()
        yield
        pipeline.settles()
        assert running.stop() == 0
        open_one.rollback()
    drop_slot(pipeline)


def streams_on(pipeline: Pipeline) -> None:
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0


def delete(pipeline: Pipeline, number: int) -> None:
    pipeline.sql("delete from outbox where payload->>'seq' = %s::text", number)


@GUARANTEES
def test_case_d1_a_recovery_leaves_the_newest_event_of_each_key(compacted: Pipeline, guarantee: str) -> None:
    with session(compacted, guarantee):
        insert(compacted, "k", 1, 2, 3)
        insert(compacted, "deleted", 4, 5, 6)
        insert(compacted, "gone", 7, None)
        insert(compacted, "one", 8)
    assert newest(compact(compacted)) == {"k": 3, "deleted": 6, "gone": None, "one": 8}
    delete(compacted, 6)
    compacted.sql("delete from outbox where payload is null")
    insert(compacted, "deleted", 9)
    insert(compacted, "new", 10)
    done = recovers(compacted)
    assert done["deleted"] == 0, "their events were published"
    wanted = {"k": 3, "deleted": 9, "gone": None, "one": 8, "new": 10}
    records = content(compacted)
    assert newest(records) == wanted
    assert [number for key, number in records if key == "deleted"][-4:] == [4, 5, 6, 9]
    assert len([key for key, _ in records if key == "one"]) == 1
    assert newest(compact(compacted)) == wanted
    streams_on(compacted)
    assert newest(content(compacted)) == wanted


def test_an_event_without_a_row_is_sent_again_as_kafka_has_it(compacted: Pipeline) -> None:
    with session(compacted, AT_LEAST_ONCE):
        insert(compacted, "k", 1, 2)
        insert(compacted, "other", 3)
    compact(compacted)
    delete(compacted, 2)
    before = next(one for one in read_all(compacted.kafka, compacted.topic, bytes) if one.key == "k")
    recovers(compacted)
    first, again = (one for one in read_all(compacted.kafka, compacted.topic, bytes)[-2:])
    assert (again.raw, again.key, again.timestamp) == (before.raw, before.key, before.timestamp)
    assert [name for name, _ in again.headers] == [*(name for name, _ in before.headers), "cdc-recovered"]
    assert (again.id, again.header("eventType")) == (before.id, before.header("eventType"))
    assert again.position > first.position > before.position


@GUARANTEES
def test_a_topic_that_ends_with_an_older_event_gets_the_later_ones_again(compacted: Pipeline, guarantee: str) -> None:
    """A replay, or a recovery, that was killed leaves an older event behind the newer ones."""
    with session(compacted, guarantee):
        insert(compacted, "k", 1, 2, 3)
        insert(compacted, "other", 4)
    first = read_all(compacted.kafka, compacted.topic, bytes)[0]
    producer = Producer({"bootstrap.servers": compacted.kafka})
    place = first.topic, first.raw, first.key.encode(), first.partition
    producer.produce(*place, timestamp=first.timestamp[1], headers=first.headers)  # type: ignore[arg-type]
    assert producer.flush(30) == 0
    assert recovers(compacted)["sent"] == 2
    assert newest(content(compacted)) == newest(compact(compacted)) == {"k": 3, "other": 4}


def test_a_row_below_the_horizon_comes_behind_an_earlier_one_that_is_not(compacted: Pipeline) -> None:
    statement = "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Noted', %s)"
    with compacted.connect() as late, compacted.connect() as early, compacted.connect() as open_one:
        for connection in (late, open_one):
            connection.autocommit = False
            connection.execute("select pg_current_xact_id()")
        early.execute(statement, ['{"seq": 1}'])
        late.execute(statement, ['{"seq": 2}'])
        late.commit()
        with session(compacted, AT_LEAST_ONCE):
            pass
        open_one.rollback()
    assert newest(compact(compacted)) == {"k": 2}
    assert recovers(compacted)["sent"] == 2
    assert [number for key, number in content(compacted) if key == "k"] == [2, 1, 2]


def test_exactly_once_sends_nothing_twice_where_commit_times_show_what_was_published(
    private_postgres: PrivatePostgres, servers: Servers, topic_prefix: str, tmp_path: Path
) -> None:
    server = private_postgres({"track_commit_timestamp": "on"}, None)
    pipeline = prepare_compacted(make_pipeline(make_conninfo(server.dsn), servers.kafka, topic_prefix, tmp_path))
    try:
        with session(pipeline, EXACTLY_ONCE):
            insert(pipeline, "k", 1, 2, 3)
        assert newest(compact(pipeline)) == {"k": 3}
        insert(pipeline, "k", 4)
        assert recovers(pipeline)["sent"] == 1
        assert content(pipeline) == [("k", 3), ("k", 4)]
    finally:
        pipeline.close()


def test_times_of_a_column_do_not_show_that_a_row_is_later_than_a_record(compacted: Pipeline) -> None:
    compacted.sql("alter table outbox add column at bigint default 1000000000000")
    compacted.settings["record"] = {"timestamp": "at"}
    with session(compacted, AT_LEAST_ONCE):
        insert(compacted, "k", 1, 2)
    assert newest(compact(compacted)) == {"k": 2}
    delete(compacted, 2)
    recovers(compacted)
    assert newest(content(compacted)) == {"k": 2}
    recovered = [
        one for one in read_all(compacted.kafka, compacted.topic, bytes) if "cdc-recovered" in dict(one.headers)
    ]
    assert {one.timestamp[1] for one in recovered} <= {1_000_000_000_000}
    assert not any("cdc-committed" in dict(one.headers) for one in recovered)
