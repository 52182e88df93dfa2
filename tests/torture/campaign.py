"""A campaign: load and faults for so many minutes, then healing, liveness and the verdict."""

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cdc.delivery.positions import AT_LEAST_ONCE, EXACTLY_ONCE
from tests.torture import topics
from tests.torture.commits import Commits
from tests.torture.crashes import Crashes, shuffled
from tests.torture.faults import FAULTS, Fault
from tests.torture.judge import Kind, Rules, Verdict, judge
from tests.torture.ledger import Outcome
from tests.torture.nemesis import Nemesis, Overlapping, schedule
from tests.torture.repeats import Repeated, repeated
from tests.torture.stage import PREFIX, Stage, wait_until
from tests.torture.writers import COMPACTED, Writers

LAG_ZERO_WITHIN: Final = 600.0  # I7: seconds after the last fault is healed, on a machine that others use too
STOPS_WITHIN: Final = 180.0


@dataclass
class Plan:
    """What to do."""

    seconds: float
    seed: int
    postgres: int = 18
    faults: Sequence[Fault] = FAULTS
    once: bool = False  # every kind at least once
    rate: float = 25  # transactions a second
    intensity: float = 1  # of the faults
    guarantee: str = AT_LEAST_ONCE
    sequence: bool = False
    kills: int = 0  # of the publisher; with these or the crashes there are no other faults, and no `seconds`
    crashes: int = 0  # of PostgreSQL
    source: str = "slot"

    @property
    def rules(self) -> Rules:
        compacted = frozenset({f"{PREFIX}{COMPACTED}"})
        return Rules(self.guarantee == EXACTLY_ONCE, self.sequence, compacted, self.source == "polling")

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        return {"delivery": {"guarantee": self.guarantee, "sequence": self.sequence}}

    @property
    def title(self) -> str:
        numbers = ", with numbers" if self.sequence else ""
        return f"{self.source}, {self.guarantee}{numbers}, PostgreSQL {self.postgres}, seed {self.seed}"


@dataclass
class Outcomes:
    """What came of it."""

    plan: Plan
    verdict: Verdict
    nemesis: Nemesis
    rolled_back: int
    unsafe: list[str]  # I6
    refusals: list[str]  # publishers that gave up
    stuck: list[str]  # I7
    broken: list[str]  # the harness itself
    commits: Commits
    lag_zero: float
    starts: int
    sessions: int
    statuses: int
    acknowledgements: int
    peak_memory: int
    not_run: list[str]
    passed_over: list[str]  # faults that mean nothing for the source
    causes: Mapping[int, Counter[str]]  # of replication sessions
    compactions: int  # while no publisher ran, until one record was left of each key

    @property
    def injected(self) -> Counter[str]:
        return self.nemesis.injected

    @property
    def planned(self) -> Counter[str]:
        return Counter(plan.fault.name for plan in self.nemesis.planned)

    @property
    def violations(self) -> list[str]:
        """Everything that must not be, in words."""
        return [*self.unsafe, *self.stuck, *self.refusals, *map(str, self.verdict.findings)]

    @property
    def passed(self) -> bool:
        return not self.violations and not self.broken

    def group(self, name: str) -> int:
        """How many faults of a group were injected."""
        return sum(self.injected[fault.name] for fault in FAULTS if fault.group == name)

    def duplicates(self) -> "dict[str, Repeated]":
        """Count duplicates after kills of the publisher, after crashes of PostgreSQL, and otherwise."""
        return repeated(self.verdict.duplicates_by_session, self.causes)

    def summary(self) -> dict[str, Any]:
        """The figures, for a machine."""
        verdict = self.verdict
        return {
            "passed": self.passed,
            "seed": self.plan.seed,
            "seconds": self.plan.seconds,
            "intensity": self.plan.intensity,
            "postgres": self.plan.postgres,
            "source": self.plan.source,
            "guarantee": self.plan.guarantee,
            "numbered": self.plan.sequence,
            "events": verdict.events,
            "transactions": verdict.transactions,
            "rolled_back": self.rolled_back,
            "records": verdict.records,
            "lost": verdict.count(Kind.LOST),
            "reordered": verdict.count(Kind.REORDERED),
            "forward_gaps": verdict.count(Kind.GAP),
            "phantoms": verdict.count(Kind.PHANTOM),
            "duplicates": verdict.duplicates,
            "duplicates_after": {cause: found._asdict() for cause, found in self.duplicates().items()},
            "duplicates_too_many": verdict.count(Kind.DUPLICATE),
            "stale": verdict.count(Kind.STALE),
            "positions_given_twice": verdict.count(Kind.POSITION),
            "compactions": self.compactions,
            "removed_by_compaction": verdict.removed,
            "removed_unseen": verdict.unseen,
            "numbers_missing": verdict.numbers_missing,
            "numbers_repeated": verdict.numbers_repeated,
            "wrong_numbers": verdict.count(Kind.NUMBER),
            "kafka_transactions": {
                "committed": self.commits.committed,
                "aborted": self.commits.aborted,
                "known_by_reading_back": self.commits.read_back,
            },
            "unsafe_confirmations": len(self.unsafe),
            "gave_up": len(self.refusals),
            "stuck": self.stuck,
            "broken": self.broken,
            "faults": dict(self.injected),
            "planned": dict(self.planned),
            "not_run": self.not_run,
            "passed_over": self.passed_over,
            "most_late_seconds": round(self.nemesis.late, 1),
            "busy": dict(self.nemesis.busy),
            "streams_again_seconds": _spans(self.nemesis.restarts),
            "recovery_seconds": _spans(self.nemesis.recoveries),
            "lag_zero_seconds": round(self.lag_zero, 2),
            "publisher_starts": self.starts,
            "replication_sessions": self.sessions,
            "status_updates": self.statuses,
            "acknowledgements": self.acknowledgements,
            "peak_memory_mb": round(self.peak_memory / 1e6, 1),
            "violations": self.violations[:100],
        }


def _spans(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    return {name: _quantiles(seconds) for name, seconds in sorted(times.items())}


def _quantiles(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)

    def quantile(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3)

    return {"n": len(times), "p50": quantile(0.5), "p99": quantile(0.99), "max": quantile(1)}


def run(plan: Plan, home: Path, progress: Callable[[str], None]) -> Outcomes:
    """Carry out a plan in the folder `home`, which keeps the history and the logs."""
    outcomes = None
    try:
        with Stage(home, postgres=plan.postgres, source=plan.source, settings=plan.settings) as stage:
            outcomes = _campaign(plan, stage, home, progress)
    except OSError as error:
        if outcomes is None:
            raise
        outcomes.broken.append(f"cleaning up: {error!r}")  # the verdict stands
    return outcomes


def _campaign(plan: Plan, stage: Stage, home: Path, progress: Callable[[str], None]) -> Outcomes:
    nemesis, not_run = _nemesis(plan, stage)
    progress(f"{len(nemesis.planned)} faults, {plan.title}")
    with _reports(stage, nemesis, progress):
        writers = _torment(stage, plan, nemesis)
    stuck, lag_zero = _settle(stage, progress)
    progress("judging")
    left = topics.records(stage.kafka, stage.topics)
    records = topics.dumped(topics.with_removed(left, stage.reader.stop()), home / "topics.jsonl")
    verdict = judge(stage.ledger, records, stage.sessions, plan.rules, stage.watch.reads, stage.watch.proven)
    broken = [*nemesis.broken, *map(repr, writers.errors)]
    broken += [f"proxy: {error!r}" for proxy in stage.proxies for error in proxy.roads.errors]
    if (missing := stage.source.in_flight()) and verdict.is_clean and not stuck:
        # Everything is delivered: so what the proxies made of the traffic is wrong, and I6 was not watched.
        broken.append(f"{missing} transactions or events were never seen acknowledged")
    if plan.rules.exactly_once != bool(stage.tape.commits.committed):
        broken.append(f"{stage.tape.commits.committed} Kafka transactions were seen committed in {plan.guarantee}")
    stage.tell("verdict", findings=[str(finding) for finding in verdict.findings[:100]])
    return Outcomes(
        plan,
        verdict,
        nemesis,
        stage.ledger.count(Outcome.ROLLED_BACK),
        [str(unsafe) for unsafe in stage.watch.violations],
        stage.crew.refusals,
        [*nemesis.stuck, *stuck],
        broken,
        stage.tape.commits,
        lag_zero,
        stage.crew.starts,
        stage.tape.sessions,
        stage.watch.statuses,
        stage.watch.acknowledgements,
        stage.crew.peak_memory,
        not_run,
        [fault.name for fault in plan.faults if fault.source not in ("", plan.source)],
        stage.causes,
        stage.compactions,
    )


def _nemesis(plan: Plan, stage: Stage) -> tuple[Nemesis, list[str]]:
    """What torments, and which kinds of faults cannot be had here."""
    if plan.kills or plan.crashes:
        return Crashes(stage, shuffled(plan.seed, plan.kills, plan.crashes)), []
    meant = [f for f in plan.faults if f.guarantee in ("", plan.guarantee) and f.source in ("", plan.source)]
    not_run = [f.name for f in meant if f.group == "disk" and f.name.partition("-")[2] not in stage.full_disks]
    faults = [fault for fault in meant if fault.name not in not_run]
    return Overlapping(
        stage, schedule(plan.seed, plan.seconds, faults, once=plan.once, intensity=plan.intensity)
    ), not_run


def _torment(stage: Stage, plan: Plan, nemesis: Nemesis) -> Writers:
    with Writers(stage.postgres.dsn, stage.ledger, PREFIX, plan.seed, rate=plan.rate) as writers:
        try:
            nemesis.run()
        finally:
            stage.heal()  # otherwise the writers would wait indefinitely
    return writers


def _settle(stage: Stage, progress: Callable[[str], None]) -> tuple[list[str], float]:
    """I7: after all faults are healed and writing ends, the lag must reach zero, and the publisher must end."""
    end, begun = stage.source.end(), time.monotonic()
    progress("healed; waiting for the lag to reach 0")
    stuck = []
    if not wait_until(lambda: stage.source.is_confirmed(end), LAG_ZERO_WITHIN):
        stuck.append(f"I7: the lag was not 0 within {LAG_ZERO_WITHIN:g} s of the last fault")
    lag_zero = time.monotonic() - begun
    codes = stage.crew.stop(STOPS_WITHIN)
    if codes != [0] * len(codes):
        stuck.append(f"I7: SIGTERM without any fault ended with exit codes {codes}")
    return stuck, lag_zero


@contextlib.contextmanager
def _reports(stage: Stage, nemesis: Nemesis, progress: Callable[[str], None]) -> Any:
    """Say every few seconds how far it is."""
    done = threading.Event()

    def report() -> None:
        begun = time.monotonic()
        while not done.wait(5):
            progress(
                f"{time.monotonic() - begun:6.0f} s  {nemesis.injected.total()}/{len(nemesis.planned)} faults"
                f"  {stage.ledger.events:,} events committed  {stage.source.in_flight()} in flight"
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
