"""A short run of the simulation: the core between a simulated PostgreSQL and a simulated Kafka, in virtual time.

`make simulate` runs many more worlds, and `make mutants` shows that the oracles can see.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.mutants.__main__ import patched
from tests.mutants.defects import DEFECTS, Defect
from tests.simulation import swarm, sweep
from tests.simulation.campaign import sample
from tests.simulation.oracle import Oracle
from tests.simulation.plan import Plan
from tests.simulation.polling import world as polling
from tests.simulation.recovery import world as recovery
from tests.simulation.run import Run
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.tapes import Tape, tapes
from tests.simulation.world import Crash, Violation, World


@pytest.mark.parametrize("plan", SCENARIOS, ids=[plan.name for plan in SCENARIOS])
def test_a_scenario_keeps_every_invariant_i1_to_i10(plan: Plan) -> None:
    outcome = Run(plan, sweep.SEED).go()
    assert outcome.violation is None
    assert outcome.rows > 0


@pytest.mark.parametrize("plan", [plan for plan in SCENARIOS if "plain" in plan.name or "(A6)" in plan.name])
def test_a_process_may_die_in_any_call_before_or_after_its_effect_d5(plan: Plan) -> None:
    for call in range(1, sweep.calls(plan) + 1):
        for after in (False, True):
            outcome = Run(plan, sweep.SEED, [(call, after)]).go()
            assert outcome.violation is None, f"dies in call {call}, after its effect: {after}"


def test_random_worlds_keep_every_invariant_i1_to_i10() -> None:
    assert [seed for seed in range(150) if Run(swarm.plan(seed), str(seed)).go().violation] == []


def test_random_recoveries_keep_every_invariant_b1() -> None:
    assert [where for where, violation in recovery.worlds(range(20)) if violation] == []


def test_random_worlds_of_a_relay_lose_repeat_and_reorder_nothing() -> None:
    assert [where for where, violation in polling.worlds(range(100)) if violation] == []


@pytest.mark.parametrize("tape", tapes(), ids=lambda tape: tape.message[:60])
def test_worlds_that_once_violated_a_rule_keep_it(tape: Tape) -> None:
    assert tape.play().violation is None


def test_world_that_violates_a_rule_is_stored_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.simulation.tapes.FOLDER", tmp_path)
    kept = [Tape("I1", scenario="plain", crashes=((3, True), (4, False))), Tape("I2", seed=5)]
    older = Tape("I3", seed=6, version=0)
    for tape in [*kept, older]:
        tape.save()
    assert sorted(tapes(), key=lambda tape: tape.message) == kept
    assert kept[0].play().lives == 3


def test_same_seed_makes_the_same_world_under_another_hash_seed() -> None:
    command = [sys.executable, "-c", "from tests.simulation.campaign import sample; print(sample())"]
    hashes = {
        subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert hashes == {sample()}


def test_another_seed_makes_another_world() -> None:
    plan = swarm.plan(1)
    assert Run(plan, "1").go(digest=True).digest != Run(plan, "2").go(digest=True).digest


def test_a_crash_comes_in_its_call_before_or_after_the_effect() -> None:
    world = World("crash", crashes=[(2, False), (1, True)])
    world.started()
    world.enter()
    world.leave()
    with pytest.raises(Crash):
        world.enter()
    world.started()
    world.enter()
    with pytest.raises(Crash):
        world.leave()


def test_the_oracle_refuses_a_status_update_beyond_what_was_sent_i6() -> None:
    oracle = Oracle(World("oracle"), 1, dead_letters=False)
    oracle.confirms(100, sent=100, before=90)
    with pytest.raises(Violation, match="I6"):
        oracle.confirms(101, sent=100, before=100)
    with pytest.raises(Violation, match="A11"):
        oracle.confirms(99, sent=100, before=100)


@pytest.mark.parametrize("defect", DEFECTS, ids=[defect.name for defect in DEFECTS])
def test_each_mutant_still_fits_the_core(defect: Defect) -> None:
    assert defect.old not in patched(defect) or defect.old in defect.new


def test_mutant_that_does_not_match_the_code_is_rejected() -> None:
    with pytest.raises(SystemExit, match="0 times"):
        patched(DEFECTS[0]._replace(old="no such text"))
