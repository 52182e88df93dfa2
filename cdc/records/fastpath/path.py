"""The fast path: rows of a known shape on a known route become records in runs, without a call for each step.

It wraps the general path (`cdc.records.path`), which takes and judges every row that is not plain. Each row that the
general path has taken leaves a route, on which the fast path takes others like it.
"""

from collections import Counter
from typing import Final

from cdc.outbox.events import Event, Outbox
from cdc.records.fastpath.layout import Make, layout, room
from cdc.records.path import GeneralPath, Taken
from cdc.records.record import Sendable
from cdc.records.router import MOST
from cdc.replication.frames import XLOG_HEADER_SIZE
from cdc.replication.messages import Relation
from cdc.replication.settlement import Transaction
from cdc.replication.transactions import Row

_BINARY: Final = b"b"
_MESSAGE: Final = ord("M")

SHAPES: Final = 8
"""Shapes of messages that are read in runs; shapes are tried one after the other."""
_RARE: Final = 100
"""Messages of a further shape before it takes the place of another: to make what reads it takes milliseconds."""


class _Table:
    """What reads the rows of one relation in one format, or the messages of a prefix that stand for them.

    `runs` is None when only the general path does.
    """

    def __init__(
        self, relation: Relation, outbox: Outbox, make: Make, *, binary: bool, prefix: str | None = None
    ) -> None:
        self.relation = relation
        self.binary = binary
        self.left_out = len(outbox.shape(relation).without)  # headers of each record
        self.layout = layout(relation, outbox, binary=binary, prefix=prefix)
        self.runs = make(self.layout) if self.layout else None


class FastPath:
    """The runs of one session. `crosses`: a run may continue in the next transaction."""

    def __init__(self, general: GeneralPath, make: Make) -> None:
        self.crosses = True
        self.headers_left_out = 0  # because their columns did not exist when the rows were written
        self._general = general
        self._transactions = general.transactions
        self._topics = general.topics
        self._make = make
        self._tables: dict[
            int, _Table
        ] = {}  # by oid: rows of the outbox and of tables that inherit from it may alternate
        self._table: _Table | None = None  # of the last row that left a route
        self._shapes: dict[int, _Table] = {}  # of messages, by oid; the one that was used last is the last
        self._rare: Counter[int] = Counter()  # messages of other shapes
        self._changes = general.topics.changes
        self._prefix = f"{general.outbox.stream}-%016X-"  # of positions

    def take(self, frames: list[bytes], at: int, transaction: Transaction) -> Taken:
        """Take a run, or the first row alone: see `cdc.records.path.Path`."""
        taken = self.run(frames, at, transaction)
        if taken is not None:
            return taken
        row = self._transactions.insert(frames[at])
        return Taken([], at + 1, None) if row is None else self.take_row(row, at)

    def take_row(self, row: Row, at: int) -> Taken:
        """Take one row, which was read from `frames[at]`, by the general path, and learn from it."""
        record, event = self._general.record(row)
        row.transaction.add_event()
        if event is not None:
            self.headers_left_out += len(self._general.outbox.shape(event.row.relation).without)
            table = self._of_rows(event.row) if row.relation is event.row.relation else self._of_messages(event.row)
            if table is not None:
                self._learn(table, event)
        return Taken([record], at + 1, row.transaction)

    def run(self, frames: list[bytes], at: int, transaction: Transaction) -> Taken | None:
        """Take plain rows from `frames[at]` on, which belong to the open `transaction`; None when there is none.

        Where the next transaction follows at once, its rows are taken too: that saves 0.7 us for each, and 1.3 in
        plain Python.
        """
        if self._topics.refused:
            return None
        if self._topics.changes != self._changes:
            self._forget()
            return None
        if frames[at][XLOG_HEADER_SIZE] == _MESSAGE:
            return self._run_of_messages(frames, at, transaction)
        table = self._table
        if table is None:
            return None
        if self._transactions.outbox.get(table.relation.oid) is not table.relation:
            return None  # the table was changed: its frames look the same and mean something else
        return self._run(table, frames, at, transaction)

    def _run_of_messages(self, frames: list[bytes], at: int, transaction: Transaction) -> Taken | None:
        for oid, table in reversed(self._shapes.items()):
            taken = self._run(table, frames, at, transaction)
            if taken is not None:
                if table is not self._shapes[next(reversed(self._shapes))]:
                    self._shapes[oid] = self._shapes.pop(oid)
                return taken
        return None

    def _run(self, table: _Table, frames: list[bytes], at: int, transaction: Transaction) -> Taken | None:
        if table.runs is None:
            return None
        take, turn, records = table.runs.take, self._transactions.turn, list[Sendable]()
        following: Transaction | None = transaction
        while following is not None:
            prefix, index = self._prefix % following.commit_lsn, following.events
            run = take(frames, at, prefix, index, following.timestamp, following.report)
            if not run:
                break
            transaction = following
            transaction.add_events(len(run))
            records += run
            at += len(run)
            following = turn(frames, at) if self.crosses else None
            if following is not None:
                at += 2
        self.headers_left_out += len(records) * table.left_out
        return Taken(records, at, transaction) if records else None

    def _of_rows(self, row: Row) -> _Table:
        """Return what reads rows of the relation and format of this one."""
        relation, binary = row.relation, _BINARY in row.data.formats
        table = self._tables.get(relation.oid)
        if table is None or table.relation is not relation or table.binary != binary:
            table = _Table(relation, self._general.outbox, self._make, binary=binary)
            self._tables[relation.oid] = table
        self._table = table
        return table

    def _of_messages(self, row: Row) -> _Table | None:
        """Return what reads messages of the shape of the one that stood for this row; None for a rare shape."""
        oid, outbox = row.relation.oid, self._general.outbox
        table = self._shapes.pop(oid, None)
        if table is None:
            if outbox.members(row.relation) is None or not self._is_frequent(oid):
                return None
            if len(self._shapes) >= SHAPES:
                del self._shapes[next(iter(self._shapes))]
            table = _Table(row.relation, outbox, self._make, binary=False, prefix=self._transactions.prefix)
        self._shapes[oid] = table
        return table

    def _is_frequent(self, oid: int) -> bool:
        if len(self._shapes) < SHAPES:
            return True
        if len(self._rare) >= MOST:
            self._rare.clear()
        self._rare[oid] += 1
        if self._rare[oid] < _RARE:
            return False
        del self._rare[oid]
        return True

    def _learn(self, table: _Table, event: Event) -> None:
        """Remember the route of a row, if others may take it."""
        if table.layout is None or table.runs is None:
            return
        cells = event.row.data.cells
        route, largest = self._general.encoding.shared(event), self._general.largest(event.topic)
        if route and largest is not None:
            topic_cells = tuple([cells[place] for place in table.layout.topic])
            table.runs.learn(cells[table.layout.type], topic_cells, route, room(table.layout, route, largest))

    def _forget(self) -> None:
        for table in [*self._tables.values(), *self._shapes.values()]:
            if table.runs:
                table.runs.forget()
        self._changes = self._topics.changes
