"""The requirements of polling on table, trigger, sequence, relay and rights: see `cdc.postgres.polling_table`.

`outbox init --polling` meets them, `start` ends at the first one that is not met, and `check` reports all.
"""

from typing import Final, NamedTuple

from psycopg import sql

from cdc.config.settings import Settings
from cdc.outbox.columns import SEQUENCE_COLUMN
from cdc.postgres import catalog, defects, moves, numbers
from cdc.postgres import polling_table as wanted
from cdc.postgres.connection import Conn, converting, query
from cdc.postgres.defects import Requirement
from cdc.postgres.polling_table import TX_COLUMN, Table
from cdc.postgres.tables_below import TABLES_BELOW

INIT: Final = "cdc-publisher outbox init --polling"

COLUMNS: Final = "polling_columns"
TRIGGER: Final = "polling_trigger"
SEQUENCE: Final = "polling_sequence"
IDS: Final = "polling_ids"
RELAY: Final = "polling_relay"
RIGHTS: Final = "polling_rights"
NAMES: Final = (COLUMNS, SEQUENCE, TRIGGER, IDS, RELAY, RIGHTS)
"""The names of requirements, as `check` prints them."""


class Part(NamedTuple):
    """A table of the outbox: itself, a partition, or one that inherits from it."""

    table: Table
    holds_rows: bool  # it is not a partitioned table itself
    is_partition: bool  # of the outbox or a part of it, so that columns, triggers and indexes come from above
    stamped: bool
    later: tuple[str, ...]  # triggers that may change a row after it was stamped
    unique: bool
    required: bool  # the id is NOT NULL
    indexed: tuple[str, ...]  # those of both columns that have an index


class Shape(NamedTuple):
    """What an outbox has of both columns and their sequence; none of it where the table does not exist."""

    present: dict[str, tuple[int, str]]
    defaults: tuple[str, ...]  # those of both columns that have a default
    identity: bool  # of cdc_seq
    parent: str | None  # the outbox is itself a partition of this table
    sequence: tuple[int, int, bool] | None  # cache, increment, whether it cycles
    body: str | None  # of the trigger's function


def shape(connection: Conn, table: Table) -> Shape:
    """Read what the outbox has."""
    present = catalog.table_columns(connection, table) or {}
    columns = query(
        connection,
        "reading the outbox table",
        """
        select a.attname, a.atthasdef and a.attgenerated = '', a.attidentity <> ''
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute a on a.attrelid = c.oid and a.attname = any(%s)
        where n.nspname = %s and c.relname = %s
        """,
        [TX_COLUMN, SEQUENCE_COLUMN],
        *table,
    )
    ((cache, increment, cycles, body),) = query(
        connection,
        "reading the sequence of the table",
        """
        select s.seqcache, s.seqincrement, s.seqcycle, p.prosrc
        from (select) one left join pg_sequence s on s.seqrelid = to_regclass(%s)
        left join pg_proc p on p.oid = to_regprocedure(%s)
        """,
        numbers.sequence_name(table),
        f"{defects.name(*wanted.function_name(table))}()",
    )
    return Shape(
        present,
        tuple([name for name, default, _ in columns if default]),
        any(identity for _, _, identity in columns),
        catalog.partition_of(connection, table),
        None if cache is None else (cache, increment, cycles),
        body,
    )


def parts(connection: Conn, table: Table, id_column: str) -> list[Part]:
    """Read all tables of the outbox, itself first."""
    found = query(
        connection,
        "reading the tables of the outbox",
        TABLES_BELOW
        + """
        select n.nspname, c.relname, c.relkind = 'r', c.relispartition and c.oid <> b.root,
               exists (select from pg_trigger t join pg_proc p on p.oid = t.tgfoid
                       where t.tgrelid = c.oid and t.tgname = %s and t.tgenabled = 'A' and t.tgtype = %s
                       and t.tgqual is null and p.prosrc = %s),
               array(select t.tgname::text from pg_trigger t where t.tgrelid = c.oid and t.tgname > %s
                     and t.tgname <> %s and t.tgenabled <> 'D' and not t.tgisinternal and t.tgtype & 3 = 3
                     and t.tgtype & 20 > 0 order by 1),
               exists (select from pg_index x where x.indrelid = c.oid and x.indisunique and x.indisvalid
                       and x.indpred is null and x.indnkeyatts = 1 and x.indkey[0] = i.attnum),
               coalesce(i.attnotnull, false),
               array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attname = any(%s)
                     and exists (select from pg_index x where x.indrelid = c.oid and x.indisvalid
                                 and x.indpred is null and x.indkey[0] = a.attnum))
        from below b join pg_class c on c.oid = b.relid join pg_namespace n on n.oid = c.relnamespace
        left join pg_attribute i on i.attrelid = c.oid and i.attname = %s and not i.attisdropped
        where c.relkind in ('r', 'p') order by c.oid <> b.root, 1, 2
        """,
        *table,
        defects.STAMP,
        wanted.STAMP_TYPE,
        wanted.body(table),
        defects.STAMP,
        defects.STAYS,
        [TX_COLUMN, SEQUENCE_COLUMN],
        id_column,
    )
    return [
        Part((schema, name), rows, partition, stamped, tuple(later), unique, required, tuple(indexed))
        for schema, name, rows, partition, stamped, later, unique, required, indexed in found
    ]


def unusable(found: Shape, table: Table) -> Requirement | None:
    """Return what `outbox init --polling` cannot repair; None without such."""
    shown, name = defects.shown(table), defects.name(*table)
    types = {TX_COLUMN: "xid8", SEQUENCE_COLUMN: "bigint"}
    for column, kind in types.items():
        if found.present.get(column, (0, kind))[1] != kind:
            return Requirement(
                f"column {column!r} of table {shown} is {found.present[column][1]}, not {kind}",
                hint="rename it: polling needs a column of its own of this name",
            )
    missing = [column for column in types if column not in found.present]
    if found.parent and missing:
        root = found.parent
        added = ", ".join(f"ADD COLUMN {column} {types[column]}" for column in missing)
        return Requirement(
            f"table {shown} is a partition of {root}, which has no column {' and '.join(missing)}",
            (f"ALTER TABLE {root} {added};",),
        )
    if found.identity:
        fix = f"ALTER TABLE {name} ALTER COLUMN {SEQUENCE_COLUMN} DROP IDENTITY;"
        return Requirement(f"column {SEQUENCE_COLUMN!r} of table {shown} is an identity column", (fix,), "then " + INIT)
    return None


def sequence_defect(found: Shape, table: Table) -> Requirement | None:
    """Return why the sequence does not number rows in the order of their inserts."""
    name = numbers.sequence_name(table)
    if found.sequence is None:
        return Requirement(f"sequence {name} does not exist", (INIT,))
    cache, increment, cycles = found.sequence
    if cache != 1:
        return Requirement(
            f"sequence {name} has CACHE {cache}: each session takes so many numbers at once, and uses them later",
            (f"ALTER SEQUENCE {name} CACHE 1;",),
        )
    if increment < 1 or cycles:
        fix = f"ALTER SEQUENCE {name} INCREMENT BY 1 NO CYCLE;"
        return Requirement(f"sequence {name} does not ascend for good", (fix,))
    return None


def columns_defect(found: Shape, all_parts: list[Part], table: Table) -> Requirement | None:
    """Return which of both columns is missing, has a default, or no index."""
    shown = defects.shown(table)
    if missing := [column for column in (TX_COLUMN, SEQUENCE_COLUMN) if column not in found.present]:
        return Requirement(f"table {shown} has no column {' and '.join(missing)}", (INIT,))
    if found.defaults:
        return Requirement(
            f"column {found.defaults[0]!r} of table {shown} has a default beside the trigger",
            (wanted.drop_defaults(table, list(found.defaults)),),
        )
    lacking = [
        wanted.create_index(part.table, column)
        for part in all_parts
        for column in (TX_COLUMN, SEQUENCE_COLUMN)
        if not part.is_partition and column not in part.indexed
    ]
    return (
        Requirement(f"table {shown} has no index on each of its columns for polling", tuple(lacking))
        if lacking
        else None
    )


def trigger_defect(found: Shape, all_parts: list[Part], table: Table) -> Requirement | None:
    """Return which table has no trigger that stamps its rows."""
    bare = [defects.shown(part.table) for part in all_parts if not part.stamped]
    if found.body != wanted.body(table) or bare:
        where = ", ".join(bare) or defects.shown(table)
        problem = f"table {where} has no trigger {defects.STAMP}, or not as this version makes it, ENABLE ALWAYS"
        return Requirement(f"{problem}: rows that are inserted there may never be published", (INIT,))
    for part in all_parts:
        if part.later:
            rename = (
                f"ALTER TRIGGER {defects.name(part.later[0])} ON {defects.name(*part.table)} RENAME TO a_name_before_z;"
            )
            return Requirement(
                f"trigger {part.later[0]} of table {defects.shown(part.table)} runs after {defects.STAMP}, and may"
                " change what it sets",
                (rename,),
            )
    return None


def ids_defect(all_parts: list[Part], id_column: str) -> Requirement | None:
    """Return which table that holds rows may have an id twice, or a null in its place."""
    loose = [part for part in all_parts if part.holds_rows and not (part.unique and part.required)]
    if not loose:
        return None
    fix = [wanted.require_value(part.table, id_column) for part in loose if not part.required]
    fix += [wanted.create_unique(part.table, id_column) for part in loose if not part.unique]
    names = ", ".join(defects.shown(part.table) for part in loose)
    return Requirement(f"column {id_column!r} of {names} is not unique and NOT NULL", tuple(fix))


def tables_defect(connection: Conn, table: Table, *, missing: bool = True) -> Requirement | None:
    """Return why the relay has no place to note how far it is; `missing` says whether its tables have to be there."""
    for name in wanted.TABLES:
        present = catalog.table_columns(connection, (table[0], name))
        if present is None and missing:
            return Requirement(f"table {defects.shown((table[0], name))} does not exist", (INIT,))
        if present and (lacking := sorted(wanted.columns_of(name) - present.keys())):
            return Requirement(
                f"table {defects.shown((table[0], name))} has no column {', '.join(lacking)}: it is another table, or"
                " of another version",
                hint="rename or drop it, and run: " + INIT,
            )
    return None


def relay_defect(connection: Conn, settings: Settings) -> Requirement | None:
    """Return why the tables have no relay of these settings for this outbox."""
    table = settings.outbox.qualified_name
    statement = sql.SQL("select outbox from {} where relay = %s").format(sql.Identifier(table[0], wanted.RELAY))
    with converting("reading the relay"):
        found = connection.execute(statement, [settings.postgres.slot]).fetchall()
    if not found:
        return Requirement(
            f"table {defects.shown((table[0], wanted.RELAY))} has no relay {settings.postgres.slot!r}",
            (INIT,),
        )
    if found[0][0] != defects.name(*table):
        return Requirement(
            f"relay {settings.postgres.slot!r} is that of table {found[0][0]}, not of {defects.shown(table)}",
            hint="give each outbox a relay of its own: another [postgres] slot",
        )
    return None


def rights_defect(connection: Conn, settings: Settings) -> Requirement | None:
    """Return which rights the role lacks to run the relay."""
    table, delete = settings.outbox.qualified_name, settings.outbox.published == "delete"
    relay, ticks = ((table[0], name) for name in (wanted.RELAY, wanted.TICKS))
    needed = [(table, "SELECT"), (relay, "SELECT"), (relay, "UPDATE")]
    needed += [(ticks, right) for right in ("SELECT", "INSERT", "DELETE")]
    needed += [(table, "DELETE")] if delete else []
    ((user, *held),) = query(
        connection,
        "reading the rights of the role",
        """
        select current_user, has_sequence_privilege(%s, 'SELECT'), has_any_column_privilege(%s, 'UPDATE'),
               array(select has_table_privilege(t, r) from unnest(%s::text[], %s::text[]) with ordinality w(t, r, n)
                     order by n)
        """,
        numbers.sequence_name(table),
        defects.name(*table),
        [defects.name(*each) for each, _ in needed],
        [right for _, right in needed],
    )
    on_sequence, updates, on_tables = held
    lacking = [
        f"{right} on {defects.shown(each)}" for (each, right), has in zip(needed, on_tables, strict=True) if not has
    ]
    lacking += [] if on_sequence else [f"SELECT on sequence {numbers.sequence_name(table)}"]
    # A row is locked before it is deleted, so that no other session is waited for.
    lacking += [f"UPDATE ({SEQUENCE_COLUMN}) on {defects.shown(table)}"] if delete and not updates else []
    if not lacking:
        return None
    return Requirement(f'role "{user}" lacks {", ".join(lacking)}', tuple(wanted.grants(table, user, delete=delete)))


def read(connection: Conn, settings: Settings) -> dict[str, Requirement | None]:
    """Return each requirement by its name, and why it is not met; those behind a missing table are left out."""
    table = settings.outbox.qualified_name
    found = shape(connection, table)
    if not found.present:
        return {COLUMNS: Requirement(f"table {defects.shown(table)} does not exist", (INIT,))}
    all_parts = parts(connection, table, settings.outbox.columns.id)
    result = {
        COLUMNS: catalog.foreign_parts(connection, table)
        or unusable(found, table)
        or columns_defect(found, all_parts, table),
        SEQUENCE: sequence_defect(found, table),
        TRIGGER: trigger_defect(found, all_parts, table) or moves.rows_stay(connection, table),
        IDS: ids_defect(all_parts, settings.outbox.columns.id),
        RELAY: tables_defect(connection, table),
    }
    if not (result[SEQUENCE] or result[RELAY]):
        result[RIGHTS] = rights_defect(connection, settings) or catalog.hidden_rows(connection, table)
        if result[RIGHTS] is None:
            result[RELAY] = relay_defect(connection, settings)
    return result


def first(connection: Conn, settings: Settings) -> Requirement | None:
    """Return the first requirement that is not met; None when all are."""
    return next(filter(None, read(connection, settings).values()), None)
