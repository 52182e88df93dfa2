"""A campaign: load and faults for so many minutes, then healing, liveness and the verdict."""

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.torture import topics
from tests.torture.faults import FAULTS, Fault
from tests.torture.judge import Kind, Verdict, judge
from tests.torture.ledger import Outcome
from tests.torture.nemesis import Nemesis, Planned, schedule
from tests.torture.stage import PREFIX, Stage, wait_until
from tests.torture.writers import Writers

LAG_ZERO_WITHIN: Final = 120.0  # I7: seconds after the last fault is healed
STOPS_WITHIN: Final = 60.0


@dataclass
class Plan:
    """What to do."""

    seconds: float
    seed: int
    postgres: int = 18
    faults: Sequence[Fault] = FAULTS
    once: bool = False  # every kind at least once
    rate: float = 25  # transactions a second
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Outcomes:
    """What came of it."""

    plan: Plan
    verdict: Verdict
    injected: Counter[str]
    planned: Counter[str]
    rolled_back: int
    unsafe: list[str]  # I6
    refusals: list[str]  # publishers that gave up
    stuck: list[str]  # I7
    broken: list[str]  # the harness itself
    recoveries: dict[str, list[float]]
    lag_zero: float
    starts: int
    sessions: int
    statuses: int
    acknowledgements: int
    peak_memory: int
    not_run: list[str]
    late: float
    after_crashes: set[int]  # replication sessions that began after a crash of PostgreSQL

    @property
    def violations(self) -> list[str]:
        """Everything that must not be, in words."""
        return [*self.unsafe, *map(str, self.verdict.findings), *self.stuck, *self.refusals]

    @property
    def passed(self) -> bool:
        return not self.violations and not self.broken

    def group(self, name: str) -> int:
        """How many faults of a group were injected."""
        return sum(self.injected[fault.name] for fault in FAULTS if fault.group == name)

    def most_duplicates(self, *, after_crash: bool) -> int:
        """What the worst session repeated; PostgreSQL itself makes one begin further back by a crash."""
        by_session = self.verdict.duplicates_by_session.items()
        return max((count for number, count in by_session if (number in self.after_crashes) == after_crash), default=0)

    def summary(self) -> dict[str, Any]:
        """The figures, for a machine."""
        verdict = self.verdict
        return {
            "passed": self.passed,
            "seed": self.plan.seed,
            "seconds": self.plan.seconds,
            "postgres": self.plan.postgres,
            "events": verdict.events,
            "transactions": verdict.transactions,
            "rolled_back": self.rolled_back,
            "records": verdict.records,
            "lost": verdict.count(Kind.LOST),
            "reordered": verdict.count(Kind.REORDERED),
            "forward_gaps": verdict.count(Kind.GAP),
            "phantoms": verdict.count(Kind.PHANTOM),
            "duplicates": verdict.duplicates,
            "most_duplicates_of_a_session": self.most_duplicates(after_crash=False),
            "most_duplicates_of_a_session_after_a_crash_of_postgres": self.most_duplicates(after_crash=True),
            "sessions_with_duplicates": len(verdict.duplicates_by_session),
            "unsafe_confirmations": len(self.unsafe),
            "gave_up": len(self.refusals),
            "stuck": self.stuck,
            "broken": self.broken,
            "faults": dict(self.injected),
            "planned": dict(self.planned),
            "not_run": self.not_run,
            "most_late_seconds": round(self.late, 1),
            "recovery_seconds": {name: _quantiles(times) for name, times in sorted(self.recoveries.items())},
            "lag_zero_seconds": round(self.lag_zero, 2),
            "publisher_starts": self.starts,
            "replication_sessions": self.sessions,
            "status_updates": self.statuses,
            "acknowledgements": self.acknowledgements,
            "peak_memory_mb": round(self.peak_memory / 1e6, 1),
            "violations": self.violations[:100],
        }


def _quantiles(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)

    def quantile(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3)

    return {"n": len(times), "p50": quantile(0.5), "p99": quantile(0.99), "max": quantile(1)}


def run(plan: Plan, home: Path, progress: Callable[[str], None]) -> Outcomes:
    """Carry out a plan in the folder `home`, which keeps the history and the logs."""
    outcomes = None
    try:
        with Stage(home, postgres=plan.postgres, settings=plan.settings) as stage:
            outcomes = _campaign(plan, stage, home, progress)
    except OSError as error:
        if outcomes is None:
            raise
        outcomes.broken.append(f"cleaning up: {error!r}")  # the verdict stands
    return outcomes


def _campaign(plan: Plan, stage: Stage, home: Path, progress: Callable[[str], None]) -> Outcomes:
    not_run = [f.name for f in plan.faults if f.group == "disk" and f.name.partition("-")[2] not in stage.full_disks]
    planned = schedule(plan.seed, plan.seconds, [f for f in plan.faults if f.name not in not_run], once=plan.once)
    progress(f"{len(planned)} faults in {plan.seconds / 60:.1f} minutes, seed {plan.seed}")
    nemesis = Nemesis(stage, planned)
    with _reports(stage, nemesis, planned, progress):
        writers = _torment(stage, plan, nemesis)
    stuck, lag_zero = _settle(stage, progress)
    progress("judging")
    records = topics.records(stage.kafka, stage.topics, home / "topics.jsonl")
    verdict = judge(stage.ledger, records, stage.sessions)
    broken = [*nemesis.broken, *map(repr, writers.errors)]
    broken += [f"proxy: {error!r}" for proxy in stage.proxies for error in proxy.roads.errors]
    if stage.watch.unacknowledged and verdict.is_clean and not stuck:
        # Everything is delivered: so what the proxies made of the traffic is wrong, and I6 was not watched.
        broken.append(f"{stage.watch.unacknowledged} transactions were never seen acknowledged")
    stage.tell("verdict", findings=[str(finding) for finding in verdict.findings[:100]])
    return Outcomes(
        plan,
        verdict,
        nemesis.injected,
        Counter(plan.fault.name for plan in planned),
        stage.ledger.count(Outcome.ROLLED_BACK),
        [str(unsafe) for unsafe in stage.watch.violations],
        stage.crew.refusals,
        stuck,
        broken,
        nemesis.recoveries,
        lag_zero,
        stage.crew.starts,
        stage.tape.sessions,
        stage.watch.statuses,
        stage.watch.acknowledgements,
        stage.crew.peak_memory,
        not_run,
        nemesis.late,
        stage.after_crashes,
    )


def _torment(stage: Stage, plan: Plan, nemesis: Nemesis) -> Writers:
    with Writers(stage.postgres.dsn, stage.ledger, PREFIX, plan.seed, rate=plan.rate) as writers:
        try:
            nemesis.run()
        finally:
            stage.heal()  # or the writers would wait for ever
    return writers


def _settle(stage: Stage, progress: Callable[[str], None]) -> tuple[list[str], float]:
    """I7: everything is healed and nobody writes: the lag must go, and the publisher must end."""
    end, begun = stage.lsn(), time.monotonic()
    progress("healed; waiting for the lag to reach 0")
    stuck = []
    if not wait_until(lambda: stage.confirmed() >= end, LAG_ZERO_WITHIN):
        stuck.append(f"I7: the lag was not 0 within {LAG_ZERO_WITHIN:g} s of the last fault")
    lag_zero = time.monotonic() - begun
    codes = stage.crew.stop(STOPS_WITHIN)
    if codes != [0] * len(codes):
        stuck.append(f"I7: SIGTERM without any fault ended with exit codes {codes}")
    return stuck, lag_zero


@contextlib.contextmanager
def _reports(stage: Stage, nemesis: Nemesis, planned: list[Planned], progress: Callable[[str], None]) -> Any:
    """Say every few seconds how far it is."""
    done = threading.Event()

    def report() -> None:
        begun = time.monotonic()
        while not done.wait(5):
            progress(
                f"{time.monotonic() - begun:6.0f} s  {nemesis.injected.total()}/{len(planned)} faults"
                f"  {stage.ledger.events:,} events committed  {stage.watch.unacknowledged} transactions in flight"
                f"  {stage.crew.starts} starts  {len(stage.watch.violations)} unsafe confirmations"
                f"  {len(stage.crew.refusals)} gave up"
            )

    thread = threading.Thread(target=report, name="reports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
