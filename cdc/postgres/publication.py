"""Reads the definition of publication and table from the catalogs, which every role may read."""

from typing import Final, NamedTuple

from cdc.postgres.connection import Conn, query
from cdc.replication.publication import (
    CHILD_OIDS,
    CHILDREN,
    COLUMN_LIST,
    INSERTS,
    NONE,
    PARTITION_ROOT,
    PUBLICATION,
    PUBLICATION_OID,
    PUBLISHED_BY,
    ROW_FILTER,
    TABLE,
    TABLE_OID,
)

_ROW_FILTERS: Final = 150000  # 15: the first with row filters, column lists and schemas in publications

# How a partition is published can depend on each of its ancestors.
_RELATIONS: Final = """
    from pg_publication_rel r where r.prpubid = p.oid
    and (r.prrelid = c.oid or r.prrelid in (select relid from pg_partition_ancestors(c.oid)))
"""
# Publications list each inheriting table separately, and send its rows under its own name; `publish_via_partition_root`
# does not change that. Partitions are published as their root, but not those that write no WAL. Temporary tables have
# rows for their own session only.
_CHILDREN: Final = """
    (select jsonb_agg(jsonb_build_array(
         h.oid::int8, hn.nspname, h.relname, h.relispartition, h.relpersistence = 'p',
         p.puballtables or {in_schema} or hr.oid is not null, {row_filter}, {columns}
     ) order by hn.nspname, h.relname)
     from (with recursive below (relid) as (
         select inhrelid from pg_inherits where inhparent = c.oid
         union select i.inhrelid from below b join pg_inherits i on i.inhparent = b.relid
     ) select relid from below) b
     join pg_class h on h.oid = b.relid
     join pg_namespace hn on hn.oid = h.relnamespace
     left join pg_publication_rel hr on hr.prpubid = p.oid and hr.prrelid = h.oid
     where h.relkind = 'r' and h.relpersistence <> 't' and (not h.relispartition or h.relpersistence = 'u'))
"""
_CHILDREN_SINCE_15: Final = _CHILDREN.format(
    in_schema="exists (select from pg_publication_namespace s where s.pnpubid = p.oid and s.pnnspid = h.relnamespace)",
    row_filter="pg_get_expr(hr.prqual, hr.prrelid)",
    columns="(select string_agg(quote_ident(a.attname), ', ' order by a.attnum) from pg_attribute a"
    " where a.attrelid = h.oid and a.attnum = any(hr.prattrs::int2[]))",
)
_CHILDREN_OLDER: Final = _CHILDREN.format(in_schema="false", row_filter="null", columns="null")
_FROM: Final = """
    from (values (1)) one
    left join (pg_class c join pg_namespace n on n.oid = c.relnamespace)
        on n.nspname = %s and c.relname = %s and c.relkind in ('r', 'p')
    left join pg_publication p on p.pubname = %s
"""
_ALWAYS: Final = f"""
    c.oid::text, p.oid::text, p.pubinsert, p.pubviaroot and (c.relkind = 'p' or c.relispartition),
    c.relpersistence = 'p', case when p.puballtables then 'all tables' end,
    (select string_agg('name (oid ' || r.oid || ')', ', ' order by r.oid) {_RELATIONS})
"""
_SINCE_15: Final = f"""
    , (select string_agg('schema (oid ' || s.oid || ')', ', ') from pg_publication_namespace s
       where s.pnpubid = p.oid and s.pnnspid = c.relnamespace),
    (select string_agg(pg_get_expr(r.prqual, r.prrelid), ' and ' order by r.oid) {_RELATIONS}),
    (select string_agg(quote_ident(a.attname), ', ' order by r.oid, a.attnum) from pg_attribute a,
        lateral (select r.oid, r.prattrs, r.prrelid {_RELATIONS}) r
        where a.attrelid = r.prrelid and a.attnum = any(r.prattrs::int2[]))
"""
_OLDER: Final = ", null, null, null"


class Child(NamedTuple):
    """A table whose rows are rows of the outbox: one that inherits from it, or a partition that writes no WAL."""

    oid: int
    schema: str
    name: str
    is_partition: bool
    logged: bool
    published: bool | None  # None without a publication
    row_filter: str | None
    columns: str | None

    def __str__(self) -> str:
        parts = [] if self.logged else ["unlogged"]
        parts += [] if self.published else ["not published"]
        parts += [f"{name} {value}" for name, value in (("rows", self.row_filter), ("columns", self.columns)) if value]
        return f"{self.schema}.{self.name}" + (f" ({', '.join(parts)})" if parts else "")


def children(connection: Conn, publication: str, table: tuple[str, str]) -> list[Child]:
    """Return the tables whose rows are rows of the outbox, and how they are published; see `Child`."""
    ((found,),) = query(
        connection, "reading the tables that inherit", f"select {_children(connection)} {_FROM}", *table, publication
    )
    return [Child(*one) for one in found or ()]


def _children(connection: Conn) -> str:
    return _CHILDREN_SINCE_15 if connection.info.server_version >= _ROW_FILTERS else _CHILDREN_OLDER


def read(connection: Conn, publication: str, table: tuple[str, str]) -> dict[str, str]:
    """Return the current definition; one query reads it, so that its parts are consistent."""
    since_15 = connection.info.server_version >= _ROW_FILTERS
    statement = f"select {_ALWAYS} {_SINCE_15 if since_15 else _OLDER}, {_children(connection)} {_FROM}"
    ((table_oid, publication_oid, inserts, via_root, permanent, *published_by, row_filter, columns, below),) = query(
        connection, "reading the definition", statement, *table, publication
    )
    found = [Child(*one) for one in below or ()]
    return {
        TABLE: ".".join(filter(None, table)) or NONE,
        TABLE_OID: table_oid or NONE,
        PUBLICATION: publication,
        PUBLICATION_OID: publication_oid or NONE,
        # An unlogged table is published by nothing, although `all tables` says otherwise.
        PUBLISHED_BY: (permanent and ", ".join(filter(None, published_by))) or NONE,
        INSERTS: "yes" if inserts else "no",
        ROW_FILTER: row_filter or NONE,
        COLUMN_LIST: columns or NONE,
        PARTITION_ROOT: "yes" if via_root else "no",
        CHILDREN: "; ".join(map(str, found)) or NONE,
        CHILD_OIDS: " ".join(str(child.oid) for child in found) or NONE,
    }


def generated(connection: Conn, table: tuple[str, str]) -> dict[str, bool]:
    """Return the table's generated columns, and whether each is stored; PostgreSQL 18 also has virtual ones."""
    found = query(
        connection,
        "reading the generated columns",
        """
        select a.attname, a.attgenerated = 's' from pg_attribute a
        join pg_class c on c.oid = a.attrelid
        join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %s and c.relname = %s and a.attnum > 0 and a.attgenerated <> '' and not a.attisdropped
        """,
        *table,
    )
    return dict(found)


def unpublished(connection: Conn, publication: str, table: tuple[str, str], needed: list[str]) -> list[str]:
    """Return the needed columns that are not published: a column list leaves them out, or they are generated."""
    found = query(
        connection,
        "reading the published columns",
        """
        select a.attname
        from pg_publication p, pg_attribute a
        join pg_class c on c.oid = a.attrelid
        join pg_namespace n on n.oid = c.relnamespace
        where p.pubname = %s and n.nspname = %s and c.relname = %s and a.attname = any(%s)
        and not coalesce(
            (select to_jsonb(r) -> 'prattrs' @> to_jsonb(a.attnum) from pg_publication_rel r
             where r.prpubid = p.oid and r.prrelid = c.oid and jsonb_typeof(to_jsonb(r) -> 'prattrs') = 'array'),
            a.attgenerated = '' or (a.attgenerated = 's' and coalesce(to_jsonb(p) ->> 'pubgencols', 'n') = 's')
        )
        order by a.attnum
        """,
        publication,
        *table,
        needed,
    )
    return [name for (name,) in found]
