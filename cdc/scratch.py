"""Temporary SQLite databases that hold data too large for memory."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, Final

from cdc.errors import CdcError

_PRAGMAS: Final = "pragma journal_mode = off; pragma synchronous = off; pragma temp_store = file;"


class Scratch:
    """An unnamed temporary file, which uses the disk only when there is much in it; it is deleted when it is closed.

    `data`, a noun phrase, names the content in errors. Each call raises CdcError when there is no disk space. Threads
    may share it under their own lock.
    """

    def __init__(self, data: str, tables: str, *, cache_kilobytes: int = 16_384) -> None:
        self._data = data
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.executescript(f"{_PRAGMAS} pragma cache_size = -{cache_kilobytes}; {tables}")

    def close(self) -> None:
        """Delete the file. Closing it twice is allowed."""
        self._database.close()

    def run(self, statement: str, *values: object) -> int:
        """Execute a statement; return the number of rows that it changed."""
        with self._errors():
            return self._database.execute(statement, values).rowcount

    def many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Execute a statement for each of some rows."""
        with self._errors():
            self._database.executemany(statement, rows)

    def rows(self, query: str, *values: object) -> Iterator[Any]:
        """Yield the rows of a query, which is not run before the first is asked for."""
        with self._errors():
            for row in self._database.execute(query, values):  # noqa: UP028 - would close it after the database
                yield row

    def first(self, query: str, *values: object) -> Any:
        """Return the first row of a query; None when there is none."""
        with self._errors():
            return self._database.execute(query, values).fetchone()

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Run many statements as one transaction, which is faster. There is no rollback: what was added stays."""
        self.run("begin")
        try:
            yield
        finally:
            if self._database.in_transaction:  # an error may have ended it
                self.run("commit")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise CdcError(
                f"{self._data} cannot be stored: {error}", hint="set TMPDIR to a folder with more free space"
            ) from None
