"""Finds a table that is renamed while its publisher runs: it has either of two names, and another table may have one.

When an outbox is split, the old table gets the name `[outbox] renamed_to`, and a new table gets the old name. Rows of
the new one belong to other publishers. So the table is never found by its old name alone.
"""

from typing import Final, LiteralString, NamedTuple

from cdc.config.settings import Settings
from cdc.postgres import defects
from cdc.postgres.connection import Conn, query

_FIND: Final[LiteralString] = """
    select n.nspname, c.relname, exists (
        select from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
        where p.pubname = %s and (r.prrelid = c.oid or r.prrelid in (select relid from pg_partition_ancestors(c.oid)))
    )
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where ((n.nspname, c.relname) = (%s, %s) or (n.nspname, c.relname) = (%s, %s)) and c.relkind in ('r', 'p')
"""


class Candidate(NamedTuple):
    """A table of either name, and whether the publication names it, which no rename changes."""

    name: tuple[str, str]
    published: bool


def located(connection: Conn, settings: Settings) -> Settings:
    """Return the settings with the name that the outbox has now; they are unchanged unless it is to be renamed."""
    table, new = settings.outbox.qualified_name, settings.outbox.new_name
    if new is None:
        return settings
    found = query(connection, "finding the renamed table", _FIND, settings.postgres.publication, *table, *new)
    name = choose([Candidate((schema, name), published) for schema, name, published in found], table, new)
    if name == table:
        return settings
    outbox = settings.outbox.model_copy(update={"table": defects.shown(name)})
    return settings.model_copy(update={"outbox": outbox})


def choose(found: list[Candidate], table: tuple[str, str], new: tuple[str, str]) -> tuple[str, str]:
    """Return the name of the outbox, which was created as `table` and gets the name `new`.

    The one that is published is it. Where both are, as by a publication for all tables, one of the new name is it: that
    name is free before the outbox gets it.
    """
    return max(found, key=lambda one: (one.published, one.name == new), default=Candidate(table, False)).name
