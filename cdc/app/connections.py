"""Opens the connections of a session: replication, producer, sentinel, and the record of the slot in Kafka."""

import contextlib
import json
import time
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from cdc.app.outbox import outbox_of
from cdc.config.settings import Settings
from cdc.delivery.ports import Ends
from cdc.delivery.positions import AT_LEAST_ONCE, MESSAGES, Memory, RememberedTopic, SlotRecord
from cdc.delivery.slot_memory import claim
from cdc.errors import CdcError, SlotActive, SlotLost, Temporary
from cdc.kafka import positions
from cdc.kafka.cluster import DEAD_LETTERS_CONFIG, Cluster
from cdc.kafka.foreign import ForeignRecords
from cdc.kafka.producer import Sink
from cdc.kafka.readback.tails import Tails
from cdc.kafka.remembered_topics import RememberedTopics, existing
from cdc.kafka.topics import KnownTopics
from cdc.kafka.transactional_producer import TransactionalSink, hand_over
from cdc.outbox.keys import Keys
from cdc.postgres import catalog, key_column, slots
from cdc.postgres.connection import connect
from cdc.postgres.sentinel import Sentinel
from cdc.postgres.source import Source
from cdc.records.dead_letters import DeadLetters
from cdc.records.headers import stream_id
from cdc.replication.settlement import Failure

_REACH_SECONDS = 5.0
_PIDS = 100
_SILENT_SECONDS = 60.0  # a publisher replies at least every ten seconds


class Clock:
    """The clock of the machine."""

    monotonic = staticmethod(time.monotonic)
    unix = staticmethod(time.time)
    sleep = staticmethod(time.sleep)


def ordering(settings: Settings, keys: Keys, key_type: int) -> Mapping[str, str]:
    """Return the settings that determine the topic, the partition and the key of events."""
    columns = settings.outbox.columns
    return {
        "[topics] name": settings.topics.name,
        "[topics] map": json.dumps(settings.topics.map, sort_keys=True, ensure_ascii=False),
        "[outbox] columns.key": columns.key,
        **key_column.ordering(settings, keys, key_type),
        "[outbox] columns.aggregate": columns.aggregate,
        MESSAGES: settings.outbox.messages or "",
        "[kafka] partitioner": str(settings.kafka.get("partitioner", "murmur2_random")),
    }


class Servers:
    """Opens sessions between the servers of the settings.

    The poison events at the positions `skipped` become dead letters, also if the settings say `stop`.
    """

    def __init__(self, settings: Settings, skipped: Collection[str] = ()) -> None:
        self._settings = settings
        self._buries = settings.delivery.on_poison == "dead-letter"
        self._skipped = skipped
        self._topics = KnownTopics(settings)
        self._remembers = False  # the topic of positions exists, as far as is known
        self._cluster = ""  # its id, as of then
        self._claimed = ""  # the key of the slot that was claimed last
        self._remembered: dict[str, RememberedTopic] = {}
        self._pids: deque[int] = deque(maxlen=_PIDS)  # of the walsenders of earlier sessions

    def open(self, stack: contextlib.ExitStack, *, text: bool) -> Ends:
        """Open one session; see `cdc.delivery.ports.Servers`."""
        settings = self._settings
        if not self._remembers:
            Cluster(settings.kafka).reach(_REACH_SECONDS)
        with connect(settings.postgres.dsn, application_name="cdc-publisher preflight") as connection:
            try:
                found = catalog.inspect(connection, settings)
            except SlotLost:
                with contextlib.suppress(Temporary):
                    self._check_recovery(f"{slots.system_identifier(connection)}/{settings.postgres.slot}")
                raise
            binary = found.binary and not text
            source = stack.enter_context(contextlib.closing(Source(settings.postgres.dsn)))
            system_identifier, timeline = source.identify()
            timelines = source.timelines(timeline)
            if not self._remembers:
                self._prepare()
            mark = SlotRecord(
                system_identifier,
                timeline,
                settings.postgres.slot,
                found.confirmed,
                found.definition,
                ordering(settings, found.keys, found.key_type),
                cluster=self._cluster,
            )
            known = self._check_recovery(mark.key)
            if not found.used and self._claimed != mark.key:
                self._claim(mark, known)
            try:
                source.start(
                    settings.postgres.slot,
                    settings.postgres.publication,
                    binary=binary,
                    messages=settings.outbox.messages is not None,
                )
            except SlotActive as active:
                held = self._held(slots.holder(connection, settings.postgres.slot))
                raise SlotActive(active.message, held=held) from None
            self._pids.append(source.pid)
            ours = catalog.slot(connection, settings)  # it may have been re-created before it was acquired
            mark = replace(mark, confirmed=ours.confirmed or mark.confirmed)
            wal_end = slots.wal_end(connection)
        stream = stream_id(system_identifier, timeline, settings.postgres.slot)
        outbox = outbox_of(settings, stream, found.keys, suited_at=found.wal_end)
        self._topics.renew()
        topics = RememberedTopics(settings, self._topics, mark.key, self._remembered)
        stack.callback(topics.close)
        sink = stack.enter_context(contextlib.closing(self._sink(mark.key)))
        tails = stack.enter_context(
            contextlib.closing(
                Tails(
                    settings,
                    outbox.stream,
                    mark.confirmed,
                    sequences=settings.delivery.sequence,
                    known=lambda: list(self._remembered),
                    commit_times=settings.record.time_column is None,
                )
            )
        )
        sentinel = Sentinel(settings.postgres.dsn, settings, found.definition, found.wal_end)
        stack.callback(sentinel.stop)
        return Ends(
            source=source,
            sink=sink,
            sentinel=sentinel,
            topics=topics,
            outbox=outbox,
            dead_letters=(
                DeadLetters(settings.topics.dead_letter, outbox, None if self._buries else self._skipped)
                if self._buries or self._skipped
                else None
            ),
            slot=mark,
            remembered=lambda: positions.remembered(settings, mark.key),
            hand_over=lambda mark: hand_over(settings, mark),
            tails=tails,
            wal_end=wal_end,
            used=found.used,
            timelines=timelines,
            failed=self._failed,
            wal_sender_timeout=found.wal_sender_timeout,
            binary=binary,
            identities=partial(existing, settings),
            trust=self._trust,
            foreign=lambda window: stack.enter_context(contextlib.closing(ForeignRecords(settings, window))),
        )

    def taken(self) -> bool:
        """Return whether another process reads the slot, as PostgreSQL says. Raises CdcError."""
        settings = self._settings
        with connect(settings.postgres.dsn, application_name="cdc-publisher standby") as connection:
            return slots.holder(connection, settings.postgres.slot) is not None

    def _prepare(self) -> None:
        """Create the publisher's own topics that are missing, and learn the cluster's id."""
        settings = self._settings
        positions.ensure(settings)
        cluster = Cluster(settings.kafka)
        if self._buries or self._skipped:
            cluster.ensure_topic(settings.topics, settings.topics.dead_letter, DEAD_LETTERS_CONFIG)
        self._cluster = cluster.cluster_id()
        self._remembers = True

    def _check_recovery(self, key: str) -> Memory:
        """Return what Kafka has of the slot.

        Raises RecoveryUnfinished while events that precede the stream may not be sent yet.

        The record is written before the new slot is created, so it is seen by all that see the slot.
        """
        memory = positions.remembered(self._settings, key)
        if memory.recovery:
            raise memory.recovery.unfinished()
        return memory

    def _claim(self, mark: SlotRecord, known: Memory) -> None:
        """Write the slot's record before the slot is read for the first time."""
        if claimed := claim(mark, known, self._settings.delivery.guarantee):
            positions.write(self._settings, mark.key, claimed.encode())
        self._claimed = mark.key

    def _trust(self, topics: Mapping[str, RememberedTopic]) -> None:
        self._remembered.clear()
        self._remembered.update(topics)
        for topic, record in topics.items():
            self._topics.remember(topic, *record)

    def _held(self, holder: tuple[int, float | None] | None) -> str:
        """Return why the reader of the slot is no running publisher; empty when it may be one."""
        pid, silent_seconds = holder or (0, None)
        if pid in self._pids:
            return f"process {pid} of PostgreSQL still holds the slot for a closed connection of this publisher"
        if silent_seconds is not None and silent_seconds > _SILENT_SECONDS:
            return (
                f"process {pid} of PostgreSQL holds the slot, and its reader has not replied for {silent_seconds:.0f} s"
            )
        return ""

    def _failed(self, failure: Failure) -> CdcError:
        message: Any = failure.message
        if message.topic() == self._settings.topics.positions:
            self._remembers = False  # it may have been deleted
        return self._topics.failed(failure)

    def _sink(self, key: str) -> Sink | TransactionalSink:
        if self._settings.delivery.guarantee == AT_LEAST_ONCE:
            return Sink(self._settings, self._topics)
        return TransactionalSink(self._settings, self._topics, key)
