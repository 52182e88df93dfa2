"""An outbox moves from a slot to polling and back, while writers write."""

import pytest

from tests.load import Load
from tests.pipeline import Pipeline

pytestmark = pytest.mark.timeout(240)

GUARANTEES = ("at-least-once", "exactly-once")


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_an_outbox_moves_to_polling_and_back_under_load(pipeline: Pipeline, guarantee: str) -> None:
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    pipeline.settings["outbox"] = {"published": "mark"}
    with Load(pipeline.dsn, pause=0.01) as load:
        running = pipeline.start().streams()
        load.goes_on()
        moved = pipeline.run("outbox", "init", "--polling")
        assert moved.returncode == 0, moved.stderr
        load.goes_on(50)
        pipeline.settles()
        load.goes_on(50)
        assert running.stop() == 0
        pipeline.settings["postgres"]["source"] = "polling"
        running = pipeline.start().streams()
        pipeline.settles()
        running.kill()
        pipeline.sql("select pg_drop_replication_slot(%s)", pipeline.slot)
        running = pipeline.start().streams()
        load.goes_on()

        pipeline.settings["postgres"]["source"] = "slot"
        back = pipeline.process("slot", "create", "--from-polling")
        back.logs("stop the publisher of the relay now")
        assert running.stop() == 0
        assert back.wait() == 0, back.messages()
        running = pipeline.start().streams()
        load.goes_on()
    pipeline.settles()
    assert running.stop() == 0
    assert len(pipeline.judge(returns=True)) > 500
