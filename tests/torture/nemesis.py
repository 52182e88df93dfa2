"""The nemesis: a schedule that follows from a seed, and the threads that carry it out, so that faults overlap."""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import psutil
import psycopg

from tests.torture.crew import NobodyRuns
from tests.torture.faults import FAULTS, Fault
from tests.torture.stage import Stage, wait_until

RECOVERS_WITHIN: Final = 90.0  # seconds; what takes longer is noted as such


class Planned(NamedTuple):
    """One fault to come."""

    at: float  # seconds after the beginning
    fault: Fault
    seed: str  # of what the fault chooses for itself


def schedule(
    seed: int, seconds: float, faults: Sequence[Fault] = FAULTS, *, once: bool = False, intensity: float = 1
) -> list[Planned]:
    """When which fault comes. Each kind is spread over the whole time; with `once` none is left out.

    `intensity` multiplies the number of faults.
    """
    planned = []
    for fault in faults:
        chance = random.Random(f"{seed}/{fault.name}")
        count = max(int(fault.per_minute * intensity * seconds / 60 + chance.random()), int(once))
        for number in range(count):
            at = (number + chance.random()) * seconds / count
            planned.append(Planned(round(at, 3), fault, f"{seed}/{fault.name}/{number}"))
    return sorted(planned, key=lambda plan: plan.at)


class Nemesis:
    """Does faults, and measures how long it takes to recover from them."""

    def __init__(self, stage: Stage, planned: Iterable[Planned]) -> None:
        self.planned = list(planned)
        self._stage = stage
        self._note = threading.Lock()
        self._leaving = False
        self.injected: Counter[str] = Counter()
        self.late = 0.0  # seconds by which the worst fault came late, because another held what it torments
        self.recoveries: dict[str, list[float]] = {}
        self.restarts: dict[str, list[float]] = {}  # seconds until it streamed again, where that is measured
        self.busy: Counter[str] = Counter()  # crashes that hit a publisher at work, where that is looked at
        self.stuck: list[str] = []  # the publisher did not come back
        self.broken: list[str] = []  # faults of the harness

    def run(self) -> None:
        """Inject every fault; returns when all of them are healed."""
        raise NotImplementedError

    def _inflict(self, fault: Fault, seed: str, late: float = 0.0) -> bool:
        """Do a fault and undo it; False when it came to nothing."""
        name, tell = fault.name, self._stage.tell
        tell("inject", fault=name, late=round(late, 2))
        try:
            fault.act(self._stage, random.Random(seed))
        except (NobodyRuns, psycopg.OperationalError, psutil.Error) as error:  # another fault had it already
            tell("missed", fault=name, why=repr(error))
            return False
        except Exception as error:
            tell("broken", fault=name, why=repr(error))
            self.broken.append(f"{name}: {error!r}")
            return False
        finally:
            tell("healed", fault=name)
        with self._note:
            self.injected[name] += 1
            self.late = max(self.late, late)
        return True

    def _recover(self, name: str) -> None:
        """Measure until Kafka has all that was committed until the fault was healed, and something that came after."""
        stage, healed = self._stage, time.monotonic()
        end: list[int] = []

        def recovered() -> bool:
            if not end:
                end.append(stage.source.end())
            return self._leaving or stage.source.is_in_kafka(end[0])

        if not wait_until(recovered, RECOVERS_WITHIN, pause=0.02):
            stage.tell("not recovered", fault=name)
        with self._note:
            self.recoveries.setdefault(name, []).append(time.monotonic() - healed)


class Overlapping(Nemesis):
    """Injects each fault at its time; faults of the same target never overlap."""

    def __init__(self, stage: Stage, planned: Iterable[Planned]) -> None:
        super().__init__(stage, planned)
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def run(self) -> None:
        for name in {plan.fault.holds for plan in self.planned}:
            self._locks[name]  # made here, in one thread
        begun = time.monotonic()
        threads = []
        try:
            for plan in self.planned:
                time.sleep(max(0.0, begun + plan.at - time.monotonic()))
                thread = threading.Thread(target=self._inject, args=(plan, begun), name=plan.fault.name)
                thread.start()
                threads.append(thread)
        except BaseException:  # Ctrl-C: what is begun is healed all the same
            self._leaving = True
            raise
        finally:
            for thread in threads:
                thread.join()

    def _inject(self, plan: Planned, begun: float) -> None:
        with self._locks[plan.fault.holds]:
            if self._leaving or not self._inflict(plan.fault, plan.seed, time.monotonic() - begun - plan.at):
                return
        self._recover(plan.fault.name)
