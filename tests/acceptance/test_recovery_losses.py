"""`recover` where rows are gone: it exits with 1 if they may not have been published, and publishes what is there."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.test_recovery import drop_slot, published, recovers
from tests.pipeline import Pipeline

pytestmark = pytest.mark.timeout(300)

PARTS = """
create table outbox (
    id uuid default gen_random_uuid(), aggregatetype text not null, aggregateid text not null, type text not null,
    payload jsonb, created_at timestamptz not null default clock_timestamp()
) partition by range (created_at);
create table old_part partition of outbox for values from (minvalue) to ('2000-01-01');
create table new_part partition of outbox for values from ('2000-01-01') to (maxvalue);
"""


@pytest.fixture
def partitioned(bare_pipeline: Pipeline) -> Pipeline:
    """A partitioned outbox without numbers."""
    pipeline = bare_pipeline
    for statement in filter(str.strip, PARTS.split(";")):
        pipeline.sql(statement)
    pipeline.sql("create publication cdc_publisher for table outbox with (publish_via_partition_root = true)")
    assert pipeline.run("slot", "create").returncode == 0
    pipeline.create_topic(pipeline.topic)
    return pipeline


def unnumbered(pipeline: Pipeline) -> None:
    pipeline.sql("alter table outbox drop column cdc_seq")


def lose(pipeline: Pipeline, *seqs: int) -> None:
    """Publish one event, lose the slot, and insert others."""
    published(pipeline, 1)
    drop_slot(pipeline)
    pipeline.insert(*seqs)


def sent(pipeline: Pipeline, **wanted: Any) -> dict[str, Any]:
    """Recover; the events are published, and rows are missed."""
    done = recovers(pipeline, code=1)
    assert {name: done[name] for name in wanted} == wanted
    return done


@pytest.mark.parametrize("seq", [2, 3, 4])
def test_a_deleted_row_is_named_by_its_range_and_counted(pipeline: Pipeline, seq: int) -> None:
    lose(pipeline, 2, 3, 4)
    pipeline.sql("delete from outbox where payload->>'seq' = %s::text", seq)
    done = sent(pipeline, deleted=1, sent=2)
    assert done["deleted_text"] == f"up to 1 row {done['deleted_between']} was deleted"
    assert done["deleted_between"].startswith("between cdc_seq ")
    published(pipeline, 5)


def test_without_numbers_deleted_rows_are_counted_since_the_bound(pipeline: Pipeline) -> None:
    unnumbered(pipeline)
    lose(pipeline, 2, 3)
    pipeline.sql("delete from outbox where payload->>'seq' = '2'")
    done = sent(pipeline, deleted=1, sent=1)
    assert done["deleted_between"].startswith("since the horizon of ")


@pytest.mark.parametrize("numbered", [True, False])
def test_a_truncated_table_is_noticed(pipeline: Pipeline, numbered: bool) -> None:
    if not numbered:
        unnumbered(pipeline)
    lose(pipeline, 2, 3)
    pipeline.sql("truncate outbox")
    pipeline.insert(4)
    done = sent(pipeline, deleted=2 if numbered else None, sent=1)
    assert done["deleted_tables"] == ["public.outbox was truncated"]


def test_a_table_that_was_rewritten_lost_nothing(pipeline: Pipeline) -> None:
    published(pipeline, 1)
    published(pipeline, 2)
    drop_slot(pipeline)
    pipeline.insert(3)
    pipeline.sql("vacuum full outbox")
    assert recovers(pipeline)["sent"] == 1


REMOVALS: dict[str, tuple[str, Callable[[str], str]]] = {
    "drop": ("drop table new_part", "a table or partition with oid {} was dropped".format),
    "detach": ("alter table outbox detach partition new_part", lambda _: "public.new_part was detached"),
    "truncate": ("truncate new_part", lambda _: "public.new_part was truncated"),
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_a_partition_that_is_gone_is_noticed(partitioned: Pipeline, removal: str) -> None:
    statement, wanted = REMOVALS[removal]
    lose(partitioned, 2, 3)
    ((oid,),) = partitioned.sql("select 'new_part'::regclass::oid::text")
    partitioned.sql(statement)
    if removal != "truncate":
        partitioned.sql("create table next_part partition of outbox default")
    partitioned.insert(4)
    done = sent(partitioned, deleted=None, sent=1, missing=1)
    assert done["deleted_tables"] == [wanted(oid)]
    human = partitioned.run("recover")
    assert human.returncode == 0


def test_rows_that_were_deleted_after_their_event_was_published_are_no_loss(pipeline: Pipeline) -> None:
    lose(pipeline, 2)
    pipeline.sql("delete from outbox where payload->>'seq' = '1'")
    assert recovers(pipeline)["deleted"] == 0


@pytest.mark.parametrize("numbered", [True, False])
def test_purged_rows_are_no_loss(pipeline: Pipeline, numbered: bool) -> None:
    if not numbered:
        unnumbered(pipeline)
    published(pipeline, *range(10))
    running = pipeline.start().streams()
    pipeline.insert(10)
    pipeline.settles()
    assert pipeline.run("outbox", "purge", "--grace", "0").returncode == 0
    assert running.stop() == 0
    assert pipeline.sql("select count(*) from outbox") == [(0,)]
    drop_slot(pipeline)
    pipeline.insert(11)
    assert recovers(pipeline)["sent"] == 1


def test_a_partition_that_purge_dropped_is_no_loss(partitioned: Pipeline) -> None:
    insert = (
        "insert into outbox (aggregatetype, aggregateid, type, payload, created_at)"
        " values ('note', 'k', 'Noted', '{\"seq\": 0}', '1999-01-01')"
    )
    partitioned.sql(insert)
    running = partitioned.start().streams()
    partitioned.settles()
    purged = partitioned.run("outbox", "purge", "--grace", "1d")
    assert (purged.returncode, "old_part" in purged.stdout) == (0, True), purged.stdout
    partitioned.insert(1)
    partitioned.settles()
    assert running.stop() == 0
    drop_slot(partitioned)
    partitioned.insert(2)
    done = recovers(partitioned)
    assert (done["sent"], done["deleted"]) == (1, 0)
