"""What an outbox has for polling: two columns that a trigger fills, indexes, and the tables of the relay.

| thing             | what it is for                                                                               |
|-------------------|----------------------------------------------------------------------------------------------|
| `cdc_tx xid8`     | the transaction that inserted the row: it decides to which batch the row belongs              |
| `cdc_seq bigint`  | a number of one sequence, without a cache: the order of rows within a batch                   |
| `zz_cdc_stamp`    | the trigger that gives both to an insert, in place of what the writer gave; updates keep both |
| `cdc_relay`       | one row per relay: who it is, and how far it is                                               |
| `cdc_ticks`       | one row per batch: what was visible then                                                      |

Both tables are in the schema of the outbox. A default would not do: it does not apply to a null that a writer gives, to
copied rows, and to those that logical replication brings. So the trigger is ENABLE ALWAYS. It is the last one, as
PostgreSQL runs the triggers of a row in the order of their names.
"""

from typing import Final

from cdc.outbox.columns import SEQUENCE_COLUMN
from cdc.postgres import defects, numbers
from cdc.postgres.defects import STAMP

TX_COLUMN: Final = "cdc_tx"
RELAY: Final = "cdc_relay"
TICKS: Final = "cdc_ticks"

NUMBERING: Final = "cdc.numbering"
"""The setting that lets `outbox init` write both columns, by SET LOCAL."""

NOTHING: Final = "1:1:"
"""A snapshot that sees no row."""
ROWS_OF_BEFORE: Final = "2:2:"
"""A snapshot that sees the rows from before there were the columns, which have the transaction 1, and no other."""

STAMP_TYPE: Final = 23
"""`pg_trigger.tgtype` of BEFORE INSERT OR UPDATE FOR EACH ROW."""

Table = tuple[str, str]

_RELAY_COLUMNS: Final = {
    "relay": "text PRIMARY KEY",
    "id": "uuid NOT NULL",
    "outbox": "text NOT NULL",
    "holder": "text",
    "locked": "boolean NOT NULL DEFAULT false",
    "epoch": "bigint NOT NULL DEFAULT 0",
    "last_batch": "bigint NOT NULL DEFAULT 0",
    "heartbeat": "bigint NOT NULL DEFAULT 0",
    "heartbeat_at": "timestamptz",
    "confirmed_batch": "bigint NOT NULL DEFAULT 0",
    "confirmed_snapshot": "pg_snapshot NOT NULL",
    "partly_snapshot": "pg_snapshot",
    "partly_until": "bigint",
    "cleared_snapshot": "pg_snapshot NOT NULL",
    "rows_in_batches": "bigint NOT NULL DEFAULT 0",
    "first_number": "bigint NOT NULL DEFAULT 0",
    "handover": "pg_lsn",
    "created_at": "timestamptz NOT NULL DEFAULT now()",
}
_TICK_COLUMNS: Final = {
    "relay": "text NOT NULL",
    "batch": "bigint NOT NULL",
    "snapshot": "pg_snapshot NOT NULL",
    "xid": "xid8 NOT NULL",
    "ticked_at": "timestamptz NOT NULL DEFAULT clock_timestamp()",
    "PRIMARY KEY": "(relay, batch)",
}
TABLES: Final = {RELAY: _RELAY_COLUMNS, TICKS: _TICK_COLUMNS}


def columns_of(table: str) -> set[str]:
    """Return the columns of one of the relay's tables."""
    return {name for name in TABLES[table] if name.islower()}


def create_relay_table(schema: str, table: str) -> str:
    """Return the statement that creates one of the relay's tables."""
    body = ",\n".join(f"    {name} {definition}" for name, definition in TABLES[table].items())
    return f"CREATE TABLE {defects.name(schema, table)} (\n{body}\n);"


def add_columns(table: Table, missing: list[str]) -> str:
    """Return the statement that adds the columns without rewriting the table.

    A constant default is stored once, not in each row; dropped again, it leaves rows of before with the transaction 1.
    """
    definitions = {TX_COLUMN: "xid8 DEFAULT '1'", SEQUENCE_COLUMN: "bigint DEFAULT 0"}
    added = ", ".join(f"ADD COLUMN {name} {definitions[name]}" for name in missing)
    return f"ALTER TABLE {defects.name(*table)} {added};"


def drop_defaults(table: Table, columns: list[str]) -> str:
    """Return the statement that drops the defaults of columns: the trigger gives their values."""
    dropped = ", ".join(f"ALTER COLUMN {name} DROP DEFAULT" for name in columns)
    return f"ALTER TABLE {defects.name(*table)} {dropped};"


def create_index(table: Table, column: str) -> str:
    """Return the statement that creates the index on one of the columns."""
    return f"CREATE INDEX ON {defects.name(*table)} ({column});"


def create_unique(table: Table, column: str) -> str:
    """Return the statement after which a table that holds rows has each id once."""
    return f"CREATE UNIQUE INDEX ON {defects.name(*table)} ({defects.name(column)});"


def require_value(table: Table, column: str) -> str:
    """Return the statement after which a column is never null."""
    return f"ALTER TABLE {defects.name(*table)} ALTER COLUMN {defects.name(column)} SET NOT NULL;"


def function_name(table: Table) -> Table:
    """Return the name of the trigger's function."""
    return table[0], f"{table[1].encode()[:50].decode(errors='ignore')}_cdc_stamp"


def body(table: Table) -> str:
    """Return the body of the trigger's function.

    It runs with the rights of its owner, so that writers need none on the sequence: every name in it is qualified.
    """
    sequence = defects.text(numbers.sequence_name(table))
    return f"""
BEGIN
    IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN
        NEW.{TX_COLUMN} := pg_catalog.pg_current_xact_id();
        NEW.{SEQUENCE_COLUMN} := pg_catalog.nextval({sequence}::pg_catalog.regclass);
    ELSIF coalesce(pg_catalog.current_setting('{NUMBERING}', true), '') OPERATOR(pg_catalog.<>) 'on' THEN
        NEW.{TX_COLUMN} := OLD.{TX_COLUMN};
        NEW.{SEQUENCE_COLUMN} := OLD.{SEQUENCE_COLUMN};
    END IF;
    RETURN NEW;
END
"""


def create_function(table: Table) -> list[str]:
    """Return the statements that create the trigger's function, or replace it; no other role makes triggers of it."""
    function = defects.name(*function_name(table))
    return [
        f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
        f" $stamp${body(table)}$stamp$;",
        f"REVOKE ALL ON FUNCTION {function}() FROM PUBLIC;",
    ]


def create_trigger(outbox: Table, table: Table) -> list[str]:
    """Return the statements that create the trigger on the outbox, or on a table that inherits from it."""
    name = defects.name(*table)
    return [
        f"DROP TRIGGER IF EXISTS {STAMP} ON {name};",
        f"CREATE TRIGGER {STAMP} BEFORE INSERT OR UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION"
        f" {defects.name(*function_name(outbox))}();",
        f"ALTER TABLE {name} ENABLE ALWAYS TRIGGER {STAMP};",
    ]


def grants(table: Table, role: str, *, delete: bool) -> list[str]:
    """Return the statements that give a role the rights that the relay needs; with `delete`, also to delete rows."""
    schema, to = defects.name(table[0]), f"TO {defects.name(role)};"
    rights = f"SELECT, DELETE, UPDATE ({SEQUENCE_COLUMN})" if delete else "SELECT"
    return [
        f"GRANT USAGE ON SCHEMA {schema} {to}",
        f"GRANT {rights} ON {defects.name(*table)} {to}",
        f"GRANT SELECT, UPDATE ON {defects.name(table[0], RELAY)} {to}",
        f"GRANT SELECT, INSERT, DELETE ON {defects.name(table[0], TICKS)} {to}",
        f"GRANT SELECT ON SEQUENCE {numbers.sequence_name(table)} {to}",
    ]
