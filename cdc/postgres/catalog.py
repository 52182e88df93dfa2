"""What the publisher needs of a server, looked up before it streams: every defect ends in one line with its fix."""

import logging
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection

from cdc import cells
from cdc.config.settings import Settings
from cdc.errors import PostgresError
from cdc.lsn import LSN
from cdc.outbox import Columns
from cdc.postgres import definition, health
from cdc.postgres.connection import query
from cdc.postgres.health import Health
from cdc.topics import TopicTemplate

log = logging.getLogger(__name__)

OLDEST_VERSION: Final = 140000  # 14: the first whose pgoutput has the option `binary`
PLUGIN: Final = "pgoutput"

Conn = Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Catalog:
    """What was found, as far as a session depends on it."""

    confirmed: LSN  # the slot's confirmed_flush_lsn
    binary: bool  # every needed column has a binary decoder
    wal_sender_timeout: float  # seconds; 0 means never
    definition: dict[str, str]  # of publication and table
    wal_end: LSN  # before the definition was read
    used: bool  # somebody has read from the slot


def inspect(connection: Conn, settings: Settings, columns: Columns, template: TopicTemplate) -> Catalog:
    """Look at server, role, table, publication and slot. Raises PostgresError for the first defect."""
    timeout = server(connection)
    _role(connection)
    # Before the rest: a change that comes after it is one that the sentinel sees.
    ((end,),) = query(connection, "reading the WAL's end", "select pg_current_wal_flush_lsn()::text")
    found = definition.read(connection, settings.postgres.publication, settings.outbox.qualified_name)
    needed, binary = _table(connection, settings, columns, template)
    _publication(connection, settings, needed)
    ours = slot(connection, settings)
    assert ours.confirmed is not None
    _warn(connection, ours)
    return Catalog(ours.confirmed, binary, timeout, found, LSN.parse(end), _used(connection, settings.postgres.slot))


def server(connection: Conn) -> float:
    """`wal_sender_timeout` in seconds. Raises PostgresError for a server that cannot be decoded from."""
    ((version, wal_level, standby, timeout),) = query(
        connection,
        "reading settings",
        """
        select current_setting('server_version_num')::int, current_setting('wal_level'), pg_is_in_recovery(),
               (select setting::int from pg_settings where name = 'wal_sender_timeout')
        """,
    )
    if version < OLDEST_VERSION:
        raise PostgresError(f"PostgreSQL {version // 10000} is too old", hint="14 is the oldest that works")
    if standby:
        raise PostgresError("the server is a standby", hint="point [postgres] dsn to the primary")
    if wal_level != "logical":
        raise PostgresError(
            f"wal_level is {wal_level!r}", hint="run: ALTER SYSTEM SET wal_level = 'logical'; then restart PostgreSQL"
        )
    return float(timeout) / 1000


def _role(connection: Conn) -> None:
    ((user, allowed),) = query(
        connection,
        "reading the role",
        "select current_user, (select rolreplication or rolsuper from pg_roles where rolname = current_user)",
    )
    if not allowed:
        raise PostgresError(f'role "{user}" may not replicate', hint=f'run: ALTER ROLE "{user}" REPLICATION')


def table_columns(connection: Conn, table: tuple[str, str]) -> dict[str, tuple[int, str]] | None:
    """Column names with their type's oid and name, in order; None when there is no such table."""
    found = query(
        connection,
        "reading the outbox table",
        """
        select a.attname, coalesce(nullif(t.typbasetype, 0), t.oid)::int8, format_type(a.atttypid, a.atttypmod)
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


def differences(columns: Columns, present: dict[str, tuple[int, str]], needed: list[str]) -> list[str]:
    """How a table differs from an outbox: one phrase for each column that is missing or of no use."""
    problems = [f"column {name!r} is missing" for name in needed if name not in present]
    for name in needed:
        oid, type_name = present.get(name, (cells.TEXT, "text"))
        if name == columns.payload and oid not in cells.PAYLOAD_TYPES:
            problems.append(f"column {name!r} is {type_name}, not jsonb, json, text or bytea")
        elif name != columns.payload and oid == cells.BYTEA:
            problems.append(f"column {name!r} is bytea, not text")
    return problems


def _table(connection: Conn, settings: Settings, columns: Columns, template: TopicTemplate) -> tuple[list[str], bool]:
    """The columns that an event needs, and whether all of them have a binary decoder."""
    table = settings.outbox.qualified_name
    present = table_columns(connection, table)
    if present is None:
        raise PostgresError(f"table {'.'.join(table)} does not exist", hint="run: cdc-publisher outbox init")
    needed = columns.needed(list(present), template, settings.outbox.headers)
    problems = differences(columns, present, needed)
    if problems:
        raise PostgresError(
            f"table {'.'.join(table)} is not the outbox that the settings describe: {', '.join(problems)}"
            f" (it has {', '.join(present)})",
            hint="map its columns in [outbox] columns, or correct the table",
        )
    return needed, all(cells.has_binary_decoder(present[name][0]) for name in needed)


def _publication(connection: Conn, settings: Settings, needed: list[str]) -> None:
    name, table = settings.postgres.publication, settings.outbox.qualified_name
    problem = publication_problem(connection, name, table)
    if problem:
        raise PostgresError(*problem)
    if left_out := definition.unpublished(connection, name, table, needed):
        raise PostgresError(
            f"publication {name!r} leaves out {', '.join(map(repr, left_out))} of table {'.'.join(table)}",
            hint="publish the table without a column list, or with these; generated columns only from PostgreSQL 18 on",
        )


def publication_problem(connection: Conn, name: str, table: tuple[str, str]) -> tuple[str, str] | None:
    """Why the publication does not carry the inserts of `table`, and the fix; None when it does."""
    found = query(
        connection,
        "reading the publication",
        """
        select p.pubinsert, exists (
            select from pg_publication_tables t where t.pubname = p.pubname and t.schemaname = %s and t.tablename = %s
        ), not p.pubviaroot and exists (
            select from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where n.nspname = %s and c.relname = %s and c.relkind = 'p')
        from pg_publication p where p.pubname = %s
        """,
        *table,
        *table,
        name,
    )
    if not found:
        return f"publication {name!r} does not exist", "run: cdc-publisher outbox init"
    ((inserts, holds_table, by_partition),) = found
    if by_partition:
        # Rows would come under the names of the partitions, which are not the outbox.
        fix = f'run: ALTER PUBLICATION "{name}" SET (publish_via_partition_root = true)'
        return f"publication {name!r} does not publish table {'.'.join(table)} via its partition root", fix
    if not holds_table:
        fix = f'run: ALTER PUBLICATION "{name}" ADD TABLE "{table[0]}"."{table[1]}"'
        return f"publication {name!r} does not hold table {'.'.join(table)}", fix
    if not inserts:
        fix = f"run: ALTER PUBLICATION \"{name}\" SET (publish = 'insert')"
        return f"publication {name!r} does not publish inserts", fix
    return None


def slot(connection: Conn, settings: Settings) -> Health:
    """Our slot. Raises PostgresError when it is not one that the publisher can read."""
    name = settings.postgres.slot
    found = health.read(connection, name)
    if found is not None:
        if found.plugin != PLUGIN:
            kind = f"uses the plugin {found.plugin}" if found.plugin else "is a physical slot"
            raise PostgresError(f"replication slot {name!r} {kind}", hint="name a logical slot of plugin pgoutput")
        if not found.here:
            raise PostgresError(
                f"replication slot {name!r} belongs to database {found.database!r}", hint="check [postgres] dsn"
            )
    if problem := health.problem(name, found):
        raise PostgresError(*problem)
    assert found is not None
    return found


def _used(connection: Conn, slot: str) -> bool:
    return bool(
        query(
            connection,
            "reading the slot's statistics",
            "select from pg_stat_replication_slots where slot_name = %s and total_txns > 0",
            slot,
        )
    )


def _warn(connection: Conn, slot: Health) -> None:
    """Tell what is no defect and may become a loss."""
    ((idle_timeout, standbys),) = query(
        connection,
        "reading settings",
        """
        select nullif(current_setting('idle_replication_slot_timeout', true), '0'),
               current_setting('synchronized_standby_slots', true)
        """,
    )
    if idle_timeout:
        log.warning(
            "idle_replication_slot_timeout is %s: PostgreSQL takes the slot away when the publisher is not connected"
            " for so long; set it to 0, or to longer than any outage",
            idle_timeout,
        )
    if slot.failover and not standbys:
        log.warning(
            "the slot is a failover slot, but synchronized_standby_slots is empty: a standby that is promoted may"
            " never have had events that are in Kafka; name its physical slot there"
        )
