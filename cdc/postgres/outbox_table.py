"""Creates the outbox table and its publication, as far as they do not exist."""

from psycopg import sql

from cdc.config.settings import Settings
from cdc.outbox.columns import SEQUENCE_COLUMN
from cdc.postgres import catalog, message_function, numbers, publication
from cdc.postgres.catalog import (
    children_defect,
    columns_defect,
    generated_defect,
    publication_defect,
    table_columns,
    table_defect,
)
from cdc.postgres.connection import Conn, converting, query
from cdc.postgres.polling_table import TX_COLUMN


def create_table(settings: Settings, *, polling: bool = False, split: bool = False) -> list[str]:
    """Return the statements that create the outbox; header columns are text, and that of times is a timestamptz.

    With `polling`, a trigger is to fill the columns that say which rows are new: see `cdc.postgres.polling_table`.
    With `split`, it is to be partitioned by the hash of its key, and has no primary key itself.
    """
    columns, table = settings.outbox.columns, settings.outbox.qualified_name
    # created_at is for purging: it says how old a row is.
    definitions = {
        columns.id: f"uuid {'NOT NULL' if split else 'PRIMARY KEY'} DEFAULT gen_random_uuid()",
        columns.aggregate: "varchar(255) NOT NULL",
        columns.key: "varchar(255) NOT NULL",
        columns.type: "varchar(255) NOT NULL",
        columns.payload: "jsonb",
        "created_at": "timestamptz NOT NULL DEFAULT now()",
    }
    extra = settings.needed(list(definitions))
    time = settings.record.time_column
    definitions |= {name: "timestamptz" if name == time else "text" for name in extra if name not in definitions}
    numbered = SEQUENCE_COLUMN not in definitions
    if polling:
        definitions |= {TX_COLUMN: "xid8", SEQUENCE_COLUMN: "bigint"}
    elif numbered:
        definitions[SEQUENCE_COLUMN] = f"bigint NOT NULL {numbers.default(table)}"
    body = ",\n".join(f"    {_name(name)} {definition}" for name, definition in definitions.items())
    by_key = f" PARTITION BY HASH ({_name(columns.key)})" if split else ""
    create = f"CREATE TABLE {_name(*table)} (\n{body}\n){by_key};"
    if not (numbered or polling):
        return [create]
    before, *after = numbers.sequence(table)
    return [before, create, *after]


def create_publication(settings: Settings, *, generated: bool = False) -> str:
    """Return the statement that publishes the outbox's inserts only, those of partitions under the outbox's name.

    With `generated`, it also publishes stored generated columns, which PostgreSQL 18 can.
    """
    table, name = _name(*settings.outbox.qualified_name), _name(settings.postgres.publication)
    options = "publish = 'insert', publish_via_partition_root = true"
    options += ", publish_generated_columns = stored" if generated else ""
    return f"CREATE PUBLICATION {name} FOR TABLE {table} WITH ({options});"


def create_empty_publication(settings: Settings) -> str:
    """Return the statement that creates a publication without a table, for messages."""
    options = "publish = 'insert', publish_via_partition_root = true"
    return f"CREATE PUBLICATION {_name(settings.postgres.publication)} WITH ({options});"


def missing_for_messages(connection: Conn, settings: Settings) -> list[str]:
    """Return the statements for messages, and for the table where the settings name it, or there is one.

    Raises PostgresError as `missing` does.
    """
    if not catalog.without_table(connection, settings):
        statements = missing(connection, settings)
        if defect := catalog.split_defect(connection, settings):
            raise defect.error()
    else:
        name = settings.postgres.publication
        there = query(connection, "reading the publication", "select from pg_publication where pubname = %s", name)
        statements = [] if there else [create_empty_publication(settings)]
    return statements + message_function.missing(connection, settings)


def missing(connection: Conn, settings: Settings, *, numbered: bool = False) -> list[str]:
    """Return the statements that have to be run; with `numbered` also those that number the rows of an existing table.

    Raises PostgresError for an existing table or publication that does not fit.
    """
    table = settings.outbox.qualified_name
    present = table_columns(connection, table)
    statements, needed = [], list[str]()
    if present is None:
        statements += create_table(settings)
    else:
        needed = settings.needed(list(present))
        defect = table_defect(connection, settings, present, needed) or generated_defect(connection, table, needed)
        if defect:
            raise defect.error()
        if numbered:
            statements += numbers.additions(connection, table)
    name = settings.postgres.publication
    if not query(connection, "reading the publication", "select from pg_publication where pubname = %s", name):
        generated = bool(publication.generated(connection, table).keys() & set(needed))
        statements.append(create_publication(settings, generated=generated))
    elif defect := (
        publication_defect(connection, name, table)
        or columns_defect(connection, name, table, needed)
        or children_defect(connection, name, table, needed)
    ):
        raise defect.error()
    return statements


def execute(connection: Conn, statements: list[str]) -> None:
    """Run all statements or none."""
    with converting("creating the outbox"), connection.transaction():
        for statement in statements:
            connection.execute(statement.encode())


def _name(*parts: str) -> str:
    return sql.Identifier(*parts).as_string()
