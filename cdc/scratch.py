"""Errors of the temporary SQLite databases that hold data too large for memory."""

import contextlib
import sqlite3
from collections.abc import Iterator

from cdc.errors import CdcError


def storage_error(data: str, error: sqlite3.Error) -> CdcError:
    """Return the error that reports that `data`, a noun phrase, could not be stored."""
    return CdcError(f"{data} cannot be stored: {error}", hint="set TMPDIR to a folder with more free space")


@contextlib.contextmanager
def storage_errors(data: str) -> Iterator[None]:
    """Raise CdcError in place of errors of SQLite."""
    try:
        yield
    except sqlite3.Error as error:
        raise storage_error(data, error) from None
