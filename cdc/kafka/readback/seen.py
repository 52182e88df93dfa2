"""Stores the positions of the publisher's stream that were seen in each topic, with ids and keys.

They are in an unnamed temporary file, which uses the disk only when there are many; it is deleted with this object.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cdc.errors import CdcError

if TYPE_CHECKING:
    from cdc.scratch import Scratch


class Sighting(NamedTuple):
    """One record of the stream."""

    topic: int  # its number
    commit_lsn: int
    number: int  # within the transaction
    partition: int
    event_id: bytes
    key: bytes | None
    offset: int


_TABLES: Final = """
create table seen (topic int, commit_lsn int, number int, partition int, id blob, key int, place int,
  differs int default 0, primary key (topic, commit_lsn, number, partition)) without rowid;
create table overtaken (topic int, commit_lsn int, number int, partition int,
  primary key (topic, commit_lsn, number, partition)) without rowid;
create table repeated (topic int, key int, primary key (topic, key)) without rowid;
"""
_IDS: Final = "create index ids on seen (topic, id, partition, place);"
_INSERT: Final = """
insert into seen (topic, commit_lsn, number, partition, id, key, place) values (?, ?, ?, ?, ?, ?, ?)
on conflict (topic, commit_lsn, number, partition) do update
  set differs = differs or id <> excluded.id, place = max(place, excluded.place)
"""
_OVERTAKEN: Final = """
insert or ignore into overtaken select topic, commit_lsn, number, partition from (
  select *, max(place) over (partition by partition, key order by commit_lsn, number
    rows between unbounded preceding and 1 preceding) as older
  from seen where topic = ? and key is not null)
where place < older
"""
_ANYWHERE: Final = "select id from seen where topic = ? and commit_lsn = ? and number = ?"
_HERE: Final = f"{_ANYWHERE} and partition = ?"
_INDEXES: Final = "select number from seen where topic = ? and commit_lsn = ? and id = ?"
_LAST: Final = "select max(place) from seen indexed by ids where topic = ? and id = ?"
_ELSEWHERE: Final = f"{_ANYWHERE} and partition <> ?"
_IS_OVERTAKEN: Final = "select 1 from overtaken where topic = ? and commit_lsn = ? and number = ? and partition = ?"


class SeenPositions:
    """Each position of a partition once, with the id that was seen first and the highest offset.

    `by_id`: records are looked up by their ids. With a `lock` any thread may use it. Raises CdcError when there is no
    disk space, and is empty from then on.
    """

    def __init__(self, lock: AbstractContextManager[object] | None = None, *, by_id: bool = False) -> None:
        self._tables = _TABLES + (_IDS if by_id else "")
        self._lock = lock or nullcontext()
        self._repeats = False
        self._numbers = itertools.count()
        self._notes: Scratch | None = None
        self._forgotten = False

    def number(self) -> int:
        """Return a number for one more topic."""
        return next(self._numbers)

    def forget(self) -> None:
        """Drop all positions, and those to come."""
        with self._lock:
            self._close()

    def add(self, rows: Sequence[Sighting]) -> None:
        """Store positions."""
        self._write(_INSERT, [(*row[:5], _hash(row.key), row.offset) for row in rows])

    def compare(self, topic: int) -> None:
        """Find out which records of a topic are overtaken: an older event of their key comes behind them."""
        self._write(_OVERTAKEN, [(topic,)])

    def overtaken(self, topic: int, partition: int, commit_lsn: int, index: int) -> bool:
        """Return whether an older event of the key comes behind that of a position, as `compare` found out."""
        return self._first(_IS_OVERTAKEN, (topic, commit_lsn, index, partition)) is not None

    def repeat(self, topic: int, key: bytes) -> None:
        """Note that an event of a key is sent again, behind what the topic holds."""
        self._repeats = True
        self._write("insert or ignore into repeated (topic, key) values (?, ?)", [(topic, hash(key))])

    def repeated(self, topic: int, key: bytes) -> bool:
        """Return whether an event of a key was sent again."""
        query = "select 1 from repeated where topic = ? and key = ?"
        return self._repeats and self._first(query, (topic, hash(key))) is not None

    def id_at(self, topic: int, partition: int | None, commit_lsn: int, index: int) -> str | None:
        """Return the id of a position in a partition, or in any; None when it was not seen."""
        if partition is None:
            found = self._first(_ANYWHERE, (topic, commit_lsn, index))
        else:
            found = self._first(_HERE, (topic, commit_lsn, index, partition))
        return None if found is None else found.decode(errors="replace")

    def indexes(self, topic: int, partition: int | None, commit_lsn: int, event_id: str) -> list[int]:
        """Return the indexes at which an id was seen in a transaction, ascending, in a partition or in any."""
        values: tuple[Any, ...] = (topic, commit_lsn, event_id.encode())
        if partition is None:
            return self._all(f"{_INDEXES} order by number", values)
        return self._all(f"{_INDEXES} and partition = ? order by number", (*values, partition))

    def last(self, topic: int, partition: int | None, event_id: str) -> int | None:
        """Return the highest offset at which an id was seen, in a partition or in any."""
        values: tuple[Any, ...] = (topic, event_id.encode())
        if partition is None:
            found = self._first(_LAST, values)
        else:
            found = self._first(f"{_LAST} and partition = ?", (*values, partition))
        return None if found is None else int(found)

    def count(self, topic: int) -> int:
        """Return how many ids were seen in a topic."""
        return int(self._first("select count(distinct id) from seen where topic = ?", (topic,)) or 0)

    def elsewhere(self, topic: int, partition: int, commit_lsn: int, index: int) -> bool:
        """Return whether a position was seen in another partition than this."""
        return self._first(_ELSEWHERE, (topic, commit_lsn, index, partition)) is not None

    def differing(self, topic: int) -> int:
        """Return how many positions have more than one id in the same partition."""
        return self._first("select count(*) from seen where differs and topic = ?", (topic,)) or 0

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._lock:
            if rows and not self._forgotten:
                with self._closing_on_errors():
                    notes = self._opened()
                    with notes.filling():
                        notes.many(statement, rows)

    def _first(self, query: str, values: tuple[Any, ...]) -> Any:
        return next(iter(self._all(f"{query} limit 1", values)), None)

    def _all(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        with self._lock:
            if self._notes is None:
                return []
            with self._closing_on_errors():
                return [value for (value,) in self._notes.rows(query, *values)]

    def _opened(self) -> "Scratch":
        from cdc.scratch import Scratch  # SQLite takes 1.5 MB, and most sessions find nothing in the topics

        self._notes = self._notes or Scratch("the content of the topics", self._tables)
        return self._notes

    @contextmanager
    def _closing_on_errors(self) -> Iterator[None]:
        try:
            yield
        except CdcError:
            self._close()
            raise

    def _close(self) -> None:
        self._forgotten = True
        if self._notes:
            self._notes.close()
            self._notes = None


def _hash(key: bytes | None) -> int | None:
    """Return 64 bits for a key: two keys that share them are sent again together, which does no harm."""
    return None if key is None else hash(key)
