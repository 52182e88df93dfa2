"""Worlds that once violated a rule: stored, and run as regression tests."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.simulation import swarm, sweep
from tests.simulation.run import Outcome, Run
from tests.simulation.scenarios import SCENARIOS

VERSION: Final = 2
"""Of the world: with another one a seed means another world. Those of version 1 had no changes by others."""

FOLDER: Final = Path(__file__).parents[1] / "tapes"


@dataclass(frozen=True, slots=True)
class Tape:
    """A seed of the swarm, or a crash schedule of a scenario by its name, and what it found."""

    message: str
    seed: int | None = None
    scenario: str = ""
    crashes: tuple[tuple[int, bool], ...] = ()
    version: int = VERSION

    def play(self) -> Outcome:
        if self.seed is not None:
            return Run(swarm.plan(self.seed, others=self.version > 1), str(self.seed)).go(digest=True)
        (plan,) = [plan for plan in SCENARIOS if plan.name == self.scenario]
        return Run(plan, sweep.SEED, self.crashes).go(digest=True)

    def save(self) -> Path:
        calls = "-".join(f"{call}{'a' if after else 'b'}" for call, after in self.crashes)
        name = (
            f"seed-{self.seed}" if self.seed is not None else f"{''.join(filter(str.isalnum, self.scenario))}-{calls}"
        )
        path = FOLDER / f"{name}.json"
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")
        return path


def tapes() -> list[Tape]:
    """All that are kept and fit this version of the world."""
    kept = []
    for path in sorted(FOLDER.glob("*.json")):
        read = json.loads(path.read_text())
        read["crashes"] = tuple((int(call), bool(after)) for call, after in read["crashes"])
        tape = Tape(**read)
        if 0 < tape.version <= VERSION:
            kept.append(tape)
    return kept
