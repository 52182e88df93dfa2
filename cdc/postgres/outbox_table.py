"""Creates the outbox table and its publication, as far as they do not exist."""

from psycopg import sql

from cdc.config.settings import Settings
from cdc.errors import PostgresError
from cdc.outbox.topic_template import TopicTemplate
from cdc.postgres.catalog import children_defect, differences, publication_defect, table_columns
from cdc.postgres.connection import Conn, converting, query


def create_table(settings: Settings) -> str:
    """Return the statement that creates the outbox; header columns are text."""
    columns = settings.outbox.columns
    # created_at is for purging: it says how old a row is.
    definitions = {
        columns.id: "uuid PRIMARY KEY DEFAULT gen_random_uuid()",
        columns.aggregate: "varchar(255) NOT NULL",
        columns.key: "varchar(255) NOT NULL",
        columns.type: "varchar(255) NOT NULL",
        columns.payload: "jsonb",
        "created_at": "timestamptz NOT NULL DEFAULT now()",
    }
    template = TopicTemplate(settings.topics.name)
    extra = settings.outbox.parts.needed(list(definitions), template, settings.outbox.headers)
    definitions |= {name: "text" for name in extra if name not in definitions}
    body = ",\n".join(f"    {_name(name)} {definition}" for name, definition in definitions.items())
    return f"CREATE TABLE {_name(*settings.outbox.qualified_name)} (\n{body}\n);"


def create_publication(settings: Settings) -> str:
    """Return the statement that publishes the outbox's inserts only, those of partitions under the outbox's name."""
    table, publication = _name(*settings.outbox.qualified_name), _name(settings.postgres.publication)
    options = "publish = 'insert', publish_via_partition_root = true"
    return f"CREATE PUBLICATION {publication} FOR TABLE {table} WITH ({options});"


def missing(connection: Conn, settings: Settings) -> list[str]:
    """Return the statements that have to be run.

    Raises PostgresError for an existing table or publication that does not fit.
    """
    table = settings.outbox.qualified_name
    columns = settings.outbox.parts
    present = table_columns(connection, table)
    statements = []
    if present is None:
        statements.append(create_table(settings))
    else:
        needed = columns.needed(list(present), TopicTemplate(settings.topics.name), settings.outbox.headers)
        found = differences(columns, present, needed)
        if found:
            raise PostgresError(
                f"table {'.'.join(table)} exists and has another shape: {', '.join(found)}",
                hint="map its columns in [outbox] columns, or name another [outbox] table",
            )
    name = settings.postgres.publication
    if not query(connection, "reading the publication", "select from pg_publication where pubname = %s", name):
        statements.append(create_publication(settings))
    else:
        defect = publication_defect(connection, name, table) or children_defect(connection, name, table, [])
        if defect:
            raise defect.error()
    return statements


def execute(connection: Conn, statements: list[str]) -> None:
    """Run all statements or none."""
    with converting("creating the outbox"), connection.transaction():
        for statement in statements:
            connection.execute(statement.encode())


def _name(*parts: str) -> str:
    return sql.Identifier(*parts).as_string()
