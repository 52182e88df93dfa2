"""Checks what only all units of a fleet together show: their files, and what each server must have room for."""

from collections.abc import Iterable, Sequence
from typing import Final, LiteralString, NamedTuple

from cdc.checks.finding import Notes
from cdc.config.settings import Postgres
from cdc.errors import CdcError
from cdc.postgres import defects
from cdc.postgres.connection import Conn, connect, query
from cdc.postgres.split import REFUSES, slot_of

CONNECTIONS_OF_UNIT: Final = 2
"""One that monitors, and one for a moment when a session begins; the one that replicates counts as a walsender."""
_RESTART: Final = "-- then restart PostgreSQL"
_STATEMENT_SECONDS: Final = 10


# Whether the outbox of a publication was replaced by a split, or dropped: then it is of no table, in the form that
# `outbox init` gives it. The others with tables are of outboxes that are in use.
_PUBLICATIONS: Final[LiteralString] = """
    select p.pubname, has_tables, exists (
        select from pg_publication_rel r join pg_trigger t on t.tgrelid = r.prrelid
        where r.prpubid = p.oid and t.tgname = %s)
    or (not has_tables and p.pubinsert and p.pubviaroot
        and not (p.pubupdate or p.pubdelete or p.pubtruncate or p.puballtables))
    from pg_publication p cross join lateral (
        select exists (select from pg_publication_tables t where t.pubname = p.pubname) as has_tables) one
"""


class Server(NamedTuple):
    """A server of units: how much it allows, and what others take of it."""

    name: str
    units: int
    streams: int  # units that read from a slot
    missing_slots: int  # of these
    slots: int  # that exist
    max_slots: int
    walsenders: int  # of others
    max_walsenders: int
    connections: int  # of others
    max_connections: int
    strangers: tuple[str, ...]  # slots in databases of units that no unit has and no process reads
    unread: tuple[str, ...] = ()  # likewise, where the publication of their name is of an outbox that is in use
    former: tuple[tuple[str, str], ...] = ()  # databases of units, and publications there of outboxes that are gone


def read(name: str, units: Sequence[Postgres]) -> Server:
    """Look at a server with these units. Raises CdcError."""
    wanted, found = {unit.slot for unit in units if not unit.polls}, []
    databases: dict[str, set[str]] = {}  # with the publications of units
    former: dict[str, set[str]] = {}
    in_use = set[str]()
    server: Server | None = None
    for dsn in dict.fromkeys(unit.dsn for unit in units):
        with connect(dsn, statement_seconds=_STATEMENT_SECONDS, application_name="cdc-publisher check") as connection:
            database = connection.info.dbname
            own = {unit.publication for unit in units if unit.dsn == dsn and not unit.polls}
            databases.setdefault(database, set()).update(own)
            publications = query(connection, "reading the publications", _PUBLICATIONS, REFUSES)
            former[database] = {one for one, _, is_former in publications if is_former}
            in_use |= {slot_of(one) for one, has_tables, is_former in publications if has_tables and not is_former}
            found = query(
                connection,
                "reading the slots",
                "select slot_name, database, active, plugin from pg_replication_slots",
            )
            server = server or _limits(connection, name, wanted)
    assert server
    strangers = sorted(
        slot
        for slot, database, active, plugin in found
        if plugin == "pgoutput" and not active and database in databases and slot not in wanted
    )
    existing = {slot for slot, *_ in found}
    return server._replace(
        units=len(units),
        streams=len(wanted),
        missing_slots=len(wanted - existing),
        slots=len(existing),
        strangers=tuple(slot for slot in strangers if slot not in in_use),
        unread=tuple(slot for slot in strangers if slot in in_use),
        former=tuple((database, one) for database in former for one in sorted(former[database] - databases[database])),
    )


def _limits(connection: Conn, name: str, slots: set[str]) -> Server:
    ((max_slots, max_walsenders, max_connections, walsenders, others),) = query(
        connection,
        "reading the limits of the server",
        """
        select current_setting('max_replication_slots')::int, current_setting('max_wal_senders')::int,
               current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
               (select count(*) from pg_stat_replication where pid not in (
                    select active_pid from pg_replication_slots where slot_name = any(%s) and active_pid is not null)),
               (select count(*) from pg_stat_activity
                 where backend_type = 'client backend' and not starts_with(application_name, 'cdc-publisher'))
        """,
        sorted(slots),
    )
    return Server(name, 0, 0, 0, 0, max_slots, walsenders, max_walsenders, others, max_connections, ())


def files(notes: Notes, valid: int, problems: Iterable[str]) -> None:
    """Judge the folder."""
    found = list(problems)
    if found:
        notes.fails("unit_files", "; ".join(found))
    elif valid:
        notes.passes("unit_files", f"{valid} units, each with a slot of its own")
    else:
        notes.warns("unit_files", "the folder has no unit", hint="each .toml file in it is a unit")


def servers(notes: Notes, found: Iterable[Server], unreachable: Iterable[CdcError], *, all_units: bool) -> None:
    """Judge all servers together: one line for each limit, the fixes of every server below it.

    Without `all_units`, some files cannot be used, and a slot that no unit has may be theirs.
    """
    looked, silent = list(found), [error.message for error in unreachable]
    _limit(
        notes,
        "fleet_slots",
        "max_replication_slots",
        [(server, server.slots + server.missing_slots, server.max_slots) for server in looked],
        silent,
    )
    _limit(
        notes,
        "fleet_walsenders",
        "max_wal_senders",
        [(server, server.streams + server.walsenders, server.max_walsenders) for server in looked],
        silent,
    )
    _limit(
        notes,
        "fleet_connections",
        "max_connections",
        [
            (server, CONNECTIONS_OF_UNIT * server.units + server.connections, server.max_connections)
            for server in looked
        ],
        silent,
    )
    if all_units:
        _left(notes, looked)
    else:
        for name in ("fleet_other_slots", "fleet_old_publications"):
            notes.warns(name, "not known while a unit's file cannot be used", hint="see unit_files")


def _left(notes: Notes, looked: list[Server]) -> None:
    """Judge slots and publications that no unit has."""
    strangers = [f"{slot} at {server.name}" for server in looked for slot in server.strangers]
    unread = [f"{slot} at {server.name}, of an outbox that is in use" for server in looked for slot in server.unread]
    if strangers or unread:
        notes.warns(
            "fleet_other_slots",
            f"no unit has these slots, and they retain WAL: {'; '.join([*strangers, *unread])}",
            *(f"SELECT pg_drop_replication_slot('{slot}');" for server in looked for slot in server.strangers),
            hint="put the files of new units into the folder; drop only the slots of former units, each in its server:"
            " others may belong to other programs",
        )
    else:
        notes.passes("fleet_other_slots", "every unread slot in the databases of units is that of a unit")
    former = [f"{name} in {database} at {server.name}" for server in looked for database, name in server.former]
    if former:
        notes.warns(
            "fleet_old_publications",
            f"no unit has these publications, whose outbox was replaced or dropped: {', '.join(former)}",
            *(f"DROP PUBLICATION {defects.name(name)};" for server in looked for _, name in server.former),
            hint="drop each in its database, when its publisher has ended for good",
        )
    else:
        notes.passes("fleet_old_publications", "no publication is left of an outbox that was replaced or dropped")


def _limit(notes: Notes, name: str, setting: str, needs: list[tuple[Server, int, int]], silent: list[str]) -> None:
    short = [(server, needed, limit) for server, needed, limit in needs if needed > limit]
    if short:
        notes.fails(
            name,
            "; ".join(
                f"{server.name}: {server.units} units need {needed} of {setting}, with those that others use, and it is"
                f" {limit}"
                for server, needed, limit in short
            ),
            *(f"ALTER SYSTEM SET {setting} = {needed + 10}; {_RESTART}" for _, needed, _ in short),
        )
    elif silent:
        notes.warns(name, f"not known for every server: {'; '.join(silent)}")
    else:
        notes.passes(
            name, "; ".join(f"{server.name}: {needed} of {limit}" for server, needed, limit in needs) or "none"
        )
