"""A database with an outbox, transactions and a relay. What is in a batch is said by the conditions of the program."""

import copy
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from cdc.errors import PostgresUnavailable
from cdc.lsn import LSN
from cdc.polling import batches
from cdc.polling.progress import Progress
from cdc.polling.reader import Present, Rows, Tick
from cdc.polling.snapshots import NOTHING, Snapshot
from cdc.replication import compose
from cdc.replication.messages import Insert
from tests.simulation.world import Violation
from tests.unit import frames
from tests.unit.shop import COMMIT_TIME, OID, RELATION

_BEGAN: Final = re.compile(
    r"t\.cdc_tx >= '(\d+)' and t\.cdc_tx < '(\d+)'"
    r"(?: and pg_catalog\.pg_visible_in_snapshot\(t\.cdc_tx, '([0-9:,]+)'\))?"
)
_BEYOND: Final = re.compile(r"t\.cdc_tx >= '(\d+)'")
_ENDED: Final = re.compile(r"t\.cdc_tx = any\(array\[([0-9', ]+)\]::xid8\[\]\)")
_PART: Final = 3  # rows
_NUMBERS: Final = 2_500  # that a row stands for


def meets(condition: str, xid: int) -> bool:
    """What PostgreSQL says of a row of a transaction; only conditions that its indexes serve are known."""
    if found := _ENDED.fullmatch(condition):
        return xid in [int(each.strip(" '")) for each in found[1].split(",")]
    if found := _BEYOND.fullmatch(condition):
        return xid >= int(found[1])
    found = _BEGAN.fullmatch(condition)
    assert found, condition
    return int(found[1]) <= xid < int(found[2]) and (found[3] is None or Snapshot.parse(found[3]).sees(xid))


@dataclass
class Row:
    """One row of the outbox."""

    id: str
    key: str
    xid: int
    number: int

    @property
    def frame(self) -> bytes:
        return frames.xlog(Insert(OID, frames.row(self.id, "order", self.key, "OrderPlaced", "{}")))


@dataclass
class State:
    """What a standby has a copy of, an older one if it is asynchronous."""

    next_xid: int = 3
    next_number: int = 1
    committed: set[int] = field(default_factory=lambda: {1})
    rows: dict[int, Row] = field(default_factory=dict)  # of committed transactions, by number
    epoch: int = 0
    last: int = 0
    confirmed: LSN = field(default_factory=LSN)
    progress: Progress = field(default_factory=lambda: Progress(NOTHING))
    cleared: Snapshot = NOTHING
    ticks: dict[int, tuple[Snapshot, int]] = field(default_factory=dict)


class Database:
    """A primary; writers lock the key of each row until their transaction ends."""

    def __init__(self) -> None:
        self.state = State()
        self.running: dict[int, list[Row]] = {}
        self.locked: set[int] = set()  # numbers of rows that somebody has locked
        self.written: dict[str, Row] = {}  # committed, and not lost by a failover
        self.ids = 0  # of rows, of all primaries
        self.pooled = False  # connections outlive a failover
        self.primary = 1
        self._standby = copy.deepcopy(self.state)

    def begin(self) -> None:
        self.running[self.state.next_xid] = []
        self.state.next_xid += 1

    def insert(self, xid: int, key: str) -> None:
        """Insert a row; nothing happens while another transaction has locked its key."""
        if any(row.key == key for other, rows in self.running.items() if other != xid for row in rows):
            return
        self.ids += 1
        self.running[xid].append(Row(f"id-{self.ids}", key, xid, self.state.next_number))
        self.state.next_number += 1

    def end(self, xid: int, *, commits: bool) -> None:
        rows = self.running.pop(xid)
        if commits:
            self.state.committed.add(xid)
            self.state.rows |= {row.number: row for row in rows}
            self.written |= {row.id: row for row in rows}

    def snapshot(self) -> Snapshot:
        ended = [xid for xid in range(3, self.state.next_xid) if xid not in self.running]
        xmax = max(ended, default=2) + 1
        running = tuple(xid for xid in sorted(self.running) if xid < xmax)
        return Snapshot(min(running, default=xmax), xmax, running)

    def replicate(self) -> None:
        """The standby gets everything."""
        self._standby = copy.deepcopy(self.state)

    def fail_over(self) -> None:
        """The standby is promoted, with all that it has; what it has not is lost."""
        self.running.clear()
        self.locked.clear()
        lost = self.state.rows.keys() - self._standby.rows.keys()
        for number in lost:
            self.written.pop(self.state.rows[number].id, None)
        gone = [row for row in self.written.values() if row.xid not in self._standby.committed]
        for row in gone:  # deleted on the old primary, and never committed on the new one
            del self.written[row.id]
        self.state = copy.deepcopy(self._standby)
        self.primary += not self.pooled


class Relay:
    """The relay as one process has it: see `cdc.polling.reader.Table`. `is_sent` says what Kafka has, by id."""

    relation = compose.relation(RELATION)

    def __init__(self, database: Database, epoch: int, is_sent: "set[str]") -> None:
        self._database = database
        self._sent = is_sent
        self.epoch = epoch
        database.state.epoch = epoch
        self.last = database.state.last
        self._primary = database.primary

    def _connected(self) -> State:
        if self._primary != self._database.primary:
            raise PostgresUnavailable("the server closed the connection")
        return self._database.state

    def _fenced(self) -> State:
        state = self._connected()
        if (state.epoch, state.last) != (self.epoch, self.last):
            raise PostgresUnavailable("the relay is not as this process left it")
        return state

    def _chosen(self, conditions: list[str]) -> list[Row]:
        rows = sorted(self._database.state.rows.values(), key=lambda row: row.number)
        return [row for row in rows if any(meets(condition, row.xid) for condition in conditions)]

    def has_tick(self, number: int, xid: int) -> bool:
        found = self._database.state.ticks.get(number)
        return found is not None and found[1] == xid

    def present(self) -> Present:
        state = self._connected()
        return Present(self._database.snapshot(), state.next_number * _NUMBERS)

    def has_rows(self, earlier: Snapshot, later: Snapshot) -> bool:
        self._connected()
        return bool(self._chosen(batches.between(earlier, later)))

    def tick(self, number: LSN) -> Tick:
        state = self._fenced()
        if number <= state.last:
            raise Violation(f"P5: tick {number} comes after {LSN(state.last)}")
        snapshot, xid = self._database.snapshot(), state.next_xid
        state.next_xid += 1
        state.committed.add(xid)
        state.ticks[number], state.last, self.last = (snapshot, xid), number, number
        return Tick(number, snapshot, xid, COMMIT_TIME)

    def read(self, earlier: Snapshot, later: Snapshot, after: int | None) -> Rows:
        rows = self._between(earlier, later, after)
        return self._rows(rows)

    def numbers(self, earlier: Snapshot, later: Snapshot, after: int | None) -> Iterator["array[int]"]:
        yield array("q", [row.number for row in self._between(earlier, later, after)])

    def portion(self, earlier: Snapshot, later: Snapshot, first: int, last: int) -> Rows:
        return self._rows([row for row in self._between(earlier, later, None) if first <= row.number <= last])

    def _between(self, earlier: Snapshot, later: Snapshot, after: int | None) -> list[Row]:
        self._fenced()
        rows = self._chosen(batches.between(earlier, later))
        return [row for row in rows if after is None or row.number > after]

    def _rows(self, rows: list[Row]) -> Rows:
        part = rows[:_PART]
        return Rows(array("q", [row.number for row in part]), [row.frame for row in part], len(rows) > _PART)

    def confirm(self, confirmed: LSN, progress: Progress) -> None:
        state = self._fenced()
        if confirmed < state.confirmed:
            raise Violation(f"P6: {confirmed} is confirmed after {state.confirmed}")
        state.confirmed, state.progress = confirmed, progress
        for number in [number for number in state.ticks if number < min(progress.tick, self.last)]:
            del state.ticks[number]

    def delete(self, cleared: Snapshot, seen: Snapshot) -> int:
        state = self._connected()
        if (state.epoch, state.last) != (self.epoch, self.last):
            return 0
        rows = [row for row in self._chosen(batches.between(cleared, seen)) if row.number not in self._database.locked]
        for row in rows[:_PART]:
            if row.id not in self._sent:
                raise Violation(f"P1: {row.id} is deleted, and not in Kafka")
            del state.rows[row.number]
        return len(rows[:_PART])

    def clear(self, cleared: Snapshot, seen: Snapshot) -> bool:
        if self._chosen(batches.between(cleared, seen)):
            return False
        self._fenced().cleared = seen
        return True
