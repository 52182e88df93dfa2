"""`recover` is killed at random moments while writers continue: nothing is lost, sent twice or reordered."""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import pytest

from tests.acceptance.test_recovery_faults import Topic
from tests.load import Load
from tests.pipeline import Pipeline, Running, eventually

pytestmark = pytest.mark.timeout(3600 if os.environ.get("CDC_TEST_NIGHTLY") else 900)

KILLS = 20 if os.environ.get("CDC_TEST_NIGHTLY") else 3
BACKLOG = 12_000  # rows: more than go while the new slot holds WAL, so that there are rounds before
_LOCKS: Final = (
    "select from pg_locks where locktype = 'advisory'"
    " and database = (select oid from pg_database where datname = current_database())"
)
GUARANTEES = pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])


class Kills:
    """Kills the recovery of a pipeline, and counts what it was doing."""

    def __init__(self, pipeline: Pipeline, seed: str) -> None:
        self.seen: Counter[str] = Counter()
        self._pipeline = pipeline
        self._chance = random.Random(seed)
        self._watch = pipeline.connect()
        self._topic = Topic(pipeline)

    def __enter__(self) -> "Kills":
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.close()

    def one(self, *command: str) -> None:
        """Let a command begin to recover, and kill it; where it was faster, lose the slot again, and begin anew."""
        while not self._kills(self._pipeline.process(*command)):
            lose(self._pipeline)
            if command[0] == "start":  # which recovers once an hour
                assert self._pipeline.run("recover").returncode == 0
                lose(self._pipeline)
            fill(self._pipeline)

    def _kills(self, attempt: Running) -> bool:
        """Kill an attempt a moment after it has come to a random stage; return whether it had not ended before."""

        def ended() -> bool:
            return attempt.process.poll() is not None or bool(attempt.count("recovered the slot"))

        before, grows = self._topic.ends(), self._chance.randrange(1, BACKLOG)
        stages: tuple[Callable[[], bool], ...] = (
            lambda: True,
            lambda: self._topic.ends() > before,
            lambda: self._topic.ends() >= before + grows,
            self._slot,
        )
        stage = self._chance.choice(stages)
        eventually(lambda: (self._holds_lock() and stage()) or ended(), "the recovery comes to a stage", 300)
        until = time.monotonic() + self._chance.random() * 2
        while time.monotonic() < until and not ended():
            time.sleep(0.02)
        was_ended = ended()
        attempt.kill()
        if not was_ended:
            self.seen[self._left()] += 1
        return not was_ended

    def _holds_lock(self) -> bool:
        return bool(self._watch.execute(_LOCKS).fetchall())

    def _slot(self) -> bool:
        return bool(
            self._watch.execute(
                "select from pg_replication_slots where slot_name = %s", [self._pipeline.slot]
            ).fetchall()
        )

    def _left(self) -> str:
        """What the attempt was doing, by what it left."""
        status = json.loads(self._pipeline.run("status", "--json").stdout)
        if status["state"] != "recovering":
            return "before its record"
        return "with the new slot" if self._slot() else "in a round"


def lose(pipeline: Pipeline) -> None:
    """Drop the slot, whoever reads it."""

    def dropped() -> bool:
        pipeline.sql(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s and active",
            pipeline.slot,
        )
        pipeline.sql(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s and not active",
            pipeline.slot,
        )
        return not pipeline.sql("select from pg_replication_slots where slot_name = %s", pipeline.slot)

    eventually(dropped, "the slot is dropped")


def fill(pipeline: Pipeline) -> None:
    """Commit many rows, in 30 transactions, with numbers above those of earlier calls."""
    ((last,),) = pipeline.sql("select coalesce(max((payload->>'seq')::bigint), 0) from outbox")
    first = max(int(time.time() * 1000), last + 1)
    pipeline.sql(
        "do $$ begin for at in 0 .. 29 loop insert into outbox (aggregatetype, aggregateid, type, payload)"
        f" select 'note', 'backlog-' || n % 50, 'Noted', jsonb_build_object('seq', {first} + n)"
        f" from generate_series(at * {BACKLOG // 30}, (at + 1) * {BACKLOG // 30} - 1) n; commit; end loop; end $$"
    )


def begun(pipeline: Pipeline, load: Load) -> None:
    """Publish something, and lose the slot with many rows."""
    running = pipeline.start().streams()
    load.goes_on(50)
    running.kill()
    lose(pipeline)
    fill(pipeline)


def proven(pipeline: Pipeline, running: Running, kills: Kills) -> None:
    """Every event is in its topic once and in order, and the audit finds nothing."""
    pipeline.settles(240)
    assert running.stop() == 0
    records = pipeline.judge()
    audited = pipeline.run("audit", "--json")
    assert audited.returncode == 0, audited.stdout
    recovered = sum(("cdc-recovered", "true") in record.headers for record in records)
    print(f"{sum(kills.seen.values())} kills {dict(kills.seen)}: {len(records)} events, {recovered} of them recovered")


@GUARANTEES
def test_a_recovery_that_is_killed_at_random_moments_loses_and_repeats_nothing(
    pipeline: Pipeline, guarantee: str
) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    with Kills(pipeline, guarantee) as kills, Load(pipeline.dsn, pause=0.1) as load:
        begun(pipeline, load)
        for _ in range(KILLS):
            kills.one("recover", "--yes")
            load.goes_on(10)
        done = pipeline.run("recover", "--json")
        assert done.returncode == 0, done.stderr
        running = pipeline.start().streams()
        load.goes_on(30)
    proven(pipeline, running, kills)


def test_a_publisher_that_is_killed_while_it_recovers_by_itself_loses_and_repeats_nothing(pipeline: Pipeline) -> None:
    pipeline.settings["delivery"] = {"guarantee": "exactly-once", "on_slot_lost": "recover"}
    with Kills(pipeline, "automatic") as kills, Load(pipeline.dsn, pause=0.1) as load:
        begun(pipeline, load)
        for _ in range(KILLS):
            kills.one("start")
            load.goes_on(10)
        running = pipeline.start().logs("recovered the slot").streams()
        load.goes_on(30)
    proven(pipeline, running, kills)
