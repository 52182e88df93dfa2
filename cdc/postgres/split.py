"""Splits an outbox into parts with a publisher each: hash partitions of its key, and the steps from one table to them.

A part is a table with a publication, a slot and a settings file of its own, all of one name. See docs/split.md.
"""

import itertools
import re
from typing import Final, LiteralString, NamedTuple

from psycopg import sql

from cdc.config.settings import Settings
from cdc.errors import ConfigError, PostgresError
from cdc.postgres import defects, moves
from cdc.postgres.catalog import table_columns
from cdc.postgres.connection import Conn, converting, query
from cdc.postgres.outbox_table import create_publication, create_table
from cdc.postgres.slots import find as slots_of_server
from cdc.postgres.tables_below import TABLES_BELOW

_LONGEST: Final = 63  # bytes of a name
_LOCK_MS: Final = 300
"""Three waits are shorter than `deadlock_timeout` (1 s): in a deadlock it is not the writer that gets the error."""

NO_CONFLICT: Final = (
    "ON CONFLICT (id) and foreign keys to the outbox do not work with it: its ids are unique in each part only"
)


def parts(settings: Settings, number: int) -> dict[str, Settings]:
    """Return the settings of each part by its name, which is also that of its table, publication and slot.

    Raises ConfigError for messages, which every part would publish, and for a name that is too long.
    """
    if settings.outbox.messages is not None:
        raise ConfigError(
            "--split and [outbox] messages exclude each other: the publisher of each part would send all messages",
            hint='publish the messages by a publisher of their own, with [outbox] table = ""',
        )
    schema, table = settings.outbox.qualified_name
    found = {f"{table}_{number}_{part}": settings for part in range(number)}
    for name in found:
        if len(name.encode()) > _LONGEST:
            raise ConfigError(f"{name!r} is longer than {_LONGEST} bytes", hint="give the outbox a shorter name")
        postgres = settings.postgres.model_copy(update={"slot": slot_of(name), "publication": name})
        own = {"table": defects.shown((schema, name)), "renamed_to": None}
        outbox = settings.outbox.model_copy(update=own)
        found[name] = settings.model_copy(update={"postgres": postgres, "outbox": outbox})
    return found


def create(settings: Settings, number: int, writers: tuple[str, ...] = ()) -> list[str]:
    """Return the statements that create the outbox in parts, with their publications, and let `writers` insert."""
    table = settings.outbox.qualified_name
    grants = [f"GRANT INSERT ON TABLE {_name(*table)} TO {_name(role)};" for role in writers]
    return [*create_table(settings, split=True), *_parts(settings, table, number), *grants]


def missing(connection: Conn, settings: Settings, number: int, writers: tuple[str, ...] = ()) -> list[str] | None:
    """Return the statements that have to be run; None if the table exists, and is not split into so many parts."""
    table, units = settings.outbox.qualified_name, parts(settings, number)
    if table_columns(connection, table) is None:
        return create(settings, number, writers)
    return _lacking(connection, table, units) if set(_leaves(connection, table)) == set(units) else None


def _lacking(connection: Conn, table: tuple[str, str], units: dict[str, Settings]) -> list[str]:
    """Return the statements that make what a table in parts lacks."""
    there = _publications(connection)
    statements = [create_publication(unit) for unit in units.values() if unit.postgres.publication not in there]
    if defect := moves.defect(connection, "", table):
        statements += defect.fix
    return statements


def _publications(connection: Conn) -> set[str]:
    return {name for (name,) in query(connection, "reading the publications", "select pubname from pg_publication")}


def without_slot(connection: Conn, units: dict[str, Settings]) -> list[str]:
    """Return the parts that have no slot yet."""
    there = {slot.name for slot in slots_of_server(connection) if slot.database == connection.info.dbname}
    return [name for name, unit in units.items() if unit.postgres.slot not in there]


def _parts(settings: Settings, parent: tuple[str, str], number: int) -> list[str]:
    """Return the statements that give a partitioned table its parts, the trigger that keeps rows in them,
    and publications.
    """
    units, (schema, _) = parts(settings, number), parent
    tables = [
        f"CREATE TABLE {_name(schema, name)} PARTITION OF {_name(*parent)} (PRIMARY KEY"
        f" ({_name(settings.outbox.columns.id)})) FOR VALUES WITH (MODULUS {number}, REMAINDER {remainder});"
        for remainder, name in enumerate(units)
    ]
    stays = defects.stay(parent, [settings.outbox.columns.key])
    return [*tables, *stays, *(create_publication(unit) for unit in units.values())]


def _leaves(connection: Conn, table: tuple[str, str]) -> list[str]:
    """Return the names of the partitions of a table that is partitioned by hash."""
    found = query(
        connection,
        "reading the parts of the outbox",
        """
        select p.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join pg_partitioned_table k on k.partrelid = c.oid and k.partstrat = 'h'
        join pg_inherits i on i.inhparent = c.oid join pg_class p on p.oid = i.inhrelid
        where n.nspname = %s and c.relname = %s order by p.relname
        """,
        *table,
    )
    return [name for (name,) in found]


class Steps(NamedTuple):
    """What splits a table that is in use: the statements of two transactions, and what else takes part.

    What is done already is left out.
    """

    create: list[str]
    swap: list[str]
    units: list[str]  # names of the new parts
    without_slot: list[str]  # of these
    slots: list[str]  # of the publishers that read the table now
    publications: list[str]  # likewise
    failover: bool
    single: bool  # one publisher reads the whole table, and knows it by its name
    old: tuple[str, str]  # the table's name afterwards
    notes: list[str]


REFUSES: Final = "00_outbox_refuses"
"""The trigger of the old table; PostgreSQL runs triggers in the order of their names."""

_PUBLISHED: Final[LiteralString] = """
    select p.pubname from pg_publication p left join pg_publication_rel r on r.prpubid = p.oid
    where p.pubname = %(publication)s and (p.puballtables or r.prrelid = %(table)s::regclass)
"""
# A writer locks a view, or a table with a foreign key, before the outbox: so does the swap.
# All that belongs to the old table and has to be there for the new one; each is a statement that names the table as it
# is called now. These run when the new table has that name.
_TRIGGERS: Final[LiteralString] = """
    select pg_get_triggerdef(t.oid) || case t.tgenabled when 'A' then
               format('; ALTER TABLE %%s ENABLE ALWAYS TRIGGER %%I', %(table)s::regclass, t.tgname) else '' end || ';'
    from pg_trigger t where t.tgrelid = %(table)s::regclass and not t.tgisinternal and t.tgenabled <> 'D'
    and t.tgname <> %(stays)s and t.tgparentid = 0 order by t.tgname
"""
_VIEWS: Final[LiteralString] = """
    select distinct format('CREATE OR REPLACE VIEW %%I.%%I%%s AS %%s', n.nspname, v.relname,
        ' WITH (' || array_to_string(v.reloptions, ', ') || ')', pg_get_viewdef(v.oid))
    from pg_depend d join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass
    join pg_class v on v.oid = r.ev_class and v.relkind = 'v' join pg_namespace n on n.oid = v.relnamespace
    where d.refclassid = 'pg_class'::regclass and d.refobjid = %(table)s::regclass order by 1
"""
_LOCKS: Final[LiteralString] = """
    select distinct format('LOCK TABLE %%s IN ACCESS EXCLUSIVE MODE;', v.oid::regclass)
    from pg_depend d join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass
    join pg_class v on v.oid = r.ev_class and v.relkind = 'v'
    where d.refclassid = 'pg_class'::regclass and d.refobjid = %(table)s::regclass
    union select format('LOCK TABLE %%s IN ACCESS EXCLUSIVE MODE;', k.conrelid::regclass)
    from pg_constraint k where k.contype = 'f' and k.conparentid = 0
    and k.confrelid in (select %(table)s::regclass union select relid from pg_partition_tree(%(table)s::regclass))
    order by 1
"""
_FOREIGN_KEYS: Final[LiteralString] = """
    select format('ALTER TABLE %%s DROP CONSTRAINT %%I;', k.conrelid::regclass, k.conname)
    from pg_constraint k where k.contype = 'f' and k.conparentid = 0
    and k.confrelid in (select %(table)s::regclass union select relid from pg_partition_tree(%(table)s::regclass))
    order by 1
"""
# A sequence of a serial column continues, so that no number comes twice; that of an identity column is copied.
_SEQUENCES: Final[LiteralString] = """
    select case d.deptype when 'a' then format('ALTER SEQUENCE %%s OWNED BY %%s.%%I;', s.oid::regclass, %(table)s::text,
        a.attname) else format('SELECT setval(pg_get_serial_sequence(%%L, %%L), nextval(%%L));', %(table)s::text,
        a.attname, s.oid::regclass) end
    from pg_depend d join pg_class s on s.oid = d.objid and s.relkind = 'S'
    join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
    where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
    and d.refobjid = %(table)s::regclass and d.deptype in ('a', 'i') order by 1
"""
_GRANTS: Final[LiteralString] = """
    select format('GRANT %%s ON TABLE {} TO %%s%%s;', string_agg(p.privilege_type, ', ' order by p.privilege_type),
        coalesce(quote_ident(r.rolname), 'PUBLIC'), case when p.is_grantable then ' WITH GRANT OPTION' else '' end)
    from pg_class c cross join aclexplode(c.relacl) p left join pg_roles r on r.oid = p.grantee
    where c.oid = %(table)s::regclass and p.grantee <> c.relowner group by r.rolname, p.grantee, p.is_grantable
    union all
    select format('GRANT %%s (%%I) ON TABLE {} TO %%s%%s;', string_agg(p.privilege_type, ', ' order by
        p.privilege_type), a.attname, coalesce(quote_ident(r.rolname), 'PUBLIC'),
        case when p.is_grantable then ' WITH GRANT OPTION' else '' end)
    from pg_attribute a cross join aclexplode(a.attacl) p left join pg_roles r on r.oid = p.grantee
    where a.attrelid = %(table)s::regclass and not a.attisdropped
    group by a.attname, r.rolname, p.grantee, p.is_grantable
    order by 1
"""
_OWNER: Final[LiteralString] = """
    select format('ALTER TABLE {} OWNER TO %%I;', r.rolname) from pg_class c join pg_roles r on r.oid = c.relowner
    where c.oid = %(table)s::regclass and r.rolname <> current_user
"""
_NOTES: Final[LiteralString] = """
    select 'index ' || indexrelid::regclass || ' is not copied' from pg_index
    where indrelid = %(table)s::regclass and not indisprimary
    union all select 'materialized view ' || v.oid::regclass || ' reads the old table' from pg_depend d
    join pg_rewrite r on r.oid = d.objid join pg_class v on v.oid = r.ev_class and v.relkind = 'm'
    where d.classid = 'pg_rewrite'::regclass and d.refobjid = %(table)s::regclass
    union all select 'rule ' || r.rulename || ' is not copied' from pg_rewrite r
    where r.ev_class = %(table)s::regclass and r.rulename <> '_RETURN'
    union all select 'policy ' || p.polname || ' is not copied' from pg_policy p where p.polrelid = %(table)s::regclass
    union all select 'table ' || i.inhrelid::regclass || ' inherits from the old table, and has no part in the new one'
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = %(table)s::regclass and not c.relispartition
    union all select 'publication ' || p.pubname || ' publishes the old table only' from pg_publication_rel r
    join pg_publication p on p.oid = r.prpubid where r.prrelid = %(table)s::regclass and p.pubname <> %(publication)s
    order by 1
"""


def steps(connection: Conn, settings: Settings, number: int) -> Steps:
    """Return what splits the table of the settings into `number` parts. Raises PostgresError where it is no outbox."""
    table, units, key = settings.outbox.qualified_name, parts(settings, number), settings.outbox.columns.key
    schema, name = table
    columns = table_columns(connection, table) or {}
    if key not in columns:
        raise PostgresError(f"table {defects.shown(table)} has no column {key!r}", hint="map it in [outbox] columns")
    old, new = _free(connection, (schema, f"{name}_old")), (schema, f"{name}_{number}")
    given = {"table": _name(*table), "stays": defects.STAYS, "publication": settings.postgres.publication}

    def read(statement: LiteralString) -> list[str]:
        with converting("reading what belongs to the outbox"):
            return [text for (text,) in connection.execute(statement, given)]

    tables = [_name(*each) for each in (new, *((schema, unit) for unit in units))]
    prepared = table_columns(connection, new)
    if prepared is not None and (set(_leaves(connection, new)) != set(units) or prepared != columns):
        raise PostgresError(
            f"table {defects.shown(new)} exists, and has other parts or columns than the new table is to have",
            hint=f"drop it if it is of an earlier attempt: DROP TABLE {_name(*new)};",
        )
    single = bool(read(_PUBLISHED)) or not _leaves(connection, table)
    publications = [settings.postgres.publication] if single else _leaves(connection, table)
    slots = [settings.postgres.slot] if single else [slot_of(part) for part in publications]
    return Steps(
        create=_lacking(connection, new, units)
        if prepared is not None
        else [
            f"CREATE TABLE {_name(*new)} (LIKE {_name(*table)} INCLUDING ALL EXCLUDING INDEXES)"
            f" PARTITION BY HASH ({_name(key)});",
            *_parts(settings, new, number),
            *(text.replace("{}", each) for text in read(_OWNER) + read(_GRANTS) for each in tables),
        ],
        swap=[
            f"SET LOCAL lock_timeout = '{_LOCK_MS}ms';",
            *read(_LOCKS),
            f"LOCK TABLE {_name(*table)} IN ACCESS EXCLUSIVE MODE;",
            f"ALTER TABLE {_name(*table)} RENAME TO {_name(old[1])};",
            f"ALTER TABLE {_name(*new)} RENAME TO {_name(name)};",
            *refuse(old, table, [old, *_children(connection, table)]),
            *(read(_SEQUENCES) + read(_FOREIGN_KEYS) + read(_VIEWS) + read(_TRIGGERS)),
        ],
        units=list(units),
        without_slot=without_slot(connection, units),
        slots=slots,
        publications=publications,
        failover=any(slot.failover for slot in slots_of_server(connection) if slot.name in slots),
        single=single,
        old=old,
        notes=read(_NOTES),
    )


def rest(connection: Conn, settings: Settings, number: int) -> Steps | None:
    """Return what is left to do after the swap to `number` parts; None when nothing is."""
    units, (schema, table) = parts(settings, number), settings.outbox.qualified_name
    replaced = query(
        connection,
        "looking for the replaced table",
        """
        select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %s and not c.relispartition and exists (
            select from pg_trigger where tgrelid = c.oid and tgname = %s)
        and not exists (select from pg_inherits where inhrelid = c.oid) order by 1
        """,
        schema,
        REFUSES,
    )
    there = _publications(connection)
    for name in [name for (name,) in replaced if re.fullmatch(rf"{re.escape(table)}_old\d*", name)]:
        leaves = _leaves(connection, (schema, name))
        publications = leaves or [settings.postgres.publication]
        names = [slot_of(part) for part in leaves] or [settings.postgres.slot]
        slots = [slot for slot in slots_of_server(connection) if slot.name in names]
        if slots or there.intersection(publications):
            return Steps(
                create=[],
                swap=[],
                units=list(units),
                without_slot=without_slot(connection, units),
                slots=[slot.name for slot in slots],
                publications=publications,
                failover=any(slot.failover for slot in slots),
                single=not leaves,
                old=(schema, name),
                notes=[],
            )
    return None


def refuse(old: tuple[str, str], new: tuple[str, str], tables: list[tuple[str, str]]) -> list[str]:
    """Return the statements after which no row can be inserted into the old tables: nothing would publish it.

    The trigger runs before all others of a row, so that none can pass the row over without an error.
    """
    function = _name(old[0], f"{old[1]}_refuses")
    message = f"{'.'.join(old)} was replaced by {'.'.join(new)}: insert into that one; what names the old table must be"
    message = defects.text(f"{message} created again (views, rules)".replace("%", "%%"))
    made = [
        f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION"
        f" {message}; END $$;"
    ]
    trigger = _name(REFUSES)
    for table in tables:
        made.append(
            f"CREATE TRIGGER {trigger} BEFORE INSERT ON {_name(*table)} FOR EACH ROW EXECUTE FUNCTION {function}();"
        )
        made.append(defects.always(table, trigger))
    return made


def _children(connection: Conn, table: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the tables that inherit from the outbox, of which partitions are none."""
    found = query(
        connection,
        "reading the tables that inherit",
        TABLES_BELOW
        + """
        select n.nspname, c.relname from below b join pg_class c on c.oid = b.relid
        join pg_namespace n on n.oid = c.relnamespace
        where b.relid <> b.root and not c.relispartition and c.relkind = 'r' order by 1, 2
        """,
        *table,
    )
    return [(schema, name) for schema, name in found]


def _free(connection: Conn, table: tuple[str, str]) -> tuple[str, str]:
    """Return a name that no table has."""
    for number in itertools.count(2):
        ((taken,),) = query(connection, "looking for a free name", "select to_regclass(%s) is not null", _name(*table))
        if not taken:
            return table
        table = table[0], f"{table[1].rstrip('0123456789')}{number}"
    raise AssertionError


def slot_of(part: str) -> str:
    """Return the name of a part's slot: slots have lower-case letters, digits and underscores."""
    return re.sub(r"[^a-z0-9_]", "_", part.lower())


def _name(*parts: str) -> str:
    return sql.Identifier(*parts).as_string()
