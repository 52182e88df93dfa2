"""What the shop of a simulated world writes: rows, transactions, and what must become of them."""

import json
from dataclasses import dataclass, field
from typing import Final, Literal

from cdc.lsn import LSN
from cdc.replication.messages import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Origin,
    Relation,
    Truncate,
    TupleData,
    Update,
)
from tests.simulation.table import NAMES, cell
from tests.unit import frames, shop
from tests.unit.shop import COMMIT_TIME, COMMIT_TIME_MS, OID

Kind = Literal["insert", "other", "update", "delete", "truncate", "message", "origin", "undone", "emitted"]
"""What is written: an event as a row (`insert`) or as a message (`emitted`), and what is no event."""
PREFIX: Final = "outbox"
"""The prefix of messages that are events."""
OTHER_OID: Final = 777
POISON: Final = "bad"
TOMBSTONE: Final = "(null)"
"""A payload that is written as NULL."""
_OTHER: Final = frames.relation(OTHER_OID, "orders", [("id", shop.INT8)])
_OTHER_ROW: Final = Insert(OTHER_OID, frames.row("1"))


@dataclass(slots=True, eq=False)
class Row:
    """One row of the outbox that was committed, or may be."""

    number: int
    id: str
    aggregate: str
    key: str
    payload: str | None
    tenant: str | None  # of a column that may be a header
    tx: "Tx"
    index: int = 0
    topic: str = ""
    place: tuple[str, int] = ("", 0)  # topic and partition
    turn: int = 0  # how many rows of that partition were committed before
    handed: int = 0  # how often PostgreSQL sent it
    copies: int = 0  # how often it is in its topic
    by_transaction: bool = False  # the last copy
    dead: int = 0  # how often it is in the topic of dead letters
    poison: bool = False
    in_child: bool = False  # of a table that inherits from the outbox
    skipped: bool = False  # PostgreSQL will never send it, by an act of an operator
    excused: bool = False  # and an operator was informed

    @property
    def value(self) -> bytes | None:
        """The value of its record."""
        return None if self.payload is None else self.payload.encode()

    @property
    def durable(self) -> bool:
        """Kafka has it for good."""
        return self.copies > 0 or self.dead > 0


@dataclass(slots=True, eq=False)
class Operation:
    """One change in a transaction."""

    kind: Kind
    lsn: int
    relation: Relation
    row: Row | None = None
    published: bool = True  # as the publication was when it was written


@dataclass(slots=True, eq=False)
class Tx:
    """One transaction."""

    number: int
    timeline: int
    commit_lsn: int = 0
    end_lsn: int = 0
    time: int = COMMIT_TIME
    operations: list[Operation] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    aborted: bool = False

    @property
    def timestamp(self) -> int:
        """Commit time as records have it."""
        return COMMIT_TIME_MS + (self.time - COMMIT_TIME) // 1000

    def begin(self) -> bytes:
        return frames.xlog(Begin(LSN(self.commit_lsn), self.time, self.number), self.commit_lsn)

    def commit(self) -> bytes:
        return frames.xlog(Commit(0, LSN(self.commit_lsn), LSN(self.end_lsn), self.time), self.commit_lsn)


def frame(operation: Operation, *, binary: bool) -> bytes:
    """The frame of one change, in the table as it was then."""
    relation = operation.relation
    if operation.kind == "insert":
        assert operation.row
        return frames.xlog(Insert(relation.oid, _cells(operation.row, relation, binary=binary)), operation.lsn)
    if operation.kind == "emitted":
        assert operation.row
        return frames.xlog(LogicalMessage(True, LSN(operation.lsn), PREFIX, _content(operation.row)), operation.lsn)
    if operation.kind == "other":
        return frames.xlog(_OTHER_ROW, operation.lsn)
    if operation.kind == "update":
        return frames.xlog(Update(OID, None, None, _cells(None, relation, binary=binary)), operation.lsn)
    if operation.kind == "delete":
        return frames.xlog(Delete(OID, frames.row("0"), None), operation.lsn)
    if operation.kind == "truncate":
        return frames.xlog(Truncate(0, (OID,)), operation.lsn)
    if operation.kind == "origin":
        return frames.xlog(Origin(LSN(1), "elsewhere"), operation.lsn)
    return frames.xlog(LogicalMessage(True, LSN(operation.lsn), "prefix", b"heartbeat"), operation.lsn)


def _content(row: Row) -> bytes:
    """A message that stands for a row: its payload as it is."""
    members = {"id": row.id, "aggregatetype": row.aggregate, "aggregateid": row.key, "type": "Placed"}
    members |= {} if row.tenant is None else {"tenant": row.tenant}
    return f'{json.dumps(members)[:-1]}, "payload": {row.payload or "null"}}}'.encode()


def _cells(row: Row | None, relation: Relation, *, binary: bool) -> TupleData:
    """The cells of a row; without one, of an event that was changed afterwards."""
    found: dict[str, str | None] = dict.fromkeys(NAMES, "0")
    if row:
        found = {
            "id": row.id,
            "aggregatetype": row.aggregate,
            "aggregateid": row.key,
            "type": "Placed",
            "payload": row.payload,
            "tenant": row.tenant,
        }
    cells = [
        cell(column.type_oid, found.get(column.name, "more"), binary=binary and row is not None)
        for column in relation.columns
    ]
    return frames.row(*cells)


OTHER_RELATION: Final = _OTHER
