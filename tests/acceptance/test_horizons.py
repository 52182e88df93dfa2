"""Which rows are known to be published, after a slot is gone: `slot create` refuses to leave a gap."""

import re

import pytest

from cdc.config import loading
from cdc.delivery.positions import Memory
from cdc.kafka import positions
from cdc.postgres import slots
from cdc.postgres.connection import connect
from tests.pipeline import Pipeline, eventually

GUARANTEES = pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])


def published(pipeline: Pipeline, *seqs: int) -> None:
    """Publish events, and stop once the horizon of the session's beginning is recorded."""
    before = remembered(pipeline).horizons[-1:]  # before the start: the next one is taken a minute later
    publisher = pipeline.start().streams()
    pipeline.insert(*seqs)
    pipeline.settles()
    eventually(lambda: remembered(pipeline).horizons[-1:] != before, "the horizon is recorded", 150)
    assert publisher.stop() == 0


def remembered(pipeline: Pipeline) -> Memory:
    """What Kafka has of the slot."""
    settings = loading.load(pipeline.configure(), environ={})
    with connect(pipeline.dsn) as connection:
        key = f"{slots.system_identifier(connection)}/{pipeline.slot}"
    return positions.remembered(settings, key)


def lose(pipeline: Pipeline) -> None:
    pipeline.sql("select pg_drop_replication_slot(%s)", pipeline.slot)


def refused(pipeline: Pipeline) -> str:
    """`slot create` exits with 1 and makes no slot; its error."""
    done = pipeline.run("slot", "create")
    assert done.returncode == 1
    assert not pipeline.sql("select 1 from pg_replication_slots where slot_name = %s", pipeline.slot)
    assert "run: cdc-publisher recover" in done.stderr
    return done.stderr


def test_the_beginning_of_a_slot_is_a_horizon_before_any_publisher_runs(pipeline: Pipeline) -> None:
    assert pipeline.run("slot", "drop", "--yes").returncode == 0
    pipeline.insert(1, 2)
    assert remembered(pipeline).horizons
    pipeline.sql("delete from outbox")
    pipeline.insert(3)
    assert "1 row of public.outbox may be unpublished" in refused(pipeline)
    pipeline.sql("delete from outbox")
    assert pipeline.run("slot", "create").returncode == 0
    (first, *_, last) = remembered(pipeline).horizons
    assert first.lsn < last.lsn == pipeline.confirmed()
    pipeline.insert(4, 5)
    lose(pipeline)
    assert "2 rows of public.outbox may be unpublished" in refused(pipeline)


@GUARANTEES
def test_rows_of_before_the_last_session_are_known_to_be_published(pipeline: Pipeline, guarantee: str) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    published(pipeline, 1, 2)
    published(pipeline, 3)
    lose(pipeline)
    pipeline.insert(4)
    # The row of the last session was inserted after its beginning; on a slow machine the next horizon follows it.
    assert re.search("[12] rows? of public.outbox may be unpublished", refused(pipeline))
    record = remembered(pipeline).record
    assert record
    assert record.guarantee == guarantee
    assert all(horizon.lsn <= record.confirmed for horizon in record.horizons)
    assert {horizon.timeline for horizon in record.horizons} == {1}
    assert record.horizons[-1].updates is not None


@GUARANTEES
def test_a_slot_that_held_nothing_may_be_dropped_and_created_again(pipeline: Pipeline, guarantee: str) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    published(pipeline, 1, 2)
    assert pipeline.run("slot", "drop", "--yes").returncode == 0
    dropped = remembered(pipeline)
    assert (dropped.record, dropped.forgotten) == (None, True)
    assert pipeline.run("slot", "create").returncode == 0
    published(pipeline, 3)
    pipeline.judge()


def test_a_slot_that_was_dropped_with_events_is_recovered(pipeline: Pipeline) -> None:
    published(pipeline, 1, 2)
    pipeline.insert(3, 4)
    assert pipeline.run("slot", "drop", "--yes").returncode == 0
    assert "may be unpublished" in refused(pipeline)
    assert pipeline.run("recover").returncode == 0
    published(pipeline, 5)
    pipeline.judge()


def test_rows_that_a_filter_keeps_from_the_publication_are_not_missed(pipeline: Pipeline) -> None:
    if pipeline.sql("show server_version_num")[0][0] < "150000":
        pytest.skip("PostgreSQL 14 has no row filters")
    published(pipeline, 1)
    assert pipeline.run("slot", "drop", "--yes").returncode == 0
    pipeline.sql("alter publication cdc_publisher set table outbox where (type <> 'Hidden')")
    pipeline.sql("insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Hidden', '{}')")
    assert pipeline.run("slot", "create").returncode == 0


def test_an_advanced_slot_forgets_its_horizons(pipeline: Pipeline) -> None:
    published(pipeline, 1)
    pipeline.insert(2)
    assert pipeline.run("slot", "advance", "--yes").returncode == 0
    assert remembered(pipeline).horizons == ()
    lose(pipeline)
    assert pipeline.run("slot", "create").returncode == 0
