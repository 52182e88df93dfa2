"""Clients of confluent-kafka: only this module creates a Producer, a Consumer or an AdminClient."""

import contextlib
import logging
import time
from collections.abc import Collection, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from cdc import errors
from cdc.config import librdkafka
from cdc.config.librdkafka import Value, connection
from cdc.kafka.errors import kafka_error, not_created
from cdc.replication.settlement import delivered

log: Final = logging.getLogger("cdc.kafka.librdkafka")
"""The lines of librdkafka itself; the name is documented."""

PARTITION_BY_KEY: Final = -1
PREPARE_SECONDS: Final = 0.2
_FLUSH_SECONDS: Final = 0.1  # of one call: see `flush`
_LEAST_SECONDS: Final = 0.001  # the unit of librdkafka


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a line reports a problem.

    CONFWARN is about properties that are set on purpose. GETPID is repeated while a transaction of the predecessor
    ends, which takes a moment.
    """
    message = record.getMessage()
    return not (message.startswith("CONFWARN") or (message.startswith("GETPID") and message.endswith("retrying")))


log.addFilter(_is_news)

_silent: Final = logging.Logger("silent")  # not in the hierarchy of loggers
_silent.addHandler(logging.NullHandler())


_REFUSALS: Final = (KafkaException, TypeError, ValueError, AttributeError, OverflowError, SystemError)
"""What the clients raise for properties that they cannot use."""


def producer(properties: Mapping[str, Any], *, silent: bool = False) -> Producer:
    """Create a producer; `silent` drops the log lines of librdkafka. Raises ConfigError and KafkaUnavailable.

    `properties` may hold callbacks, and another `logger`.
    """
    try:
        return Producer({"logger": _silent if silent else log, **properties})
    except _REFUSALS as error:
        raise not_created(error) from None


def flush(producer: Producer, seconds: float) -> int:
    """Send queued records without lingering and serve reports, for at most `seconds`; return how many are left.

    Raises KafkaException for a fatal error. A single call that takes longer than 0.2 s keeps serving reports after a
    fatal error, with that error pending, so that any callback fails with a SystemError (confluent-kafka 2.16). One of
    less than a millisecond does not wait, and wakes all threads of librdkafka: a loop of such calls would keep a core
    busy.
    """
    deadline = time.monotonic() + seconds
    while True:
        left = producer.flush(min(_FLUSH_SECONDS, seconds))
        seconds = deadline - time.monotonic()
        if not left or seconds < _LEAST_SECONDS:
            return left


def write(
    given: Mapping[str, Value],
    topic: str,
    records: Collection[tuple[bytes, bytes | None]],
    seconds: float,
    partition: int = PARTITION_BY_KEY,
) -> None:
    """Write records of key and value, and wait for their delivery; None deletes a key.

    `given` are the properties of [kafka]. Raises CdcError:
    KafkaUnavailable when that takes longer than `seconds`, and records may have been written.
    """
    made = prompt_producer(given)
    try:
        deliver(made, topic, records, seconds, partition)
    finally:
        made.purge(in_flight=False)


def prompt_producer(given: Mapping[str, Value]) -> Producer:
    """Create a producer of few records, which does not linger. Takes and raises what `producer` does."""
    return producer({**librdkafka.producer(given), "linger.ms": 0}, silent=True)


def prepare(made: Producer, topic: str, seconds: float = PREPARE_SECONDS) -> None:
    """Let a new producer request its id as soon as it is connected; it would half a second after it was created.

    librdkafka requests it with each answer about topics too. Without an answer it does so by itself.
    """
    with contextlib.suppress(KafkaException):
        made.list_topics(topic, timeout=seconds)


def deliver(
    made: Producer,
    topic: str,
    records: Collection[tuple[bytes, bytes | None]],
    seconds: float,
    partition: int = PARTITION_BY_KEY,
) -> None:
    """Write records by a producer that has nothing else to do. Raises what `write` does."""
    reports: list[tuple[KafkaError | None, Message | None]] = []
    try:
        for key, value in records:
            made.produce(topic, value, key, partition, on_delivery=lambda *report: reports.append(report))
        prepare(made, topic)  # only now: a fatal error that comes before `produce` has no reason there
        flush(made, seconds)
    except KafkaException as error:
        reports.append((error.args[0], None))
    for problem, message in reports:
        if problem is not None:
            raise kafka_error(problem, f"writing to topic {topic!r}")
        if not delivered(problem, message):
            raise errors.KafkaUnavailable(f"topic {topic!r} took a later record, and this one may be lost")
    if len(reports) < len(records):
        raise errors.KafkaUnavailable(f"topic {topic!r} did not take a record within {seconds:g} s")


def consumer(properties: Mapping[str, Any], *, silent: bool = False) -> Consumer:
    """Create a consumer of a group. Takes and raises what `producer` does."""
    try:
        return Consumer({"logger": _silent if silent else log, **properties})
    except _REFUSALS as error:
        raise not_created(error) from None


def admin_client(properties: Mapping[str, Any]) -> AdminClient:
    """Create an admin client without log lines; `properties` may hold callbacks. Raises what `producer` does."""
    try:
        return AdminClient(dict(properties), logger=_silent)
    except _REFUSALS as error:
        raise not_created(error) from None


def reader(given: Mapping[str, Value], name: str, **more: int) -> Consumer:
    """Create a consumer of committed records that joins no group and commits no offsets.

    `given` are the properties of [kafka], `more` further properties of librdkafka with _ for each dot. Raises what
    `producer` does.
    """
    properties: dict[str, Value] = {
        **connection(given),
        "group.id": name,  # required, but no right to it is needed as long as nothing joins and nothing is committed
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",  # the oldest records may be deleted while others are read
        "isolation.level": "read_committed",
        "fetch.queue.backoff.ms": 5,  # by default it would rest for a second whenever its queue is full
        **{name.replace("_", "."): value for name, value in more.items()},
    }
    return consumer(properties, silent=True)
