"""Check the connection to PostgreSQL, and the server's version, settings and role."""

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from cdc.checks import postgres_facts
from cdc.checks.finding import Notes
from cdc.checks.postgres_facts import Conn, Link, ServerFacts
from cdc.errors import CdcError, PostgresUnavailable
from cdc.lsn import LSN
from cdc.postgres import catalog, defects
from cdc.postgres.connection import connect
from cdc.postgres.defects import RELOAD, Requirement
from cdc.postgres.source import Source

APPLICATION: Final = "cdc-publisher check"
_STATEMENT_SECONDS: Final = 10
_LOCK_SECONDS: Final = 2
_MORE: Final = 10  # slots or walsenders to add if there are too few
_SENDER_TIMEOUT: Final = "60s"  # PostgreSQL's default
DIRECT: Final = "point [postgres] dsn at PostgreSQL itself, not at a pooler such as PgBouncer"
_FULL: Final = ("max_wal_senders", "53300")


@contextlib.contextmanager
def session(dsn: str, notes: Notes) -> Iterator[Conn | None]:
    """Open a connection with a statement timeout; yield None, and note the failure, if the server is unreachable."""
    try:
        connection = connect(
            dsn, lock_seconds=_LOCK_SECONDS, statement_seconds=_STATEMENT_SECONDS, application_name=APPLICATION
        )
    except CdcError as error:
        notes.fails("postgres_reachable", error.message, *access_fix(error.message, dsn), hint=error.hint)
        yield None
        return
    with connection:
        try:
            yield connection
        except PostgresUnavailable as error:
            notes.fails("postgres_reachable", error.message, hint=error.hint)


def attempt(connection: Conn, notes: Notes, name: str, look: Callable[[], object]) -> None:
    """Run one check, and warn if it fails or times out. Raises PostgresUnavailable if the connection ends."""
    try:
        look()
    except CdcError as error:
        if connection.closed:
            raise PostgresUnavailable(error.message, hint=error.hint) from None
        notes.warns(name, f"could not be checked: {error.message}", hint=error.hint)


def defect_noted(notes: Notes, name: str, defect: Requirement | None, well: str, *, fatal: bool = True) -> bool:
    """Record `defect`, or a pass with the text `well`; return whether it passed."""
    if defect is None:
        notes.passes(name, well)
    else:
        (notes.fails if fatal else notes.warns)(name, defect.problem, *defect.fix, hint=defect.hint)
    return defect is None


def reached(notes: Notes, link: Link, server: ServerFacts) -> None:
    """Report where the connection leads, and check its encryption, the server's version and role as a primary."""
    place = link.host if link.host.startswith("/") else f"{link.host}:{link.port}"
    notes.passes("postgres_reachable", f"database {link.database} at {place}, as role {link.user}")
    hint = "add sslmode=verify-full, and sslrootcert where needed, to [postgres] dsn"
    if _is_local(link.address):
        notes.passes("postgres_tls", f"{'TLS' if link.encrypted else 'no TLS'}, on this machine")
    elif not link.encrypted:
        notes.warns("postgres_tls", f"the connection to {link.host} is not encrypted", hint=hint)
    elif not link.sslmode.startswith("verify"):
        text = f"TLS, but the certificate of {link.host} is not verified (sslmode={link.sslmode})"
        notes.warns("postgres_tls", text, hint=hint)
    else:
        notes.passes("postgres_tls", f"TLS, sslmode={link.sslmode}")
    text = f"PostgreSQL {server.version_text.split()[0]}"
    defect_noted(notes, "postgres_version", defects.version(server.version), text)
    defect_noted(notes, "postgres_primary", defects.standby(server.standby), "the server is a primary")


def settings(notes: Notes, server: ServerFacts, *, slot_exists: bool, streams: bool) -> None:
    """Check the settings of replication, and whether a slot and a walsender are free for the publisher."""
    defect_noted(notes, "wal_level", defects.wal_level(server.wal_level), "wal_level is logical")
    _left(notes, "replication_slots", server.slots, server.max_slots, has_own=slot_exists)
    _left(notes, "wal_senders", server.senders, server.max_senders, has_own=streams)
    if server.sender_timeout == "0":
        notes.warns(
            "wal_sender_timeout",
            "wal_sender_timeout is 0: the server does not detect that a publisher's machine disappeared, so that no"
            " other publisher can read the slot",
            f"ALTER SYSTEM SET wal_sender_timeout = '{_SENDER_TIMEOUT}';",
            RELOAD,
        )
    else:
        notes.passes("wal_sender_timeout", f"wal_sender_timeout is {server.sender_timeout}")


def _left(notes: Notes, name: str, used: int, most: int, *, has_own: bool) -> None:
    left, parameter = most - used, f"max_{name}"
    fix = f"ALTER SYSTEM SET {parameter} = {most + _MORE};"
    own = ", including the publisher's" if has_own else ""
    text = f"{used} of {most} in use{own} ({parameter})"
    if left < 1 and not has_own:
        notes.fails(name, f"{text}: none is free for the publisher", fix, hint="then restart PostgreSQL")
    else:
        notes.passes(name, text)


def role(connection: Conn, notes: Notes) -> None:
    """Check whether the role is a superuser, has REPLICATION, or belongs to a role of a cloud that has it."""
    defect = catalog.role_defect(connection)
    defect_noted(notes, "replication_role", defect, f"role {connection.info.user} may replicate")


class System(NamedTuple):
    """The server as a replication connection reports it."""

    identifier: str
    timeline: int
    timelines: Mapping[int, LSN]  # where earlier ones ended


def direct(notes: Notes, dsn: str, link: Link) -> System | None:
    """Open a replication connection; return what it reports, or None if it fails."""
    hint = DIRECT
    try:
        with contextlib.closing(Source(dsn)) as source:
            identifier, timeline = source.identify()
            system = System(identifier, timeline, source.timelines(timeline))
    except CdcError as error:
        text = f"the replication connection failed: {error.message}"
        hint = hint if link.pooled else error.hint
        if any(part in error.message for part in _FULL):
            text, hint = f"{text} (see wal_senders)", ""
        notes.fails("direct_connection", text, *access_fix(error.message, dsn), hint=hint)
        return None
    if link.pooled:
        notes.warns("direct_connection", "the connection goes through a pooler", hint=hint)
    else:
        notes.passes("direct_connection", f"replication connection to system {identifier}, timeline {timeline}")
    return system


def _is_local(address: str) -> bool:
    try:
        return not address or ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


# The server's refusals, with the names that the statements below need.
_NO_LOGIN: Final = re.compile(r'role "(?P<role>.+?)" is not permitted to log in')
_NO_ROLE: Final = re.compile(r'role "(?P<role>.+?)" does not exist')
_CLOSED: Final = re.compile(r'database "(?P<database>.+?)" is not currently accepting connections')
_NO_CONNECT: Final = re.compile(r'permission denied for database "(?P<database>.+?)"')
_NO_HBA: Final = re.compile(
    r'no pg_hba.conf entry for host "(?P<host>.+?)", user "(?P<user>.+?)", database "(?P<db>.+?)"'
)


def access_fix(message: str, dsn: str) -> tuple[str, ...]:
    """Return the command that admits a role, by the server's error message; empty if none would."""
    name = defects.name
    if found := _NO_LOGIN.search(message):
        return (f"ALTER ROLE {name(found['role'])} LOGIN;",)
    if found := _NO_ROLE.search(message):
        return (f"CREATE ROLE {name(found['role'])} LOGIN REPLICATION;",)
    if found := _CLOSED.search(message):
        return (f"ALTER DATABASE {name(found['database'])} ALLOW_CONNECTIONS true;",)
    if found := _NO_CONNECT.search(message):
        user = postgres_facts.user(dsn)
        return (f"GRANT CONNECT ON DATABASE {name(found['database'])} TO {name(user)};",) if user else ()
    if found := _NO_HBA.search(message):
        bits = 128 if ":" in found["host"] else 32
        line = f'host "{found["db"]}" "{found["user"]}" {found["host"]}/{bits} scram-sha-256'
        return (f"""echo '{line}' >> "$(psql -XAtc 'SHOW hba_file')" && psql -Xc 'SELECT pg_reload_conf()'""",)
    return ()
