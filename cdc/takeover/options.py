"""Options of Debezium's PostgreSQL connector and of Kafka Connect that need no translation, each with the reason.

The options that have a setting are in `cdc.takeover.translate`. Names may hold `*`. An option that is in neither is
unknown, and refused.
"""

from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from cdc.takeover.verdicts import Verdict

# Reason: names.
_HARMLESS: Final = {
    "names internal topics and metrics only": """
        topic.prefix database.server.name topic.naming.strategy topic.delimiter topic.cache.size topic.transaction
        topic.heartbeat.prefix heartbeat.topics.prefix custom.metric.tags
        """,
    "no snapshot is taken: the slot continues where Debezium stopped; for older rows use audit --repair": """
        snapshot.* incremental.snapshot.* legacy.snapshot.* internal.legacy.snapshot.* read.only streaming.delay.ms
        signal.* xmin.fetch.interval.ms internal.snapshot.*
        """,
    "the existing slot and publication are used as they are": """
        slot.failover publication.autocreate.mode publish.via.partition.root replica.identity.autoset.values
        """,
    "temporary errors are retried indefinitely; a permanent one ends the publisher with exit code 1": """
        errors.max.retries errors.retry.timeout errors.retry.delay.* errors.log.* errors.deadletterqueue.*
        slot.max.retries slot.retry.delay.ms retriable.restart.connector.wait.ms connection.validation.timeout.ms
        database.query.timeout.ms database.tcpKeepAlive executor.shutdown.timeout.ms connect.timeout.ms
        connect.keep.alive connect.keep.alive.interval.ms
        """,
    "the publisher has its own batches, queues and timers": """
        max.batch.size max.queue.size max.queue.size.in.bytes poll.interval.ms status.update.interval.ms
        lsn.flush.timeout.ms lsn.flush.timeout.action query.fetch.size tasks.max tasks.max.enforce
        """,
    "belongs to the Connect worker, or to the way in which the connector runs": """
        name config.action.reload offsets.storage.topic offset.storage offset.storage.* offset.flush.*
        transaction.boundary* *plugin.version custom.sanitize.pattern statistics.metrics.enabled
        internal.key.converter* internal.value.converter*
        internal.log.position.check.enable internal.advanced.metrics.enable offset.mismatch.strategy
        guardrail.* openlineage.* memory.management.* config.providers config.providers.* consumer.override.*
        admin.override.* connector.client.config.override.policy database.history database.history.*
        schema.history.* include.schema.changes
        """,
    "belongs to Debezium Server": "quarkus.* debezium.engine.* debezium.predicate.* debezium.sink.pravega.*",
    "an idle outbox retains no WAL while the publisher is connected; the heartbeat table is not needed": """
        heartbeat.interval.ms heartbeat.action.query
        """,
    "deletes and updates are not events": """
        tombstones.on.delete toasted.value.placeholder unavailable.value.placeholder truncate.handling.mode
        schema.refresh.mode
        """,
    "concerns records that the outbox event router does not emit": """
        sourceinfo.struct.maker include.schema.comments column.propagate.source.type datatype.propagate.source.type
        schema.name.adjustment.mode field.name.adjustment.mode schema.pattern include.unknown.datatypes
        event.converting.failure.handling.mode transaction.metadata.factory sanitize.field.names
        """,
    "only this table is read; other tables of the publication are passed over": """
        schema.include.list schema.whitelist schema.exclude.list schema.blacklist table.ignore.builtin
        message.prefix.exclude.list
        """,
}

# Reason: names; the values with which an option has no effect are in brackets.
_REFUSED: Final = {
    "the slot would be dropped when the connector stops: set it to false, and restart the connector": """
        slot.drop.on.stop[false]
        """,
    "the slot may stand ahead of the events that Debezium delivered": """
        flush.lsn.source[true] lsn.flush.mode[connector]
        """,
    "changes what the replication stream contains": "slot.stream.params[]",
    "SQL on each connection; use ALTER ROLE ... SET instead": "database.initial.statements[]",
    "columns of the outbox are sent as they are: no filters, masks or other conversions": """
        column.include.list[] column.exclude.list[] column.whitelist[] column.blacklist[] column.mask.*
        column.truncate.* converters[] post.processors[] message.key.columns[] custom.converters[]
        """,
    "only bytes": "binary.handling.mode[bytes]",
    "a Java class": "database.sslfactory[]",
    "messages of pg_logical_emit_message are not sent": "message.prefix.include.list[]",
    "give the outbox table alone as table.include.list": "table.exclude.list[] table.blacklist[]",
}

# Reason: names; the values with which an option has no effect are in brackets.
_CHANGES: Final = {
    "the topic of transactions gets no more records": "provide.transaction.metadata[false]",
    "notifications end": "notification.enabled.channels[] notification.sink.topic.name[]",
    "header values of such columns are PostgreSQL's text": """
        decimal.handling.mode[precise,string] time.precision.mode[adaptive] interval.handling.mode[numeric]
        hstore.handling.mode[json]
        """,
}


class Rule(NamedTuple):
    """The verdict on an option with a value other than those without effect, and the reason."""

    verdict: Verdict
    reason: str
    without_effect: tuple[str, ...]


def _rules() -> dict[str, Rule]:
    rules = {}
    tables: dict[Verdict, dict[str, str]] = {
        "harmless": _HARMLESS,
        "refused": _REFUSED,
        "changes records": _CHANGES,
    }
    for verdict, table in tables.items():
        for reason, names in table.items():
            for written in names.split():
                name, _, values = written.partition("[")
                rules[name] = Rule(verdict, reason, tuple(values.removesuffix("]").split(",")) if values else ())
    return rules


RULES: Final = _rules()


def rule(option: str, value: str) -> Rule | None:
    """Return the rule of an option with this value; None for an unknown one."""
    found = RULES.get(option) or next((each for name, each in RULES.items() if fnmatchcase(option, name)), None)
    if found and found.verdict != "harmless" and value.strip() in found.without_effect:
        return Rule("harmless", "has its default", ())
    return found


def known() -> list[str]:
    """Return the names of the options that are here."""
    return [name for name in RULES if "*" not in name]
