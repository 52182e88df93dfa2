"""An outbox is split into parts while it is in use: nothing is lost, sent twice or reordered."""

from collections.abc import Callable

import pytest

from cdc.lsn import LSN
from tests.pipeline import Pipeline, Running, eventually
from tests.program import run_here
from tests.splitting import Unit, blocks, commands, committed, interrupted, load, unit


class Splitting:
    """Follows the printed steps from the publishers of today to those of `number` parts."""

    def __init__(
        self, pipeline: Pipeline, publishers: list[Pipeline], number: int, goes_on: Callable[[], None]
    ) -> None:
        self._pipeline = pipeline
        self._publishers = publishers
        self._running: list[Running] = []
        self._goes_on = goes_on
        self._folder = pipeline.folder / f"units-{number}"
        self._number = number
        self._steps = self._left()
        self._made, self._swap = blocks(self._steps)
        files = sorted(self._folder.glob("*.toml"))
        assert [file.stem for file in files] == [f"outbox_{number}_{part}" for part in range(number)]
        self.units: list[Unit] = [unit(pipeline, file) for file in files]

    def _left(self) -> str:
        """What the command prints now: the steps that are left."""
        printed = self._pipeline.run("outbox", "init", "--split", str(self._number), "--write", str(self._folder))
        assert printed.returncode == 1, printed.stderr
        return printed.stdout

    def run(self) -> None:
        self._starts(self._publishers)
        self._goes_on()
        interrupted(self._pipeline, self._made)
        committed(self._pipeline, self._made)
        self._crashes()
        for left in range(self._number, 0, -1):  # as if the terminal were closed after each command
            steps = self._left()
            creates = [command for command in commands(steps) if "create" in command]
            assert (blocks(steps), len(creates)) == ([self._swap], left)
            done = run_here(tuple(creates[0]), {})
            assert done.returncode == 0, done.stderr
        assert blocks(self._left()) == [self._swap]
        self._crashes()
        if "renamed_to" in self._steps:
            self._pipeline.settings["outbox"] = {"renamed_to": "outbox_old"}
            self._stops()
            self._starts(self._publishers)
        self._goes_on()
        interrupted(self._pipeline, self._swap)
        committed(self._pipeline, self._swap)
        assert blocks(self._left()) == []
        ((text,),) = self._pipeline.sql("select pg_current_wal_insert_lsn()::text")
        end = LSN.parse(text)
        self._crashes()
        self._goes_on()
        for publisher in self._publishers:
            eventually(lambda publisher=publisher: publisher.confirmed() >= end, "the old slots pass W")  # type: ignore[misc]
        self._crashes()
        self._stops()
        self._pipeline.settings.pop("outbox", None)
        self._goes_on()
        self._publishers = list(self.units)
        self._starts(self._publishers)
        self._crashes()
        for drop in commands(self._left()):
            done = self._pipeline.run(*drop)
            assert done.returncode == 0, done.stderr
        for publication in [line for line in self._steps.splitlines() if line.startswith("DROP PUBLICATION")]:
            self._pipeline.sql(publication)
        self._goes_on()

    def _starts(self, publishers: list[Pipeline]) -> None:
        self._running = [publisher.start() for publisher in publishers]
        for running in self._running:
            running.streams()

    def _crashes(self) -> None:
        for running in self._running:
            running.kill()
        self._starts(self._publishers)

    def _stops(self) -> None:
        assert [running.stop() for running in self._running] == [0] * len(self._running)
        self._running = []

    def finish(self) -> None:
        for each in self.units:
            each.settles()
        self._stops()


@pytest.mark.parametrize(("guarantee", "numbers"), [("at-least-once", (2, 4)), ("exactly-once", (2,))])
def test_an_outbox_is_split_from_one_to_two_to_four_parts_under_load(
    guarantee: str, numbers: tuple[int, ...], shop: Callable[..., tuple[object, Pipeline]]
) -> None:
    _, pipeline = shop(max_replication_slots="20", max_wal_senders="20")
    pipeline.settings["delivery"] = {"guarantee": guarantee}
    failover = guarantee == "exactly-once"
    if failover:
        for command in (("drop", "--yes"), ("create", "--failover")):
            assert pipeline.run("slot", *command).returncode == 0
    pipeline.sql("create view events as select * from outbox")
    made: list[Unit] = []
    publishers: list[Pipeline] = [pipeline]
    try:
        with load(pipeline, keys=9) as goes_on:
            for number in numbers:
                split = Splitting(pipeline, publishers, number, goes_on)
                made += split.units
                split.run()
                if number != numbers[-1]:
                    split.finish()
                publishers = list(split.units)
        split.finish()
    finally:
        for each in made:
            each.close()
    tables = [*["outbox_old", "outbox_old2"][: len(numbers)], "outbox"]
    assert all(pipeline.sql(f"select count(distinct aggregateid)::int from {table}") == [(9,)] for table in tables)
    union = " union all ".join(f"select id, aggregateid, payload from {table}" for table in tables)
    pipeline.sql(f"create view written as {union}")
    pipeline.judge(table="written")
    assert pipeline.sql("select slot_name::text, failover from pg_replication_slots order by 1") == [
        (f"outbox_{numbers[-1]}_{part}", failover) for part in range(numbers[-1])
    ]
