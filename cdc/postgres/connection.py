"""Opens connections, and classifies the errors of PostgreSQL: temporary ones are retried, others end the program.

SQLSTATEs: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
"""

import contextlib
import functools
import math
import re
from collections.abc import Iterator
from typing import Final, LiteralString

import psycopg
from psycopg import conninfo, pq, sql
from psycopg.abc import ConnDict, ConnParam
from psycopg.rows import TupleRow

from cdc.config.masking import mask_dsn
from cdc.errors import (
    CdcError,
    ConfigError,
    Locked,
    PostgresError,
    PostgresRefused,
    PostgresUnavailable,
    SlotActive,
    SlotLost,
)
from cdc.postgres.conninfo import PARAMETERS, effective, has_several_hosts, problem_of, said_before_connecting
from cdc.postgres.session import REPLY_SECONDS, PostgresSession
from cdc.postgres.tables_below import TABLES_BELOW

CONNECT_SECONDS: Final = 10
LOCK_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 20.0
LONG_SECONDS: Final = 3600.0  # for statements that read or change many rows
_COMMAND_SECONDS: Final = 30.0  # of a replication connection, before it streams
_OBSERVER_SECONDS: Final = 2

Conn = psycopg.Connection[TupleRow]

_REWRITTEN: Final[LiteralString] = f"""
{TABLES_BELOW}
select 1 from below b join pg_class c on c.oid = b.relid where c.relfilenode <> pg_relation_filenode(c.oid)
"""
"""Tables whose file is not that of the snapshot: functions know only what the catalogs are now."""
_DEFAULTS: Final[ConnDict] = {
    "application_name": "cdc-publisher",
    "connect_timeout": CONNECT_SECONDS,
    # Let the kernel detect a server that vanished without closing the connection.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}

_CREDENTIALS: Final = "check the user and the password in [postgres] dsn, or [postgres] password"
_PRIVILEGE: Final = (
    "grant the role of [postgres] dsn the missing privilege: for a slot REPLICATION; with polling, run: cdc-publisher"
    " outbox init --polling --role ROLE"
)
_REPLICATION: Final = "run: ALTER ROLE <user> REPLICATION"
_PG_HBA: Final = "add a line to pg_hba.conf for this user and database, and reload"
_TLS: Final = "check sslmode, sslrootcert and the certificates in [postgres] dsn"
_AUTHORITY: Final = (
    "set sslrootcert in [postgres] dsn to the server's authority, or renew the server's certificate if it expired"
)
_OURS: Final = "set sslcert and sslkey in [postgres] dsn to a certificate that the server trusts, and to its key"
_DSN: Final = "check [postgres] dsn"
_PRIMARY: Final = "point [postgres] dsn to the primary"

# A failed connection has a text and no SQLSTATE. These errors are permanent.
_PERMANENT_TEXTS: Final = {
    "password authentication failed": _CREDENTIALS,
    "no password supplied": "give it as [postgres] password: CDC_POSTGRES__PASSWORD_FILE names a file that holds it",
    "no encryption": "set sslmode=verify-full in [postgres] dsn if the server wants TLS; else " + _PG_HBA,
    "no pg_hba.conf entry": _PG_HBA,
    "pg_hba.conf rejects": _PG_HBA,
    "authentication failed": _CREDENTIALS,
    "is not permitted to log in": "run: ALTER ROLE <user> LOGIN",
    "is not currently accepting connections": "run: ALTER DATABASE <database> ALLOW_CONNECTIONS true",
    "must be superuser or replication role": _REPLICATION,
    "permission denied to start WAL sender": _REPLICATION,
    "permission denied for database": "run: GRANT CONNECT ON DATABASE <database> TO <user>",
    "certificate verify failed": _AUTHORITY,
    "does not match host name": "set host in [postgres] dsn to a name that is in the server's certificate",
    "root certificate file": _AUTHORITY,
    "private key file": _OURS,
    "alert certificate": _OURS,
    "alert unknown ca": _OURS,
    "requires a valid client certificate": _OURS,
    "could not load": _TLS,
    "does not support SSL": _TLS,
}
# What a server refuses of the start-up packet and of the authentication that the client demands is configuration.
_OPTIONS: Final = "correct options in [postgres] dsn, or the environment: PGOPTIONS, PGTZ, PGDATESTYLE or PGGEQO"
_DEMANDS: Final = (
    "correct require_auth and channel_binding in [postgres] dsn (PGREQUIREAUTH, PGCHANNELBINDING), or pg_hba.conf"
)
_REFUSED_PACKETS: Final = (
    (re.compile("unsupported startup parameter"), "connect directly to PostgreSQL, not through a pooler"),
    (re.compile("authentication method requirement|channel binding required"), _DEMANDS),
    (
        re.compile(
            "(invalid value for|permission denied to set|outside the valid range for|unrecognized configuration)"
            ' parameter|parameter "[^"]*" (cannot be|requires)|requires a value|invalid command-line argument'
            "|invalid startup packet|unsupported frontend protocol"
        ),
        _OPTIONS,
    ),
)
_MISSING: Final = ('role "', 'database "')
# The messages of libpq for a server that does not fit target_session_attrs.
_READ_ONLY: Final = "session is read-only"
_NOT_PRIMARY: Final = (_READ_ONLY, "server is in hot standby mode")
_NO_PRIMARY: Final = "none of the hosts in [postgres] dsn is a primary that answers"
_ASK_PRIMARY: Final = (
    "a primary whose default_transaction_read_only is on needs target_session_attrs=primary in [postgres] dsn"
)
SHUTTING_DOWN: Final = "the database system is shutting down"

INVALIDATED: Final = "run: cdc-publisher recover"
UNUSABLE: Final = "run: cdc-publisher slot drop, and then: cdc-publisher recover"
"""For a slot that PostgreSQL takes for healthy, and that cannot bring its rows."""
NEW_SLOT: Final = "if it never existed, run: cdc-publisher slot create; if it was dropped, run: cdc-publisher recover"

# Temporary errors. Classes: connection, rolled back, resources, operator intervention, system and internal errors
# (spill files, snapshot files, WAL that is not there yet); states: sessions that idled too long.
_TEMPORARY_CLASSES: Final = frozenset({"08", "40", "53", "57", "58", "XX"})
_TEMPORARY: Final = frozenset({"25P03", "25P04"})
_CORRUPTED: Final = frozenset({"XX001", "XX002"})
_TOO_LARGE: Final = "invalid memory alloc request size"

# Errors and hints by SQLSTATE and a part of the text; 14, 15 to 17 and 18 word the error of an invalidated slot
# differently.
_KNOWN: Final = (
    ("55000", "cannot read from logical replication slot", SlotLost, INVALIDATED),
    ("55000", "can no longer access replication slot", SlotLost, INVALIDATED),
    ("55000", "can no longer get changes from replication slot", SlotLost, INVALIDATED),
    ("55000", "was not created in this database", PostgresError, _DSN),
    ("55000", "wal_level", PostgresError, "run: ALTER SYSTEM SET wal_level = 'logical'; then restart PostgreSQL"),
    ("55000", "recovery is in progress", PostgresError, _PRIMARY),
    ("42704", "replication slot", SlotLost, NEW_SLOT),
    # A re-created publication does not help: to the slot, it is missing in the WAL that was written before.
    ("42704", "publication", PostgresError, "run: cdc-publisher outbox init; then " + UNUSABLE),
    ("42501", "row-level security", PostgresError, "run: ALTER ROLE <user> BYPASSRLS; or use another role"),
    ("42501", "", PostgresError, _PRIVILEGE),
    ("25006", "", PostgresError, _PRIMARY),
    ("28", "", PostgresRefused, _CREDENTIALS),
    ("3D", "", PostgresError, _DSN),
    (
        "XX000",
        _TOO_LARGE,
        PostgresError,
        "a row is too large for PostgreSQL to decode, and the slot cannot pass it: " + UNUSABLE,
    ),
)


def connect(
    dsn: str,
    *,
    lock_seconds: float = LOCK_SECONDS,
    statement_seconds: float = STATEMENT_SECONDS,
    **parameters: ConnParam,
) -> PostgresSession:
    """Open a connection in autocommit mode that does not depend on settings of server, role, database or environment.

    No statement waits longer than `lock_seconds` for a lock, or takes longer than `statement_seconds`; 0 means no
    limit. Replication connections have neither, because they would apply to decoding too.
    Raises ConfigError, PostgresError or PostgresUnavailable.
    """
    given = _given(dsn)
    try:
        connection = _connected(given, parameters)
    except (psycopg.Error, UnicodeError) as error:
        raise _not_connected(error, given) from None
    limits = {"lock_timeout": lock_seconds, "statement_timeout": statement_seconds}
    connection.patience = statement_seconds + REPLY_SECONDS if statement_seconds else math.inf
    if "replication" in parameters:
        limits = dict.fromkeys(limits, 0.0)
        connection.patience = _COMMAND_SECONDS
    connection.observer = functools.partial(_observer, given)
    try:
        result = connection.pin(limits)
    except psycopg.Error as error:
        connection.close()
        raise described(error, "preparing the session") from None
    if result.status != pq.ExecStatus.TUPLES_OK:
        connection.close()
        raise result_error(result, "preparing the session")
    return connection


def validate(dsn: str) -> None:
    """Raise ConfigError for a connection string that libpq would refuse before it connects."""
    if problem := problem_of(_given(dsn)):
        raise ConfigError(f"[postgres] dsn: {problem}", hint=PARAMETERS)


def _given(dsn: str) -> ConnDict:
    try:
        given = conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # libpq's message may repeat a password that was not quoted well.
        raise ConfigError(
            f"[postgres] dsn is not a connection string: {mask_dsn(dsn)}",
            hint="write postgresql://user:password@host:5432/database, with special characters percent-encoded",
        ) from None
    given.pop("replication", None)  # each connection has the mode that it needs
    return given


def _connected(given: ConnDict, parameters: ConnDict) -> PostgresSession:
    found = _parameters(given, parameters)
    connection = _opened(found)
    if "target_session_attrs" in found or not connection.may_be_elsewhere:
        return connection
    connection.close()  # a service file has several hosts, and this one is a standby
    return _opened({**found, "target_session_attrs": "primary"})


def _opened(parameters: ConnDict) -> PostgresSession:
    # Without prepared statements: a pooler in transaction mode gives the next statement to another session.
    return PostgresSession.connect(conninfo.make_conninfo("", **parameters), autocommit=True, prepare_threshold=None)


def _observer(given: ConnDict) -> PostgresSession:
    own: ConnDict = {"application_name": "cdc-publisher observer", "connect_timeout": _OBSERVER_SECONDS}
    connection = _connected(given, own)
    connection.patience = _OBSERVER_SECONDS
    return connection


def _parameters(given: ConnDict, parameters: ConnDict) -> ConnDict:
    found = {**_DEFAULTS, **given, "client_encoding": "UTF8", **parameters}
    if attributes := effective(given, "target_session_attrs"):
        found["target_session_attrs"] = attributes
    elif has_several_hosts(given):
        # Only the primary is complete. A single host reports that it is a standby, which is a better message.
        found["target_session_attrs"] = "primary"
    return found


def _not_connected(error: psycopg.Error | UnicodeError, given: ConnDict) -> CdcError:
    text = str(error)
    for secret in filter(None, (given.get("password"), given.get("sslpassword"))):
        text = text.replace(str(secret), "********")
    if problem := problem_of(given) or said_before_connecting(text):
        return ConfigError(f"[postgres] dsn: {problem}", hint=PARAMETERS)
    return refusal(text, several_hosts=has_several_hosts(given))


def refusal(text: str, *, several_hosts: bool = False) -> CdcError:
    """Convert the text of a failed connection: it holds the last attempt, then, where there were several, all."""
    last, _, every = text.partition("Multiple connection attempts failed")
    attempts = [" ".join(line.split()) for line in every.split("\n- ")[1:]]
    reason = " ".join(last.split())
    for pattern, hint in _REFUSED_PACKETS:
        if refused := next(filter(pattern.search, attempts or [reason]), ""):
            return ConfigError(f"PostgreSQL refuses the connection: {refused}", hint=hint)
    if several_hosts and attempts:
        reason = "; ".join(attempts)
        # While the primary is down, the refusal of a standby does not show what the next primary will do.
        for attempt in attempts:
            if not _permanent(attempt):
                return PostgresUnavailable(
                    f"PostgreSQL cannot be reached: {reason}",
                    hint=f"{_NO_PRIMARY}; {_ASK_PRIMARY}" if _READ_ONLY in reason else _NO_PRIMARY,
                )
    elif not reason:
        reason = "it gives no reason"
    if hint := _permanent(reason):
        return PostgresRefused(f"PostgreSQL refuses the connection: {reason}", hint=hint)
    if any(phrase in reason for phrase in _NOT_PRIMARY):
        hint = _ASK_PRIMARY if _READ_ONLY in reason else "check [postgres] dsn"
        return PostgresUnavailable(f"PostgreSQL is no primary: {reason}", hint=hint)
    return PostgresUnavailable(
        f"PostgreSQL cannot be reached: {reason}", hint="check that it runs and that [postgres] dsn names it"
    )


def _permanent(text: str) -> str:
    """Return what to do about a permanent refusal; empty for any other text."""
    for permanent, hint in _PERMANENT_TEXTS.items():
        if permanent in text:
            return hint
    return _DSN if "does not exist" in text and any(missing in text for missing in _MISSING) else ""


def described(error: psycopg.Error, doing: str) -> CdcError:
    """Convert an error of a running connection."""
    return classified(error.sqlstate, str(error).split("\n")[0], doing)


def classified(sqlstate: str | None, text: str, doing: str) -> CdcError:
    """Convert an error: it is temporary without an SQLSTATE (the connection is lost), else by its class."""
    message = f"PostgreSQL, {doing}: {' '.join(text.split())}"
    if sqlstate is None:
        return PostgresUnavailable(message)
    if sqlstate == "55006":
        return SlotActive(message)
    if sqlstate == "55P03":
        return Locked(message)
    hopeless = sqlstate in _CORRUPTED or (sqlstate == "XX000" and _TOO_LARGE in text)
    if (sqlstate[:2] in _TEMPORARY_CLASSES or sqlstate in _TEMPORARY) and not hopeless:
        return PostgresUnavailable(message)
    for state, part, kind, hint in _KNOWN:
        if sqlstate.startswith(state) and part in text:
            return kind(f"{message} (SQLSTATE {sqlstate})", hint=hint)
    return PostgresError(f"{message} (SQLSTATE {sqlstate})")


@contextlib.contextmanager
def converting(doing: str) -> Iterator[None]:
    """Convert the errors of a running connection; `doing` says in their messages what failed."""
    try:
        yield
    except psycopg.Error as error:
        raise described(error, doing) from None


@contextlib.contextmanager
def snapshot(connection: Conn, doing: str, name: str = "", *, table: tuple[str, str] | None = None) -> Iterator[None]:
    """Read within one snapshot: that of the first query, or the one that another session exported by this name.

    Rows of `table` are to be read. For a snapshot from before an ALTER TABLE that rewrites the table, or a TRUNCATE, it
    would be empty: <https://www.postgresql.org/docs/current/mvcc-caveats.html>. PostgresUnavailable is raised then.
    """
    with converting(doing), connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        if name:
            connection.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(name)))
        if table is not None:
            # With its lock, which this takes, it stays as it is.
            connection.execute(sql.SQL("select from {} limit 0").format(sql.Identifier(*table)))
            if connection.execute(_REWRITTEN, table).fetchall():
                raise PostgresUnavailable(
                    f"{doing}: table {'.'.join(table)} was rewritten or truncated meanwhile",
                    hint="run the command again",
                )
        yield


def result_error(result: pq.abc.PGresult, doing: str) -> CdcError:
    """Convert the error of a result of libpq."""
    sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE)
    primary = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    return classified(sqlstate.decode() if sqlstate else None, primary.decode(errors="replace"), doing)


def query(connection: Conn, doing: str, sql: LiteralString, *values: object) -> list[TupleRow]:
    """Return all rows of a query. Raises CdcError; `doing` says in its message what failed."""
    with converting(doing):
        return connection.execute(sql, values).fetchall()
