"""librdkafka properties: own defaults, the user's, and values refused because they would break delivery guarantees.

<https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md>
"""

from collections.abc import Collection, Mapping
from typing import Final

Value = str | int | float | bool

# Property: own default, and the reason.
OURS: Final[dict[str, tuple[Value, str]]] = {
    "acks": ("all", "a record is acknowledged when all in-sync replicas have it"),
    "enable.idempotence": (True, "a retry neither duplicates nor reorders"),
    "enable.gapless.guarantee": (True, "later records do not overtake a refused record: no gap within a key"),
    "message.timeout.ms": (0, "no limit: a record that timed out would be sent again after later ones"),
    "partitioner": ("murmur2_random", "as the Java client: a key maps to the same partition whichever client sends it"),
    "allow.auto.create.topics": (False, "topics are created explicitly"),
    # Batches of 10 ms cost less CPU per event than batches of 5 ms; see docs/speed.md.
    "linger.ms": (10, "under load; records are sent at once while traffic is low"),
    "batch.size": (1_000_000, "bytes per batch; less for topics with a lower limit"),
    # Brokers close connections on requests larger than 104,857,600 bytes.
    "message.max.bytes": (100_000_000, "the topic's max.message.bytes limits the size of records"),
    "queue.buffering.max.messages": (30_000, "events in flight; at this limit, reading pauses until Kafka catches up"),
    "queue.buffering.max.kbytes": (32_768, "the same limit in KiB"),
}
PRODUCER_DEFAULTS: Final[dict[str, Value]] = {name: value for name, (value, _) in OURS.items()}
ONE_BY_ONE: Final[dict[str, Value]] = {"max.in.flight.requests.per.connection": 1}
"""For producers that need not be fast: no request overtakes a refused one (see `cdc.kafka.first_records`)."""
ALONE: Final[dict[str, Value]] = {"batch.num.messages": 1}
"""For sessions that must know which record a broker refuses: it refuses whole batches."""

_TRUE, _FALSE = ("true", "1"), ("false", "0")

# Property: the values that keep the delivery guarantee, and why others do not.
PROMISES: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "acks": (("all", "-1"), "only acks=all means that the record is durable"),
    "enable.idempotence": (_TRUE, "without it, retries duplicate and reorder records"),
    "enable.gapless.guarantee": (_TRUE, "without it, later records overtake a refused record"),
    "message.timeout.ms": (("0",), "a finite timeout breaks the order of records"),
    "partitioner": (("murmur2_random", "murmur2"), "keys would map to other partitions than with Java clients"),
    "allow.auto.create.topics": (_FALSE, "topics would be created with the broker's defaults; use [topics] create"),
    "delivery.report.only.error": (_FALSE, "only a delivery report can confirm an event"),
    "queuing.strategy": (("fifo",), "records would be reordered"),
    "retries": (("2147483647",), "giving up on a record would break the order of its key"),
    "transactional.id": ((), "the publisher sets it"),
    "test.mock.num.brokers": (("0",), "events would go to a mock cluster inside the publisher, and be lost"),
}
# Property: what librdkafka runs because of it. `[delivery] kafka_code` allows them by name.
CODE: Final[dict[str, str]] = {
    "plugin.library.paths": "librdkafka loads these libraries into the publisher",
    "ssl.engine.location": "OpenSSL loads this library into the publisher",
    "ssl.engine.id": "OpenSSL loads the library of this engine into the publisher",
    "ssl.providers": "OpenSSL loads the libraries of these providers into the publisher",
    "sasl.kerberos.kinit.cmd": "librdkafka runs this command in a shell",
}
_ALIASES: Final = {
    "request.required.acks": "acks",
    "delivery.timeout.ms": "message.timeout.ms",
    "message.send.max.retries": "retries",
    "compression.codec": "compression.type",
    "max.in.flight": "max.in.flight.requests.per.connection",
}


def refused(properties: Mapping[str, Value], allowed_code: Collection[object] = ()) -> dict[str, str]:
    """Return, for each property that would break the delivery guarantee or run foreign code, the reason in one line.

    `allowed_code` are the names of CODE that are allowed.
    """
    problems = {
        name: f'"{name}" is refused: {reason}; allow it with [delivery] kafka_code = ["{name}"]'
        for name, reason in CODE.items()
        if name in properties and name not in allowed_code
    }
    for name, value in properties.items():
        allowed, reason = PROMISES.get(_ALIASES.get(name, name), (None, ""))
        if allowed is not None and _text(value).lower() not in allowed:
            problems[name] = f'"{name}" = {_text(value)} is refused: {reason}'
    return problems


def producer(properties: Mapping[str, Value]) -> dict[str, Value]:
    """Return the producer's configuration: `properties` override `PRODUCER_DEFAULTS`."""
    given = {_ALIASES.get(name, name): value for name, value in properties.items()}
    return {name: _text(value) for name, value in {**PRODUCER_DEFAULTS, **given}.items()}


# Prefixes of properties that say how to reach the cluster; the others configure the producer.
_CONNECTION: Final = ("bootstrap.servers", "metadata.broker.list", "client.id", "security.", "ssl.", "sasl.",
                      "enable.ssl", "enable.sasl.", "https.", "socket.", "broker.", "client.dns",
                      "reconnect.")  # fmt: skip


def connection(properties: Mapping[str, Value]) -> dict[str, Value]:
    """Return the properties that an admin client or a consumer needs to reach the same cluster."""
    return {name: _text(value) for name, value in properties.items() if name.startswith(_CONNECTION)}


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
