"""Check the topics of events, and the publisher's own topics."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from cdc.checks.finding import FAIL, PASS, WARN, Finding, Notes, Status
from cdc.checks.kafka_facts import Clusters, TopicFacts
from cdc.checks.tools import Tools
from cdc.checks.waiting import Waiting
from cdc.config import librdkafka
from cdc.config.settings import Settings
from cdc.quantities import plural

INIT: Final = "cdc-publisher outbox init"
SAFE_REPLICAS: Final = 3
SAFE_IN_SYNC: Final = 2
_AROUND: Final = 200  # bytes of key, headers and batch around a value, at least
_MIB: Final = 1024 * 1024
_BEFORE: Final = "message.timestamp.before.max.ms"
_AFTER: Final = "message.timestamp.after.max.ms"
_UNLIMITED: Final = 2**63 - 1  # Kafka's default of the first


class Judge:
    """Checks topics by their settings: `events` are topics of outbox rows, `own` are the publisher's."""

    def __init__(self, notes: Notes, settings: Settings, cluster: Clusters, tools: Tools) -> None:
        self._notes = notes
        self._settings = settings
        self._cluster = cluster
        self._tools = tools

    def exist(self, events: list[TopicFacts]) -> None:
        """Check that the topics of events exist, or that `[topics] create` lets the publisher create them."""
        notes, wanted = self._notes, self._settings.topics
        missing = [topic.name for topic in events if not topic.exists and not topic.refusal]
        if not events:
            text = "the topics are unknown: the outbox is empty, or cannot be read"
            notes.warns("event_topics", text, hint="name them: cdc-publisher check --topic NAME")
        elif missing and wanted.create:
            notes.passes("event_topics", f"missing, but start creates them: {', '.join(missing)}")
        elif missing:
            commands = [self._tools.create(name, wanted.partitions, *self._safe()) for name in missing]
            text = f"rows go to topics that do not exist: {', '.join(missing)}"
            hint = "or let start create them: [topics] create = true"
            notes.fails("event_topics", text, *commands, hint=_joined(hint, self._tools.hint))
        else:
            text = ", ".join(f"{topic.name} ({plural(len(topic.replicas), 'partition')})" for topic in events)
            notes.passes("event_topics", text)

    def _safe(self) -> tuple[int, Mapping[str, object]]:
        """The replication factor and the settings of new topics: the configured ones, else safe defaults."""
        wanted = self._settings.topics
        if wanted.replication_factor > 0 or len(self._cluster.brokers) < SAFE_REPLICAS:
            return wanted.replication_factor, wanted.config
        return SAFE_REPLICAS, {"min.insync.replicas": SAFE_IN_SYNC, **wanted.config}

    def rights(self, events: list[TopicFacts], own: list[TopicFacts]) -> None:
        """Check the principal's rights on each topic: fail if the publisher cannot work, warn if it is impaired."""
        needed, wished = {"DESCRIBE", "WRITE"}, {"READ", "DESCRIBE_CONFIGS"}
        if self._settings.delivery.sequence:
            needed, wished = needed | {"READ"}, wished - {"READ"}
        positions = self._settings.topics.positions
        lacks: dict[str, set[str]] = {}
        refused, known = False, [topic for topic in [*events, *own] if topic.exists or topic.refusal]
        for topic in known:
            must, may = ({"DESCRIBE", "WRITE", "READ"}, set[str]()) if topic.name == positions else (needed, wished)
            has: frozenset[str] | None = frozenset() if topic.refusal else topic.operations
            if has is not None and (missing := (must | may) - has):
                lacks[topic.name] = missing
                refused = refused or bool(missing & must)
        if not known:
            return
        if not lacks:
            self._notes.passes("topic_rights", "the principal may describe, read and write the topics")
            return
        text = "; ".join(f"{', '.join(sorted(missing))} on {name}" for name, missing in lacks.items())
        commands = [self._tools.allow(missing, "--topic", name) for name, missing in lacks.items()]
        note = self._notes.fails if refused else self._notes.warns
        why = "" if refused else ", so that duplicates and size limits may go unnoticed"
        note("topic_rights", f"the principal lacks {text}{why}", *commands, hint=self._tools.hint)

    def durability(self, topics: list[TopicFacts]) -> None:
        """Check whether acknowledged records survive the loss of a broker."""
        readable = [topic for topic in topics if topic.config is not None]
        self._leaders(topics)
        self._replication(topics)
        if readable:
            self._in_sync(readable)
            self._elections(readable)

    def _leaders(self, topics: list[TopicFacts]) -> None:
        without = [f"{topic.name} {_numbers(topic.leaderless)}" for topic in topics if topic.leaderless]
        behind = [f"{topic.name} {_numbers(topic.behind)}" for topic in topics if topic.behind]
        hint = "start the brokers that have the other replicas, and read their logs"
        if without:
            self._notes.fails("topic_leaders", f"partitions without a leader: {'; '.join(without)}", hint=hint)
        elif behind:
            self._notes.warns("topic_leaders", f"replicas that are not in sync: {'; '.join(behind)}", hint=hint)
        else:
            self._notes.passes("topic_leaders", "each partition has a leader, and each replica is in sync")

    def _replication(self, topics: list[TopicFacts]) -> None:
        weak = [topic for topic in topics if topic.replication < SAFE_REPLICAS]
        wanted, count = self._settings.topics.replication, len(self._cluster.brokers)
        if not weak or wanted == "any":
            text = f"{SAFE_REPLICAS} replicas or more" if not weak else 'accepted by [topics] replication = "any"'
            self._notes.passes("topic_replication", text)
            return
        text = ", ".join(f"{topic.name} ({topic.replication})" for topic in weak)
        text = f"fewer than {SAFE_REPLICAS} replicas: {text}; losing a broker can lose acknowledged events"
        numbers = [broker.number for broker in self._cluster.brokers]
        enough = count >= SAFE_REPLICAS
        commands = [self._tools.replicate(one.name, one.replicas, numbers, SAFE_REPLICAS) for one in weak if enough]
        hint = (
            self._tools.hint
            if enough
            else f"the cluster has {plural(count, 'broker')}: at least {SAFE_REPLICAS} are recommended"
        )
        accept = 'or accept it: [topics] replication = "any"'
        note = self._notes.fails if wanted == "refuse" else self._notes.warns
        note("topic_replication", text, *commands, hint=_joined(hint, accept))

    def _in_sync(self, topics: list[TopicFacts]) -> None:
        numbers = [(topic, int((topic.config or {}).get("min.insync.replicas", 1))) for topic in topics]
        above = [(topic, number) for topic, number in numbers if number > topic.replication]
        below = [(topic, number) for topic, number in numbers if number < SAFE_IN_SYNC <= topic.replication]
        if above:
            text = ", ".join(f"{topic.name} ({number} of {topic.replication})" for topic, number in above)
            text = f"min.insync.replicas exceeds the number of replicas, so that nothing can be written: {text}"
            self._altered(self._notes.fails, "topic_in_sync", text, "min.insync.replicas", {
                topic.name: min(SAFE_IN_SYNC, topic.replication) for topic, _ in above
            })  # fmt: skip
        elif below and self._settings.topics.replication != "any":
            text = ", ".join(topic.name for topic, _ in below)
            text = f"min.insync.replicas is 1, so that acks=all can mean a single broker: {text}"
            note = self._notes.fails if self._settings.topics.replication == "refuse" else self._notes.warns
            values = {topic.name: SAFE_IN_SYNC for topic, _ in below}
            self._altered(note, "topic_in_sync", text, "min.insync.replicas", values)
        else:
            text = ", ".join(f"{topic.name} {number} of {topic.replication}" for topic, number in numbers)
            self._notes.passes("topic_in_sync", f"min.insync.replicas: {text}")

    def _elections(self, topics: list[TopicFacts]) -> None:
        name = "unclean.leader.election.enable"
        unclean = {one.name: "false" for one in topics if (one.config or {}).get(name) == "true"}
        if unclean:
            text = f"{name} is true: a replica without all acknowledged records can become leader: {', '.join(unclean)}"
            self._altered(self._notes.warns, "topic_unclean_election", text, name, unclean)
        else:
            self._notes.passes("topic_unclean_election", "only in-sync replicas can become leaders")

    def retention(self, events: list[TopicFacts], deleting: frozenset[str] = frozenset()) -> None:
        """Report how long events are retained, and warn if compaction deletes all but the last of each key.

        `deleting` are topics of rows with a null payload, of which a compacted topic keeps nothing.
        """
        compacted = {one.name: "delete" for one in events if "compact" in (one.config or {}).get("cleanup.policy", "")}
        if compacted:
            text = (
                f"cleanup.policy includes compact: only the last event of each key is retained: {', '.join(compacted)}"
            )
            if emptied := sorted(deleting & compacted.keys()):
                text += (
                    f"; null payloads, which have records without a value, delete their keys in: {', '.join(emptied)}"
                )
            self._altered(self._notes.warns, "topic_retention", text, "cleanup.policy", compacted)
            return
        kept = {one.name: _age((one.config or {}).get("retention.ms", "")) for one in events if one.config}
        text = ", ".join(f"{name} {age}" for name, age in kept.items())
        self._notes.passes(
            "topic_retention", f"events are retained: {text}" if text else "the topics' retention may not be read"
        )

    def timestamps(self, events: list[TopicFacts], waiting: Waiting | None) -> None:
        """Check that the topic of the oldest waiting row takes and keeps a record of that commit time.

        Where records have times of a column, these are those of the rows with the earliest and the latest time.
        """
        if waiting is None:
            self._notes.passes("topic_timestamps", "not compared: no row waits, or a publisher reads the slot")
            return
        now, column = int(time.time() * 1000), self._settings.record.time_column
        rows = [(waiting.event, f"the oldest waiting row, {waiting.event.id}, was committed", waiting.committed)]
        if waiting.timed:
            rows = [
                (event, f"column {column!r} of waiting row {event.id} is", event.timestamp) for event in waiting.timed
            ]
        compared = [self._timed(events, event.topic, text, now - at) for event, text, at in rows]
        worst = max(compared, key=lambda one: (PASS, WARN, FAIL).index(one.status))
        if worst.status == PASS:
            self._notes.passes("topic_timestamps", "; ".join(dict.fromkeys(one.found for one in compared)))
        else:
            note = self._notes.fails if worst.status == FAIL else self._notes.warns
            note("topic_timestamps", worst.found, *worst.fix, hint=self._tools.hint)

    def _timed(self, events: list[TopicFacts], name: str, row: str, age: int) -> Finding:
        """Return whether a topic takes and keeps a record of this age."""
        row = f"{row} {_ago(age)}"
        config = next((topic.config or {} for topic in events if topic.name == name), {})
        setting = _BEFORE if age > 0 else _AFTER
        limit, kept = int(config.get(setting, _UNLIMITED)), int(config.get("retention.ms", -1))
        status: Status = PASS
        text, fix = row, ""
        if config.get("message.timestamp.type") == "LogAppendTime":
            pass  # the broker's clock takes the place of the time
        elif abs(age) > limit:
            status = FAIL if self._settings.delivery.on_poison == "stop" else WARN
            text = f"{row}, and topic {name} refuses its timestamp: {setting} is {limit}"
            fix = self._tools.alter(name, setting, _UNLIMITED)
        elif 0 <= kept < age:
            status, text = WARN, f"{row}, and topic {name} deletes it soon: retention.ms is {kept}"
            fix = self._tools.alter(name, "retention.ms", 2 * age)
        return Finding("topic_timestamps", "kafka", status, text, (fix,))

    def sizes(self, events: list[TopicFacts], largest: Mapping[str, int]) -> None:
        """Check that the largest value of each topic, in bytes, fits into the topic's and the producer's limits."""
        made = librdkafka.producer(self._settings.kafka)
        client = min(int(made["message.max.bytes"]), int(made["queue.buffering.max.kbytes"]) * 1024)
        over, alone = {}, [name for name, size in largest.items() if size + _AROUND > client]
        for topic in events:
            limit, size = (topic.config or {}).get("max.message.bytes"), largest.get(topic.name, 0) + _AROUND
            if limit and size > int(limit):
                over[topic.name] = -(-2 * size // _MIB) * _MIB
        if alone:
            hint = 'raise "message.max.bytes" and "queue.buffering.max.kbytes" in [kafka]'
            text = f"the largest payloads exceed the producer's limit of {client} bytes: {', '.join(alone)}"
            self._notes.fails("topic_message_size", text, hint=hint)
        elif over:
            text = ", ".join(f"{name} ({largest[name]} bytes)" for name in over)
            text = f"the largest payload exceeds max.message.bytes of its topic: {text}"
            packed = str(made.get("compression.type", "none")).lower() not in ("none", "inherit")
            note = self._notes.warns if packed else self._notes.fails
            self._altered(note, "topic_message_size", text, "max.message.bytes", over)
        else:
            text = ", ".join(f"{name} {size} bytes" for name, size in largest.items())
            self._notes.passes("topic_message_size", f"largest payloads: {text}" if text else "there are no rows")

    def own(self, positions: TopicFacts, dead_letters: TopicFacts | None) -> None:
        """Check the topic of positions and, if one is configured, that of dead letters."""
        self._own(
            positions, "positions_topic", "cleanup.policy", "compact", "retention deletes the publisher's records"
        )
        if dead_letters:
            self._own(dead_letters, "dead_letter_topic", "retention.ms", "-1", "retention deletes old dead letters")

    def _own(self, topic: TopicFacts, name: str, setting: str, wanted: str, otherwise: str) -> None:
        if topic.refusal:
            return  # topic_rights reports it
        value = (topic.config or {}).get(setting, wanted)
        if not topic.exists:
            self._notes.warns(
                name, f"topic {topic.name} does not exist yet", INIT, hint="start creates it too, if its principal may"
            )
        elif value != wanted:
            text = f"topic {topic.name} has {setting} {value}: {otherwise}"
            self._altered(self._notes.warns, name, text, setting, {topic.name: wanted})
        else:
            self._notes.passes(name, f"topic {topic.name} exists, {setting} {value}")

    def _altered(
        self, note: Callable[..., None], name: str, text: str, setting: str, values: Mapping[str, object]
    ) -> None:
        commands = [self._tools.alter(topic, setting, value) for topic, value in values.items()]
        note(name, text, *commands, hint=self._tools.hint)


def _joined(*hints: str) -> str:
    return "; ".join(filter(None, hints))


def _numbers(partitions: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, partitions))})"


def _ago(milliseconds: int) -> str:
    seconds = abs(milliseconds) / 1000
    text = f"{seconds:.0f} s" if seconds < 86_400 else f"{seconds / 86_400:.3g} days"
    return f"{text} ago" if milliseconds >= 0 else f"{text} in the future"


def _age(milliseconds: str) -> str:
    if not milliseconds.lstrip("-").isdigit():
        return "for an unknown time"
    number = int(milliseconds)
    return "indefinitely" if number < 0 else f"for {number / 86_400_000:.3g} days"
