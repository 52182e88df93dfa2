"""The measurements of each command, as sections of the results."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from rich.console import Console

from benchmarks import (
    backfill,
    contestants,
    fleet,
    growth,
    latency,
    machine,
    memory,
    peer_runs,
    peers,
    polling,
    split,
    startup,
    throughput,
)
from benchmarks.contestants import RECVLOGICAL
from benchmarks.growth import Dimension
from benchmarks.peers import Peer
from benchmarks.results import Sections
from benchmarks.screen import Screen
from benchmarks.servers import Servers, servers
from benchmarks.workload import SHAPES, Workload

BUSY_SHARE: Final = 0.5  # of the cores; a stack that has just started is part of it
OTHER_SHARE: Final = 0.5  # of the main backlog, for the other shapes
OTHER_ROUNDS: Final = 3
GROWTH_EVENTS: Final = 100_000


class Bench:
    """The measurements on some servers."""

    def __init__(self, found: Servers, screen: Screen) -> None:
        self._servers = found
        self._screen = screen
        self._machine = machine.described(found)
        busy = os.getloadavg()[0]
        if busy > BUSY_SHARE * len(os.sched_getaffinity(0)):
            screen.say(f"this machine is busy (load {busy:.1f}): what is measured now is rough")

    def _section(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return {"machine": self._machine, **found}

    def throughput(self, shapes: Mapping[str, Workload], names: Sequence[str], rounds: int) -> Sections:
        present = [name for name in names if not self._lacks(name, contestants.absent(name))]
        return {
            f"throughput {shape}": self._section(
                throughput.measure(self._servers, self._screen, shape, workload, present, rounds)
            )
            for shape, workload in shapes.items()
        }

    def _lacks(self, name: str, reason: str) -> bool:
        if reason:
            self._screen.say(f"without {name}: {reason}")
        return bool(reason)

    def latency(self, rates: Sequence[int], seconds: float, contestant: str) -> Sections:
        found = latency.measure(self._servers, self._screen, rates, seconds, contestant)
        return {"latency": self._section({"contestant": contestant, "rates": found})}

    def startup(self, times: int, contestant: str) -> Sections:
        found = startup.measure(self._servers, self._screen, times, contestant)
        return {"startup": self._section({"contestant": contestant, **found})}

    def memory(self, workloads: Mapping[str, Workload], contestant: str) -> Sections:
        return {
            f"memory {name}": self._section(
                {"contestant": contestant, **memory.measure(self._servers, self._screen, workload, contestant)}
            )
            for name, workload in workloads.items()
        }

    def backfill(self, events: int) -> Sections:
        return {"backfill": self._section(backfill.measure(self._servers, self._screen, events))}

    def split(self, workload: Workload, parts: Sequence[int], names: Sequence[str], rounds: int) -> Sections:
        present = [name for name in names if not self._lacks(name, contestants.absent(name))]
        return {"split": self._section(split.measure(self._servers, self._screen, workload, parts, present, rounds))}

    def fleet(self, workload: Workload, units: int, rounds: int, takeovers: int, contestant: str) -> Sections:
        found = fleet.measure(self._servers, self._screen, workload, units, rounds, takeovers, contestant)
        return {"fleet": self._section({"contestant": contestant, **found})}

    def polling(
        self, workload: Workload, rounds: int, rate: int, seconds: float, open_seconds: float, only: Sequence[str]
    ) -> Sections:
        found = polling.measure(self._servers, self._screen, workload, rounds, rate, seconds, open_seconds, only)
        return {"polling": self._section(found)}

    def peers(self, chosen: Sequence[Peer], workload: Workload, rounds: int) -> Sections:
        present = [peer for peer in chosen if not self._lacks(peer.name, peers.absent(peer.name))]
        return {"peers": self._section(peer_runs.measure(self._servers, self._screen, present, workload, rounds))}

    def growth(self, wanted: Sequence[Dimension], rounds: int, contestant: str, rates: Sequence[int]) -> Sections:
        found = growth.measure(self._servers, self._screen, wanted, rounds, contestant, rates)
        return {"growth": self._section({"contestant": contestant, "dimensions": found})}

    def everything(self, events: int, rounds: int) -> Sections:
        """Measure everything except the longest backlog, with fewer rounds for secondary shapes."""
        default = contestants.default_accelerator()
        main = {"200B": replace(SHAPES["200B"], events=events)}
        scale = events / SHAPES["200B"].events * OTHER_SHARE
        others = {
            shape: replace(workload, events=max(1000, int(workload.events * scale)))
            for shape, workload in SHAPES.items()
            if shape != "200B"
        }
        others["one-transaction"] = replace(SHAPES["one-transaction"], events=events)
        fewer = [name for name in contestants.NAMES if name != RECVLOGICAL]
        return {
            **self.throughput(main, contestants.NAMES, rounds),
            **self.throughput(others, fewer, min(rounds, OTHER_ROUNDS)),
            **self.latency(latency.RATES, 20.0, default),
            **self.startup(5, default),
            **self.memory(memory.workloads(0, events), default),
            **self.growth(growth.dimensions(GROWTH_EVENTS, events), 1, default, latency.RATES),
        }


@contextlib.contextmanager
def bench(console: Console, postgres: str | None, kafka: str | None) -> Iterator[Bench]:
    """Yield a Bench on the servers; a local stack is removed in any case."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with servers(postgres, kafka, console) as found, Screen(console) as screen:
        yield Bench(found, screen)
