"""Quotas of Kafka slow a client down by holding back its answers."""

import secrets
from collections.abc import Iterator

import pytest

from tests.integration.checking import shell
from tests.pipeline import Pipeline

pytestmark = pytest.mark.timeout(180)

EVENTS = 600  # of 1 kB: more than ten times of what the quota allows in a second


@pytest.fixture
def throttled(pipeline: Pipeline) -> Iterator[Pipeline]:
    """A pipeline whose producer may send 50 kB a second."""
    client = f"quota-{secrets.token_hex(4)}"
    pipeline.settings["kafka"]["client.id"] = client
    change = (
        f"kafka-configs.sh --bootstrap-server {pipeline.kafka} --alter --entity-type clients --entity-name {client}"
        " --{} 'producer_byte_rate{}'"
    )
    shell(pipeline, change.format("add-config", "=50000"), pipeline.dsn)
    yield pipeline
    shell(pipeline, change.format("delete-config", ""), pipeline.dsn)


def test_c14_a_quota_slows_the_publisher_down_and_neither_loses_nor_repeats_an_event(throttled: Pipeline) -> None:
    running = throttled.start().streams()
    throttled.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) select 'note', 'k' || n % 7, 'Noted',"
        f" jsonb_build_object('seq', n, 'text', repeat(md5(n::text), 32)) from generate_series(1, {EVENTS}) n"
    )
    throttled.settles()
    assert len(throttled.judge()) == EVENTS
    assert running.count("streaming") == 1
    assert running.stop() == 0
