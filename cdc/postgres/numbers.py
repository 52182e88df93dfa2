"""Finds the column that numbers the rows of the outbox in the order of their inserts, and adds one.

Rows of one key are in order by it when writers lock the key before they insert, as a sequence gives out numbers in the
order in which they are asked for. With a cache, each session gives out numbers that it took earlier.
"""

from typing import NamedTuple

from psycopg import sql

from cdc.errors import PostgresError
from cdc.outbox.columns import SEQUENCE_COLUMN
from cdc.postgres.catalog import table_columns
from cdc.postgres.connection import Conn, query
from cdc.postgres.defects import STAMP


class NumberColumn(NamedTuple):
    """A column that holds the numbers of one sequence; `cache` is how many a session takes at once."""

    name: str
    cache: int
    sequence: str  # quoted


def columns(connection: Conn, table: tuple[str, str]) -> list[NumberColumn]:
    """Return the columns with an ascending sequence, those without a cache first.

    A trigger may take the numbers of a sequence that belongs to the column: see `cdc.postgres.polling_table`.
    """
    found = query(
        connection,
        "reading the sequences of the table",
        """
        select a.attname, s.seqcache, s.seqrelid::regclass::text
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        left join pg_attrdef f on f.adrelid = c.oid and f.adnum = a.attnum
        join pg_depend d on case when a.attidentity <> '' or (f.oid is null and exists (
                select from pg_trigger t where t.tgrelid = c.oid and t.tgname = %s and t.tgenabled <> 'D'))
            then d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
                 and d.refobjid = c.oid and d.refobjsubid = a.attnum
                 and d.deptype in ('i', 'a')
            else d.classid = 'pg_attrdef'::regclass and d.objid = f.oid and d.refclassid = 'pg_class'::regclass
                 and pg_get_expr(f.adbin, f.adrelid) ~ '^nextval\\([^()]*\\)$' end
        join pg_sequence s on s.seqrelid = case d.classid when 'pg_class'::regclass then d.objid else d.refobjid end
        where n.nspname = %s and c.relname = %s and s.seqincrement > 0 and not s.seqcycle
        order by s.seqcache, a.attname <> %s, a.attnum
        """,
        STAMP,
        *table,
        SEQUENCE_COLUMN,
    )
    return [NumberColumn(*one) for one in found]


def ordering(connection: Conn, table: tuple[str, str]) -> str | None:
    """Return the column that orders rows: one whose numbers are given out one by one."""
    return next((one.name for one in columns(connection, table) if one.cache == 1), None)


def last(connection: Conn, table: tuple[str, str]) -> int | None:
    """Return the last number that rows got; None without such a column, or the right to read its sequence."""
    name = next((one.sequence for one in columns(connection, table) if one.cache == 1), None)
    if name is None:
        return None
    ((number,),) = query(
        connection,
        "reading the sequence of the table",
        "select case when has_sequence_privilege(%s, 'USAGE, SELECT') then coalesce(pg_sequence_last_value(%s), 0) end",
        name,
        name,
    )
    return None if number is None else int(number)


def additions(connection: Conn, table: tuple[str, str]) -> list[str]:
    """Return the statements that add the column without rewriting the table; none where there is such a column.

    Rows that are there have the number 0. Raises PostgresError for a column of its name that does not fit.
    """
    if ordering(connection, table) is not None:
        return []
    if SEQUENCE_COLUMN in (table_columns(connection, table) or ()):
        raise PostgresError(
            f"table {'.'.join(table)} has a column {SEQUENCE_COLUMN!r} that no sequence with CACHE 1 numbers",
            hint="rename it, or set the cache of its sequence: ALTER SEQUENCE <sequence> CACHE 1",
        )
    # A constant default is stored once, not in each row.
    add = f"ALTER TABLE {_name(*table)} ADD COLUMN {_name(SEQUENCE_COLUMN)} bigint NOT NULL DEFAULT 0;"
    number = f"ALTER TABLE {_name(*table)} ALTER COLUMN {_name(SEQUENCE_COLUMN)} SET {default(table)};"
    before, *after = sequence(table)
    return [add, before, number, *after]


def default(table: tuple[str, str]) -> str:
    """Return the default of the column. Tables below the outbox inherit it; they would not inherit an identity."""
    return f"DEFAULT nextval({sql.Literal(sequence_name(table)).as_string()})"


def sequence(table: tuple[str, str]) -> tuple[str, str, str]:
    """Return the statement that creates the sequence, and those to run when the column is there.

    Each role that inserts into the outbox, now or later, must be able to take a number.
    """
    made = sequence_name(table)
    return (
        f"CREATE SEQUENCE {made};",
        f"ALTER SEQUENCE {made} OWNED BY {_name(*table, SEQUENCE_COLUMN)};",
        f"GRANT USAGE ON SEQUENCE {made} TO PUBLIC;",
    )


def sequence_name(table: tuple[str, str]) -> str:
    """Return the quoted name of the sequence that `outbox init` makes."""
    cut = table[1].encode()[:50].decode(errors="ignore")
    return _name(table[0], f"{cut}_{SEQUENCE_COLUMN}")


def _name(*parts: str) -> str:
    return sql.Identifier(*parts).as_string()
