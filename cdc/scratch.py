"""Errors of unnamed temporary SQLite databases, which hold data that may not fit in memory."""

import contextlib
import sqlite3
from collections.abc import Iterator

from cdc.errors import CdcError


def not_stored(what: str, error: sqlite3.Error) -> CdcError:
    """Convert an error of SQLite; `what` names the data."""
    return CdcError(f"{what} cannot be stored: {error}", hint="set TMPDIR to a folder that has room")


@contextlib.contextmanager
def storing(what: str) -> Iterator[None]:
    """Convert the errors of SQLite; `what` names the data."""
    try:
        yield
    except sqlite3.Error as error:
        raise not_stored(what, error) from None
