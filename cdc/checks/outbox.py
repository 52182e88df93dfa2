"""Check the outbox table, the role's rights on it, and the publication."""

from cdc.checks import postgres_facts
from cdc.checks.finding import Notes
from cdc.checks.postgres import defect_noted
from cdc.checks.postgres_facts import STATS_ROLE, Conn, Published, Rights
from cdc.config.settings import Settings
from cdc.postgres import catalog, defects, message_function, moves
from cdc.postgres.publication import children
from cdc.postgres.publication import read as read_publication
from cdc.replication.publication import COLUMN_LIST, NONE, ROW_FILTER


def table(connection: Conn, notes: Notes, settings: Settings) -> list[str] | None:
    """Return the columns that events need; None if the table is missing or unsuitable, or there is to be none."""
    name = settings.outbox.qualified_name
    if catalog.without_table(connection, settings):
        notes.passes("outbox_table", f"no table: events are messages of the prefix {settings.outbox.messages}")
        return None
    present = catalog.table_columns(connection, name)
    needed = settings.needed(list(present or ()))
    defect = catalog.table_defect(connection, settings, present, needed)
    payload = (present or {}).get(settings.outbox.columns.payload, (0, ""))[1]
    text = f"table {defects.shown(name)} has {', '.join(needed)}; payload is {payload}"
    return needed if defect_noted(notes, "outbox_table", defect, text) else None


def messages(connection: Conn, notes: Notes, settings: Settings) -> None:
    """Check the function by which writers emit messages, and that no other role may emit them."""
    name = message_function.name(settings).replace('"', "")
    found = message_function.find(connection, settings)
    again = (message_function.INIT,)
    if found is None:
        text = f"there is no function {name}: writers have to build messages themselves"
        notes.warns("message_function", text, *again)
    elif not found.safe:
        text = (
            f"function {name} is not SECURITY DEFINER with a fixed search_path: its callers need, or can change, more"
        )
        notes.warns("message_function", text, *again)
    elif found.body != message_function.body(settings):
        text = (
            f"function {name} was made by other settings or another version: its messages may be none of these settings"
        )
        notes.warns("message_function", text, *again)
    elif found.public:
        notes.warns("message_function", f"every role may call function {name}, and so write events", *again)
    else:
        notes.passes("message_function", f"function {name} emits messages of the prefix {settings.outbox.messages}")
    if rights := message_function.revocations(connection):
        text = "every role may call pg_logical_emit_message, and so invent events"
        notes.warns("message_rights", text, *rights)
    else:
        notes.passes("message_rights", "only roles with the right to pg_logical_emit_message can write messages")


def encoding(connection: Conn, notes: Notes) -> None:
    """Check the encoding of the database, of which only SQL_ASCII lets in text that no consumer can read."""
    name = connection.info.parameter_status("server_encoding") or ""
    if name == "SQL_ASCII":
        notes.warns(
            "database_encoding",
            "the database's encoding is SQL_ASCII: PostgreSQL stores any bytes as text, and rows whose text is not"
            " UTF-8 are poison events",
            hint="move to a database with encoding UTF8, or make sure that every writer sends UTF-8",
        )
    else:
        notes.passes("database_encoding", f"the database's encoding is {name}")


def rights(connection: Conn, notes: Notes, settings: Settings, found: Rights, *, is_there: bool) -> None:
    """Check whether the role may read the table and other sessions, which only other commands and checks need."""
    name = settings.outbox.qualified_name
    user, dotted = defects.name(found.user), defects.shown(name)
    missing = [] if found.uses_schema else [f"GRANT USAGE ON SCHEMA {defects.name(name[0])} TO {user};"]
    missing += [] if found.selects else [f"GRANT SELECT ON TABLE {defects.name(*name)} TO {user};"]
    if missing:
        text = f'role "{found.user}" may not read table {dotted}: audit, outbox purge and parts of this check need it'
        notes.warns("table_rights", text, *missing)
    elif defect := catalog.hidden_rows(connection, name):
        notes.warns("table_rights", defect.problem, *defect.fix, hint=defect.hint)
    elif is_there:
        notes.passes("table_rights", f"role {found.user} may read table {dotted}, which audit and outbox purge need")
    if found.sees_sessions:
        notes.passes("session_rights", f"role {found.user} can see the activity of other sessions")
    else:
        text = f'role "{found.user}" cannot see the activity of other sessions: long_transactions may miss some'
        notes.warns("session_rights", text, f"GRANT {STATS_ROLE} TO {user};")


def publication(connection: Conn, notes: Notes, settings: Settings, needed: list[str] | None) -> None:
    """Check whether every insert is published, with every column in `needed`; None if the table is unsuitable."""
    name, outbox = settings.postgres.publication, settings.outbox.qualified_name
    defect = catalog.published_defect(connection, settings)
    if catalog.without_table(connection, settings):
        defect_noted(notes, "publication", defect, f"publication {name} exists, and needs no table")
        return
    if defect is None and needed is not None:
        defect = catalog.columns_defect(connection, name, outbox, needed)
    if not defect_noted(
        notes, "publication", defect, f"publication {name} publishes inserts into {defects.shown(outbox)}"
    ):
        return
    _children(connection, notes, name, outbox, needed)
    _moves(connection, notes, name, outbox)
    found = read_publication(connection, name, outbox)
    _filters(notes, name, outbox, found[ROW_FILTER], found[COLUMN_LIST])
    _scope(notes, name, outbox, postgres_facts.published(connection, name, outbox))


def _moves(connection: Conn, notes: Notes, name: str, outbox: tuple[str, str]) -> None:
    defect = moves.defect(connection, name, outbox)
    defect_noted(notes, "outbox_moves", defect, "an UPDATE of a row is never an event", fatal=False)


def _children(connection: Conn, notes: Notes, name: str, outbox: tuple[str, str], needed: list[str] | None) -> None:
    if defect := catalog.children_defect(connection, name, outbox, needed or []):
        notes.fails("outbox_children", defect.problem, *defect.fix, hint=defect.hint)
    elif defect := catalog.foreign_parts(connection, outbox):
        notes.warns("outbox_children", defect.problem, *defect.fix, hint=defect.hint)
    else:
        names = ", ".join(map(str, children(connection, name, outbox)))
        text = (
            f"{names} inherit from the outbox, and are published as the outbox"
            if names
            else "no table inherits from it"
        )
        notes.passes("outbox_children", text)


def _filters(notes: Notes, name: str, outbox: tuple[str, str], row_filter: str, columns: str) -> None:
    if row_filter == NONE:
        notes.passes("publication_rows", "all rows are published")
    else:
        notes.warns(
            "publication_rows",
            f"publication {name!r} publishes only rows with {row_filter}",
            defects.whole_table(name, outbox),
            hint="skip this if the filter is intended; a publisher that has run before then needs --accept-changes",
        )
    listed = "" if columns == NONE else f", by a column list ({columns})"
    notes.passes("publication_columns", f"all needed columns are published{listed}")


def _scope(notes: Notes, name: str, outbox: tuple[str, str], found: Published) -> None:
    if found.everything:
        table_ = defects.name(*outbox)
        notes.warns(
            "publication_scope",
            f"publication {name!r} is for all tables: their rows are sent too, and discarded",
            hint=f"create another publication for {table_} only, and set [postgres] publication to its name",
        )
    elif found.others:
        shown = ", ".join(defects.shown(one) for one in found.others)
        drops = [f"ALTER PUBLICATION {defects.name(name)} DROP TABLE {defects.name(*one)};" for one in found.others]
        text = f"publication {name!r} contains other tables ({shown}): their rows are sent too, and discarded"
        notes.warns("publication_scope", text, *drops, hint="skip this if another program uses the publication")
    elif found.other_changes:
        text = f"publication {name!r} also publishes {', '.join(found.other_changes)}, which are not events"
        notes.warns("publication_scope", text, defects.only_inserts(name))
    else:
        notes.passes("publication_scope", "nothing else is published")
