"""What the shop of a simulated world writes: rows, transactions, and what must become of them."""

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
from tests.unit import frames, shop
from tests.unit.shop import COMMIT_TIME, COMMIT_TIME_MS, OID

Kind = Literal["insert", "other", "update", "delete", "truncate", "message", "origin", "undone"]
OTHER_OID: Final = 777
POISON: Final = "bad"
_OTHER: Final = frames.relation(OTHER_OID, "orders", [("id", shop.INT8)])
_OTHER_ROW: Final = Insert(OTHER_OID, frames.row("1"))


@dataclass(slots=True, eq=False)
class Row:
    """One row of the outbox that was committed, or may be."""

    number: int
    id: str
    aggregate: str
    key: str
    payload: str
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
    skipped: bool = False  # PostgreSQL will never send it, by an act of an operator
    excused: bool = False  # and an operator was informed

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


def frame(operation: Operation) -> bytes:
    """The frame of one change, in the table as it was then."""
    if operation.kind == "insert":
        assert operation.row
        row = operation.row
        cells = _cells(row.id, row.aggregate, row.key, row.payload, operation.relation)
        return frames.xlog(Insert(OID, cells), operation.lsn)
    if operation.kind == "other":
        return frames.xlog(_OTHER_ROW, operation.lsn)
    if operation.kind == "update":
        return frames.xlog(Update(OID, None, None, _cells("0", "order", "k", "{}", operation.relation)), operation.lsn)
    if operation.kind == "delete":
        return frames.xlog(Delete(OID, frames.row("0"), None), operation.lsn)
    if operation.kind == "truncate":
        return frames.xlog(Truncate(0, (OID,)), operation.lsn)
    if operation.kind == "origin":
        return frames.xlog(Origin(LSN(1), "elsewhere"), operation.lsn)
    return frames.xlog(LogicalMessage(True, LSN(operation.lsn), "prefix", b"heartbeat"), operation.lsn)


def _cells(event_id: str, aggregate: str, key: str, payload: str, relation: Relation) -> TupleData:
    cells = {"id": event_id, "aggregatetype": aggregate, "aggregateid": key, "type": "Placed", "payload": payload}
    return frames.row(*(cells.get(column.name, "more") for column in relation.columns))


def outbox_relation(name: str, columns: int, *, swapped: bool = False) -> Relation:
    """The table under a name, with more columns than it needs; `swapped`: id and key have each other's name."""
    more = [(f"more{number}", shop.TEXT) for number in range(columns - len(shop.COLUMNS))]
    names = {"id": "aggregateid", "aggregateid": "id"} if swapped else {}
    return frames.relation(OID, name, [*((names.get(column, column), kind) for column, kind in shop.COLUMNS), *more])


OTHER_RELATION: Final = _OTHER
