"""The table and its publication."""

from cdc.checks import postgres_facts as preflight
from cdc.checks.finding import Notes
from cdc.checks.postgres import defect_noted
from cdc.checks.postgres_facts import STATS_ROLE, Conn, Published, Rights
from cdc.config.settings import Settings
from cdc.outbox.topic_template import TopicTemplate
from cdc.postgres import catalog, defects
from cdc.postgres import publication as definition
from cdc.replication.publication import COLUMN_LIST, NONE, ROW_FILTER


def table(connection: Conn, notes: Notes, settings: Settings) -> list[str] | None:
    """The columns that an event needs; None when the table is not what it must be."""
    name = settings.outbox.qualified_name
    present = catalog.table_columns(connection, name)
    template = TopicTemplate(settings.topics.name)
    needed = settings.outbox.parts.needed(list(present or ()), template, settings.outbox.headers)
    defect = catalog.table_defect(connection, settings, present, needed)
    payload = (present or {}).get(settings.outbox.columns.payload, (0, ""))[1]
    told = f"table {'.'.join(name)} has {', '.join(needed)}; payload is {payload}"
    return needed if defect_noted(notes, "outbox_table", defect, told) else None


def rights(notes: Notes, settings: Settings, found: Rights, *, is_there: bool) -> None:
    """What the role may see beyond the stream. The publisher itself needs none of it."""
    name = settings.outbox.qualified_name
    user, dotted = defects.name(found.user), ".".join(name)
    missing = [] if found.uses_schema else [f"GRANT USAGE ON SCHEMA {defects.name(name[0])} TO {user};"]
    missing += [] if found.selects else [f"GRANT SELECT ON TABLE {defects.name(*name)} TO {user};"]
    if missing:
        told = f'role "{found.user}" may not read table {dotted}: audit, outbox purge and parts of this check need it'
        notes.warns("table_rights", told, *missing)
    elif is_there:
        notes.passes("table_rights", f"role {found.user} may read table {dotted}, as audit and outbox purge do")
    if found.sees_sessions:
        notes.passes("session_rights", f"role {found.user} sees the sessions of others")
    else:
        told = f'role "{found.user}" does not see the sessions of others: long transactions may be among them'
        notes.warns("session_rights", told, f"GRANT {STATS_ROLE} TO {user};")


def publication(connection: Conn, notes: Notes, settings: Settings, needed: list[str] | None) -> None:
    """Whether every insert is published; `needed` are the table's columns, None when it is no outbox."""
    name, outbox = settings.postgres.publication, settings.outbox.qualified_name
    defect = catalog.publication_defect(connection, name, outbox)
    if defect is None and needed is not None:
        defect = catalog.columns_defect(connection, name, outbox, needed)
    if not defect_noted(notes, "publication", defect, f"publication {name} publishes inserts into {'.'.join(outbox)}"):
        return
    found = definition.read(connection, name, outbox)
    _part(notes, name, outbox, found[ROW_FILTER], found[COLUMN_LIST])
    _scope(notes, name, outbox, preflight.published(connection, name, outbox))


def _part(notes: Notes, name: str, outbox: tuple[str, str], row_filter: str, columns: str) -> None:
    if row_filter == NONE:
        notes.passes("publication_rows", "all rows are published")
    else:
        notes.warns(
            "publication_rows",
            f"publication {name!r} publishes only rows with {row_filter}",
            defects.whole_table(name, outbox),
            hint="unless it is meant so: a publisher that has run asks for --accept-changes after that",
        )
    listed = "" if columns == NONE else f", by a list ({columns})"
    notes.passes("publication_columns", f"all columns that are needed are published{listed}")


def _scope(notes: Notes, name: str, outbox: tuple[str, str], found: Published) -> None:
    if found.everything:
        table_ = defects.name(*outbox)
        notes.warns(
            "publication_scope",
            f"publication {name!r} is for all tables: their rows are sent too, and thrown away",
            hint=f"make one of another name for {table_} alone, and name it in [postgres] publication",
        )
    elif found.others:
        shown = ", ".join(".".join(one) for one in found.others)
        drops = [f"ALTER PUBLICATION {defects.name(name)} DROP TABLE {defects.name(*one)};" for one in found.others]
        told = f"publication {name!r} holds other tables ({shown}): their rows are sent too, and thrown away"
        notes.warns("publication_scope", told, *drops, hint="unless somebody else uses this publication")
    elif found.other_changes:
        told = f"publication {name!r} publishes {', '.join(found.other_changes)} too, which are no events"
        notes.warns("publication_scope", told, defects.only_inserts(name))
    else:
        notes.passes("publication_scope", "nothing else is published")
