"""Opens the connections of a session: replication, producer, sentinel, and the record of the slot in Kafka."""

import contextlib
import json
import time
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cdc.app.outbox import outbox_of
from cdc.app.reaching import Reached, reach
from cdc.background import Task
from cdc.config.settings import Settings
from cdc.delivery.ports import Ends
from cdc.delivery.positions import AT_LEAST_ONCE, MESSAGES, ForeignWindow, Memory, RememberedTopic, SlotRecord
from cdc.delivery.slot_memory import claim
from cdc.errors import CdcError, SlotActive, SlotLost, Temporary
from cdc.kafka import positions
from cdc.kafka.cluster import DEAD_LETTERS_CONFIG
from cdc.kafka.producer import Sink
from cdc.kafka.readback.tails import Tails
from cdc.kafka.remembered_topics import RememberedTopics, existing
from cdc.kafka.topics import KnownTopics
from cdc.outbox.events import Outbox
from cdc.outbox.keys import Keys
from cdc.postgres import catalog, key_column, slots
from cdc.postgres.connection import connect
from cdc.postgres.sentinel import Sentinel
from cdc.postgres.source import Source
from cdc.records.dead_letters import DeadLetters
from cdc.records.headers import stream_id
from cdc.replication.settlement import Failure

if TYPE_CHECKING:
    from cdc.kafka.foreign import ForeignRecords
    from cdc.kafka.transactional_producer import TransactionalSink

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

    The poison events at the positions `skipped` become dead letters, also if the settings say `stop`. `reaching` has
    begun to reach Kafka for the first session.
    """

    def __init__(
        self, settings: Settings, skipped: Collection[str] = (), reaching: Task[Reached] | None = None
    ) -> None:
        self._settings = settings
        self._reaching = reaching
        self._reached: Reached
        self._buries = settings.delivery.on_poison == "dead-letter"
        self._skipped = skipped
        self._topics = KnownTopics(settings, lambda: self._reached.cluster)
        self._remembers = False  # the topic of positions exists, as far as is known
        self._claimed = ""  # the key of the slot that was claimed last
        self._remembered: dict[str, RememberedTopic] = {}
        self._pids: deque[int] = deque(maxlen=_PIDS)  # of the walsenders of earlier sessions

    def open(self, stack: contextlib.ExitStack, *, text: bool) -> Ends:
        """Open one session; see `cdc.delivery.ports.Servers`."""
        settings = self._settings
        memory = self._reach()
        stack.callback(memory.close)
        writer = stack.enter_context(contextlib.closing(positions.Writer(settings)))
        self._topics.renew()
        early: Sink | None = None
        if settings.delivery.guarantee == AT_LEAST_ONCE and not self._remembers:
            # It connects while PostgreSQL is asked. Later ones wait: a standby asks each second.
            early = Sink(settings, self._topics)
        with connect(settings.postgres.dsn, application_name="cdc-publisher preflight") as connection:
            try:
                found = catalog.inspect(connection, settings)
            except SlotLost:
                with contextlib.suppress(Temporary):
                    _check_recovery(memory, f"{slots.system_identifier(connection)}/{settings.postgres.slot}")
                raise
            binary = found.binary and not text
            source = stack.enter_context(contextlib.closing(Source(settings.postgres.dsn)))
            system_identifier, timeline = source.identify()
            timelines = source.timelines(timeline)
            if early:
                early.prepare()
            if not self._remembers:
                self._prepare()
            mark = SlotRecord(
                system_identifier,
                timeline,
                settings.postgres.slot,
                found.confirmed,
                found.definition,
                ordering(settings, found.keys, found.key_type),
                cluster=self._reached.cluster_id,
            )
            # A publisher that was killed leaves a transaction open until its successor, which has the slot, aborts it.
            # So what is behind that is read then. Who claims a slot, or has no transactions, knows everything before.
            waits = settings.delivery.guarantee == AT_LEAST_ONCE or not found.used
            known = _check_recovery(memory, mark.key, waits=waits)
            if not found.used and self._claimed != mark.key:
                self._claim(mark, known, writer)
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
        kafka = self._kafka(stack, mark, outbox, writer, early=early)
        sentinel = Sentinel(settings.postgres.dsn, settings, found.definition, found.wal_end)
        stack.callback(sentinel.stop)
        return Ends(
            **kafka,
            source=source,
            sentinel=sentinel,
            slot=mark,
            remembered=partial(_remembered, memory, mark.key),
            wal_end=wal_end,
            used=found.used,
            timelines=timelines,
            wal_sender_timeout=found.wal_sender_timeout,
            binary=binary,
        )

    def _kafka(
        self,
        stack: contextlib.ExitStack,
        mark: SlotRecord,
        outbox: Outbox,
        writer: positions.Writer,
        *,
        early: Sink | None = None,
        floors: Mapping[str, Mapping[int, int]] | None = None,
    ) -> dict[str, Any]:
        """Open what concerns Kafka alone: most of the fields of `Ends`. For `floors` see `Tails`."""
        settings = self._settings
        topics = RememberedTopics(writer, self._topics, mark.key, self._remembered)
        # Closed before the slot is given up: another process reads then what Kafka has.
        sink = stack.enter_context(contextlib.closing(early or self._sink(mark.key)))
        tails = stack.enter_context(
            contextlib.closing(
                Tails(
                    settings,
                    outbox.stream,
                    mark.confirmed,
                    sequences=settings.delivery.sequence,
                    known=lambda: list(self._remembered),
                    commit_times=settings.record.time_column is None and not settings.postgres.polls,
                    cluster=self._reached.cluster,
                    by_id=settings.postgres.polls,
                    floors=floors or {},
                )
            )
        )
        return {
            "sink": sink,
            "topics": topics,
            "outbox": outbox,
            "dead_letters": (
                DeadLetters(settings.topics.dead_letter, outbox, None if self._buries else self._skipped)
                if self._buries or self._skipped
                else None
            ),
            "hand_over": partial(_hand_over, settings),
            "tails": tails,
            "failed": self._failed,
            "identities": partial(existing, self._reached.cluster),
            "trust": self._trust,
            "foreign": lambda window: stack.enter_context(contextlib.closing(_foreign(settings, window))),
        }

    def taken(self) -> bool:
        """Return whether another process reads the slot, as PostgreSQL says. Raises CdcError."""
        settings = self._settings
        if settings.postgres.polls:
            return False  # there is no slot to ask about
        with connect(settings.postgres.dsn, application_name="cdc-publisher standby") as connection:
            return slots.holder(connection, settings.postgres.slot) is not None

    def _reach(self) -> positions.Reader:
        """Reach Kafka, unless that was done and the topic of positions exists; return a reader of that topic."""
        if self._remembers:
            return positions.Reader(self._settings, self._reached.cluster, self._settings.postgres.slot)
        reaching, self._reaching = self._reaching, None
        self._reached = reaching.result() if reaching else reach(self._settings)
        return self._reached.positions

    def _prepare(self) -> None:
        """Create the publisher's own topics that are missing."""
        settings, cluster = self._settings, self._reached.cluster
        positions.ensure(settings, cluster)
        if self._buries or self._skipped:
            cluster.ensure_topic(settings.topics, settings.topics.dead_letter, DEAD_LETTERS_CONFIG)
        self._remembers = True

    def _claim(self, mark: SlotRecord, known: Memory, writer: positions.Writer) -> None:
        """Write the slot's record before the slot is read for the first time."""
        if claimed := claim(mark, known, self._settings.delivery.guarantee):
            writer.write(mark.key, claimed.encode())
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

    def _sink(self, key: str) -> "Sink | TransactionalSink":
        if self._settings.delivery.guarantee == AT_LEAST_ONCE:
            return Sink(self._settings, self._topics)
        from cdc.kafka.transactional_producer import TransactionalSink  # not needed by default

        return TransactionalSink(self._settings, self._topics, key)


def _check_recovery(reader: positions.Reader, key: str, *, waits: bool = True) -> Memory:
    """Return what Kafka has of the slot; for `waits` see `cdc.kafka.positions.Reader`.

    Raises RecoveryUnfinished while events that precede the stream may not be sent yet.

    The record is written before the new slot is created, so it is seen by all that see the slot.
    """
    memory = reader.memory(key, waits=waits)
    if memory.recovery:
        raise memory.recovery.unfinished()
    return memory


def _remembered(reader: positions.Reader, key: str) -> Memory:
    with contextlib.closing(reader):
        return _check_recovery(reader, key)


def _hand_over(settings: Settings, mark: SlotRecord) -> None:
    from cdc.kafka.transactional_producer import hand_over  # needed once, after a change of the guarantee

    hand_over(settings, mark)


def _foreign(settings: Settings, window: ForeignWindow) -> "ForeignRecords":
    from cdc.kafka.foreign import ForeignRecords  # needed once, after a take-over

    return ForeignRecords(settings, window)
