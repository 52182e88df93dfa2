"""Merge `[postgres] password` into the connection string, escaped as libpq expects.

<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>
"""

import re
from urllib.parse import quote, unquote

from cdc.config.masking import LIBPQ_PAIR, URL_SCHEMES, unquoted

_OF_URL = (re.compile(r"\w+://[^:@/?]*:([^@/?]+)@"), re.compile(r"[?&]password=([^&]+)"))


def with_password(dsn: str, password: str) -> str:
    """Return the connection string with the password added. Raises ValueError if it contains a different password."""
    if "\0" in password:
        raise ValueError("a password cannot contain a NUL byte")
    present = _password(dsn)
    if present and present != password:
        raise ValueError("dsn and password contain different passwords: remove one of them")
    return dsn if present else dsn + _written(dsn, password)


def _written(dsn: str, password: str) -> str:
    if dsn.startswith(URL_SCHEMES):
        return f"{'&' if '?' in dsn else '?'}password={quote(password, safe='')}"
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    return f" password='{escaped}'"


def _password(dsn: str) -> str:
    """Return the password in the connection string, or an empty string."""
    if dsn.startswith(URL_SCHEMES):
        found = next(filter(None, (pattern.search(dsn) for pattern in _OF_URL)), None)
        return unquote(found[1]) if found else ""
    values = [value for name, value in LIBPQ_PAIR.findall(dsn) if name == "password"]
    return unquoted(values[-1]) if values else ""
