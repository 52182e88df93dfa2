"""librdkafka's properties: ours, the user's, and those that are refused because they would break the promise.

<https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md>
"""

from collections.abc import Mapping
from typing import Final

Value = str | int | float | bool

# Property: our value, and why.
OURS: Final[dict[str, tuple[Value, str]]] = {
    "acks": ("all", "a record counts when every replica in sync has it"),
    "enable.idempotence": (True, "a retry neither duplicates nor reorders"),
    "enable.gapless.guarantee": (True, "behind a record that was refused, later ones do not pass: no gap in its key"),
    "message.timeout.ms": (0, "no limit: records that time out would be sent again behind later ones"),
    "partitioner": ("murmur2_random", "Java's choice: a key has the same partition whichever client sent it"),
    "allow.auto.create.topics": (False, "topics are made on purpose"),
    # Batches of 10 ms cost 0.5 us an event less than of 5.
    "linger.ms": (10, "under load; while little comes, nothing lingers"),
    "batch.size": (1_000_000, "bytes of a batch; less where a topic takes less"),
    # Brokers hang up on requests of more than 104,857,600 bytes.
    "message.max.bytes": (100_000_000, "how large a record may be is the topic's to say"),
    "queue.buffering.max.messages": (30_000, "events in flight; beyond, reading stops until Kafka has caught up"),
    "queue.buffering.max.kbytes": (32_768, "likewise, in KiB"),
}
PRODUCER_DEFAULTS: Final[dict[str, Value]] = {name: value for name, (value, _) in OURS.items()}
ONE_BY_ONE: Final[dict[str, Value]] = {"max.in.flight.requests.per.connection": 1}
"""For producers that need not be fast: no request passes one that was refused (see `cdc.kafka.first_records`)."""

_TRUE, _FALSE = ("true", "1"), ("false", "0")

# Property: the values that keep the promise, and why others do not.
PROMISES: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "acks": (("all", "-1"), "only acks=all means that Kafka has the record for good"),
    "enable.idempotence": (_TRUE, "without it a retry duplicates and reorders"),
    "enable.gapless.guarantee": (_TRUE, "without it later records pass one that was refused"),
    "message.timeout.ms": (("0",), "a finite timeout loses the order of records"),
    "partitioner": (("murmur2_random", "murmur2"), "keys would move to other partitions than Java clients use"),
    "allow.auto.create.topics": (_FALSE, "topics would appear with the broker's defaults; use [topics] create"),
    "delivery.report.only.error": (_FALSE, "only a delivery report can confirm an event"),
    "queuing.strategy": (("fifo",), "records would overtake each other"),
    "retries": (("2147483647",), "giving up on a record would end the order of its key"),
    "transactional.id": ((), "it is set by the publisher"),
}
_ALIASES: Final = {
    "request.required.acks": "acks",
    "delivery.timeout.ms": "message.timeout.ms",
    "message.send.max.retries": "retries",
    "compression.codec": "compression.type",
    "max.in.flight": "max.in.flight.requests.per.connection",
}


def refused(properties: Mapping[str, Value]) -> dict[str, str]:
    """For each of the user's properties that would break the promise, one line that says why."""
    problems = {}
    for name, value in properties.items():
        allowed, reason = PROMISES.get(_ALIASES.get(name, name), (None, ""))
        if allowed is not None and _text(value).lower() not in allowed:
            problems[name] = f'"{name}" = {_text(value)} is refused: {reason}'
    return problems


def producer(properties: Mapping[str, Value]) -> dict[str, Value]:
    """The producer's configuration: the user's properties over our defaults."""
    given = {_ALIASES.get(name, name): value for name, value in properties.items()}
    return {name: _text(value) for name, value in {**PRODUCER_DEFAULTS, **given}.items()}


# Of the user's properties, those that say how to reach the cluster; the rest are about producing.
_CONNECTION: Final = ("bootstrap.servers", "metadata.broker.list", "client.id", "security.", "ssl.", "sasl.",
                      "enable.ssl", "enable.sasl.", "https.", "socket.", "broker.", "client.dns",
                      "reconnect.")  # fmt: skip


def connection(properties: Mapping[str, Value]) -> dict[str, Value]:
    """What an admin client or a consumer needs to reach the same cluster."""
    return {name: _text(value) for name, value in properties.items() if name.startswith(_CONNECTION)}


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
