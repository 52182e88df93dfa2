"""The requirements on server, role, table and publication, and the statements that meet them.

The same rules apply to `start`, which ends at the first defect, and to `check`, which reports all of them.
"""

import re
from typing import Final, NamedTuple

from psycopg import sql

from cdc.errors import PostgresError

OLDEST_VERSION: Final = 140000  # 14: the first whose pgoutput has the option `binary`
PUBLISHES_STORED: Final = 180000  # 18: the first that can publish stored generated columns
RDS_ROLE: Final = "rds_replication"  # Amazon's way to let a role replicate

INIT: Final = "cdc-publisher outbox init"
_KINDS: Final = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "i": "an index"}


class Requirement(NamedTuple):
    """A requirement that is not met; SQL or commands, in their order, that fix it; a hint on anything else."""

    problem: str
    fix: tuple[str, ...] = ()
    hint: str = ""

    def error(self) -> PostgresError:
        """Return the defect as an error of one line."""
        run = f"run: {'; '.join(statement.rstrip(';') for statement in self.fix)}" if self.fix else ""
        return PostgresError(self.problem, hint="; ".join(filter(None, (run, self.hint))))


def together(found: list[Requirement]) -> Requirement | None:
    """Return several defects as one; None for an empty list."""
    if not found:
        return None
    fix = (statement for defect in found for statement in defect.fix)
    hints = dict.fromkeys(defect.hint for defect in found if defect.hint)
    return Requirement("; ".join(defect.problem for defect in found), tuple(fix), "; ".join(hints))


def name(*parts: str) -> str:
    """Quote a name for SQL, each part on its own."""
    return sql.Identifier(*parts).as_string()


def shown(table: tuple[str, str]) -> str:
    """Return a table's name as `[outbox] table` takes it: only parts with a dot are quoted."""
    return ".".join(name(part) if "." in part else part for part in table)


def text(value: str) -> str:
    """Quote text for SQL."""
    return sql.Literal(value).as_string().strip()


def version(number: int) -> Requirement | None:
    """Check `server_version_num`."""
    if number >= OLDEST_VERSION:
        return None
    return Requirement(f"PostgreSQL {number // 10000} is too old", hint="14 is the oldest that works")


def standby(is_standby: bool) -> Requirement | None:
    """Check that a server is not in recovery."""
    return Requirement("the server is a standby", hint="point [postgres] dsn to the primary") if is_standby else None


def wal_level(level: str) -> Requirement | None:
    """Check the setting wal_level."""
    if level == "logical":
        return None
    fix = "ALTER SYSTEM SET wal_level = 'logical';"
    return Requirement(f"wal_level is {level!r}", (fix,), "then restart PostgreSQL")


def role(user: str, allowed: bool, *, on_rds: bool) -> Requirement | None:
    """Check that a role may replicate; `on_rds` says that a role of Amazon RDS grants it."""
    if allowed:
        return None
    fix = f"GRANT {name(RDS_ROLE)} TO {name(user)};" if on_rds else f"ALTER ROLE {name(user)} REPLICATION;"
    return Requirement(f'role "{user}" may not replicate', (fix,))


def no_table(table: tuple[str, str], kind: str | None = None) -> Requirement:
    """Describe a table that does not exist, or is of another `pg_class.relkind`."""
    if kind is None:
        return Requirement(f"table {shown(table)} does not exist", (INIT,))
    return Requirement(
        f"{shown(table)} is {_KINDS.get(kind, 'no table')}: its rows are not in the WAL",
        hint="set [outbox] table to the table",
    )


def unlogged(table: tuple[str, str]) -> Requirement:
    """Describe a table whose rows are not in the WAL."""
    fix = f"ALTER TABLE {name(*table)} SET LOGGED;"
    return Requirement(f"table {shown(table)} is unlogged or temporary: its rows are not in the WAL", (fix,))


def other_shape(
    table: tuple[str, str], problems: list[str], has: list[str], fix: list[str], mapping: str
) -> Requirement:
    """Describe a table whose columns are not those of the settings; `mapping` is a setting that fits it, or empty."""
    proposal = f"; set [outbox] {mapping} to use columns that it has, or change the table"
    return Requirement(
        f"table {shown(table)} is not the outbox that the settings describe: {', '.join(problems)}"
        f" (it has {', '.join(has)}){proposal if mapping else ''}",
        tuple(fix),
        hint=""
        if mapping
        else "map its columns in [outbox] columns, remove headers that it lacks, or correct the table",
    )


def no_publication(publication: str) -> Requirement:
    """Describe a publication that does not exist."""
    return Requirement(f"publication {publication!r} does not exist", (INIT,))


def no_publication_for_messages(publication: str) -> Requirement:
    """Describe a publication that does not exist where all events are messages, which need one without a table."""
    return Requirement(f"publication {publication!r} does not exist", (f"{INIT} --messages",))


def split_with_messages(table: tuple[str, str], root: str) -> Requirement:
    """Describe a part of an outbox with a publisher of its own, beside messages, which publications do not filter."""
    return Requirement(
        f"table {shown(table)} is a partition of {root}, and [outbox] messages is set: the publisher of each partition"
        " would send all messages",
        hint='publish the messages by a slot of their own, with [outbox] table = "", and remove messages here',
    )


def by_partition(publication: str, table: tuple[str, str]) -> Requirement:
    """Describe a publication whose rows would be published under the names of the partitions."""
    fix = f"ALTER PUBLICATION {name(publication)} SET (publish_via_partition_root = true);"
    return Requirement(
        f"publication {publication!r} does not publish table {shown(table)} via its partition root", (fix,)
    )


def without_table(publication: str, table: tuple[str, str]) -> Requirement:
    """Describe a publication without the table."""
    fix = f"ALTER PUBLICATION {name(publication)} ADD TABLE {name(*table)};"
    return Requirement(f"publication {publication!r} does not hold table {shown(table)}", (fix,))


def hidden_rows(table: tuple[str, str], user: str) -> Requirement:
    """Describe a table of which a policy may hide rows from the role."""
    return Requirement(
        f'row-level security of table {".".join(table)} may hide rows from role "{user}"',
        (f"ALTER ROLE {name(user)} BYPASSRLS;",),
        "or use another role",
    )


def unpublished_child(publication: str, table: tuple[str, str], child: tuple[str, str]) -> Requirement:
    """Describe a publication without a table that inherits from the outbox."""
    return Requirement(
        f"table {'.'.join(child)} inherits from {'.'.join(table)}, so that its rows are rows of the outbox, but"
        f" publication {publication!r} does not hold it",
        (f"ALTER PUBLICATION {name(publication)} ADD TABLE ONLY {name(*child)};",),
        "rows that are there already are published by cdc-publisher audit --repair; or end the inheritance"
        " (ALTER TABLE ... NO INHERIT)",
    )


def filtered_child(publication: str, table: tuple[str, str], child: tuple[str, str], rows: str | None) -> Requirement:
    """Describe a publication that filters the rows of an inheriting table in another way than those of the outbox."""
    change = f"ALTER PUBLICATION {name(publication)}"
    where = f" WHERE ({rows})" if rows else ""
    fix = f"BEGIN; {change} DROP TABLE ONLY {name(*child)}; {change} ADD TABLE ONLY {name(*child)}{where}; COMMIT;"
    return Requirement(
        f"table {'.'.join(child)} inherits from {'.'.join(table)}, and publication {publication!r} has another row"
        " filter for it",
        (fix,),
    )


def foreign_part(table: tuple[str, str], parts: list[str]) -> Requirement:
    """Describe foreign tables among the partitions or inheriting tables of the outbox."""
    return Requirement(
        f"rows of {'.'.join(table)} may be in foreign tables ({', '.join(parts)}), which write no WAL: an event that is"
        " inserted there is never published",
        hint="insert no events there; use such tables only for rows that were published before",
    )


STAMP: Final = "zz_cdc_stamp"
"""The trigger that gives rows their transaction and number, for polling."""
STAYS: Final = "zz_outbox_stays"
"""The trigger that keeps rows in their partitions; PostgreSQL runs triggers in the order of their names."""


def stay(table: tuple[str, str], columns: list[str]) -> tuple[str, ...]:
    """Return the statements after which rows of a partitioned table stay in their partitions.

    `columns` decide about partitions, none if expressions do. The trigger names no columns, because one that does
    overlooks what other triggers change. ENABLE ALWAYS also holds for subscriptions of logical replication.
    """
    function = name(table[0], f"{table[1]}_stays")
    old, new = (", ".join(f"{row}.{name(column)}" for column in columns) or f"{row}.*" for row in ("OLD", "NEW"))
    return (
        f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION"
        " 'this UPDATE may move a row of the outbox to another partition, which would publish its event again';"
        " END $$;",
        f"CREATE OR REPLACE TRIGGER {STAYS} BEFORE UPDATE ON {name(*table)} FOR EACH ROW WHEN (ROW({old}) IS DISTINCT"
        f" FROM ROW({new})) EXECUTE FUNCTION {function}();",
        always(table, STAYS),
    )


def always(table: tuple[str, str], trigger: str) -> str:
    """Return the statement after which a trigger fires for subscriptions too; before 15, each partition needs it."""
    return (
        "DO $$ DECLARE part regclass; BEGIN FOR part IN"
        f" SELECT {text(name(*table))}::regclass UNION SELECT relid FROM pg_partition_tree({text(name(*table))}) LOOP"
        f" EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER {trigger}', part); END LOOP; END $$;"
    )


def rows_move(table: tuple[str, str], columns: list[str], why: str) -> Requirement:
    """Describe a partitioned table whose rows may move, with what its trigger lacks; `columns` as for `stay`."""
    return Requirement(
        f"an UPDATE that moves a row of {'.'.join(table)} to another partition is a DELETE and an INSERT in the WAL, so"
        f" that its event is published again: {why}",
        stay(table, columns),
        "the trigger refuses such updates; skip it if no program updates rows of the outbox",
    )


def late_trigger(table: tuple[str, str], later: str) -> Requirement:
    """Describe a trigger that may move rows behind the one that keeps them in their partitions."""
    return Requirement(
        f"trigger {later} of {'.'.join(table)} runs after {STAYS}, so that it may move a row to another partition, and"
        " its event would be published again",
        hint="triggers run in the order of their names: give it a name that sorts before, with ALTER TRIGGER ... RENAME"
        " TO on the table where it was created; skip this if it changes no column that decides about partitions",
    )


def updates_pass_filter(publication: str, table: tuple[str, str]) -> Requirement:
    """Describe a publication that publishes updates and filters rows."""
    return Requirement(
        f"publication {publication!r} filters rows of {'.'.join(table)} and publishes updates: an UPDATE after which a"
        " row passes the filter is an INSERT in the stream, and is published as an event",
        (only_inserts(publication),),
    )


def without_inserts(publication: str) -> Requirement:
    """Describe a publication without inserts."""
    return Requirement(f"publication {publication!r} does not publish inserts", (only_inserts(publication),))


def only_inserts(publication: str) -> str:
    """Return the statement that makes a publication publish inserts only."""
    return f"ALTER PUBLICATION {name(publication)} SET (publish = 'insert');"


def whole_table(publication: str, table: tuple[str, str]) -> str:
    """Return the statements that publish all rows and columns of a table that is published in part."""
    change = f"ALTER PUBLICATION {name(publication)}"
    # In one transaction: a row that is inserted between the two would never be published.
    return f"BEGIN; {change} DROP TABLE {name(*table)}; {change} ADD TABLE {name(*table)}; COMMIT;"


def with_generated(publication: str) -> str:
    """Return the statement that makes a publication of PostgreSQL 18 publish stored generated columns."""
    return f"ALTER PUBLICATION {name(publication)} SET (publish_generated_columns = stored);"


def left_out(publication: str, table: tuple[str, str], columns: list[str], fix: list[str]) -> Requirement:
    """Describe a publication that leaves out needed columns of the table."""
    return Requirement(
        f"publication {publication!r} leaves out {', '.join(map(repr, columns))} of table {shown(table)}", tuple(fix)
    )


def never_published(table: tuple[str, str], columns: dict[str, bool]) -> Requirement:
    """Describe needed columns that are generated, and whether they are stored, where no publication publishes them."""
    kinds = ", ".join(f"{name!r} ({'stored' if stored else 'virtual'})" for name, stored in columns.items())
    return Requirement(
        f"table {shown(table)} has generated columns that PostgreSQL never publishes here: {kinds}",
        hint="use ordinary columns that the writers or a trigger fill; PostgreSQL publishes generated columns from 18"
        " on, and only stored ones",
    )


RELOAD: Final = "SELECT pg_reload_conf();"


def idle_timeout(value: str | None) -> Requirement | None:
    """Check `idle_replication_slot_timeout`; None and 0 mean that there is none."""
    if value in (None, "", "0"):
        return None
    return Requirement(
        f"idle_replication_slot_timeout is {value}: PostgreSQL invalidates the slot when the publisher is not connected"
        " for so long",
        ("ALTER SYSTEM SET idle_replication_slot_timeout = 0;", RELOAD),
        "or set it to longer than any outage",
    )


def standbys_away(slots: str) -> Requirement:
    """Describe slots of `synchronized_standby_slots` that no standby reads."""
    return Requirement(
        f"no standby reads the slots that synchronized_standby_slots names ({slots}): PostgreSQL sends no event from a"
        " failover slot before all of these standbys have it",
        hint="start the standby; if it is gone for good, take its slot out of synchronized_standby_slots, and reload",
    )


_QUORUM: Final = re.compile(r"\s*(?:(FIRST|ANY)\s+)?(\d+)\s*\((.*)\)\s*", re.IGNORECASE | re.DOTALL)
_NAME: Final = re.compile(r'"((?:[^"]|"")*)"|([^\s,"]+)')


def synchronous(setting: str, application: str, standbys: list[str] | None) -> Requirement | None:
    """Check that `synchronous_standby_names` does not match `application`; `standbys` are
    connected, or None if they cannot be seen.

    <https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES>
    """
    quorum = _QUORUM.fullmatch(setting)
    method, number, listed = quorum.groups() if quorum else (None, "1", setting)
    names = [quoted.replace('""', '"') or plain for quoted, plain in _NAME.findall(listed)]
    if not any(each in ("*", application) for each in map(str.lower, names)):
        return None
    kept = [each for each in names if each != "*" and each.lower() != application]
    if "*" in names:
        kept += [each for each in standbys or () if each not in kept]
    fix = (f"ALTER SYSTEM SET synchronous_standby_names = {text(_quorum(method, number, kept))};", RELOAD)
    return Requirement(
        f"synchronous_standby_names is {setting!r}, which matches the publisher: commits wait until Kafka has their"
        " events, indefinitely while the publisher is stopped, and one that it confirmed may be on no standby",
        () if standbys is None and "*" in names else fix,
        "set it to the names of the standbys; if commits are meant to wait for Kafka, it names"
        f" {name(application)} instead of *",
    )


def _quorum(method: str | None, number: str, names: list[str]) -> str:
    listed = ", ".join(name(each) for each in names)
    return f"{method or 'FIRST'} {min(int(number), len(names))} ({listed})" if names else ""


def failover(is_failover: bool, waited_for: str | None, standbys: list[str] | None = None) -> Requirement | None:
    """Check that a failover slot waits for a standby; `standbys` are physical slots that are in use."""
    if not is_failover or waited_for:
        return None
    fix = (f"ALTER SYSTEM SET synchronized_standby_slots = {text(','.join(standbys))};", RELOAD) if standbys else ()
    return Requirement(
        "the slot is a failover slot, but synchronized_standby_slots is empty: a standby that is promoted may"
        " never have had events that are in Kafka",
        fix,
        "set it to the physical slot of the standby",
    )
