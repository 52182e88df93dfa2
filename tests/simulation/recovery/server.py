"""PostgreSQL as a recovery sees it: transactions with ids, commits in the WAL, snapshots, one slot, failovers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from tests.simulation.world import World

_ROUND_UP = 16  # bytes between two records of the WAL


class Row(NamedTuple):
    """One row of the outbox; times are seconds since 1970."""

    id: str
    key: str
    number: int  # of the sequence
    xid: int  # 64 bits
    statement: int
    place: str  # ctid
    created: float

    @property
    def xmin(self) -> int:
        return self.xid & 0xFFFFFFFF


class Committed(NamedTuple):
    """One transaction that inserted rows."""

    rank: int  # in the order of all commits
    commit_lsn: int
    end_lsn: int
    time: float
    rows: tuple[Row, ...]


class State(NamedTuple):
    """What a standby has that has replayed the WAL up to an LSN."""

    lsn: int
    next_xid: int
    rows: dict[str, Row]


class Snapshot(NamedTuple):
    """What a statement or a transaction sees."""

    xmin: int
    next_xid: int
    rows: tuple[Row, ...]


@dataclass
class Open:
    """A transaction that has not ended."""

    xid: int
    inserts: list[Row] = field(default_factory=list)
    updates: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)  # that it has locked


@dataclass
class Slot:
    """The replication slot."""

    confirmed: int
    lost: bool = False
    active: bool = False


class SimServer:
    """One server with one outbox. Writers lock a key before they insert a row of it."""

    def __init__(self, world: World, first_xid: int, keys: int, heard: Callable[[list[Committed]], None]) -> None:
        self.world = world
        self.random: Random = world.random("server")
        self.lsn = 0x1000000
        self.timeline = 1
        self.ends: dict[int, int] = {}
        self.next_xid = first_xid
        self.slot: Slot | None = None
        self.open: list[Open] = []
        self.rows: dict[str, Row] = {}
        self.committed: list[Committed] = []
        self.times: dict[int, float] = {}  # of commits, by the low 32 bits of the id
        self.timed = True  # commit timestamps are kept
        self.updates = self.deletes = 0
        self.generation = 0  # ends connections
        self.before = (
            0  # rows up to this number are from before the first slot, and are not updated: they look new then
        )
        self.exported: Snapshot | None = None
        self._keys = [f"k{number}" for number in range(keys)]
        self.number = self._rank = self._places = 0
        self._time = 0.0
        self._created = False
        self._heard = heard
        self._history: list[State] = []
        self._changed()

    def now(self) -> float:
        """Return the time, later with each call, as a commit takes longer than a microsecond."""
        self._time = max(self._time + 0.001, round(self.world.now + self.world.wall_offset, 3))
        return self._time

    def snapshot(self) -> Snapshot:
        """Take a snapshot of now."""
        xmin = min((tx.xid for tx in self.open), default=self.next_xid)
        return Snapshot(xmin, self.next_xid, tuple(self.rows.values()))

    # Writers

    def act(self, *, updates: bool) -> None:
        """Let one writer do one thing."""
        chance = self.random.random()
        if not self.open or (chance < 0.3 and len(self.open) < 4):
            self.open.append(Open(self.next_xid))
            self.next_xid += 1
        tx = self.random.choice(self.open)
        if chance < 0.65:
            self._insert(tx)
        elif chance < 0.7 and updates and (mine := [one for one in self.rows.values() if one.number > self.before]):
            self._update(tx, self.random.choice(mine))
        elif chance < 0.95:
            self.commit(tx)
        else:
            self.open.remove(tx)

    def _lock(self, tx: Open, key: str) -> bool:
        if any(key in other.keys for other in self.open if other is not tx):
            return False
        tx.keys.add(key)
        return True

    def _insert(self, tx: Open) -> None:
        key = self.random.choice(self._keys)
        if not self._lock(tx, key):
            return
        self.number += 1
        statement = len(tx.inserts)
        tx.inserts.append(Row(f"e{self.number}", key, self.number, tx.xid, statement, self._place(), self.now()))
        self.lsn += _ROUND_UP

    def _update(self, tx: Open, row: Row) -> None:
        if self._lock(tx, row.key):
            tx.updates.add(row.id)
            self.lsn += _ROUND_UP

    def _place(self) -> str:
        self._places += 1
        return f"(0,{self._places:05d})"

    def commit(self, tx: Open) -> None:
        """Commit a transaction: its rows become visible, and are in the WAL."""
        self.open.remove(tx)
        time, at = self.now(), self.lsn
        self.lsn += _ROUND_UP
        self.times[tx.xid & 0xFFFFFFFF] = time
        self.rows.update((row.id, row) for row in tx.inserts)
        for row_id in sorted(tx.updates & self.rows.keys()):
            row = self.rows[row_id]
            self.rows[row_id] = row._replace(xid=tx.xid, statement=0, place=self._place())
            self.updates += 1
        if tx.inserts:
            self._rank += 1
            self.committed.append(Committed(self._rank, at, self.lsn, time, tuple(tx.inserts)))
            self._heard(self.committed[-1:])
        self._changed()

    def finish(self) -> None:
        """Let all open transactions commit."""
        while self.open:
            self.commit(self.open[0])

    def delete(self, ids: Iterable[str]) -> None:
        """Delete rows."""
        for row_id in ids:
            del self.rows[row_id]
            self.deletes += 1
        self.lsn += _ROUND_UP
        self._changed()

    def message(self) -> int:
        """Write a message into the WAL; return its end. Its commit record follows."""
        self.lsn += _ROUND_UP
        end = self.lsn
        self.lsn += _ROUND_UP
        return end

    # The slot

    def create_slot(self, wait: Callable[[], None]) -> tuple[int, Snapshot]:
        """Create the slot, and wait for the end of the transactions that are open now; return where it begins."""
        assert self.slot is None, "the slot exists already"
        awaited, generation = list(self.open), self.generation
        while self.generation == generation and (left := [tx for tx in awaited if tx in self.open]):
            wait()
            if left[0] in self.open and self.random.random() < 0.3:
                self.commit(left[0])
        self.lsn += _ROUND_UP  # the record of running transactions
        self.slot = Slot(self.lsn, active=True)
        self.exported = self.snapshot()
        if not self._created:  # a standby knows of horizons from then on
            self._created = True
            self.before = self.number
            self._history.clear()
            self._changed()
        return self.lsn, self.exported

    def stream(self) -> list[Committed]:
        """Return the transactions that the slot has not confirmed."""
        assert self.slot
        return [one for one in self.committed if one.end_lsn > self.slot.confirmed]

    def fail_over(self, back: int) -> list[Committed]:
        """Promote a standby that lacks the last changes, so many; return the commits that it lacks."""
        state = self._history[max(0, len(self._history) - 1 - back)]
        lacking = [one for one in self.committed if one.end_lsn > state.lsn]
        self.ends[self.timeline] = self.lsn = state.lsn
        self.timeline += 1
        self.committed = [one for one in self.committed if one.end_lsn <= state.lsn]
        self.next_xid, self.rows = state.next_xid, dict(state.rows)
        self._history = [one for one in self._history if one.lsn <= state.lsn]
        self.open.clear()
        self.slot = self.exported = None
        self.updates = self.deletes = 0
        self.generation += 1
        return lacking

    def _changed(self) -> None:
        self._history.append(State(self.lsn, self.next_xid, dict(self.rows)))
