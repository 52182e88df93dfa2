"""Run all checks: PostgreSQL, Kafka and contracts concurrently, then those that compare them. Nothing is changed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from cdc.checks import contracts, database
from cdc.checks.finding import Finding, Notes
from cdc.checks.kafka import Kafka
from cdc.checks.sampling import RowSample
from cdc.checks.waiting import Waiting
from cdc.config.settings import Settings
from cdc.postgres import rows
from cdc.postgres.rows import OutboxRow


class CheckOptions(NamedTuple):
    """Options of the command: more topics to check, and the age in seconds of a long transaction."""

    topics: tuple[str, ...] = ()  # of events, in addition to those of the rows in the outbox
    long_seconds: float = 300.0


def check(settings: Settings, options: CheckOptions, doing: Callable[[str], None]) -> list[Finding]:
    """Run every check, calling `doing` with each step's name. Raises ConfigError if the settings cannot be used."""
    postgres, kafka, own = Notes("postgres"), Notes("kafka"), Notes("contracts")
    cluster = Kafka(kafka, settings)
    doing("PostgreSQL, Kafka, contracts")
    with ThreadPoolExecutor(3) as sides:
        looking = sides.submit(database.check, postgres, settings, options.long_seconds)
        reading = sides.submit(contracts.check, own, settings)
        sides.submit(cluster.reach).result()
        seen, known = looking.result(), reading.result()
    sample = seen.sample or RowSample([], [], None, complete=True)
    try:
        doing("rows and contracts")
        if known.contracts is not None:
            types = [event_type for _, event_type in sample.topics]
            contracts.types(own, settings, known.contracts, types, sample.latest)
            if seen.sample is not None:  # else PostgreSQL's lines say why the rows are unknown
                contracts.rows(own, settings, known.contracts, sample.latest)
        contracts.subjects(own, settings, known, sample.topics)
    finally:
        if known.registry is not None:
            known.registry.close()
    doing("topics")
    largest = _largest(settings, known, sample, seen.waiting)
    cluster.topics(_events(settings, options, sample), largest, seen.waiting, _deleting(settings, sample))
    if seen.slot_key is not None:
        doing("the publisher's record of the slot")
        cluster.remembered(postgres, seen.slot_key, seen.slot, seen.recovery)
    return [*postgres.findings, *kafka.findings, *own.findings]


def _events(settings: Settings, options: CheckOptions, sample: RowSample) -> list[str]:
    """The known topics of events: from options, the settings, and the rows."""
    return [*options.topics, *settings.template.known, *(topic for topic, _ in sample.topics)]


def _largest(
    settings: Settings, known: contracts.ContractFacts, sample: RowSample, waiting: Waiting | None
) -> dict[str, int]:
    """The size in bytes of the largest value of each topic, among the sampled rows and the oldest waiting one."""
    found: dict[str, int] = {}
    for row in [*sample.latest, *([sample.largest] if sample.largest else [])]:
        pair = rows.topic(settings, row)
        # Encoding is slow: encode a row only if its payload is longer than the largest value so far.
        if pair and len(row.payload or b"") > found.get(pair[0], -1):
            found[pair[0]] = max(found.get(pair[0], 0), contracts.size(settings, known.contracts, row))
    if waiting:  # which may be deleted from the table
        event = waiting.event
        waiting_row = OutboxRow(event.id, event.type, event.payload, event.payload_is_avro)
        size = contracts.size(settings, known.contracts, waiting_row)
        found[event.topic] = max(found.get(event.topic, 0), size)
    return found


def _deleting(settings: Settings, sample: RowSample) -> frozenset[str]:
    """The topics of sampled rows without a payload that are sent without being tombstones."""
    if settings.outbox.tombstones:
        return frozenset()
    rows_of_text = [
        row for row in sample.latest if row.payload is None and settings.record.of(row.type or "") == "text"
    ]
    return frozenset(pair[0] for row in rows_of_text if (pair := rows.topic(settings, row)))
