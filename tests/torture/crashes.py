"""Crashes of publisher and PostgreSQL, one after the other, each as soon as the publisher is at work again."""

import random
import threading
import time
from collections.abc import Iterable
from typing import Final

from tests.torture.faults import FAULTS
from tests.torture.nemesis import Nemesis, Planned
from tests.torture.stage import Stage, wait_until

STREAMS_WITHIN: Final = 60.0  # seconds after a crash
SECONDS_EACH: Final = 6.0  # on average at the most: a campaign that takes longer is given up
_EARLY: Final = 0.15  # of the kills: the publisher has hardly begun
_SHORTEST: Final = 0.1
_LONGEST: Final = 2.0
_FAULTS: Final = {fault.name: fault for fault in FAULTS}
_STREAMING: Final = "streaming"
_KILL: Final = "publisher-kill"
_CRASHES: Final = ("postgres-immediate", "postgres-kill")


def shuffled(seed: int, kills: int, crashes: int) -> list[Planned]:
    """So many of each in random order, and how long the publisher streams before each; negative: it does not yet."""
    chance = random.Random(f"{seed}/crashes")
    names = [_KILL] * kills + [_CRASHES[number % len(_CRASHES)] for number in range(crashes)]
    chance.shuffle(names)
    planned = []
    for number, name in enumerate(names):
        early = name == _KILL and chance.random() < _EARLY
        pause = -chance.random() if early else chance.uniform(_SHORTEST, _LONGEST)
        planned.append(Planned(round(pause, 3), _FAULTS[name], f"{seed}/crashes/{number}"))
    return planned


class Crashes(Nemesis):
    """Does the crashes of `shuffled`."""

    def __init__(self, stage: Stage, planned: Iterable[Planned]) -> None:
        super().__init__(stage, planned)
        self._streamed: dict[int, int] = {}  # by process: how often it had begun to when the last crash came
        self._down: list[tuple[str, float]] = []  # faults since then, and when each was healed

    def run(self) -> None:
        recovering: list[threading.Thread] = []
        give_up_at = time.monotonic() + SECONDS_EACH * len(self.planned) + STREAMS_WITHIN
        wait_until(lambda: self._stage.source.is_in_kafka(0), STREAMS_WITHIN)  # that nothing is settled yet is no load
        try:
            for plan in self.planned:
                if time.monotonic() > give_up_at:
                    self.broken.append(f"only {self.injected.total()} of {len(self.planned)} crashes in time")
                    break
                if not self._come(plan.at):
                    break
                thread = threading.Thread(target=self._recover, args=[plan.fault.name], name="recovery")
                if self._crash(plan):
                    thread.start()
                    recovering.append(thread)
            self._streams()
        except BaseException:  # Ctrl-C
            self._leaving = True
            raise
        finally:
            for thread in recovering:
                thread.join()

    def _come(self, pause: float) -> bool:
        """Wait for the moment of the next crash; False when the publisher does not come back."""
        if pause < 0:
            publisher = self._stage.crew.first()
            time.sleep(max(0.0, publisher.started_at - pause - time.monotonic()))
            return True
        if not self._streams():
            return False
        time.sleep(pause)
        return True

    def _crash(self, plan: Planned) -> bool:
        stage = self._stage
        self._streamed = {p.process.pid: p.states().count(_STREAMING) for p in list(stage.crew.publishers)}
        was_busy = stage.source.is_busy()
        if not self._inflict(plan.fault, plan.seed):
            return False
        self.busy[plan.fault.name] += was_busy
        self._down.append((plan.fault.name, time.monotonic()))
        return True

    def _streams(self) -> bool:
        """Wait until it does since the last crash, and note how long that took."""
        known = self._streamed

        def streams() -> bool:
            here = [publisher for publisher in list(self._stage.crew.publishers) if publisher.runs]
            return any(p.states().count(_STREAMING) > known.get(p.process.pid, 0) for p in here)

        if not wait_until(streams, STREAMS_WITHIN, pause=0.01):
            self.stuck.append(f"I7: the publisher did not stream within {STREAMS_WITHIN:g} s of a crash")
            return False
        now = time.monotonic()
        for name, healed in self._down:
            self.restarts.setdefault(name, []).append(max(0.0, now - healed))
        self._down.clear()
        return True
