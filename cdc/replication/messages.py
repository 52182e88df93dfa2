"""The messages of pgoutput, protocol version 1, as facts without behaviour.

Named tuples rather than frozen dataclasses: one is made for every row, and costs 0.2 us instead of 0.8.
Field names follow <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>,
except that what PostgreSQL calls the "final LSN" in Begin is named `commit_lsn`, as it is in Commit.
"""

from typing import NamedTuple

from cdc.lsn import LSN


class TupleData(NamedTuple):
    """One row: for each column its format byte and its bytes.

    Formats are `t` text, `b` binary, `n` null, `u` unchanged TOAST value that was not sent; the cell of the
    last two is empty.
    """

    formats: bytes
    cells: list[bytes]


class Begin(NamedTuple):
    commit_lsn: LSN
    commit_time: int  # microseconds since 2000-01-01 00:00 UTC, PostgreSQL's epoch
    xid: int


class Commit(NamedTuple):
    flags: int
    commit_lsn: LSN
    end_lsn: LSN  # first byte after the commit record: the only LSN that is ever confirmed
    commit_time: int


class Origin(NamedTuple):
    commit_lsn: LSN  # on the origin server
    name: str


class Column(NamedTuple):
    flags: int  # 1: part of the replica identity
    name: str
    type_oid: int
    type_modifier: int


class Relation(NamedTuple):
    oid: int
    namespace: str
    name: str
    replica_identity: str
    columns: tuple[Column, ...]


class Type(NamedTuple):
    oid: int
    namespace: str
    name: str


class Insert(NamedTuple):
    relation_oid: int
    new: TupleData


class Update(NamedTuple):
    relation_oid: int
    key: TupleData | None  # the old replica identity, when it changed
    old: TupleData | None  # the whole old row, under REPLICA IDENTITY FULL
    new: TupleData


class Delete(NamedTuple):
    relation_oid: int
    key: TupleData | None
    old: TupleData | None


class Truncate(NamedTuple):
    options: int  # 1: CASCADE, 2: RESTART IDENTITY
    relation_oids: tuple[int, ...]


class LogicalMessage(NamedTuple):
    """What `pg_logical_emit_message` wrote."""

    transactional: bool
    lsn: LSN
    prefix: str
    content: bytes


Message = Begin | Commit | Origin | Relation | Type | Insert | Update | Delete | Truncate | LogicalMessage
