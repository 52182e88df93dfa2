"""Which walsender serves each slot of a fleet, seen from outside by PostgreSQL's views, and how long takeovers take."""

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import psutil
import psycopg

from cdc.postgres.source import STREAM

LOOK_SECONDS: Final = 0.1
HANDED_OVER: Final = "handed over"
"""A unit that moves although nothing happened to its reader: an instance came, left or returned."""

_SENDERS: Final = """
select r.pid, r.client_port, r.state in ('catchup', 'streaming'), s.slot_name::text
from pg_stat_replication r left join pg_replication_slots s on s.active_pid = r.pid
where r.application_name = %s
"""
_LOOKS_OF_AN_END: Final = 10
"""A walsender that ends gives back its slot first, and the two views are not read at one moment."""


class Sender(NamedTuple):
    """A walsender, by its pid and the port of its client."""

    pid: int
    port: int


class Takeover(NamedTuple):
    """A slot that got another reader: after which kind of fault, and the seconds since then."""

    kind: str
    slot: str
    seconds: float


class Watch:
    """Looks at the walsenders of all slots; `expect` says whose reader a fault has just hit."""

    def __init__(self, dsn: str, slots: Iterable[str]) -> None:
        self._dsn = dsn
        self._slots = frozenset(slots)
        self._lock = threading.Lock()
        self._senders: dict[str, Sender] = {}
        self._expected: dict[str, tuple[str, float, int]] = {}  # by slot: kind, when, pid of the walsender
        self._without: dict[str, tuple[float, str]] = {}  # since when, and the last fault then
        self._strays: dict[int, int] = {}  # walsenders without a slot, by the number of looks
        self.last = ""  # the last fault
        self.takeovers: list[Takeover] = []
        self.gaps: list[tuple[Takeover, str]] = []  # without any reader, and the faults around it
        self.wrong: list[str] = []
        self.looks = 0

    def of(self, processes: Iterable[psutil.Process]) -> set[str]:
        """Return the slots that these processes read."""
        ports = set()
        for process in processes:
            try:
                ports |= {one.laddr.port for one in process.net_connections("tcp") if one.laddr}
            except psutil.Error:
                continue
        with self._lock:
            return {slot for slot, sender in self._senders.items() if sender.port in ports}

    def expect(self, kind: str, slots: Iterable[str]) -> None:
        """Note that a fault of this kind hits the readers of these slots now."""
        with self._lock:
            now = time.monotonic()
            for slot in slots:
                if slot in self._senders:
                    self._expected.setdefault(slot, (kind, now, self._senders[slot].pid))

    def spare(self, slots: Iterable[str]) -> None:
        """Note that the readers of these slots are well again, where no other took over."""
        with self._lock:
            for slot in slots:
                self._expected.pop(slot, None)

    def run(self, stopped: threading.Event) -> None:
        """Look until stopped."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not stopped.wait(LOOK_SECONDS):
                rows = connection.execute(_SENDERS, [STREAM]).fetchall()
                with self._lock:
                    self._look(rows, time.monotonic())

    def _look(self, rows: list[tuple[Any, ...]], now: float) -> None:
        self.looks += 1
        found: dict[str, Sender] = {}
        strays = {}
        for pid, port, streams, slot in rows:
            if slot in self._slots:
                if slot in found:
                    self.wrong.append(f"{slot} has two readers: walsenders {found[slot].pid} and {pid}")
                found[slot] = Sender(pid, port)
            elif streams:
                strays[pid] = self._strays.get(pid, 0) + 1
                if strays[pid] == _LOOKS_OF_AN_END:
                    self.wrong.append(f"walsender {pid} streams without a slot, after {self.last}")
        self._strays = strays
        for slot in self._slots:
            self._judge(slot, found.get(slot), now)
        self._senders = found

    def _judge(self, slot: str, sender: Sender | None, now: float) -> None:
        kind, since, before = self._expected.get(slot, (HANDED_OVER, now, None))
        if sender is None:
            self._without.setdefault(slot, (now, self.last))
            return
        if slot in self._without:
            began, last = self._without.pop(slot)
            self.gaps.append((Takeover(kind, slot, now - began), f"after {last} until {self.last}"))
        if before is not None and sender.pid != before:
            self.takeovers.append(Takeover(kind, slot, now - since))
            del self._expected[slot]

    def table(self) -> list[str]:
        """Return the lines of a table: takeovers by the kind of fault, and how long slots had no reader."""
        lines = [
            "| kind | units | s from the fault: median | worst | s without a reader: median | worst |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        since, without = defaultdict(list), defaultdict(list)
        for one in self.takeovers:
            since[one.kind].append(one.seconds)
        for one, _ in self.gaps:
            without[one.kind].append(one.seconds)
        for kind in sorted({*since, *without}):
            units = len(since[kind] or without[kind])
            lines.append(f"| {kind} | {units} | {_spread(since[kind])} | {_spread(without[kind])} |")
        return lines


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} | {max(seconds):.1f}" if seconds else "- | -"
