"""Check Kafka: first the cluster, then the topics, once the rows show which topics are used."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from cdc.checks import cluster, slot
from cdc.checks.finding import Notes
from cdc.checks.kafka_facts import Clusters, Inspector
from cdc.checks.recovery import RecoveryFacts, recovery
from cdc.checks.tools import Tools
from cdc.checks.topics import Judge
from cdc.checks.waiting import Waiting
from cdc.config.settings import Settings
from cdc.delivery.positions import EXACTLY_ONCE
from cdc.errors import CdcError, Temporary
from cdc.kafka import positions

_MEMORY_SECONDS = 10.0


class Kafka:
    """The checks of one cluster. Raises ConfigError if librdkafka rejects the properties."""

    def __init__(self, notes: Notes, settings: Settings) -> None:
        self._notes = notes
        self._settings = settings
        self._inspector = Inspector(settings.kafka)
        self._tools = Tools(settings)
        self._cluster: Clusters | None = None

    def reach(self) -> None:
        """Check brokers and encryption; the other methods do nothing unless a broker answered here."""
        try:
            found = self._inspector.cluster()
        except CdcError as error:
            self._notes.fails("kafka_reachable", error.message, hint=error.hint)
            return
        cluster.reached(self._notes, self._settings, found)
        if not all(broker.failure for broker in found.brokers):
            self._cluster = found

    def topics(
        self, names: Iterable[str], largest: Mapping[str, int], waiting: Waiting | None, deleting: frozenset[str]
    ) -> None:
        """Check topics of events and the publisher's own.

        `largest` maps topics to their largest value in bytes; `waiting` is the oldest row in the slot; null payloads go
        to the topics `deleting`.
        """
        if self._cluster is None:
            return
        cluster.protocol(self._notes, self._settings)
        events = sorted({*names, *(event.topic for event in ([waiting.event, *waiting.timed] if waiting else []))})
        self._attempt("event_topics", lambda: self._judge(events, largest, waiting, deleting))

    def remembered(self, notes: Notes, key: str, now: slot.SlotNow | None, found: RecoveryFacts | None = None) -> None:
        """Compare the slot with the publisher's record in Kafka, and check the right to its transactional id.

        Without `now` the slot is missing or lost.
        """
        if self._cluster is None:
            return
        try:
            memory = positions.remembered(self._settings, key, _MEMORY_SECONDS)
            if now is not None:
                mark = replace(now.slot, cluster=self._cluster.name)
                slot.identity(notes, self._settings, replace(now, slot=mark), memory)
                if found is not None:
                    recovery(notes, found, memory)
            elif memory.horizons or memory.record:
                slot.lost(notes)
        except CdcError as error:
            text = f"the publisher's record of the slot cannot be read: {error.message}"
            (notes.warns if isinstance(error, Temporary) else notes.fails)("slot_identity", text, hint=error.hint)
        if self._settings.delivery.guarantee == EXACTLY_ONCE:
            self._attempt("transactional_id", lambda: self._transactional_id(f"cdc-publisher-{key}"))

    def _judge(
        self, events: list[str], largest: Mapping[str, int], waiting: Waiting | None, deleting: frozenset[str]
    ) -> None:
        assert self._cluster
        wanted = self._settings.topics
        buries = self._settings.delivery.on_poison == "dead-letter"
        names = [*events, wanted.positions, *([wanted.dead_letter] if buries else [])]
        found = {topic.name: topic for topic in self._inspector.topics(names)}
        seen = [found[name] for name in events]
        positions_, letters = found[wanted.positions], found[wanted.dead_letter] if buries else None
        own = [positions_, *([letters] if letters else [])]
        cluster.idempotence(self._notes, self._tools, self._cluster, list(found.values()))
        if self._settings.delivery.guarantee == EXACTLY_ONCE:
            self._attempt("transactions", self._transactions)
        judge = Judge(self._notes, self._settings, self._cluster, self._tools)
        judge.exist(seen)
        judge.own(positions_, letters)
        judge.rights(seen, own)
        there = [topic for topic in found.values() if topic.exists]
        if there:
            judge.durability(there)
        kept = [topic for topic in seen if topic.exists]
        if kept:
            judge.retention(kept, deleting)
            judge.timestamps(kept, waiting)
            judge.sizes(kept, {name: size for name, size in largest.items() if name in found})

    def _transactions(self) -> None:
        assert self._cluster
        (log,) = self._inspector.topics([cluster.LOG])
        settings = self._inspector.broker_settings(self._cluster.brokers[0].number)
        cluster.transactions(self._notes, self._settings, self._cluster, log, settings)

    def _transactional_id(self, name: str) -> None:
        assert self._cluster
        operations = self._cluster.operations or frozenset()
        allowed: bool | None = cluster.EVERYTHING in operations
        if not allowed:
            # Without DESCRIBE on the cluster, Kafka reports no ACLs at all.
            sees = "DESCRIBE" in operations
            allowed = self._inspector.may_write(name, self._tools.principal) if sees else None
        cluster.transactional_id(self._notes, self._tools, name, allowed)

    def _attempt(self, name: str, look: Callable[[], None]) -> None:
        try:
            look()
        except CdcError as error:
            self._notes.warns(name, f"could not be checked: {error.message}", hint=error.hint)
