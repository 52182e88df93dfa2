"""The side of Kafka: the cluster first, and the topics once it is known which ones rows go to."""

from collections.abc import Callable, Iterable, Mapping

from cdc.checks import cluster, slot
from cdc.checks.finding import Notes
from cdc.checks.kafka_facts import Clusters, Inspector
from cdc.checks.tools import Tools
from cdc.checks.topics import Judge
from cdc.config.settings import Settings
from cdc.delivery.positions import EXACTLY_ONCE, SlotRecord
from cdc.errors import CdcError, Temporary
from cdc.kafka import positions

_MEMORY_SECONDS = 10.0


class Kafka:
    """One cluster. Raises ConfigError when librdkafka does not take the properties."""

    def __init__(self, notes: Notes, settings: Settings) -> None:
        self._notes = notes
        self._settings = settings
        self._inspector = Inspector(settings.kafka)
        self._tools = Tools(settings)
        self._cluster: Clusters | None = None

    def reach(self) -> None:
        """Look at the cluster as a whole."""
        try:
            found = self._inspector.cluster()
        except CdcError as error:
            self._notes.fails("kafka_reachable", error.message, hint=error.hint)
            return
        cluster.reached(self._notes, self._settings, found)
        if not all(broker.failure for broker in found.brokers):
            self._cluster = found  # else nobody is there to be asked for more

    def topics(self, names: Iterable[str], largest: Mapping[str, int]) -> None:
        """Look at the topics of events and at ours; `largest` are the largest values by topic, in bytes."""
        if self._cluster is None:
            return
        events = sorted(set(names))
        self._looked("event_topics", lambda: self._judge(events, largest))

    def remembered(self, notes: Notes, mark: SlotRecord) -> None:
        """Compare the slot with what the publisher left in Kafka, and look at its transactional id."""
        if self._cluster is None:
            return
        try:
            memory = positions.remembered(self._settings, mark.key, _MEMORY_SECONDS)
        except CdcError as error:
            told = f"what the publisher left is not known: {error.message}"
            (notes.warns if isinstance(error, Temporary) else notes.fails)("slot_identity", told, hint=error.hint)
        else:
            slot.identity(notes, mark, memory.record, forgotten=memory.forgotten)
        if self._settings.delivery.guarantee == EXACTLY_ONCE:
            self._looked("transactional_id", lambda: self._transactional_id(f"cdc-publisher-{mark.key}"))

    def _judge(self, events: list[str], largest: Mapping[str, int]) -> None:
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
            self._looked("transactions", self._transactions)
        judge = Judge(self._notes, self._settings, self._cluster, self._tools)
        judge.exist(seen)
        judge.own(positions_, letters)
        judge.rights(seen, own)
        there = [topic for topic in found.values() if topic.exists]
        if there:
            judge.durability(there)
        kept = [topic for topic in seen if topic.exists]
        if kept:
            judge.retention(kept)
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
            # To whom ACLs are not shown, there seem to be none.
            sees = "DESCRIBE" in operations
            allowed = self._inspector.may_write(name, self._tools.principal) if sees else None
        cluster.transactional_id(self._notes, self._tools, name, allowed)

    def _looked(self, name: str, look: Callable[[], None]) -> None:
        try:
            look()
        except CdcError as error:
            self._notes.warns(name, f"this could not be looked at: {error.message}", hint=error.hint)
