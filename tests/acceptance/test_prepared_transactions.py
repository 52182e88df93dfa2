"""PREPARE TRANSACTION in the outbox: two-phase commit across stops, kills and a restart of the server."""

from pathlib import Path

import pytest

from tests.pipeline import Pipeline, make_pipeline, prepare
from tests.servers import PrivatePostgres, Servers

pytestmark = pytest.mark.timeout(180)

INSERT = (
    "insert into outbox (aggregatetype, aggregateid, type, payload)"
    " values ('note', %s, 'Noted', jsonb_build_object('seq', %s::int))"
)


def prepared(pipeline: Pipeline, name: str, seq: int) -> None:
    """Leave a transaction that inserts one note of the key `name` to be committed later."""
    with pipeline.connect() as connection:
        connection.execute("begin")
        connection.execute(INSERT, [name, seq])
        connection.execute(f"prepare transaction '{name}'".encode())


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_a7_a_prepared_transaction_is_published_when_it_commits_whatever_ended_in_between(
    private_postgres: PrivatePostgres, servers: Servers, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    server = private_postgres()
    pipeline = make_pipeline(server.dsn, servers.kafka, topic_prefix, tmp_path)
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    prepare(pipeline)
    try:
        running = pipeline.start().streams()
        for name in ("stopped", "killed", "restarted", "rolled back"):
            prepared(pipeline, name, 1)
        pipeline.insert(1)
        pipeline.settles()  # prepared transactions do not hold back the events behind them
        assert [record.key for record in pipeline.records()] == ["k"]

        assert running.stop() == 0
        pipeline.sql("commit prepared 'stopped'")
        running = pipeline.start().streams()
        pipeline.settles()
        assert {record.key for record in pipeline.records()} == {"k", "stopped"}

        running.kill()
        pipeline.sql("commit prepared 'killed'")
        running = pipeline.start().streams()
        pipeline.settles()

        server.stop("immediate")
        server.start()
        running.logs("streaming", times=2)
        pipeline.sql("commit prepared 'restarted'")
        pipeline.sql("rollback prepared 'rolled back'")
        pipeline.insert(2)
        pipeline.settles()
        assert running.stop() == 0
        assert {record.key for record in pipeline.judge()} == {"k", "stopped", "killed", "restarted"}
    finally:
        pipeline.close()
