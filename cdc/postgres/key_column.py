"""The column of keys: whether it makes keys of the form that is set, and what the schema in them says."""

from cdc.config.settings import Settings
from cdc.outbox.keys import Keys
from cdc.postgres import defects
from cdc.postgres.connection import Conn, query

Present = dict[str, tuple[int, str]]
"""The columns of the table with oid and name of their types, as `cdc.postgres.catalog.table_columns` returns them."""


def keys(connection: Conn, settings: Settings) -> Keys:
    """Return the form of keys. Where the settings do not say whether keys may be null, the column does."""
    form, optional = settings.record.key, settings.record.key_optional
    if form == "json-schema" and optional is None:
        optional = not _constraints(connection, settings)[0]
    return Keys(form, bool(optional))


def problems(connection: Conn, settings: Settings, present: Present) -> tuple[list[str], list[str]]:
    """Return why the column makes no keys of the form, one phrase each, and the statements that help, if any do."""
    column, form = settings.outbox.columns.key, settings.record.key
    if column not in present or form == "text":
        return [], []
    type_oid, type_name = present[column]
    if Keys(form).frame(type_oid) is None:
        return [Keys(form).refusal(column, type_name)], []
    if form == "json-schema" and _constraints(connection, settings)[1]:
        table, quoted = defects.name(*settings.outbox.qualified_name), defects.name(column)
        return [
            f'column {column!r} has a default, which [record] key = "json-schema" would have to send in every key'
        ], [f"ALTER TABLE {table} ALTER COLUMN {quoted} DROP DEFAULT;"]
    return [], []


def ordering(settings: Settings, made: Keys, type_oid: int) -> dict[str, str]:
    """Return what is remembered of the form of keys, because it determines their bytes and so their partitions."""
    found: dict[str, str] = {"[record] key": settings.record.key}
    frame = made.frame(type_oid)
    if frame and settings.record.key != "text":
        found["start of keys"] = frame.before.decode()
    return found


def _constraints(connection: Conn, settings: Settings) -> tuple[bool, bool]:
    """Return whether the column is NOT NULL, and whether it has a default; no and no without such a column."""
    found = query(
        connection,
        "reading the key's column",
        """
        select a.attnotnull, a.atthasdef and a.attgenerated = ''
        from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %s and c.relname = %s and a.attname = %s and not a.attisdropped
        """,
        *settings.outbox.qualified_name,
        settings.outbox.columns.key,
    )
    return found[0] if found else (False, False)
