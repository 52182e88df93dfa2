"""Stores the positions of the publisher's stream that were seen in each topic, with their ids.

They are in an unnamed temporary file, which uses the disk only when there are many; it is deleted with this object.
"""

import sqlite3
import threading
from collections.abc import Sequence
from typing import Any, Final

from cdc.errors import CdcError
from cdc.scratch import storage_error

Sighting = tuple[int, int, int, int, bytes]
"""Number of the topic, commit LSN, index, partition, id."""

_TABLES: Final = """
pragma journal_mode = off; pragma synchronous = off; pragma cache_size = -16384;
create table seen (topic int, commit_lsn int, number int, partition int, id blob, differs int default 0,
  primary key (topic, commit_lsn, number, partition)) without rowid;
"""
_INSERT: Final = """
insert into seen (topic, commit_lsn, number, partition, id) values (?, ?, ?, ?, ?)
on conflict (topic, commit_lsn, number, partition) do update set differs = 1 where id <> excluded.id
"""
_ANYWHERE: Final = "select id from seen where topic = ? and commit_lsn = ? and number = ?"
_HERE: Final = f"{_ANYWHERE} and partition = ?"
_ELSEWHERE: Final = f"{_ANYWHERE} and partition <> ?"


class Seen:
    """Each position of a partition once, with the id that was seen first. Any thread may use it.

    Raises CdcError when there is no disk space, and is empty from then on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.executescript(_TABLES)

    def forget(self) -> None:
        """Drop all positions, and those to come."""
        with self._lock:
            self._close()

    def add(self, rows: Sequence[Sighting]) -> None:
        """Store positions."""
        with self._lock:
            if self._database and rows:
                try:
                    self._database.execute("begin")
                    self._database.executemany(_INSERT, rows)
                    self._database.execute("commit")
                except sqlite3.Error as error:
                    raise self._failed(error) from None

    def id_at(self, topic: int, partition: int | None, commit_lsn: int, index: int) -> str | None:
        """Return the id of a position in a partition, or in any; None when it was not seen."""
        if partition is None:
            found = self._first(_ANYWHERE, (topic, commit_lsn, index))
        else:
            found = self._first(_HERE, (topic, commit_lsn, index, partition))
        return None if found is None else found.decode(errors="replace")

    def elsewhere(self, topic: int, partition: int, commit_lsn: int, index: int) -> bool:
        """Return whether a position was seen in another partition than this."""
        return self._first(_ELSEWHERE, (topic, commit_lsn, index, partition)) is not None

    def differing(self, topic: int) -> int:
        """Return how many positions have more than one id in the same partition."""
        return self._first("select count(*) from seen where differs and topic = ?", (topic,)) or 0

    def _first(self, query: str, values: tuple[int, ...]) -> Any:
        with self._lock:
            if self._database is None:
                return None
            try:
                row = self._database.execute(query, values).fetchone()
            except sqlite3.Error as error:
                raise self._failed(error) from None
        return row[0] if row else None

    def _failed(self, error: sqlite3.Error) -> CdcError:
        self._close()
        return storage_error("the content of the topics", error)

    def _close(self) -> None:
        if self._database:
            self._database.close()
            self._database = None
