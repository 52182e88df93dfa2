"""Drops partitions of the outbox that hold only rows to be deleted, and get no new ones.

Such a partition is one by range of the age column, with an upper bound older than the grace. It is checked while it is
locked against writes, then detached and dropped in the same transaction. This needs a lock on the whole outbox, with a
timeout so short that writers do not notice; when it is not granted, the partition is tried again later.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

import psycopg
from psycopg import sql

from cdc.postgres.connection import Conn, query
from cdc.purge.rows import Due, PurgedTable, deleting_from

_TREE: Final = """
with recursive given as (select %s::int8::oid as root, %s::text as age, %s::timestamptz as cutoff),
below as (
    select root as relid, null::oid as parent, 0 as level from given
    union
    select i.inhrelid, i.inhparent, b.level + 1 from below b join pg_inherits i on i.inhparent = b.relid
), tree as (  -- a table may inherit from several
    select distinct on (relid) * from below order by relid, level
), nodes as (
    select t.*, n.nspname, c.*, coalesce(pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT', false) as rest,
        case when p.partstrat = 'r' and p.partattrs[0] = a.attnum
            then (regexp_match(pg_get_expr(c.relpartbound, c.oid), $$ TO \\('([^']+)'$$))[1]::timestamptz
        end as upper
    from given, tree t
    join pg_class c on c.oid = t.relid
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_partitioned_table p on p.partrelid = t.parent
    left join pg_attribute a on a.attrelid = t.parent and a.attname = (select age from given)
)
select relid::int8, parent::int8, nspname, relname,
    case when relkind = 'r' then pg_relation_size(relid) / current_setting('block_size')::int8 end,
    relkind = 'p', relpersistence = 'p',
    -- The newest of its siblings stays, as a model of those to come.
    coalesce(upper < cutoff, false) and row_number() over (partition by parent order by rest, upper desc) > 1,
    pg_has_role(relowner, 'usage') and pg_has_role((select relowner from pg_class where oid = parent), 'usage'),
    exists (select from pg_trigger where tgrelid = relid and not tgisinternal and tgtype & 8 <> 0)
from given, nodes order by level, upper, nspname, relname
"""


@dataclass(frozen=True, slots=True)
class TablePartition:
    """A partition that may be dropped if all of its rows may be deleted."""

    table: PurgedTable
    parent: PurgedTable
    leaves: tuple[PurgedTable, ...]  # its own partitions that hold rows, or itself
    oids: tuple[int, ...]  # of these


@dataclass(frozen=True, slots=True)
class Tree:
    """An outbox and its partitions; without partitions it is a leaf itself."""

    old: list[TablePartition]
    leaves: list[PurgedTable]  # that are below none of these
    strange: list[PurgedTable]  # foreign or unlogged: their rows are never published
    unowned: list[PurgedTable]  # that would be old, but belong to another role


class Fate(Enum):
    """The result for an old partition."""

    DROPPED = "dropped"
    BUSY = "busy"  # the partition or the outbox is locked
    STAYS = "stays"  # it has rows that may not be deleted, or too many to check in time


@dataclass(slots=True, kw_only=True)
class _Node:
    oid: int
    table: PurgedTable
    parent: int | None
    divided: bool
    strange: bool
    over: bool
    owned: bool
    watched: bool


def tree(connection: Conn, root: int, column: str | None, cutoff: str) -> Tree:
    """Read the current partitions of the outbox, older ones first."""
    nodes: dict[int, _Node] = {}
    for oid, parent, schema, name, blocks, divided, logged, over, owned, watched in query(
        connection, "reading the partitions", _TREE, root, column, cutoff
    ):
        table = PurgedTable(schema, name, blocks or 0)
        strange = not (logged and (divided or blocks is not None))
        nodes[oid] = _Node(
            oid=oid,
            table=table,
            parent=parent,
            divided=divided,
            strange=strange,
            over=over,
            owned=bool(owned),
            watched=watched,
        )
    found = Tree([], [], [], [])
    _sort(nodes, root, found)
    return found


def _sort(nodes: dict[int, _Node], oid: int, found: Tree) -> None:
    node, below = nodes[oid], _below(nodes, oid)
    if node.over and node.parent is not None and not any(n.strange or n.watched for n in below):
        if node.owned:
            leaves = [n for n in below if not n.divided]
            parent = nodes[node.parent].table
            tables, oids = tuple(n.table for n in leaves), tuple(n.oid for n in leaves)
            found.old.append(TablePartition(node.table, parent, tables, oids))
            return
        found.unowned.append(node.table)
    if node.strange:
        found.strange.append(node.table)
    elif not node.divided:
        found.leaves.append(node.table)
    for child, other in nodes.items():
        if other.parent == oid:
            _sort(nodes, child, found)


def _below(nodes: dict[int, _Node], oid: int) -> list[_Node]:
    return [nodes[oid], *(n for child in nodes if nodes[child].parent == oid for n in _below(nodes, child))]


_BUSY: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)


def drop(connection: Conn, partition: TablePartition, due: Due, *, dry_run: bool) -> tuple[Fate, int]:
    """Drop a partition if all of its rows may be deleted; return how many there were."""
    with deleting_from(partition.table):
        if _stays(connection, partition, due):
            return Fate.STAYS, 0
        if dry_run:
            return Fate.DROPPED, _rows(connection, partition, due)[0]
        try:
            with connection.transaction():
                return _drop(connection, partition, due)
        except _BUSY:
            return Fate.BUSY, 0
        except psycopg.errors.QueryCanceled:
            return Fate.STAYS, 0


def _stays(connection: Conn, partition: TablePartition, due: Due) -> bool:
    """Return whether there is a row that may not be deleted; found without a lock, and mostly soon."""
    statement = sql.SQL("select exists (select from {} where ({}) is not true)")
    found = connection.execute(statement.format(_name(partition.table), due.condition), due.values).fetchone()
    assert found is not None
    return bool(found[0])


def _drop(connection: Conn, partition: TablePartition, due: Due) -> tuple[Fate, int]:
    connection.execute("set local lock_timeout = '200ms'")
    connection.execute("set local statement_timeout = '10s'")  # limits how long a late writer of it may wait
    # This lock excludes writers, and waits for their commits: the next statement sees all rows.
    connection.execute(sql.SQL("lock table {} in share mode").format(_name(partition.table)))
    rows, may_go = _rows(connection, partition, due)
    if rows != may_go:
        return Fate.STAYS, 0
    names = {"parent": _name(partition.parent), "partition": _name(partition.table)}
    connection.execute(sql.SQL("alter table {parent} detach partition {partition}").format(**names))
    connection.execute(sql.SQL("drop table {partition}").format(**names))
    return Fate.DROPPED, rows


def _rows(connection: Conn, partition: TablePartition, due: Due) -> tuple[int, int]:
    """Return how many rows there are, and how many of them may be deleted."""
    statement = sql.SQL("select count(*), count(*) filter (where {}) from {}")
    found = connection.execute(statement.format(due.condition, _name(partition.table)), due.values).fetchone()
    assert found is not None
    return found[0], found[1]


def _name(table: PurgedTable) -> sql.Identifier:
    return sql.Identifier(table.schema, table.name)
