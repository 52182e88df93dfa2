"""Proves a take-over: each event that the slot held has exactly one record, from either program, in order per key."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from cdc.errors import PoisonEvent
from cdc.outbox.events import Outbox
from cdc.replication.transactions import Row
from cdc.scratch import Scratch

_TABLES: Final = """
create table events (place integer primary key, id text, topic text, key blob);
create index by_id on events (id);
create table records (topic text, number int, place int, id text, key blob);
create index records_by_id on records (id);
"""
_BAD: Final = {
    "lost": """
        select id from events e where not exists (select 1 from records r where r.id = e.id and r.topic = e.topic)
        """,
    "duplicate": "select id from records where id in (select id from events) group by id having count(*) > 1",
    "other key": """
        select e.id from events e join records r on r.id = e.id where e.key is not r.key
        """,
    "out of order": """
        select id from (
          select e.id, e.place, max(e.place) over (
            partition by r.topic, r.number, e.key order by r.place rows between unbounded preceding and 1 preceding
          ) as before
          from records r join events e on e.id = r.id where e.key is not null
        ) where place < before
        """,
    "two partitions": """
        select min(e.id) from records r join events e on e.id = r.id where e.key is not null
        group by r.topic, e.key having count(distinct r.number) > 1
        """,
}


class Found(NamedTuple):
    """One record of a topic."""

    topic: str
    partition: int
    offset: int
    event_id: str
    key: bytes | None


class Proof:
    """Compares the events that a copy of the slot had with the records of the topics; in a file, so memory is flat."""

    def __init__(self) -> None:
        self._notes = Scratch("the events of the take-over", _TABLES)
        self.first_commit: int | None = None  # milliseconds since 1970
        self.events = 0
        self.poison = 0

    def close(self) -> None:
        """Delete the file."""
        self._notes.close()

    def expect(self, rows: Iterable[Row], outbox: Outbox) -> None:
        """Take the events that the slot holds, in the order of their commits; those that cannot be sent are counted."""
        with self._notes.filling():
            for row in rows:
                if self.first_commit is None:
                    self.first_commit = row.transaction.timestamp
                try:
                    event = outbox.event(row)
                except PoisonEvent:
                    self.poison += 1
                    continue
                self.events += 1
                values = (self.events, event.id, event.topic, event.key)
                self._notes.run("insert into events values (?, ?, ?, ?)", *values)

    def topics(self) -> list[str]:
        """Return the topics of the expected events."""
        return [name for (name,) in self._notes.rows("select distinct topic from events order by 1")]

    def found(self, records: Iterable[Found]) -> None:
        """Take records of the topics."""
        with self._notes.filling():
            self._notes.many("insert into records values (?, ?, ?, ?, ?)", records)

    def findings(self, *, any_key: bool, any_ids: bool = False) -> Mapping[str, list[str]]:
        """Return the ids of events by what is wrong with them.

        With `any_key` keys may have moved; with `any_ids` several events may have one id, which then only proves loss.
        """
        queries = {"lost": _BAD["lost"]} if any_ids else dict(_BAD)
        if any_key and not any_ids:
            del queries["other key"], queries["two partitions"], queries["out of order"]
        found = {name: [each for (each,) in self._notes.rows(query)] for name, query in queries.items()}
        return {name: ids for name, ids in found.items() if ids}
