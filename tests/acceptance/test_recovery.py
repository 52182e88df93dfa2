"""`recover` on real servers: a lost slot heals, without a loss, a duplicate or a change of order."""

import json
from typing import Any

import pytest

from tests.pipeline import Pipeline

GUARANTEES = pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])


def published(pipeline: Pipeline, *seqs: int) -> None:
    """Publish events, and stop."""
    publisher = pipeline.start().streams()
    pipeline.insert(*seqs)
    pipeline.settles()
    assert publisher.stop() == 0


def recovers(pipeline: Pipeline, *options: str, code: int = 0) -> dict[str, Any]:
    done = pipeline.run("recover", "--json", *options)
    assert done.returncode == code, (done.stdout, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def drop_slot(pipeline: Pipeline) -> None:
    pipeline.sql("select pg_drop_replication_slot(%s)", pipeline.slot)


@GUARANTEES
def test_a_dropped_slot_is_recovered_and_streams_on(pipeline: Pipeline, guarantee: str) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    published(pipeline, 1, 2)
    drop_slot(pipeline)
    pipeline.insert(3, 4)
    pipeline.insert(5, key="other")
    done = recovers(pipeline)
    assert (done["sent"], done["missing"], done["perhaps_again"]) == (3, 3, 0)
    assert recovers(pipeline)["finished"] is True
    pipeline.insert(6)
    published(pipeline, 7)
    records = pipeline.judge()
    recovered = [record for record in records if ("cdc-recovered", "true") in record.headers]
    assert sorted(record.value["seq"] for record in recovered) == [3, 4, 5]
    assert pipeline.run("audit").returncode == 0
