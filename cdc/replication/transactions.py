"""Messages to outbox rows, each tagged with its transaction and its index there.

A logical message that marks an event counts as a row, of the relation MESSAGE: its only column is the content, which
`cdc.outbox.messages` reads.

Rows are passed on as they come: with protocol version 1 only committed transactions are sent, so nothing can
be rolled back and a huge transaction never has to fit in memory.
"""

import struct
from dataclasses import dataclass
from typing import Final

from cdc.errors import PostgresError, ProtocolError
from cdc.lsn import LSN
from cdc.replication.frames import EPOCH_OFFSET_MS, XLOG_DATA, XLOG_HEADER_SIZE
from cdc.replication.messages import (
    Begin,
    Column,
    Commit,
    Insert,
    LogicalMessage,
    Message,
    Relation,
    Truncate,
    TupleData,
    Type,
    Update,
)
from cdc.replication.pgoutput import decode
from cdc.replication.prefixes import Prefixes
from cdc.replication.settlement import Ledger, MessageAlone, Transaction
from cdc.replication.values import BYTEA, base_type

# Whole frames. A Begin and a Commit enclose each transaction; to make no messages of them is 1.2 us less for the two.
_BEGIN: Final = f"c{XLOG_HEADER_SIZE - 1}xcQq4x"  # envelope, kind, commit LSN, commit time
_COMMIT: Final = f"c{XLOG_HEADER_SIZE - 1}xcxQQ8x"  # envelope, kind, commit LSN, end LSN
_begin_fields = struct.Struct(f">{_BEGIN}")
_commit_fields = struct.Struct(f">{_COMMIT}")
_turn_fields = struct.Struct(f">{_COMMIT}{_BEGIN}")
_sent_fields = struct.Struct(">17xq")  # when the server sent a frame
MESSAGE: Final = Relation(0, "", "message", "n", (Column(0, "content", BYTEA, -1),))
"""What logical messages are rows of."""

_BEGIN_SIZE: Final = _begin_fields.size
_COMMIT_SIZE: Final = _commit_fields.size


@dataclass(slots=True, eq=False)
class Row:
    """One row inserted into the outbox; (commit_lsn of its transaction, index) is its identity and order."""

    transaction: Transaction
    index: int
    relation: Relation
    data: TupleData


class Transactions:
    """Follows Begin, Relation and Commit; rows come out of Insert.

    `table` is the outbox as (schema, name) and `oid` its identity today, if known; `children` are the oids of tables
    that inherit from it. Rows of other tables in the publication are skipped. `prefixes` say which messages are events.
    """

    def __init__(
        self,
        table: tuple[str, str],
        ledger: Ledger,
        oid: int | None = None,
        children: frozenset[int] = frozenset(),
        prefixes: Prefixes | None = None,
    ) -> None:
        self._table = table
        self._prefixes = prefixes or Prefixes()
        self.prefix = self._prefixes.wanted
        """The prefix of messages that are events, if there is one."""
        self._oids = children if oid is None else children | {oid}
        self._ledger = ledger
        self.outbox: dict[int, Relation] = {}
        """The description in force of each outbox table, by oid, with the base types of domains. A table that is
        described again as it was keeps its object; one that was changed gets a new one, so what was derived from the
        old object is known to be outdated."""
        self._known: set[int] = set()
        self._types: dict[int, int] = {}  # of each type that users defined: the oid by which its cells are read
        self.committed = 0
        self.updates = 0  # an outbox is append-only: changes of rows are no events, but are reported
        self.truncates = 0

    def read(self, frame: bytes) -> Row | None:
        """Take the next message in its XLogData. Raises ProtocolError as `decode` and `feed` do."""
        size = len(frame)
        if size == _BEGIN_SIZE:
            _, kind, commit_lsn, commit_time = _begin_fields.unpack(frame)
            if kind == b"B":
                self._begin(commit_lsn, commit_time)
                return None
        elif size == _COMMIT_SIZE:
            _, kind, commit_lsn, end_lsn = _commit_fields.unpack(frame)
            if kind == b"C":
                self._commit(commit_lsn, end_lsn)
                return None
        return self.feed(decode(frame, XLOG_HEADER_SIZE))

    def turn(self, frames: list[bytes], at: int) -> Transaction | None:
        """The next transaction, if the open one ends with `frames[at]` and it begins with the frame behind that.

        Otherwise nothing is done. Raises ProtocolError when they do not fit what came before.
        """
        if at + 1 >= len(frames):
            return None
        commit, begin = frames[at], frames[at + 1]
        if len(commit) != _COMMIT_SIZE or len(begin) != _BEGIN_SIZE:
            return None
        envelope, ends, commit_lsn, end_lsn, other, begins, next_lsn, commit_time = _turn_fields.unpack(commit + begin)
        if ends != b"C" or begins != b"B" or envelope != XLOG_DATA or other != XLOG_DATA:
            return None
        self._commit(commit_lsn, end_lsn)
        return self._begin(next_lsn, commit_time)

    def _begin(self, commit_lsn: int, commit_time: int) -> Transaction:
        return self._ledger.begin(LSN(commit_lsn), commit_time // 1000 + EPOCH_OFFSET_MS)

    def _commit(self, commit_lsn: int, end_lsn: int) -> None:
        self._ledger.commit(commit_lsn, LSN(end_lsn))
        self.committed += 1

    def feed(self, message: Message) -> Row | None:
        """Take the next message. Raises ProtocolError when it does not fit what came before."""
        if isinstance(message, Insert):
            return self._insert(message)
        if isinstance(message, Begin):
            self._begin(message.commit_lsn, message.commit_time)
        elif isinstance(message, Commit):
            self._commit(message.commit_lsn, message.end_lsn)
        elif isinstance(message, Relation):
            self._relation(message)
        elif isinstance(message, Type):  # comes before each Relation with a column of this type
            self._types[message.oid] = base_type(message)
        elif isinstance(message, LogicalMessage):
            return self._message(message) if message.transactional else None
        elif isinstance(message, Update):
            self.updates += message.relation_oid in self.outbox
        elif isinstance(message, Truncate):
            self.truncates += any(oid in self.outbox for oid in message.relation_oids)
        return None

    def _relation(self, relation: Relation) -> None:
        self._known.add(relation.oid)
        if (relation.namespace, relation.name) == self._table or relation.oid in self._oids:
            # By its identity too: rows that came while it had another name are rows of the outbox.
            types = self._types
            columns = [each._replace(type_oid=types.get(each.type_oid, each.type_oid)) for each in relation.columns]
            relation = relation._replace(columns=tuple(columns))
            if relation != self.outbox.get(relation.oid):
                self.outbox[relation.oid] = relation
        elif relation.oid in self.outbox:
            # Its rows must not pass for those of another table: the slot would move past them.
            raise PostgresError(
                f"the outbox {'.'.join(self._table)} was renamed to {relation.namespace}.{relation.name}",
                hint="set [outbox] table to the new name, or rename it back; the slot has not moved past the change",
            )

    def insert(self, frame: bytes) -> Row | None:
        """Read an Insert or a message of the open transaction without counting its event; None when it has none.

        Raises ProtocolError as `read` does.
        """
        message = decode(frame, XLOG_HEADER_SIZE)
        if isinstance(message, LogicalMessage):
            return self._marked(message)
        assert isinstance(message, Insert)
        return self._row(message)

    def outside(self, frame: bytes) -> Transaction | None:
        """Open what stands for the transaction of a message that came outside of one; None when it is no event.

        Such a message is not transactional: it is there even if the transaction that wrote it was rolled back.
        Its own LSN is behind each commit before it, and below that of each later one. Raises ProtocolError for an
        Insert, and for a message that belongs into a transaction.
        """
        message = decode(frame, XLOG_HEADER_SIZE)
        if not isinstance(message, LogicalMessage) or message.transactional:
            raise ProtocolError("a row or a transactional message came outside of a transaction")
        if not self._prefixes.marks(message):
            return None
        (sent,) = _sent_fields.unpack_from(frame)
        return self._ledger.begin(LSN(message.lsn - 1), sent // 1000 + EPOCH_OFFSET_MS, MessageAlone)

    def end_outside(self) -> None:
        """Close what `outside` opened, if anything: the slot may pass the beginning of the message, which is enough."""
        transaction = self._ledger.open
        if transaction is not None and transaction.alone:
            self._ledger.commit(transaction.commit_lsn, LSN(transaction.commit_lsn + 2))

    def _message(self, message: LogicalMessage) -> Row | None:
        row = self._marked(message)
        if row is not None:
            row.transaction.add_event()
        return row

    def _marked(self, message: LogicalMessage) -> Row | None:
        transaction = self._ledger.open
        if transaction is None or message.transactional == transaction.alone:
            where = "outside of a" if transaction is None else "within a"
            raise ProtocolError(f"a message of the prefix {message.prefix!r} came {where} transaction")
        if not self._prefixes.marks(message):
            return None
        return Row(transaction, transaction.events, MESSAGE, TupleData(b"b", [message.content]))

    def _insert(self, message: Insert) -> Row | None:
        row = self._row(message)
        if row is not None:
            row.transaction.add_event()
        return row

    def _row(self, message: Insert) -> Row | None:
        transaction = self._ledger.open
        if transaction is None:
            raise ProtocolError(f"a row of relation {message.relation_oid} came outside of a transaction")
        relation = self.outbox.get(message.relation_oid)
        if relation is not None:
            return Row(transaction, transaction.events, relation, message.new)
        if message.relation_oid not in self._known:
            raise ProtocolError(f"a row came for relation {message.relation_oid}, which was never described")
        return None
