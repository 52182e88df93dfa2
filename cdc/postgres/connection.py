"""Connections, and what an error of PostgreSQL means for us: wait, or give up.

SQLSTATEs: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
"""

from typing import Any, Final, LiteralString

import psycopg
from psycopg import conninfo, pq

from cdc.config.masking import mask_dsn
from cdc.errors import CdcError, ConfigError, PostgresError, PostgresUnavailable, SlotActive

CONNECT_SECONDS: Final = 10

_DEFAULTS: Final = {
    "application_name": "cdc-publisher",
    "client_encoding": "UTF8",
    "connect_timeout": CONNECT_SECONDS,
    # A server that vanished without a word is noticed by the kernel rather than never.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}

# A failed connection has a text and no SQLSTATE. These texts will not change by waiting.
_PERMANENT_TEXTS: Final = {
    "password authentication failed": "check the user and the password in [postgres] dsn",
    "no password supplied": "put the password into [postgres] dsn, or use a password file",
    "no pg_hba.conf entry": "add a line to pg_hba.conf for this user and database, and reload",
    "authentication failed": "check the user and the password in [postgres] dsn",
    "must be superuser or replication role": "run: ALTER ROLE <user> REPLICATION",
    "permission denied to start WAL sender": "run: ALTER ROLE <user> REPLICATION",
    "permission denied for database": "run: GRANT CONNECT ON DATABASE <database> TO <user>",
    "unsupported startup parameter": "connect directly to PostgreSQL, not through a pooler",
    "certificate verify failed": "check sslrootcert and sslmode in [postgres] dsn",
    "does not support SSL": "check sslmode in [postgres] dsn",
}
_MISSING: Final = ('role "', 'database "')

# SQLSTATE classes that pass by themselves: connection, resources, operator intervention, system and internal errors.
_TEMPORARY_CLASSES: Final = frozenset({"08", "40", "53", "57", "58", "XX"})


def connect(dsn: str, **parameters: Any) -> "psycopg.Connection[tuple[Any, ...]]":
    """Open a connection in autocommit mode. Raises ConfigError, PostgresError or PostgresUnavailable."""
    try:
        given = conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # libpq's message may repeat a password that was not quoted well.
        raise ConfigError(
            f"[postgres] dsn is not a connection string: {mask_dsn(dsn)}",
            hint="write postgresql://user:password@host:5432/database, with special characters percent-encoded",
        ) from None
    try:
        return psycopg.connect(conninfo.make_conninfo("", **{**_DEFAULTS, **given, **parameters}), autocommit=True)
    except psycopg.Error as error:
        raise _not_connected(error, given) from None


def _not_connected(error: psycopg.Error, given: dict[str, Any]) -> CdcError:
    text = " ".join(str(error).split())
    for secret in filter(None, (given.get("password"), given.get("sslpassword"))):
        text = text.replace(str(secret), "********")
    text = text.split("Multiple connection attempts failed")[0].strip()
    for permanent, hint in _PERMANENT_TEXTS.items():
        if permanent in text:
            return PostgresError(f"PostgreSQL refuses the connection: {text}", hint=hint)
    if "does not exist" in text and any(missing in text for missing in _MISSING):
        return PostgresError(f"PostgreSQL refuses the connection: {text}", hint="check [postgres] dsn")
    return PostgresUnavailable(
        f"PostgreSQL cannot be reached: {text}", hint="check that it runs and that [postgres] dsn names it"
    )


def described(error: psycopg.Error, doing: str) -> CdcError:
    """An error of a running connection as one of ours."""
    return classified(error.sqlstate, str(error).split("\n")[0], doing)


def classified(sqlstate: str | None, text: str, doing: str) -> CdcError:
    """What an error means: temporary without an SQLSTATE (the connection is gone), else by its class."""
    message = f"PostgreSQL, {doing}: {' '.join(text.split())}"
    if sqlstate is None:
        return PostgresUnavailable(message)
    if sqlstate == "55006":
        return SlotActive(message)
    if sqlstate[:2] in _TEMPORARY_CLASSES:
        return PostgresUnavailable(message)
    return PostgresError(f"{message} (SQLSTATE {sqlstate})")


def result_error(result: pq.abc.PGresult, doing: str) -> CdcError:
    """The error that a result of libpq carries."""
    sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE)
    primary = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    return classified(sqlstate.decode() if sqlstate else None, primary.decode(errors="replace"), doing)


def query(
    connection: "psycopg.Connection[tuple[Any, ...]]", doing: str, sql: LiteralString, *values: Any
) -> list[tuple[Any, ...]]:
    """All rows of a query. Raises the error that PostgreSQL's means for us, saying what was being done."""
    try:
        return connection.execute(sql, values).fetchall()
    except psycopg.Error as error:
        raise described(error, doing) from None
