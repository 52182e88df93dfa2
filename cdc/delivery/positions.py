"""The publisher's record of a slot outside of PostgreSQL, in the compacted topic `cdc.positions`.

PostgreSQL does not report that a slot was dropped and re-created, or advanced by an operator: the rows in between are
never seen. So before the slot is moved, a record in Kafka says how far; a slot that stands further than the last such
record was moved by another program. The record also holds what the stream depends on (publication, table, settings
that decide the order), to detect changes made while no publisher was reading.

| part  | value                                                                                           |
|-------|-------------------------------------------------------------------------------------------------|
| key   | `{system_identifier}/{slot}`                                                                    |
| value | JSON: version, system_identifier, timeline, slot, confirmed (LSN as text), definition, settings, |
|       | position, guarantee, caught_up, cluster (Kafka's id)                                            |

`position` is the last event that a Kafka transaction has made visible, null before there was one: everything up to it
is in Kafka; with `caught_up`, nothing of the stream beyond it is. `guarantee` is that of the publisher which wrote the
record. An empty value forgets the slot.

Kafka does not report either that a topic was deleted and created again. So each topic that the stream is sent to has a
record too, which is written before the first event is:

| part  | value                                  |
|-------|----------------------------------------|
| key   | `{system_identifier}/{slot}/{topic}`   |
| value | JSON: version, topic_id, partitions    |
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, NamedTuple

import orjson

from cdc.lsn import LSN, EventPosition
from cdc.records.record import Record, Sendable, value_bytes
from cdc.replication import publication
from cdc.replication.settlement import Failure, delivered

VERSION: Final = 1
AT_LEAST_ONCE: Final = "at-least-once"
EXACTLY_ONCE: Final = "exactly-once"


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """One slot, how far it was moved, and what its stream depends on, in words and texts."""

    system_identifier: str
    timeline: int
    slot: str
    confirmed: LSN
    definition: Mapping[str, str]  # of publication and table
    settings: Mapping[str, str]  # that decide about topic, key and partition
    position: EventPosition | None = None
    guarantee: str = AT_LEAST_ONCE
    caught_up: bool = False
    cluster: str = ""  # the id of the Kafka cluster; empty where it is unknown

    @property
    def key(self) -> str:
        """The key of its records."""
        return f"{self.system_identifier}/{self.slot}"

    def encode(self) -> bytes:
        """The value of its record."""
        cluster = {"cluster": self.cluster} if self.cluster else {}
        return orjson.dumps(
            {
                "version": VERSION,
                "system_identifier": self.system_identifier,
                "timeline": self.timeline,
                "slot": self.slot,
                "confirmed": str(self.confirmed),
                "definition": dict(self.definition),
                "settings": dict(self.settings),
                "position": str(self.position) if self.position else None,
                "guarantee": self.guarantee,
                "caught_up": self.caught_up,
                **cluster,
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> "SlotRecord":
        """Read a record's value; fields that are not known are passed over. Raises ValueError."""
        try:
            read = orjson.loads(value)
            position = read.get("position")
            return cls(
                str(read["system_identifier"]),
                int(read["timeline"]),
                str(read["slot"]),
                LSN.parse(read["confirmed"]),
                dict(read["definition"]),
                dict(read["settings"]),
                EventPosition.parse(position) if position else None,
                str(read.get("guarantee", AT_LEAST_ONCE)),
                bool(read.get("caught_up", False)),
                str(read.get("cluster", "")),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a position record ({error!r})") from None


def latest(values: Iterable[bytes | None]) -> SlotRecord | None:
    """What the records of one key say together, in their order. Raises ValueError for one that cannot be read.

    The last one counts, but on one timeline its highest position does: a process that was frozen may have written
    its own late.
    """
    record: SlotRecord | None = None
    for value in values:
        read = SlotRecord.decode(value) if value else None
        if record and read and read.timeline == record.timeline:
            positions = [position for position in (record.position, read.position) if position]
            read = replace(read, confirmed=max(read.confirmed, record.confirmed), position=max(positions, default=None))
        record = read
    return record


class RememberedTopic(NamedTuple):
    """What distinguishes a topic from a later one of the same name, and its number of partitions."""

    topic_id: str
    partitions: int

    def encode(self) -> bytes:
        """The value of its record."""
        return orjson.dumps({"version": VERSION, "topic_id": self.topic_id, "partitions": self.partitions})

    @classmethod
    def decode(cls, value: bytes) -> "RememberedTopic":
        """Read a record's value; fields that are not known are passed over. Raises ValueError."""
        try:
            read = orjson.loads(value)
            return cls(str(read["topic_id"]), int(read["partitions"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a record of a topic ({error!r})") from None


class Memory(NamedTuple):
    """The remembered state of a slot, and of its topics by name.

    `forgotten`: there is no record of the slot because an operator removed it.
    """

    record: SlotRecord | None
    forgotten: bool
    topics: Mapping[str, RememberedTopic] = MappingProxyType({})


def memory(key: str, records: Iterable[tuple[bytes | None, bytes | None]]) -> Memory:
    """Return what records of the topic, with their keys, say of the slot of `key`. Raises ValueError as `latest`."""
    slot, prefix = key.encode(), f"{key}/".encode()
    values: list[bytes | None] = []
    topics: dict[str, RememberedTopic] = {}
    for name, value in records:
        if name == slot:
            values.append(value)
        elif name and name.startswith(prefix):
            topic = name.removeprefix(prefix).decode(errors="replace")
            if value:
                topics[topic] = RememberedTopic.decode(value)
            else:
                topics.pop(topic, None)
    return Memory(latest(values), forgotten=bool(values), topics=topics)


def topic_key(slot: str, topic: str) -> str:
    """The key of a topic's record; `slot` is that of the slot's record."""
    return f"{slot}/{topic}"


def differences(found: SlotRecord, remembered: SlotRecord) -> list[str]:
    """Return one sentence for each change since the slot was last moved."""
    changes = []
    # Another timeline has an LSN of its own for everything after the switch: nothing can be compared.
    if found.timeline == remembered.timeline and found.confirmed > remembered.confirmed:
        changes.append(
            f"replication slot {found.slot!r} stands at {found.confirmed}, but the publisher moved it only to"
            f" {remembered.confirmed}: it was advanced, or dropped and created again, and rows that were committed"
            " in between have not been published"
        )
    if found.cluster and remembered.cluster and found.cluster != remembered.cluster:
        changes.append(
            f"Kafka is another cluster, with the id {found.cluster!r}, and was {remembered.cluster!r}: it does not hold"
            " what was delivered to that one"
        )
    changes += publication.differences(found.definition, remembered.definition)
    now, before = found.settings, remembered.settings
    changes += [
        f"{name} is {now[name]!r}, and was {before[name]!r}" for name in now if before.get(name, now[name]) != now[name]
    ]
    return changes


def recreated(found: Mapping[str, RememberedTopic], remembered: Mapping[str, RememberedTopic]) -> dict[str, str]:
    """Return a sentence for each topic that was deleted and created again."""
    return {
        topic: f"topic {topic!r} was deleted and re-created: the events in it are lost"
        for topic, record in remembered.items()
        if topic in found and found[topic].topic_id != record.topic_id
    }


def reached(record: SlotRecord, timeline: int, ends: Mapping[int, LSN]) -> EventPosition | None:
    """The last position of a record that means the same on another timeline; `ends` says where earlier ones ended.

    What was committed behind the point where the timelines part is not what the new one has there.
    """
    if record.position is None or record.timeline == timeline:
        return record.position
    end = ends.get(record.timeline)
    return None if end is None else min(record.position, before(end))


def before(lsn: LSN) -> EventPosition:
    """The last position of all transactions that commit before an LSN."""
    return EventPosition(LSN(lsn - 1), sys.maxsize)


class Batch(NamedTuple):
    """How much a Kafka transaction may hold at the most, and for how long it may be open."""

    events: int
    size: int  # bytes of the values
    seconds: float


class Positions:
    """Reports to Kafka how far the slot is going to be moved, and knows how far Kafka has confirmed that.

    With `batch`, each record is the last of a Kafka transaction, and makes it end.
    """

    def __init__(
        self,
        topic: str,
        record: SlotRecord,
        failed: Callable[[Failure], None],
        seconds: float,
        batch: Batch | None = None,
    ) -> None:
        self.record = record  # as Kafka has it, but for the first record
        self._topic = topic
        self._failed = failed
        self._seconds = seconds  # between two records at the least
        self._batch = batch
        self._reported_at = float("-inf")
        self._reporting = False  # a record is on its way to Kafka
        self._fresh = True
        self._position = record.position  # of the last event that was handed on
        self._events = self._size = 0  # since the last record
        self._since: float | None = None  # when the first of them was seen here
        self._caught_up = record.caught_up

    @property
    def confirmed(self) -> LSN:
        """How far the slot may be moved."""
        return self.record.confirmed

    def hasten(self) -> None:
        """From now on report at once."""
        self._seconds = 0.0
        if self._batch:
            self._batch = self._batch._replace(seconds=0.0)

    def handed_on(self, position: EventPosition, records: list[Sendable]) -> None:
        """Count events that were handed to the producer, or that Kafka has; the last of them is at `position`."""
        if self._batch:
            self._position = position
            self._events += len(records)
            self._size += value_bytes(records)

    def caught_up(self) -> None:
        """Take note that nothing was sent before of what follows."""
        self._caught_up = self._batch is not None

    def report(self, confirmed: LSN, now: float, unix_time: float) -> Record | None:
        """Make the record to send, if one is due at `now` (monotonic seconds)."""
        if self._reporting or not (self._moved(confirmed, now) or self._full(now)):
            return None
        self._reporting, self._reported_at = True, now
        self._events, self._size, self._since = 0, 0, None
        record = replace(self.record, confirmed=confirmed, position=self._position, caught_up=self._caught_up)

        def reported(error: object, message: object) -> None:
            self._reporting = False
            if delivered(error, message):
                self.record, self._fresh = record, False
            else:
                self._failed(Failure(error, message, confirmed))

        return Record.to(self._topic, record.key.encode(), record.encode(), int(unix_time * 1000), [], reported)

    def due(self, confirmed: LSN) -> float:
        """Return when `report` will make a record, in monotonic seconds; infinity while nothing is to be reported."""
        dues = [float("inf")]
        if not self._reporting and self._unreported(confirmed):
            dues.append(self._reported_at + self._seconds)
        if not self._reporting and self._batch and self._since is not None:
            dues.append(self._since + self._batch.seconds)
        return min(dues)

    def _unreported(self, confirmed: LSN) -> bool:
        return self._fresh or confirmed > self.record.confirmed

    def _moved(self, confirmed: LSN, now: float) -> bool:
        return self._unreported(confirmed) and now - self._reported_at >= self._seconds

    def _full(self, now: float) -> bool:
        """Whether the Kafka transaction has to end."""
        if self._batch is None or not self._events:
            return False
        if self._since is None:
            self._since = now
        events, size, seconds = self._batch
        return self._events >= events or self._size >= size or now - self._since >= seconds
