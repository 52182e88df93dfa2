"""Any end of the publisher loses nothing; a graceful end repeats nothing either."""

import random
import signal
import time

import pytest

from tests.load import Load
from tests.pipeline import SOURCES, Pipeline, eventually
from tests.reader import end_offset

pytestmark = pytest.mark.timeout(240)


@SOURCES
def test_a16_sigterm_under_load_drains_and_repeats_nothing_after_the_restart(pipeline: Pipeline) -> None:
    with Load(pipeline.dsn) as load:
        for rows in (50, 200, 500):
            running = pipeline.start().streams()
            load.goes_on(rows)
            assert running.stop() == 0
            assert running.count("stopped") == 1
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.judge(duplicates=False)) > 300


@SOURCES
def test_a16_sigint_inside_a_large_transaction_finishes_it_first(pipeline: Pipeline) -> None:
    pipeline.sql(
        "insert into outbox (aggregatetype, aggregateid, type, payload) select 'note', 'k', 'Noted',"
        " jsonb_build_object('seq', n) from generate_series(1, 60000) n"
    )
    pipeline.insert(60001)
    running = pipeline.start().streams()
    eventually(lambda: end_offset(pipeline.kafka, pipeline.topic) > 0, "a part of it is delivered")
    running.signal(signal.SIGINT)
    assert running.wait() == 0
    assert len(pipeline.records()) >= (10_000 if pipeline.polls else 60_000)  # a batch has parts
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.judge(duplicates=False)) == 60_001


@SOURCES
def test_a3_a4_a18_restart_repeats_nothing_confirmed_and_skips_nothing_unconfirmed(
    pipeline: Pipeline,
) -> None:
    running = pipeline.start().streams()
    pipeline.insert(1, 2)
    pipeline.settles()
    assert running.stop() == 0
    for seq in (3, 4):
        pipeline.insert(seq)
        running = pipeline.start().streams()
        pipeline.settles()
        assert running.stop() == 0
    running = pipeline.start().streams()  # nothing new: nothing comes
    assert running.stop() == 0
    assert [r.value["seq"] for r in pipeline.judge(duplicates=False)] == [1, 2, 3, 4]


@SOURCES
def test_a1_a6_c11_kill_9_at_twenty_random_moments_loses_nothing(pipeline: Pipeline) -> None:
    chance = random.Random(20)
    with Load(pipeline.dsn, writers=3, pause=0.001):
        for kill in range(20):
            running = pipeline.start().streams()
            if kill == 10:
                pipeline.sql(
                    "insert into outbox (aggregatetype, aggregateid, type, payload) select 'note', 'big', 'Noted',"
                    " jsonb_build_object('seq', n) from generate_series(1, 20000) n"
                )
            time.sleep(chance.uniform(0, 0.6))
            running.kill()
    running = pipeline.start().streams()
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.judge(duplicates=True)) > 20_000


@SOURCES
def test_b15_a_second_publisher_waits_as_standby_and_takes_over(pipeline: Pipeline) -> None:
    first = pipeline.start().streams()
    second = pipeline.start().logs("standby")
    with Load(pipeline.dsn) as load:
        load.goes_on()
        assert second.count("streaming") == 0
        assert first.stop() == 0
        second.logs("streaming")
        load.goes_on()
    pipeline.settles()
    assert second.stop() == 0
    pipeline.judge(duplicates=False)
