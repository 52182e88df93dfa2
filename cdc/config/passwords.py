"""A password of PostgreSQL that stands apart from the connection string: it becomes a part of it, as libpq reads it.

<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>
"""

import re
from urllib.parse import quote, unquote

from cdc.config.masking import LIBPQ_PAIR, URL_SCHEMES, unquoted

_OF_URL = (re.compile(r"\w+://[^:@/?]*:([^@/?]+)@"), re.compile(r"[?&]password=([^&]+)"))


def with_password(dsn: str, password: str) -> str:
    """The connection string with the password in it. Raises ValueError when it holds another one already."""
    if "\0" in password:
        raise ValueError("no password holds a NUL")
    present = _password(dsn)
    if present and present != password:
        raise ValueError("dsn and password both give a password: leave one of them out")
    return dsn if present else dsn + _written(dsn, password)


def _written(dsn: str, password: str) -> str:
    if dsn.startswith(URL_SCHEMES):
        return f"{'&' if '?' in dsn else '?'}password={quote(password, safe='')}"
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    return f" password='{escaped}'"


def _password(dsn: str) -> str:
    """What it is, or empty."""
    if dsn.startswith(URL_SCHEMES):
        found = next(filter(None, (pattern.search(dsn) for pattern in _OF_URL)), None)
        return unquote(found[1]) if found else ""
    values = [value for name, value in LIBPQ_PAIR.findall(dsn) if name == "password"]
    return unquoted(values[-1]) if values else ""
