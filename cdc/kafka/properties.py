"""librdkafka's properties: ours, the user's, and those that are refused because they would break the promise.

<https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md>
"""

from collections.abc import Callable, Mapping
from typing import Final

Value = str | int | float | bool

PRODUCER_DEFAULTS: Final[dict[str, Value]] = {
    "acks": "all",
    "enable.idempotence": True,
    # Without it a refused record lets the later ones pass it: a gap in the order of its key.
    "enable.gapless.guarantee": True,
    # A finite timeout reorders: records that timed out would be sent again behind later ones.
    "message.timeout.ms": 0,
    # Java's choice: the same key goes to the same partition whichever client sent it.
    "partitioner": "murmur2_random",
    "allow.auto.create.topics": False,
    # Under load: batches of 10 ms cost 0.5 us an event less than of 5. While little comes, nothing lingers.
    "linger.ms": 10,
    "batch.size": 1_000_000,
    # How large a record may be is the topic's to say; brokers hang up on requests of more than 104,857,600 bytes.
    "message.max.bytes": 100_000_000,
    # What may be in flight: beyond either, reading stops until Kafka has caught up.
    "queue.buffering.max.messages": 30_000,
    "queue.buffering.max.kbytes": 32_768,
}


def _is(*allowed: str) -> Callable[[str], bool]:
    return lambda value: value.lower() in allowed


_TRUE, _FALSE = _is("true", "1"), _is("false", "0")

# Property: which values keep the promise, and why others do not.
_PROMISES: Final[dict[str, tuple[Callable[[str], bool], str]]] = {
    "acks": (_is("all", "-1"), "only acks=all means that Kafka has the record for good"),
    "enable.idempotence": (_TRUE, "without it a retry duplicates and reorders"),
    "enable.gapless.guarantee": (_TRUE, "without it later records pass one that was refused"),
    "message.timeout.ms": (_is("0"), "a finite timeout loses the order of records"),
    "partitioner": (_is("murmur2_random", "murmur2"), "keys would move to other partitions than Java clients use"),
    "allow.auto.create.topics": (_FALSE, "topics would appear with the broker's defaults; use [topics] create"),
    "delivery.report.only.error": (_FALSE, "only a delivery report can confirm an event"),
    "queuing.strategy": (_is("fifo"), "records would overtake each other"),
    "retries": (_is("2147483647"), "giving up on a record would end the order of its key"),
    "transactional.id": (_is(), "it is set by the publisher"),
}
_ALIASES: Final = {
    "request.required.acks": "acks",
    "delivery.timeout.ms": "message.timeout.ms",
    "message.send.max.retries": "retries",
    "compression.codec": "compression.type",
}


def refused(properties: Mapping[str, Value]) -> dict[str, str]:
    """For each of the user's properties that would break the promise, one line that says why."""
    problems = {}
    for name, value in properties.items():
        keeps, reason = _PROMISES.get(_ALIASES.get(name, name), (None, ""))
        if keeps is not None and not keeps(_text(value)):
            problems[name] = f'"{name}" = {_text(value)} is refused: {reason}'
    return problems


def producer(properties: Mapping[str, Value]) -> dict[str, Value]:
    """The producer's configuration: the user's properties over our defaults."""
    given = {_ALIASES.get(name, name): value for name, value in properties.items()}
    return {name: _text(value) for name, value in {**PRODUCER_DEFAULTS, **given}.items()}


# Of the user's properties, those that say how to reach the cluster; the rest are about producing.
_CONNECTION: Final = ("bootstrap.servers", "metadata.broker.list", "client.id", "security.", "ssl.", "sasl.",
                      "enable.ssl", "https.", "socket.", "broker.", "client.dns", "reconnect.")  # fmt: skip


def connection(properties: Mapping[str, Value]) -> dict[str, Value]:
    """What an admin client or a consumer needs to reach the same cluster."""
    return {name: _text(value) for name, value in properties.items() if name.startswith(_CONNECTION)}


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
