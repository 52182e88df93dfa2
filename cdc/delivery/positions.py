"""The publisher's record of a slot outside of PostgreSQL, in the compacted topic `cdc.positions`.

PostgreSQL does not report that a slot was dropped and re-created, or advanced by an operator: the rows in between are
never seen. So before the slot is moved, a record in Kafka says how far; a slot that stands further than the last such
record was moved by another program. The record also holds what the stream depends on (publication, table, settings
that decide the order), to detect changes made while no publisher was reading.

| part  | value                                                                                           |
|-------|-------------------------------------------------------------------------------------------------|
| key   | `{system_identifier}/{slot}`                                                                    |
| value | JSON: version, system_identifier, timeline, slot, confirmed (LSN as text), definition, settings, |
|       | position, guarantee, caught_up, cluster (Kafka's id), horizons, dropped, recovered, foreign,    |
|       | renumbered, relay, since                                                                        |

`foreign` is there while the slot has not passed the events that another program may have sent: see `ForeignWindow`.
`renumbered` is there until the slot has passed this LSN: events before it may have been sent with other numbers in
their transactions, as what counts in these was changed.
`relay` is there without a slot: the last epoch that a session took, and how far rows were sent at `position` (see
`cdc.polling.progress`). Then the key has the id of the relay in place of the system identifier. `since` has the offsets
by partition and topic at which the topics ended when the relay was made: nothing of it stands before them.
`position` is the last event that a Kafka transaction has made visible, null before there was one: everything up to it
is in Kafka; with `caught_up`, nothing of the stream beyond it is. `guarantee` is that of the publisher which wrote the
record. An empty value forgets the slot.

`outbox purge` has a record of what it deleted: see `cdc.delivery.purge_record`.

With `recovered` it says what the last recovery of the slot did. A recovery that has not ended has a record of its own:
see `cdc.delivery.recovery_record`.

`horizons` say which rows are known to be published, the newest last: each has xid (rows of all transactions below it
are), lsn, taken (unix seconds), timeline and, where statistics were read, updates and deletes (how many rows of the
table were changed before), counted (unix seconds: since when), tables (that have rows, as oid:filenode; only where they
are others than before) and number (the last one of the sequence); see `cdc.replication.horizon`. The first one is of
the slot's beginning, and others are added once the slot may move past them. `dropped` forgets the slot too, but keeps
the horizons, which the record of a new slot of the same name takes over.

Kafka does not report either that a topic was deleted and created again. So each topic that the stream is sent to has a
record too, which is written before the first event is:

| part  | value                                  |
|-------|----------------------------------------|
| key   | `{system_identifier}/{slot}/{topic}`   |
| value | JSON: version, topic_id, partitions    |
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from cdc.delivery.purge_record import NAME as PURGE
from cdc.delivery.purge_record import PurgeRecord
from cdc.delivery.recovery_record import NAME, RecoveryRecord
from cdc.lsn import LSN, EventPosition
from cdc.polling.progress import Progress
from cdc.replication import publication
from cdc.replication.horizon import Horizon, parsed, plain

VERSION: Final = 1
MESSAGES: Final = "[outbox] messages"
_FIRST: Final = {"[topics] map": "{}", "[record] key": "text", MESSAGES: ""}
"""What settings were that records of earlier versions do not have."""

AT_LEAST_ONCE: Final = "at-least-once"
EXACTLY_ONCE: Final = "exactly-once"


class ForeignWindow(NamedTuple):
    """The records that another program may have sent from the slot before the publisher took it over.

    They are of transactions that were committed before `until`, and stand at or behind `offsets`, which are those of
    partitions by topic; of a topic without offsets all records count. With `own`, records of a publisher count too:
    those of the relay that the slot follows.
    """

    until: LSN
    offsets: Mapping[str, Mapping[int, int]]
    own: bool = False

    def document(self) -> dict[str, object]:
        """The window as the record of a slot has it."""
        own: dict[str, object] = {"own": True} if self.own else {}
        return {"until": str(self.until), "offsets": plain_offsets(self.offsets), **own}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "ForeignWindow":
        """Read a window. Raises KeyError, TypeError, AttributeError and ValueError."""
        until, offsets = LSN.parse(document["until"]), parsed_offsets(document["offsets"])
        return cls(until, offsets, bool(document.get("own", False)))


class RelayMark(NamedTuple):
    """The last epoch that a session of a relay took, and how far it sent rows."""

    epoch: int
    progress: Progress | None = None

    def document(self) -> dict[str, object]:
        """The mark as the record of the relay has it."""
        return {"epoch": self.epoch, "progress": self.progress and self.progress.document()}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "RelayMark":
        """Read a mark. Raises KeyError, TypeError, AttributeError and ValueError."""
        progress = document["progress"]
        return cls(int(document["epoch"]), Progress.parse(progress) if progress else None)


def plain_offsets(offsets: Mapping[str, Mapping[int, int]]) -> dict[str, dict[str, int]]:
    """Return offsets, by topic and partition, as JSON has them."""
    return {topic: {str(number): at for number, at in ends.items()} for topic, ends in offsets.items()}


def parsed_offsets(document: Mapping[str, Any]) -> dict[str, dict[int, int]]:
    """Read such offsets. Raises TypeError, AttributeError and ValueError."""
    return {str(topic): {int(number): int(at) for number, at in given.items()} for topic, given in document.items()}


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
    horizons: tuple[Horizon, ...] = ()  # confirmed ones, or of the slot's beginning; the newest last
    dropped: bool = False
    recovered: Mapping[str, Any] | None = None  # what the last recovery of the slot did; publishers pass it on
    foreign: ForeignWindow | None = None
    renumbered: LSN | None = None
    relay: "RelayMark | None" = None
    since: Mapping[str, Mapping[int, int]] | None = None

    @property
    def key(self) -> str:
        """The key of its records."""
        return f"{self.system_identifier}/{self.slot}"

    def encode(self) -> bytes:
        """The value of its record."""
        rare: dict[str, object] = {"cluster": self.cluster} if self.cluster else {}
        rare |= {"horizons": plain(self.horizons)} if self.horizons else {}
        rare |= {"dropped": True} if self.dropped else {}
        rare |= {"recovered": dict(self.recovered)} if self.recovered else {}
        rare |= {"foreign": self.foreign.document()} if self.foreign else {}
        rare |= {"renumbered": str(self.renumbered)} if self.renumbered else {}
        rare |= {"relay": self.relay.document()} if self.relay else {}
        rare |= {"since": plain_offsets(self.since)} if self.since is not None else {}
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
                **rare,
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> "SlotRecord":
        """Read a record's value; fields that are not known are passed over. Raises ValueError."""
        try:
            read = orjson.loads(value)
            position, foreign, renumbered = (read.get(name) for name in ("position", "foreign", "renumbered"))
            relay, since = read.get("relay"), read.get("since")
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
                parsed(read.get("horizons", ())),
                bool(read.get("dropped", False)),
                dict(read["recovered"]) if read.get("recovered") else None,
                ForeignWindow.parse(foreign) if foreign else None,
                LSN.parse(renumbered) if renumbered else None,
                RelayMark.parse(relay) if relay else None,
                None if since is None else parsed_offsets(since),
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
        if record and read and read.timeline == record.timeline and not (record.dropped or read.dropped):
            positions = [position for position in (record.position, read.position) if position]
            read = replace(read, confirmed=max(read.confirmed, record.confirmed), position=max(positions, default=None))
            if record.relay and read.relay and record.relay.epoch > read.relay.epoch:
                read = replace(read, relay=record.relay)
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

    `forgotten`: there is no record of the slot because an operator removed it. `horizons` outlive that where the slot
    was dropped.
    """

    record: SlotRecord | None
    forgotten: bool
    topics: Mapping[str, RememberedTopic] = MappingProxyType({})
    horizons: tuple[Horizon, ...] = ()
    recovery: RecoveryRecord | None = None  # that has begun and not ended
    purge: PurgeRecord = PurgeRecord()


def memory(key: str, records: Iterable[tuple[bytes | None, bytes | None]]) -> Memory:
    """Return what records of the topic, with their keys, say of the slot of `key`. Raises ValueError as `latest`."""
    slot, prefix = key.encode(), f"{key}/".encode()
    values: list[bytes | None] = []
    topics: dict[str, RememberedTopic] = {}
    recovery: RecoveryRecord | None = None
    purge: PurgeRecord | None = None
    for name, value in records:
        if name == slot:
            values.append(value)
        elif name and name.startswith(prefix):
            topic = name.removeprefix(prefix).decode(errors="replace")
            if topic == NAME:
                recovery = RecoveryRecord.decode(value) if value else None
            elif topic == PURGE:
                purge = PurgeRecord.decode(value) if value else None
            if (topic == NAME and recovery) or (topic == PURGE and purge):
                topics.pop(topic, None)
            elif value:
                topics[topic] = RememberedTopic.decode(value)
            else:
                topics.pop(topic, None)
    last = latest(values)
    horizons = last.horizons if last else ()
    return Memory(
        last if last and not last.dropped else None, bool(values), topics, horizons, recovery, purge or PurgeRecord()
    )


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
    now, before = found.settings, remembered.settings and {**_FIRST, **remembered.settings}
    changes += [
        f"{name} is {now[name]!r}, and was {before[name]!r}" for name in now if before.get(name, now[name]) != now[name]
    ]
    return changes


def counts_otherwise(found: SlotRecord, remembered: SlotRecord) -> bool:
    """Return whether events may have other numbers in their transactions than when the record was written."""
    if not (remembered.settings or remembered.definition):
        return False  # of a slot that was only created, nothing was sent
    now, before = (record.settings.get(MESSAGES, "") for record in (found, remembered))
    return now != before or publication.counted(found.definition) != publication.counted(remembered.definition)


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
