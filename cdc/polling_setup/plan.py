"""The statements that prepare an outbox for polling, as far as they are missing."""

from typing import Final

from cdc.config.settings import Settings
from cdc.outbox.columns import SEQUENCE_COLUMN
from cdc.postgres import catalog, moves, numbers, outbox_table, polling_defects
from cdc.postgres import polling_table as wanted
from cdc.postgres.connection import Conn
from cdc.postgres.polling_defects import Part, Shape
from cdc.postgres.polling_table import TX_COLUMN, Table

_BOTH: Final = [TX_COLUMN, SEQUENCE_COLUMN]
_CLONES_STATE: Final = 150000  # from 15 on, ALTER TABLE ... TRIGGER of a partitioned table reaches its partitions


def missing(connection: Conn, settings: Settings) -> list[str]:
    """Return the statements that have to be run. Raises PostgresError for what is there and does not fit."""
    table = settings.outbox.qualified_name
    found = polling_defects.shape(connection, table)
    all_parts = polling_defects.parts(connection, table, settings.outbox.columns.id)
    if not found.present:
        statements = [*_new_table(settings), *wanted.create_function(table), *wanted.create_trigger(table, table)]
    else:
        _refuse(connection, settings, found)
        statements = _columns(found, table) + _of_parts(found, all_parts, settings)
        if (all_parts and any(not part.stamped for part in all_parts)) or found.body != wanted.body(table):
            statements += wanted.create_function(table) + _triggers(all_parts, table, connection.info.server_version)
        if movable := moves.rows_stay(connection, table):
            statements += movable.fix
    return statements + [
        wanted.create_relay_table(table[0], name)
        for name in wanted.TABLES
        if catalog.table_columns(connection, (table[0], name)) is None
    ]


def _new_table(settings: Settings) -> list[str]:
    table = settings.outbox.qualified_name
    before, create, owned, _ = outbox_table.create_table(
        settings, polling=True
    )  # writers need no right to the sequence
    return [before, create, owned, *(wanted.create_index(table, column) for column in _BOTH)]


def _refuse(connection: Conn, settings: Settings, found: Shape) -> None:
    table = settings.outbox.qualified_name
    needed = settings.needed(list(found.present))
    defect = (
        catalog.table_defect(connection, settings, found.present, needed)
        or catalog.foreign_parts(connection, table)
        or polling_defects.unusable(found, table)
        or (polling_defects.sequence_defect(found, table) if found.sequence else None)
        or polling_defects.tables_defect(connection, table, missing=False)
    )
    if defect:
        raise defect.error()


def _columns(found: Shape, table: Table) -> list[str]:
    """Return what adds columns and sequence; columns that are there lose their defaults."""
    absent = [column for column in _BOTH if column not in found.present]
    statements = [wanted.add_columns(table, absent)] if absent else []
    if dropped := [*absent, *found.defaults]:
        statements.append(wanted.drop_defaults(table, dropped))
    if found.sequence is None:
        create, owned, _ = numbers.sequence(table)
        statements = [create, *statements, owned]
    return statements


def _of_parts(found: Shape, all_parts: list[Part], settings: Settings) -> list[str]:
    """Return what makes ids unique, and both columns quick to search."""
    ids = polling_defects.ids_defect(all_parts, settings.outbox.columns.id)
    statements = list(ids.fix) if ids else []
    return statements + [
        wanted.create_index(part.table, column)
        for part in all_parts
        for column in _BOTH
        if not part.is_partition and (column not in found.present or column not in part.indexed)
    ]


def _triggers(all_parts: list[Part], table: Table, version: int) -> list[str]:
    statements: list[str] = []
    for part in all_parts:
        if not part.is_partition:
            statements += wanted.create_trigger(table, part.table)
        elif version < _CLONES_STATE:
            statements.append(wanted.create_trigger(table, part.table)[-1])
    return statements
