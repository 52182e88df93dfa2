"""Checks before streaming that a server has what the publisher needs: every defect is one line with its fix."""

import json
import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Final

from cdc.config.settings import Settings
from cdc.errors import PostgresError, PostgresUnavailable, SlotActive, SlotLost
from cdc.lsn import LSN
from cdc.outbox.columns import DEBEZIUM_COLUMNS, SEQUENCE_COLUMN, Columns
from cdc.outbox.keys import Keys
from cdc.postgres import defects, key_column, moves, publication, slot_health
from cdc.postgres.connection import Conn, query
from cdc.postgres.defects import Requirement
from cdc.postgres.renamed import located
from cdc.postgres.slot_health import Health
from cdc.postgres.tables_below import TABLES_BELOW
from cdc.replication.moments import TYPES as TIMES
from cdc.replication.publication import (
    COLUMN_LIST,
    INSERTS,
    NONE,
    PARTITION_ROOT,
    PUBLICATION_OID,
    PUBLISHED_BY,
    ROW_FILTER,
)
from cdc.replication.values import (
    BPCHAR,
    BYTEA,
    DATE,
    INT2,
    INT4,
    INT8,
    PAYLOAD_TYPES,
    TEXT,
    UUID,
    VARCHAR,
    has_binary_decoder,
)

log = logging.getLogger(__name__)

_NAMES: Final = frozenset({TEXT, VARCHAR, BPCHAR})
_KEYS: Final = frozenset({UUID, INT2, INT4, INT8})
_MADE_TIMES: Final = {
    **dict.fromkeys((INT2, INT4), "bigint"),
    **dict.fromkeys((TEXT, VARCHAR, DATE), "timestamptz"),
}
"""What types become that are no time of records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """The facts about a server that a session depends on."""

    confirmed: LSN  # the slot's confirmed_flush_lsn
    binary: bool  # every needed column has a binary decoder
    wal_sender_timeout: float  # seconds; 0 means never
    definition: dict[str, str]  # of publication and table
    wal_end: LSN  # before the definition was read
    used: bool  # the slot has been read from
    keys: Keys
    key_type: int  # oid of the key's column


def inspect(connection: Conn, settings: Settings) -> Catalog:
    """Check server, role, table, publication and slot. Raises PostgresError for the first defect.

    Raises PostgresUnavailable if the table was renamed meanwhile, as the settings announce.
    """
    now = located(connection, settings)
    found: Catalog | PostgresError
    try:
        found = _inspect(connection, now)
    except PostgresError as error:
        found = error
    if located(connection, settings).outbox.table != now.outbox.table:
        raise PostgresUnavailable(f"table {now.outbox.table} was renamed meanwhile; looking again")
    if isinstance(found, PostgresError):
        raise found
    return found


def _inspect(connection: Conn, settings: Settings) -> Catalog:
    timeout = server(connection)
    if defect := role_defect(connection):
        raise defect.error()
    # Before the rest: the sentinel sees any later change.
    ((end,),) = query(connection, "reading the WAL's end", "select pg_current_wal_flush_lsn()::text")
    found = publication.read(connection, settings.postgres.publication, settings.outbox.qualified_name)
    if without_table(connection, settings):
        needed, binary, key_type = list[str](), True, TEXT
    else:
        needed, binary, key_type = _table(connection, settings)
    _publication(connection, settings, needed)
    ours = slot(connection, settings)
    assert ours.confirmed is not None
    _warn(connection, ours)
    if defect := foreign_parts(connection, settings.outbox.qualified_name):
        log.warning("%s", defect.error(), extra={"event": "rows_outside_wal"})
    if defect := moves.defect(connection, settings.postgres.publication, settings.outbox.qualified_name):
        log.warning("%s", defect.problem, extra={"event": "updates_may_publish"})
    return Catalog(
        confirmed=ours.confirmed,
        binary=binary,
        wal_sender_timeout=timeout,
        definition=found,
        wal_end=LSN.parse(end),
        used=used(connection, settings.postgres.slot),
        keys=key_column.keys(connection, settings),
        key_type=key_type,
    )


def server(connection: Conn) -> float:
    """Return `wal_sender_timeout` in seconds. Raises PostgresError for a server without logical decoding."""
    ((version, wal_level, standby, timeout),) = query(
        connection,
        "reading settings",
        """
        select current_setting('server_version_num')::int, current_setting('wal_level'), pg_is_in_recovery(),
               (select setting::int from pg_settings where name = 'wal_sender_timeout')
        """,
    )
    for defect in (defects.version(version), defects.standby(standby), defects.wal_level(wal_level)):
        if defect:
            raise defect.error()
    return float(timeout) / 1000


def role_defect(connection: Conn) -> Requirement | None:
    """Return why the role may not replicate; None when it may."""
    ((user, allowed, on_rds),) = query(
        connection,
        "reading the role",
        """
        select current_user, r.rolreplication or r.rolsuper
               or coalesce((select pg_has_role(current_user, rds.oid, 'member')), false), rds.oid is not null
        from pg_roles r left join pg_roles rds on rds.rolname = %s where r.rolname = current_user
        """,
        defects.RDS_ROLE,
    )
    return defects.role(user, allowed, on_rds=on_rds)


def table_columns(connection: Conn, table: tuple[str, str]) -> dict[str, tuple[int, str]] | None:
    """Return column names with their type's oid and name, in order; None when the table does not exist.

    The oid of a domain is that of its base type, by which the stream's values are read too.
    """
    found = query(
        connection,
        "reading the outbox table",
        """
        select a.attname, (
            with recursive types(oid, base) as (
                select t.oid, t.typbasetype
                union all select b.oid, b.typbasetype from types join pg_type b on b.oid = types.base
            ) select oid::int8 from types where base = 0
        ), format_type(a.atttypid, a.atttypmod)
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        left join pg_type t on t.oid = a.atttypid
        where n.nspname = %s and c.relname = %s and c.relkind in ('r', 'p')
        order by a.attnum
        """,
        *table,
    )
    return {name: (oid, type_name) for name, oid, type_name in found if name is not None} if found else None


def without_table(connection: Conn, settings: Settings) -> bool:
    """Return whether all events are messages: the settings name no table, and there is none of the default name."""
    return not settings.outbox.needs_table and table_columns(connection, settings.outbox.qualified_name) is None


def require_table(connection: Conn, settings: Settings) -> None:
    """Raise PostgresError where there is no table, for what works with its rows."""
    if without_table(connection, settings):
        raise PostgresError(
            "this is not possible without an outbox table: all events are messages ([outbox] messages), which are in"
            " the WAL only"
        )


def key_form(connection: Conn, settings: Settings) -> tuple[Keys, int]:
    """Return the form of keys, and the oid of their column's type; 0 if the table has no such column."""
    if without_table(connection, settings):
        return key_column.keys(connection, settings), TEXT
    present = table_columns(connection, settings.outbox.qualified_name) or {}
    return key_column.keys(connection, settings), present.get(settings.outbox.columns.key, (0, ""))[0]


def hidden_rows(connection: Conn, table: tuple[str, str]) -> Requirement | None:
    """Return why the role may not see all rows of a table; None when it sees all.

    `row_security` is off, which makes it an error to read such a table; but a pooler may give statements to a session
    that does not have this setting.
    """
    found = query(
        connection,
        "reading the policies of the table",
        """
        select current_user from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %s and c.relname = %s and row_security_active(c.oid)
        """,
        *table,
    )
    return defects.hidden_rows(table, found[0][0]) if found else None


def differences(
    columns: Columns,
    present: dict[str, tuple[int, str]],
    needed: list[str],
    base64: Collection[str] = (),
    time: str | None = None,
) -> list[str]:
    """Return how a table differs from an outbox: one phrase for each missing or unusable column.

    Columns of `base64` may be bytea: see `base64_headers`. `time` is the column with the time of records.
    """
    problems = [f"column {name!r} is missing" for name in needed if name not in present]
    if time is not None and time in present and present[time][0] not in TIMES:
        problems.append(
            f"column {time!r} of [record] timestamp is {present[time][1]}, not timestamptz, timestamp or bigint"
        )
    for name in needed:
        oid, type_name = present.get(name, (TEXT, "text"))
        if name == columns.payload and oid not in PAYLOAD_TYPES:
            problems.append(f"column {name!r} is {type_name}, not jsonb, json, text or bytea")
        elif name not in (columns.payload, time) and name not in base64 and oid == BYTEA:
            problems.append(f"column {name!r} is bytea, not text")
    return problems


def repairs(
    table: tuple[str, str],
    columns: Columns,
    present: dict[str, tuple[int, str]],
    needed: list[str],
    base64: Collection[str] = (),
    time: str | None = None,
) -> list[str]:
    """Return the statements that give a table the columns that `differences` reports."""
    change, statements = f"ALTER TABLE {defects.name(*table)}", []
    for name in needed:
        quoted = defects.name(name)
        oid, _ = present.get(name, (None, ""))
        if oid is None:
            wanted = "jsonb" if name == columns.payload else "timestamptz" if name == time else "text"
            statements.append(f"{change} ADD COLUMN {quoted} {wanted};")
        elif name == time and oid in _MADE_TIMES:
            wanted = _MADE_TIMES[oid]
            statements.append(f"{change} ALTER COLUMN {quoted} TYPE {wanted} USING {quoted}::{wanted};")
        elif name == columns.payload and oid not in PAYLOAD_TYPES:
            statements.append(f"{change} ALTER COLUMN {quoted} TYPE jsonb USING to_jsonb({quoted});")
        elif name != columns.payload and name not in base64 and oid == BYTEA:
            statements.append(f"{change} ALTER COLUMN {quoted} TYPE text USING convert_from({quoted}, 'UTF8');")
    return statements


def mapping(columns: Columns, present: dict[str, tuple[int, str]]) -> str:
    """Return the setting that reads the parts whose columns are missing from others of the table; empty if none fit."""
    mapped = asdict(columns)
    unused = {name: oid for name, (oid, _) in present.items() if name not in (*mapped.values(), SEQUENCE_COLUMN)}
    texts = [name for name, oid in unused.items() if oid in _NAMES]
    choices = {
        # One column may be several parts: a table of one topic per type needs no other.
        "aggregate": [*texts, columns.type],
        "type": [*texts, columns.aggregate],
        "key": [name for name, oid in unused.items() if oid in _NAMES | _KEYS],
        "id": [name for name, oid in unused.items() if oid in _NAMES | _KEYS],
        "payload": [name for name, oid in unused.items() if oid in PAYLOAD_TYPES - {BPCHAR, VARCHAR}],
    }
    found = {
        role: next((name for name in choices[role] if name in present), None)
        for role, column in mapped.items()
        if column not in present
    }
    if not found or None in found.values():
        return ""
    kept = {role: name for role, name in mapped.items() if name != getattr(DEBEZIUM_COLUMNS, role)}
    pairs = [f"{role} = {json.dumps(name, ensure_ascii=False)}" for role, name in {**kept, **found}.items()]
    return f"columns = {{{', '.join(pairs)}}}"


def base64_headers(settings: Settings, present: list[str]) -> set[str]:
    """Return the columns of headers that may be bytea, because they are sent in base64 and are no other part."""
    if settings.outbox.header_format != "iso":
        return set()
    parts = settings.outbox.parts.needed(present, settings.template, ())
    return {header.column for header in settings.outbox.header_columns} - set(parts)


def table_defect(
    connection: Conn, settings: Settings, present: dict[str, tuple[int, str]] | None, needed: list[str]
) -> Requirement | None:
    """Return why the table is no outbox; `present` is from `table_columns`, `needed` are the columns of an event."""
    table, columns = settings.outbox.qualified_name, settings.outbox.parts
    found = query(
        connection,
        "reading the outbox table",
        """
        select c.relkind::text, c.relpersistence::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %s and c.relname = %s
        """,
        *table,
    )
    if present is None:
        return defects.no_table(table, found[0][0] if found else None)
    base64 = base64_headers(settings, list(present))
    of_key, key_fix = key_column.problems(connection, settings, present)
    time = settings.record.time_column
    problems = differences(columns, present, needed, base64, time) + of_key
    if problems:
        fix = repairs(table, columns, present, needed, base64, time) + key_fix
        return defects.other_shape(table, problems, list(present), fix, mapping(columns, present))
    return defects.unlogged(table) if found and found[0][1] != "p" else None


def _table(connection: Conn, settings: Settings) -> tuple[list[str], bool, int]:
    """Return the columns that an event needs, whether all of them can be read in binary, and the key's type."""
    present = table_columns(connection, settings.outbox.qualified_name)
    needed = settings.needed(list(present or ()))
    if defect := table_defect(connection, settings, present, needed):
        raise defect.error()
    assert present is not None
    binary = all(has_binary_decoder(present[name][0]) for name in settings.read_as_text(list(present)))
    return needed, binary, present[settings.outbox.columns.key][0]


def _publication(connection: Conn, settings: Settings, needed: list[str]) -> None:
    name, table = settings.postgres.publication, settings.outbox.qualified_name
    if (
        defect := published_defect(connection, settings)
        or columns_defect(connection, name, table, needed)
        or children_defect(connection, name, table, needed)
    ):
        raise defect.error()


def published_defect(connection: Conn, settings: Settings) -> Requirement | None:
    """Return why the publication does not publish what the settings ask for; None when it does.

    Where all events are messages, it only has to be there: messages need a publication, and no table in it.
    """
    name, table = settings.postgres.publication, settings.outbox.qualified_name
    if without_table(connection, settings):
        there = query(connection, "reading the publication", "select from pg_publication where pubname = %s", name)
        return None if there else defects.no_publication_for_messages(name)
    if defect := split_defect(connection, settings):
        return defect
    defect = publication_defect(connection, name, table)
    if defect is not None and not settings.outbox.needs_table:
        hint = f'or set [outbox] table = "" to leave table {defects.shown(table)} alone, and publish messages only'
        return defect._replace(hint="; ".join(filter(None, (defect.hint, hint))))
    return defect


def split_defect(connection: Conn, settings: Settings) -> Requirement | None:
    """Return why messages cannot be read beside this table: it is one part of an outbox. None when they can."""
    if settings.outbox.messages is None:
        return None
    root = partition_of(connection, settings.outbox.qualified_name)
    return defects.split_with_messages(settings.outbox.qualified_name, root) if root else None


def partition_of(connection: Conn, table: tuple[str, str]) -> str | None:
    """Return the table of which a table is a partition; None when it is none."""
    found = query(
        connection,
        "reading the outbox table",
        """
        select i.inhparent::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join pg_inherits i on i.inhrelid = c.oid
        where n.nspname = %s and c.relname = %s and c.relispartition
        """,
        *table,
    )
    return found[0][0] if found else None


def children_defect(
    connection: Conn, name: str, table: tuple[str, str], needed: list[str], *, partitions: bool = True
) -> Requirement | None:
    """Return why rows of the outbox are not published that are in tables below it; None when all are.

    SQL counts the rows of inheriting tables to the outbox, and the stream brings them under their own names; those of
    unlogged ones, also of partitions, are not in the WAL. `partitions` says whether these matter.
    """
    own = publication.read(connection, name, table)[ROW_FILTER]
    found = []
    for child in publication.children(connection, name, table):
        below = child.schema, child.name
        if child.is_partition and not partitions:
            continue
        if not child.logged:
            found.append(defects.unlogged(below))
        elif not child.published:
            found.append(defects.unpublished_child(name, table, below))
        elif (child.row_filter or NONE) != own:
            found.append(defects.filtered_child(name, table, below, None if own == NONE else own))
        elif defect := columns_defect(connection, name, below, needed):
            found.append(defect)
    return defects.together(found)


def foreign_parts(connection: Conn, table: tuple[str, str]) -> Requirement | None:
    """Return which foreign tables are among the partitions or inheriting tables of the outbox; None without any."""
    found = query(
        connection,
        "reading the foreign tables",
        TABLES_BELOW
        + """
        select n.nspname || '.' || c.relname from below b join pg_class c on c.oid = b.relid
        join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'f' order by 1
        """,
        *table,
    )
    return defects.foreign_part(table, [name for (name,) in found]) if found else None


def columns_defect(connection: Conn, name: str, table: tuple[str, str], needed: list[str]) -> Requirement | None:
    """Return which needed columns the publication does not publish; None when it publishes all."""
    found = publication.unpublished(connection, name, table, needed)
    if not found:
        return None
    if defect := generated_defect(connection, table, found):
        return defect
    has_list = publication.read(connection, name, table)[COLUMN_LIST] != NONE
    fix = [defects.whole_table(name, table)] if has_list else []
    if publication.generated(connection, table).keys() & set(found):
        fix.append(defects.with_generated(name))
    return defects.left_out(name, table, found, fix)


def generated_defect(connection: Conn, table: tuple[str, str], needed: list[str]) -> Requirement | None:
    """Return which needed columns are generated in a way that no publication publishes; None when there are none."""
    publishes_stored = connection.info.server_version >= defects.PUBLISHES_STORED
    generated = publication.generated(connection, table)
    never = [name for name in needed if name in generated and not (generated[name] and publishes_stored)]
    return defects.never_published(table, {name: generated[name] for name in never}) if never else None


def publication_defect(connection: Conn, name: str, table: tuple[str, str]) -> Requirement | None:
    """Return why the publication does not publish the inserts of `table`; None when it does."""
    found = publication.read(connection, name, table)
    if found[PUBLICATION_OID] == NONE:
        return defects.no_publication(name)
    if found[PARTITION_ROOT] == "no" and _is_partitioned(connection, table):
        return defects.by_partition(name, table)
    if found[PUBLISHED_BY] == NONE:
        return defects.without_table(name, table)
    return None if found[INSERTS] == "yes" else defects.without_inserts(name)


def _is_partitioned(connection: Conn, table: tuple[str, str]) -> bool:
    return bool(
        query(
            connection,
            "reading the outbox table",
            """
            select from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where n.nspname = %s and c.relname = %s and c.relkind = 'p'
            """,
            *table,
        )
    )


def slot(connection: Conn, settings: Settings) -> Health:
    """Return the slot of the settings. Raises PostgresError when the publisher cannot read it."""
    name = settings.postgres.slot
    found = slot_health.read(connection, name)
    if found and (defect := slot_health.unfit(name, found, connection.info.server_version)):
        raise defect.error()
    if problem := slot_health.problem(name, found):
        raise SlotLost(*problem)
    assert found is not None
    if found.confirmed is None:
        reason = f"process {found.pid} of PostgreSQL has not finished creating replication slot {name!r}"
        raise SlotActive(reason, held=reason)
    return found


def used(connection: Conn, slot: str) -> bool:
    """Return whether a slot has been read from."""
    return bool(
        query(
            connection,
            "reading the slot's statistics",
            "select from pg_stat_replication_slots where slot_name = %s and total_txns > 0",
            slot,
        )
    )


def _warn(connection: Conn, slot: Health) -> None:
    """Log the settings that are no defect but may cause the loss of the slot."""
    ((idle_timeout, standbys),) = query(
        connection,
        "reading settings",
        """
        select nullif(current_setting('idle_replication_slot_timeout', true), '0'),
               current_setting('synchronized_standby_slots', true)
        """,
    )
    for defect in (defects.idle_timeout(idle_timeout), defects.failover(slot.failover, standbys)):
        if defect:
            log.warning("%s", defect.error(), extra={"event": "slot_endangered"})
