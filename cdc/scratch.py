"""What may be too much for memory is kept in a database without a name, which goes with its owner."""

import contextlib
import sqlite3
from collections.abc import Iterator

from cdc.errors import CdcError


def cannot_be_kept(what: str, error: sqlite3.Error) -> CdcError:
    """Why something was not kept, and what to do."""
    return CdcError(f"{what} cannot be kept: {error}", hint="set TMPDIR to a folder that has room")


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Let sqlite's errors out as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise cannot_be_kept(what, error) from None
