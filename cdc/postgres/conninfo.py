"""Judges connection parameters as libpq does before it connects, without a server.

<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS>
"""

import contextlib
import ipaddress
import os
import re
from collections.abc import Iterator
from typing import Final

from psycopg import conninfo, pq
from psycopg.abc import ConnDict

PARAMETERS: Final = "correct [postgres] dsn, the service file that it names, or the environment variable of libpq"

# libpq's own environment variables of parameters that are looked at here.
_VARIABLES: Final = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "service": "PGSERVICE",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
_INTEGERS: Final = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
_NOWHERE: Final = "/dev/null/nowhere"  # a folder of sockets that cannot exist
_CONNECTING: Final = ("connection to server", "could not translate host name")
_COUNTS: Final = "could not match"


def effective(given: ConnDict, name: str) -> str:
    """Return a parameter of a connection string, or of libpq's environment; empty if neither has it."""
    return str(given.get(name) or os.environ.get(_VARIABLES.get(name, ""), ""))


def has_several_hosts(given: ConnDict) -> bool:
    """Return whether there are several servers to choose from, as far as can be seen without a service file."""
    return any("," in effective(given, name) for name in ("host", "hostaddr"))


def problem_of(given: ConnDict) -> str:
    """Return what libpq would say about parameters before it connects; empty if it would connect."""
    return next(_problems(given), "")


def _problems(given: ConnDict) -> Iterator[str]:
    for name in _INTEGERS:
        value = effective(given, name)
        if value and not re.fullmatch(r"\s*[+-]?\d+\s*", value):
            yield f"invalid integer value {value!r} for connection option {name!r}"
    hosts, addresses = (effective(given, name).split(",") for name in ("host", "hostaddr"))
    if hosts != [""] and addresses != [""] and len(hosts) != len(addresses):
        yield f"could not match {len(hosts)} host names to {len(addresses)} hostaddr values"
    for address in filter(None, addresses):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            yield f"could not parse network address {address!r}"
    for host in hosts:
        with contextlib.suppress(UnicodeError):
            if not host.startswith(("/", "@")):
                host.encode("idna")
            continue
        yield f"invalid host name {host!r:.100}"
    yield from _said_by_libpq(given, max(len(hosts), len(addresses)))


def _said_by_libpq(given: ConnDict, hosts: int) -> Iterator[str]:
    """Yield what libpq says when it begins to connect to a place that cannot exist."""
    text = conninfo.make_conninfo("", **{**given, "host": ",".join([_NOWHERE] * hosts), "hostaddr": ""})
    pgconn = pq.PGconn.connect_start(text.encode())
    lines = pgconn.error_message.decode(errors="replace").splitlines()
    pgconn.finish()
    in_service = bool(effective(given, "service"))  # which may have several hosts
    for line in lines:
        if not line.startswith((*_CONNECTING, "\t")) and not (in_service and _COUNTS in line):
            yield line


def said_before_connecting(text: str) -> str:
    """Return the reason within the error of a connection that libpq did not even begin; empty for other errors."""
    reason = " ".join(text.splitlines()[0].split()) if text else ""
    begun = reason.removeprefix("connection is bad: ")
    return begun if begun != reason and not begun.startswith(_CONNECTING) else ""
