"""The server as it is reached: connection, version, settings and role."""

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Final

from cdc.checks import postgres_facts as preflight
from cdc.checks.finding import Notes
from cdc.checks.postgres_facts import Conn, Link, Server
from cdc.errors import CdcError, PostgresUnavailable
from cdc.postgres import catalog, defects
from cdc.postgres.connection import connect
from cdc.postgres.defects import RELOAD, Defect
from cdc.postgres.source import Source

APPLICATION: Final = "cdc-publisher check"
_STATEMENT_SECONDS: Final = 10  # catalogs answer at once, unless somebody holds a lock on them
_MORE: Final = 10  # slots or walsenders, where there are too few
_SENDER_TIMEOUT: Final = "60s"  # PostgreSQL's default
_FULL: Final = ("max_wal_senders", "53300")


@contextlib.contextmanager
def session(dsn: str, notes: Notes) -> Iterator[Conn | None]:
    """A connection of which no query takes long; None when there is none to be had, which is noted."""
    try:
        connection = connect(dsn, application_name=APPLICATION)
    except CdcError as error:
        notes.fails("postgres_reachable", error.message, *entrance(error.message, dsn), hint=error.hint)
        yield None
        return
    with connection:
        try:
            # Behind a pooler it would stay with a connection that belongs to others.
            if not preflight.link(connection).pooled:
                connection.execute(f"set statement_timeout = '{_STATEMENT_SECONDS}s'".encode())
            yield connection
        except PostgresUnavailable as error:
            notes.fails("postgres_reachable", error.message, hint=error.hint)


def looked(connection: Conn, notes: Notes, name: str, look: Callable[[], object]) -> None:
    """Look; what the role may not see, or takes too long, is a warning. Raises PostgresUnavailable when it ends."""
    try:
        look()
    except CdcError as error:
        if connection.closed:
            raise PostgresUnavailable(error.message, hint=error.hint) from None
        notes.warns(name, f"this could not be looked at: {error.message}", hint=error.hint)


def defect_noted(notes: Notes, name: str, defect: Defect | None, well: str, *, fatal: bool = True) -> bool:
    """Note a defect, or that there is none; returns whether there is none."""
    if defect is None:
        notes.passes(name, well)
    else:
        (notes.fails if fatal else notes.warns)(name, defect.problem, *defect.fix, hint=defect.hint)
    return defect is None


def reached(notes: Notes, link: Link, server: Server) -> None:
    """Where the connection leads to, and who may listen."""
    place = link.host if link.host.startswith("/") else f"{link.host}:{link.port}"
    notes.passes("postgres_reachable", f"database {link.database} at {place}, as role {link.user}")
    hint = "add sslmode=verify-full, and sslrootcert where needed, to [postgres] dsn"
    if _is_local(link.address):
        notes.passes("postgres_tls", f"{'TLS' if link.encrypted else 'no TLS'}, on this machine")
    elif not link.encrypted:
        notes.warns("postgres_tls", f"the connection to {link.host} is not encrypted", hint=hint)
    elif not link.sslmode.startswith("verify"):
        told = f"TLS, but nothing proves that it is {link.host} who answers (sslmode={link.sslmode})"
        notes.warns("postgres_tls", told, hint=hint)
    else:
        notes.passes("postgres_tls", f"TLS, sslmode={link.sslmode}")
    text = f"PostgreSQL {server.version_text.split()[0]}"
    defect_noted(notes, "postgres_version", defects.version(server.version), text)
    defect_noted(notes, "postgres_primary", defects.standby(server.standby), "the server is a primary")


def settings(notes: Notes, server: Server, *, slot_exists: bool, streams: bool) -> None:
    """What the server is set to, and what is left of what it limits."""
    defect_noted(notes, "wal_level", defects.wal_level(server.wal_level), "wal_level is logical")
    _left(notes, "replication_slots", server.slots, server.max_slots, has_ours=slot_exists)
    _left(notes, "wal_senders", server.senders, server.max_senders, has_ours=streams)
    if server.sender_timeout == "0":
        notes.warns(
            "wal_sender_timeout",
            "wal_sender_timeout is 0: of a publisher whose machine vanished, the server never knows, and lets no other"
            " one read the slot",
            f"ALTER SYSTEM SET wal_sender_timeout = '{_SENDER_TIMEOUT}';",
            RELOAD,
        )
    else:
        notes.passes("wal_sender_timeout", f"wal_sender_timeout is {server.sender_timeout}")


def _left(notes: Notes, name: str, used: int, most: int, *, has_ours: bool) -> None:
    left, parameter = most - used, f"max_{name}"
    fix = f"ALTER SYSTEM SET {parameter} = {most + _MORE};"
    told = f"{used} of {most} in use{', ours among them' if has_ours else ''} ({parameter})"
    if left < 1 and not has_ours:
        notes.fails(name, f"{told}: none is left for the publisher", fix, hint="then restart PostgreSQL")
    else:
        notes.passes(name, told)


def role(connection: Conn, notes: Notes) -> None:
    """Whether the role may replicate."""
    defect = catalog.role_defect(connection)
    defect_noted(notes, "replication_role", defect, f"role {connection.info.user} may replicate")


def direct(notes: Notes, dsn: str, link: Link) -> tuple[str, int] | None:
    """Open a replication connection; returns the system's identifier and its timeline."""
    hint = "point [postgres] dsn to PostgreSQL itself, not to a pooler such as PgBouncer"
    try:
        with contextlib.closing(Source(dsn)) as source:
            identity = source.identify()
    except CdcError as error:
        told = f"no replication connection: {error.message}"
        hint = hint if link.pooled else error.hint
        if any(part in error.message for part in _FULL):
            told, hint = f"{told} (see wal_senders)", ""
        notes.fails("direct_connection", told, *entrance(error.message, dsn), hint=hint)
        return None
    if link.pooled:
        notes.warns("direct_connection", "a pooler stands between here and PostgreSQL", hint=hint)
    else:
        notes.passes("direct_connection", f"replication connection to system {identity[0]}, timeline {identity[1]}")
    return identity


def _is_local(address: str) -> bool:
    try:
        return not address or ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


# What libpq says, with the names in it, and what lets the role in.
_NO_LOGIN: Final = re.compile(r'role "(?P<role>.+?)" is not permitted to log in')
_NO_ROLE: Final = re.compile(r'role "(?P<role>.+?)" does not exist')
_CLOSED: Final = re.compile(r'database "(?P<database>.+?)" is not currently accepting connections')
_NO_CONNECT: Final = re.compile(r'permission denied for database "(?P<database>.+?)"')
_NO_HBA: Final = re.compile(
    r'no pg_hba.conf entry for host "(?P<host>.+?)", user "(?P<user>.+?)", database "(?P<db>.+?)"'
)


def entrance(message: str, dsn: str) -> tuple[str, ...]:
    """What lets a role in that the server turned away, by the server's words; empty when nothing is to be run."""
    name = defects.name
    if found := _NO_LOGIN.search(message):
        return (f"ALTER ROLE {name(found['role'])} LOGIN;",)
    if found := _NO_ROLE.search(message):
        return (f"CREATE ROLE {name(found['role'])} LOGIN REPLICATION;",)
    if found := _CLOSED.search(message):
        return (f"ALTER DATABASE {name(found['database'])} ALLOW_CONNECTIONS true;",)
    if found := _NO_CONNECT.search(message):
        user = preflight.user(dsn)
        return (f"GRANT CONNECT ON DATABASE {name(found['database'])} TO {name(user)};",) if user else ()
    if found := _NO_HBA.search(message):
        bits = 128 if ":" in found["host"] else 32
        line = f'host "{found["db"]}" "{found["user"]}" {found["host"]}/{bits} scram-sha-256'
        return (f"""echo '{line}' >> "$(psql -XAtc 'SHOW hba_file')" && psql -Xc 'SELECT pg_reload_conf()'""",)
    return ()
