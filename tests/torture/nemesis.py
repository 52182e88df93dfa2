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


def schedule(seed: int, seconds: float, faults: Sequence[Fault] = FAULTS, *, once: bool = False) -> list[Planned]:
    """When which fault comes. Each kind is spread over the whole time; with `once` none is left out."""
    planned = []
    for fault in faults:
        chance = random.Random(f"{seed}/{fault.name}")
        count = max(int(fault.per_minute * seconds / 60 + chance.random()), int(once))
        for number in range(count):
            at = (number + chance.random()) * seconds / count
            planned.append(Planned(round(at, 3), fault, f"{seed}/{fault.name}/{number}"))
    return sorted(planned, key=lambda plan: plan.at)


class Nemesis:
    """Carries out a schedule."""

    def __init__(self, stage: Stage, planned: Iterable[Planned]) -> None:
        self._stage = stage
        self._planned = list(planned)
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._note = threading.Lock()
        self.injected: Counter[str] = Counter()
        self.late = 0.0  # seconds by which the worst fault came late, because another held what it torments
        self.recoveries: dict[str, list[float]] = {}
        self._leaving = False
        self.broken: list[str] = []  # faults of the harness

    def run(self) -> None:
        """Inject every fault at its time; returns when all of them are healed."""
        for name in {plan.fault.holds for plan in self._planned}:
            self._locks[name]  # made here, in one thread
        begun = time.monotonic()
        threads = []
        try:
            for plan in self._planned:
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
        name, tell = plan.fault.name, self._stage.tell
        with self._locks[plan.fault.holds]:
            if self._leaving:
                return
            late = time.monotonic() - begun - plan.at
            tell("inject", fault=name, late=round(late, 2))
            try:
                plan.fault.act(self._stage, random.Random(plan.seed))
            except (NobodyRuns, psycopg.OperationalError, psutil.Error) as error:  # another fault had it already
                tell("missed", fault=name, why=repr(error))
                return
            except Exception as error:
                tell("broken", fault=name, why=repr(error))
                self.broken.append(f"{name}: {error!r}")
                return
            finally:
                tell("healed", fault=name)
            with self._note:
                self.injected[name] += 1
                self.late = max(self.late, late)
        self._recover(name)

    def _recover(self, name: str) -> None:
        """Measure until Kafka has all that was committed until the fault was healed, and something that came after."""
        stage, healed = self._stage, time.monotonic()
        end: list[int] = []

        def recovered() -> bool:
            if not end:
                end.append(stage.lsn())
            return self._leaving or stage.watch.settled > end[0]  # so something that committed since then is in Kafka

        if not wait_until(recovered, RECOVERS_WITHIN, pause=0.02):
            stage.tell("not recovered", fault=name)
        with self._note:
            self.recoveries.setdefault(name, []).append(time.monotonic() - healed)
