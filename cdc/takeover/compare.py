"""Makes the publisher's records of the last events beside Debezium's, without sending them."""

import contextlib
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from confluent_kafka import Message

from cdc.app.outbox import outbox_of
from cdc.audit.in_flight import Copy
from cdc.audit.table import OutboxTable
from cdc.config.settings import Settings
from cdc.dead_letters.record_maker import RecordMaker
from cdc.errors import CdcError, PoisonEvent, PostgresError, Temporary
from cdc.kafka.event_topics import EventTopics, Offsets
from cdc.kafka.foreign import foreign_id, read_topic
from cdc.kafka.reading import Place
from cdc.lsn import LSN
from cdc.outbox.events import Outbox
from cdc.postgres import catalog
from cdc.postgres.connection import LONG_SECONDS, Conn, connect
from cdc.records.encoding import Encoding
from cdc.records.headers import headers_of
from cdc.replication.publication import child_oids
from cdc.replication.settlement import Ledger
from cdc.replication.transactions import Row
from cdc.takeover.differences import Compared, Difference, differences

_SECONDS: Final = 60.0
_PORTION: Final = 500
_LAST: Final = 100  # records of a partition are read at least


@dataclass
class Comparison:
    """The result: how many events were compared, and what differs."""

    events: int = 0
    without_row: int = 0
    keys: dict[bytes, bool] = field(default_factory=dict)  # whether each moves to another partition
    differences: list[Difference] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  # why events cannot be published
    note: str = ""

    @property
    def moved_keys(self) -> int:
        """How many keys move to another partition."""
        return sum(self.keys.values())


def compare(settings: Settings, rows: int) -> Comparison:
    """Compare the last `rows` records of Debezium, over all partitions. Raises CdcError."""
    theirs, ends = _theirs(settings, rows)
    with (
        connect(settings.postgres.dsn, statement_seconds=LONG_SECONDS) as connection,
        contextlib.closing(RecordMaker(settings, dry_run=True)) as maker,
    ):
        table = OutboxTable(connection, settings, None)
        outbox = outbox_of(settings, "00000000", table.keys)
        work = _Work(theirs, ends, outbox, maker, maker.encoding(outbox))
        ids = list(theirs)
        for begin in range(0, len(ids), _PORTION):
            for row_id, relation, data, _ in table.fetch(ids[begin : begin + _PORTION]):
                work.take(Row(Ledger().begin(LSN(1), 0), 0, relation, data), row_id)
        if work.missing:
            _from_slot(connection, settings, work)
    work.result.without_row = len(work.missing)
    return work.result


def unfit(settings: Settings) -> dict[str, str]:
    """Return the events that the slot holds and that cannot be published, and why. Raises CdcError."""
    with (
        connect(settings.postgres.dsn, statement_seconds=LONG_SECONDS) as connection,
        contextlib.closing(RecordMaker(settings, dry_run=True)) as maker,
    ):
        outbox = outbox_of(settings, "00000000", catalog.inspect(connection, settings).keys)
        work = _Work({}, {}, outbox, maker, maker.encoding(outbox))
        for row in _held(connection, settings):
            work.take(row)
    return work.result.failures


class _Work:
    """Records of Debezium by id, and what was found of them so far; `missing` have had no row."""

    def __init__(
        self, theirs: dict[str, Compared], ends: Offsets, outbox: Outbox, maker: RecordMaker, encoding: Encoding
    ) -> None:
        self._theirs = theirs
        self._ends = ends
        self._outbox = outbox
        self._maker = maker
        self._encoding = encoding
        self.result = Comparison()
        self.missing = set(theirs)

    def take(self, row: Row, row_id: str = "") -> None:
        """Make the record of a row, and compare it with Debezium's if there is one."""
        try:
            event = self._outbox.event(row)
            row_id = event.id
            record = self._maker.make(event.type, partial(self._encoding.record, event))
        except Temporary:
            raise
        except CdcError as error:
            row_id = row_id or (error.event_id if isinstance(error, PoisonEvent) else "")
            self.missing.discard(row_id)
            self.result.failures[row_id] = error.message
            return
        if row_id not in self.missing:
            return
        self.missing.remove(row_id)
        other = self._theirs[row_id]
        headers = {name: value.encode() if isinstance(value, str) else value for name, value in record.headers}
        ours = Compared(record.topic, -1, record.key, record.value, headers)
        partitions = len(self._ends[other.topic])
        found = list(differences(row_id, other, ours, event.payload, partitions))
        self.result.events += 1
        self.result.differences += found
        if record.key is not None:
            moves = any(one.kind == "partition" for one in found)
            self.result.keys[record.key] = self.result.keys.get(record.key, False) or moves


def _from_slot(connection: Conn, settings: Settings, work: _Work) -> None:
    """Compare events whose rows were deleted, as far as the slot still holds them."""
    try:
        for row in _held(connection, settings):
            work.take(row)
    except PostgresError as error:
        work.result.note = f"deleted rows were not looked for in the slot: {error.message}"


def _held(connection: Conn, settings: Settings) -> Iterator[Row]:
    children = child_oids(catalog.inspect(connection, settings).definition)
    with contextlib.closing(Copy(settings, children)) as copy:
        yield from copy.rows()


def _theirs(settings: Settings, rows: int) -> tuple[dict[str, Compared], Offsets]:
    """Return the last foreign records by id, and the ends of the topics."""
    topics = EventTopics(settings)
    ends, lows = topics.ends(), topics.lows()
    filled = sum(end > lows[topic][number] for topic, found in ends.items() for number, end in found.items())
    each = max(1, -(-rows // max(1, filled)))
    last = defaultdict[Place, deque[tuple[str, Compared]]](lambda: deque(maxlen=each))
    for topic, found in ends.items():
        # Its records may stand before some of the publisher's, after an undo.
        begin = {number: max(lows[topic][number], end - max(each, _LAST)) for number, end in found.items()}
        for messages in read_topic(settings, topic, begin, _SECONDS):
            _keep(last, messages)
    return {event_id: record for kept in last.values() for event_id, record in kept}, ends


def _keep(last: dict[Place, deque[tuple[str, Compared]]], messages: Sequence[Message]) -> None:
    for message in messages:
        headers = dict(headers_of(message))
        event_id = foreign_id(headers)
        if event_id is not None:
            topic, number = message.topic() or "", message.partition() or 0
            record = Compared(topic, number, message.key(), message.value(), headers)
            last[topic, number].append((event_id, record))
