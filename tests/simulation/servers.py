"""What the service opens: one session with the simulated servers."""

import contextlib
from collections.abc import Mapping
from random import Random
from typing import Final

from cdc.config.librdkafka import Value
from cdc.delivery.ports import Ends, Observation, Stopping, StreamDefect, WalEnd
from cdc.delivery.positions import RememberedTopic, SlotRecord, topic_key
from cdc.errors import KafkaError, SlotActive
from cdc.lsn import LSN
from cdc.outbox.columns import Columns, Header
from cdc.outbox.events import Outbox
from cdc.outbox.topic_template import TopicTemplate
from cdc.records.dead_letters import DeadLetters
from tests.simulation.kafka import SimKafka
from tests.simulation.oracle import DEAD_LETTERS, STREAM
from tests.simulation.postgres import SimPg
from tests.simulation.process import Process
from tests.simulation.sink import SimSink, failed
from tests.simulation.tails import SimTails
from tests.simulation.transactions import SimTransactionalSink, hand_over
from tests.simulation.walsender import Stream

SYSTEM: Final = "7000000000000000001"
SLOT: Final = "cdc_publisher"
_LOOK_SECONDS: Final = 1.0
_TEMPLATE: Final = TopicTemplate("outbox.event.{aggregatetype}")
_COLUMNS: Final = Columns()


def mark(pg: SimPg) -> SlotRecord:
    """The slot as it is."""
    assert pg.slot
    return SlotRecord(SYSTEM, pg.timeline, SLOT, LSN(pg.slot.confirmed), pg.catalog(), {})


class SimTopics:
    """All topics are there, but those that are missing; each is remembered before the first event is sent to it."""

    def __init__(self, kafka: SimKafka, key: str, remembered: dict[str, RememberedTopic]) -> None:
        self._kafka = kafka
        self._key = key
        self._remembered = remembered
        self._changes = 0
        self._known: object = None
        self.refused: dict[str, str] = {}

    @property
    def changes(self) -> int:
        known = set(self._kafka.missing), dict(self._kafka.limits)
        self._changes += known != self._known
        self._known = known
        return self._changes

    most = 1_000_000

    def largest(self, topic: str, /) -> int | None:
        if topic in self._kafka.missing:
            return None
        found, known = self._kafka.identity(topic), self._remembered.get(topic)
        if known and known.topic_id != found.topic_id:
            raise KafkaError(f"topic {topic!r} was deleted and re-created")
        if known != found:
            self._kafka.world.enter()
            self._kafka.positions.append((self._kafka.world.now, topic_key(self._key, topic), found.encode()))
            self._remembered[topic] = found
            self._kafka.world.leave()
        return self._kafka.limits.get(topic, 1_000_000)

    def partitions(self, topic: str, /) -> int | None:
        if topic in self._kafka.missing:
            return None
        return 1 if topic == DEAD_LETTERS else self._kafka.partitions


class SimSentinel:
    """Looks once a second; that the server stops it hears at once."""

    def __init__(self, pg: SimPg, definition: Mapping[str, str]) -> None:
        self._pg = pg
        self._definition = definition  # at the start of the stream
        self._look_at = pg.world.now + _LOOK_SECONDS

    def observe(self) -> list[Observation]:
        pg = self._pg
        pg.world.enter()
        seen: list[Observation] = []
        if pg.up and pg.stopping_since is not None:
            seen.append(Stopping("terminating connection due to administrator command"))
        elif pg.up and pg.world.now >= self._look_at:
            self._look_at = pg.world.now + _LOOK_SECONDS
            defect = pg.defect()
            if defect is None and pg.catalog() != self._definition:
                defect = pg.changed()
            seen.append(StreamDefect(defect) if defect else WalEnd(LSN(pg.flushed)))
        pg.world.leave()
        return seen


class SimServers:
    """PostgreSQL and Kafka, for one process."""

    def __init__(
        self, pg: SimPg, kafka: SimKafka, process: Process, settings: "SessionSettings", *, exactly_once: bool
    ) -> None:
        self._pg = pg
        self._exactly_once = exactly_once
        self._kafka = kafka
        self._process = process
        self._settings = settings
        self._remembered: dict[str, RememberedTopic] = {}  # topics

    def _trust(self, topics: Mapping[str, RememberedTopic]) -> None:
        self._remembered.clear()
        self._remembered.update(topics)

    def open(self, stack: contextlib.ExitStack, *, text: bool) -> Ends:
        pg, process, world = self._pg, self._process, self._pg.world
        world.enter()
        pg.available()
        world.advance(0.01 * self._settings.random.random())
        pg.available()
        defect = pg.defect()
        if defect:
            raise defect
        slot = pg.slot
        assert slot
        if slot.stream is not None:
            raise SlotActive("the slot is active for another process")
        if not slot.used:
            self._kafka.claim(mark(pg), exactly_once=self._exactly_once)
            world.leave()  # it may die here
            world.enter()
            pg.available()
            slot = pg.slot
            if slot is None or slot.stream is not None:
                raise SlotActive("the slot was changed meanwhile")
        binary = pg.table.binary(self._settings.headers) and not text
        stream = Stream(
            pg, slot, process, burst=self._settings.burst, keepalives=self._settings.keepalives, binary=binary
        )
        stack.callback(self._close_stream, stream)
        found, wal_end = mark(pg), LSN(pg.lsn)
        kind = SimTransactionalSink if self._exactly_once else SimSink
        sink = kind(self._kafka, process, self._settings.properties)
        stack.callback(self._close_sink, sink)
        headers = [Header.parse(name) for name in self._settings.headers]
        outbox = Outbox(STREAM.format(pg.timeline), _COLUMNS, _TEMPLATE, headers, tombstones=True, suited_at=wal_end)
        tails = SimTails(self._kafka, outbox.stream, found.confirmed, sequences=self._settings.sequence)
        knows = self._kafka.findable(outbox.stream)
        process.opened(stream, sink, knows, found.confirmed)
        used, slot.used = slot.used, True
        world.note("session", found.confirmed, pg.timeline)
        world.leave()
        return Ends(
            source=stream,
            sink=sink,
            sentinel=SimSentinel(pg, found.definition),
            topics=SimTopics(self._kafka, found.key, self._remembered),
            outbox=outbox,
            dead_letters=DeadLetters(DEAD_LETTERS, outbox) if self._settings.dead_letters else None,
            slot=found,
            remembered=lambda: self._kafka.remembered(found.key),
            hand_over=lambda mark: hand_over(self._kafka, mark),
            tails=tails,
            wal_end=wal_end,
            used=used,
            timelines=pg.ends,
            failed=failed,
            wal_sender_timeout=pg.wal_sender_timeout,
            binary=binary,
            identities=lambda topics: {
                topic: self._kafka.identity(topic) for topic in topics if topic not in self._kafka.missing
            },
            trust=self._trust,
        )

    def _close_stream(self, stream: Stream) -> None:
        if not self._process.dead:
            stream.close()

    def _close_sink(self, sink: SimSink) -> None:
        if not self._process.dead:
            sink.close()


class SessionSettings:
    """What the sessions of a world have in common."""

    def __init__(
        self,
        random: Random,
        *,
        burst: int,
        keepalives: float,
        properties: dict[str, Value],
        dead_letters: bool,
        headers: tuple[str, ...],
        sequence: bool,
    ) -> None:
        self.random = random
        self.burst = burst
        self.keepalives = keepalives
        self.properties = properties
        self.dead_letters = dead_letters
        self.headers = headers
        self.sequence = sequence
