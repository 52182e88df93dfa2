"""Finds out whether an UPDATE of the outbox may become an INSERT in the stream, and so an event.

An UPDATE that moves a row to another partition is a DELETE and an INSERT in the WAL. Where each partition has a
publisher of its own, the one of the new partition publishes the event. See docs/delivery.md.
"""

import re
from typing import Final, LiteralString, NamedTuple

from cdc.postgres import defects, publication
from cdc.postgres.connection import Conn, query
from cdc.postgres.defects import Requirement
from cdc.postgres.tables_below import TABLES_BELOW
from cdc.replication.publication import NONE, ROW_FILTER

# What moves a row may be a key of any table above, or of the table itself, or of one below.
_KEYS: Final[LiteralString] = (
    TABLES_BELOW
    + """
    , family (relid) as (select relid from below union select pg_partition_ancestors(root) from below)
    , top (relid) as (select coalesce(pg_partition_root(root), root) from below limit 1)
    select n.nspname, c.relname, coalesce(bool_or(0 = any(k.partattrs::int2[])), false),
           array_remove(array_agg(distinct a.attname), null)
    from family f join pg_partitioned_table k on k.partrelid = f.relid
    left join pg_attribute a on a.attrelid = f.relid and a.attnum = any(k.partattrs::int2[])
    cross join top join pg_class c on c.oid = top.relid join pg_namespace n on n.oid = c.relnamespace
    group by 1, 2
    """
)
# Enabled triggers that run before the update of a row, by table, in the order in which they run; <pg_trigger.h> has the
# bits. A table without one counts too.
_TRIGGERS: Final[LiteralString] = (
    TABLES_BELOW
    + """
    select c.relname, t.tgname, t.tgenabled::text, t.tgattr::text, pg_get_triggerdef(t.oid), t.tgqual is not null
    from below b join pg_class c on c.oid = b.relid
    left join pg_trigger t on t.tgrelid = c.oid and t.tgtype::int & 19 = 19 and t.tgenabled <> 'D'
    where c.relkind in ('r', 'p') order by c.relname, t.tgname collate "C"
    """
)


class Trigger(NamedTuple):
    table: str
    name: str | None
    enabled: str | None
    columns: str | None  # numbers of the columns that it is restricted to
    definition: str | None
    conditional: bool | None


def rows_stay(connection: Conn, table: tuple[str, str]) -> Requirement | None:
    """Return how an UPDATE may move a row to another partition, and so publish it again; None when it cannot."""
    for schema, top, by_expression, columns in query(connection, "reading the partition key", _KEYS, *table):
        found = [Trigger(*one) for one in query(connection, "reading the triggers", _TRIGGERS, *table)]
        if why := lacking(found, [] if by_expression else columns):
            return defects.rows_move((schema, top), [] if by_expression else columns, why)
        if behind := later(found):
            return defects.late_trigger(table, behind)
    return None


def defect(connection: Conn, name: str, table: tuple[str, str]) -> Requirement | None:
    """Return how an UPDATE may become an event, by partitions or by the filter of publication `name`; else None."""
    if found := rows_stay(connection, table):
        return found
    has_filter = publication.read(connection, name, table)[ROW_FILTER] != NONE
    updates = query(
        connection, "reading the publication", "select pubupdate from pg_publication where pubname = %s", name
    )
    return defects.updates_pass_filter(name, table) if has_filter and updates == [(True,)] else None


def lacking(found: list[Trigger], columns: list[str]) -> str:
    """Return what is wrong with the triggers that keep rows in their partitions; empty if nothing is."""
    own = {trigger.table: trigger for trigger in found if trigger.name == defects.STAYS}
    for table in dict.fromkeys(trigger.table for trigger in found):
        trigger = own.get(table)
        if trigger is None:
            return f"table {table} has no trigger {defects.STAYS}"
        if trigger.enabled != "A":
            return f"trigger {defects.STAYS} of {table} does not fire for a subscription (ENABLE ALWAYS)"
        if trigger.columns:
            return f"trigger {defects.STAYS} of {table} is restricted to columns that an UPDATE names"
        if missing := [column for column in columns if not _compares(trigger, column)]:
            return f"trigger {defects.STAYS} of {table} does not compare {', '.join(missing)}"
    return ""


def _compares(trigger: Trigger, column: str) -> bool:
    """Return whether the condition of a trigger reads the new value of a column, or it has no condition."""
    text = trigger.definition or ""
    quoted = rf"new\.(?:{re.escape(column)}(?!\w)|{re.escape(defects.name(column))}|\*)"
    return not trigger.conditional or re.search(quoted, text) is not None


def later(found: list[Trigger]) -> str | None:
    """Return a trigger that may change a row behind the one that keeps it in its partition; None without one."""
    return next((trigger.name for trigger in found if (trigger.name or "") > defects.STAYS), None)
