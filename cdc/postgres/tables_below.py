"""The SQL that finds the tables below the outbox."""

from typing import Final, LiteralString

# pg_partition_tree() would wait for a lock on the table, and knows no inheritance.
TABLES_BELOW: Final[LiteralString] = """
with recursive below (relid, root) as (
    select c.oid, c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %s and c.relname = %s
    union select i.inhrelid, b.root from below b join pg_inherits i on i.inhparent = b.relid
)
"""
"""The table of a schema and a name, with all its partitions and inheriting tables, each once."""
