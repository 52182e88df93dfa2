"""Makes the publisher's records of the last events beside Debezium's, without sending them."""

import contextlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from confluent_kafka import Message

from cdc.audit.table import OutboxTable
from cdc.config.settings import Settings
from cdc.dead_letters.record_maker import RecordMaker
from cdc.errors import CdcError, PoisonEvent
from cdc.kafka.client import reader
from cdc.kafka.foreign import foreign_id
from cdc.kafka.reading import Place, read
from cdc.lsn import LSN
from cdc.outbox.events import Outbox
from cdc.outbox.topic_template import TopicTemplate
from cdc.postgres.connection import LONG_SECONDS, connect
from cdc.records.headers import headers_of
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row
from cdc.takeover.differences import Compared, Difference, differences
from cdc.takeover.topics import EventTopics

_SECONDS: Final = 60.0
_PORTION: Final = 500


@dataclass
class Comparison:
    """The result: how many events were compared, and what differs."""

    events: int = 0
    without_row: int = 0
    keys: int = 0
    moved_keys: int = 0
    differences: list[Difference] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # events that cannot be published, and why


def compare(settings: Settings, rows: int) -> Comparison:
    """Compare the last `rows` records of Debezium, over all partitions. Raises CdcError."""
    theirs, partitions = _theirs(settings, rows)
    result = Comparison()
    keys: dict[bytes, bool] = {}
    template = TopicTemplate(settings.topics.name)
    outbox = Outbox(
        "00000000",
        settings.outbox.parts,
        template,
        settings.outbox.header_columns,
        tombstones=settings.outbox.tombstones,
        iso=settings.outbox.header_format == "iso",
    )
    with (
        connect(settings.postgres.dsn, statement_seconds=LONG_SECONDS) as connection,
        contextlib.closing(RecordMaker(settings, dry_run=True)) as maker,
    ):
        table, encoding = OutboxTable(connection, settings, None), maker.encoding(outbox)
        ids = list(theirs)
        for begin in range(0, len(ids), _PORTION):
            portion = ids[begin : begin + _PORTION]
            fetched = list(table.fetch(portion))
            result.without_row += len(portion) - len(fetched)
            for row_id, relation, data, _ in fetched:
                try:
                    event = outbox.event(Row(Ledger().begin(LSN(1), 0), 0, relation, data))
                    record = maker.make(event.type, partial(encoding.record, event))
                except (PoisonEvent, CdcError) as error:
                    result.failures.append(f"{row_id}: {error.message}")
                    continue
                headers = {name: value.encode() if isinstance(value, str) else value for name, value in record.headers}
                ours = Compared(record.topic, 0, record.key, record.value, headers)
                other = theirs[row_id]
                found = list(differences(row_id, other, ours, event.payload, partitions[other.topic]))
                result.events += 1
                result.differences += found
                if record.key is not None:
                    moves = any(one.kind == "partition" for one in found)
                    keys[record.key] = keys.get(record.key, False) or moves
    result.keys, result.moved_keys = len(keys), sum(keys.values())
    return result


def _theirs(settings: Settings, rows: int) -> tuple[dict[str, Compared], Mapping[str, int]]:
    """Return the last foreign records by id, and the number of partitions of each topic."""
    topics = EventTopics(settings)
    ends, lows = topics.ends(), topics.since(None)
    places: dict[Place, int] = {
        (topic, number): end
        for topic, found in ends.items()
        for number, end in found.items()
        if end > lows[topic][number]
    }
    each = max(1, -(-rows // max(1, len(places))))
    begin = {place: max(lows[place[0]][place[1]], end - each) for place, end in places.items()}
    last: dict[Place, deque[tuple[str, Compared]]] = {place: deque(maxlen=each) for place in places}
    consumer = reader(settings.kafka, "cdc-publisher-takeover", fetch_wait_max_ms=50)
    with contextlib.closing(consumer):
        for messages in read(consumer, begin, places, _SECONDS):
            for message in messages:
                _keep(last, message)
    latest = {event_id: record for kept in last.values() for event_id, record in kept}
    return latest, {topic: len(partitions) for topic, partitions in ends.items()}


def _keep(last: dict[Place, deque[tuple[str, Compared]]], message: Message) -> None:
    headers = dict(headers_of(message))
    event_id = foreign_id(headers)
    if event_id is None:
        return
    topic, number = message.topic() or "", message.partition() or 0
    record = Compared(topic, number, message.key(), message.value(), headers)
    last[topic, number].append((event_id, record))
