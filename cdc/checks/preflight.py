"""All of it: each side by itself and at the same time, then what one says about the other. Nothing is changed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from cdc.checks import contracts, database
from cdc.checks.finding import Finding, Notes
from cdc.checks.kafka import Kafka
from cdc.checks.sampling import Sample
from cdc.config.settings import Settings
from cdc.outbox.topic_template import TopicTemplate
from cdc.postgres import rows


class Options(NamedTuple):
    """What to look for."""

    topics: tuple[str, ...] = ()  # that events go to, beside those that the rows tell
    long_seconds: float = 300.0  # from when on a transaction is long


def check(settings: Settings, options: Options, doing: Callable[[str], None]) -> list[Finding]:
    """Look at everything; `doing` is told what is looked at. Raises ConfigError when the settings cannot be used."""
    postgres, kafka, own = Notes("postgres"), Notes("kafka"), Notes("contracts")
    cluster = Kafka(kafka, settings)
    doing("PostgreSQL, Kafka, contracts")
    with ThreadPoolExecutor(3) as sides:
        looking = sides.submit(database.check, postgres, settings, options.long_seconds)
        reading = sides.submit(contracts.check, own, settings)
        sides.submit(cluster.reach).result()
        seen, known = looking.result(), reading.result()
    sample = seen.sample or Sample([], [], None, complete=True)
    try:
        doing("rows and contracts")
        if known.contracts is not None:
            contracts.types(own, settings, known.contracts, [event_type for _, event_type in sample.topics])
            contracts.rows(own, settings, known.contracts, sample.latest)
        contracts.subjects(own, settings, known, sample.topics)
    finally:
        if known.registry is not None:
            known.registry.close()
    doing("topics")
    cluster.topics(_events(settings, options, sample), _largest(settings, known, sample))
    if seen.mark is not None:
        doing("what the publisher left")
        cluster.remembered(postgres, seen.mark)
    return [*postgres.findings, *kafka.findings, *own.findings]


def _events(settings: Settings, options: Options, sample: Sample) -> list[str]:
    """The topics that events go to, as far as they are known."""
    template = TopicTemplate(settings.topics.name)
    fixed = [] if template.columns else [settings.topics.name]
    return [*options.topics, *fixed, *(topic for topic, _ in sample.topics)]


def _largest(settings: Settings, known: contracts.Seen, sample: Sample) -> dict[str, int]:
    """The size of the largest value of each topic, of the rows that were looked at, in bytes."""
    found: dict[str, int] = {}
    for row in [*sample.latest, *([sample.largest] if sample.largest else [])]:
        pair = rows.topic(settings, row)
        # To encode takes longer than to compare: only what may be the largest is encoded.
        if pair and len(row.payload or b"") > found.get(pair[0], -1):
            found[pair[0]] = max(found.get(pair[0], 0), contracts.size(known.contracts, row))
    return found
