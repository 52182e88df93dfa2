"""The sink: a producer whose every record is reported, and topics that are known to exist before it sends.

`send` says only whether there was room. How a delivery ended comes later, from `poll`, through the record's
own callback. One thread owns this object.
"""

import logging
import time
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from cdc import errors
from cdc.config.settings import Settings
from cdc.encoding import Record
from cdc.kafka import librdkafka, properties
from cdc.kafka.cluster import Cluster, already_exists, is_missing
from cdc.kafka.failure import kafka_error
from cdc.ledger import Failure

log = logging.getLogger(__name__)

_ASK_AGAIN_SECONDS: Final = 1.0
_REMIND_SECONDS: Final = 30.0


class Sink:
    """An idempotent producer. Raises ConfigError when librdkafka does not take the properties."""

    def __init__(self, settings: Settings) -> None:
        self._topics = Topics(settings)
        self._errors: list[Any] = []
        try:
            self._producer = Producer(
                properties.producer(settings.kafka), logger=librdkafka.log, error_cb=self._errors.append
            )
        except KafkaException as error:
            raise errors.ConfigError(f"[kafka] {error.args[0].str()}") from None
        self._produce = self._producer.produce

    def send(self, record: Record) -> bool:
        """Queue a record; False means not now: poll and try the same record again.

        Raises KafkaError for a record that can never be sent, such as one that is too large.
        """
        topic, key, value, timestamp, headers, on_delivery = record
        if topic not in self._topics.ready and not self._topics.ask(topic):
            return False
        try:
            self._produce(topic, value, key, on_delivery=on_delivery, timestamp=timestamp, headers=headers)
        except BufferError:
            return False
        except KafkaException as error:
            raise _refused(error.args[0], record) from None
        return True

    def poll(self, seconds: float) -> None:
        """Let delivery reports in; wait for the first at most for so long.

        Raises KafkaUnavailable after a fatal error, when this producer will deliver nothing more.
        """
        self._producer.poll(seconds)
        for error in self._errors:
            # The others are news of brokers that come and go, which librdkafka deals with and logs.
            if error.fatal():
                raise errors.KafkaUnavailable(f"the producer failed: {error.str()} ({error.name()})")
        self._errors.clear()

    def __len__(self) -> int:
        """How many records are queued or in flight."""
        return len(self._producer)

    def close(self) -> None:
        """Drop what is queued: it is not delivered, so it will be sent again from the slot.

        librdkafka's own close would wait until Kafka has taken everything. What is in flight is left alone: to
        purge it would be reported as a fatal gap. The producer ends with its last reference, which is here.
        """
        self._producer.purge(in_flight=False)
        del self._produce, self._producer


class Topics:
    """Knows which topics exist. Nothing is sent to one that does not: librdkafka would drop it after 30 s."""

    def __init__(self, settings: Settings) -> None:
        self.ready: set[str] = set()
        self._settings = settings.topics
        self._cluster = Cluster(settings.kafka)
        self._asked: dict[str, Future[Any]] = {}
        self._missing_since: dict[str, float] = {}
        self._ask_at = 0.0
        self._remind_at = 0.0

    def ask(self, topic: str) -> bool:
        """Whether `topic` exists by now; never waits. Raises KafkaError when it can't be known or created."""
        answer = self._asked.get(topic)
        if answer is None:
            if time.monotonic() >= self._ask_at:
                self._asked[topic] = self._cluster.exists(topic)
            return False
        if not answer.done():
            return False
        del self._asked[topic]
        error = answer.exception()
        if error is None or already_exists(error):
            self.ready.add(topic)
            return True
        self._ask_at = time.monotonic() + _ASK_AGAIN_SECONDS
        if is_missing(error):
            self._missing(topic)
        elif isinstance(error, KafkaException):
            problem = kafka_error(error.args[0], f"looking up topic {topic!r}")
            if not isinstance(problem, errors.Temporary):
                raise problem
            self._remind(str(problem))
        else:
            raise error
        return False

    def _missing(self, topic: str) -> None:
        if self._settings.create:
            log.info("creating topic", extra={"topic": topic})
            self._asked[topic] = self._cluster.create(topic, self._settings, self._settings.config)
        else:
            self._remind(f"topic {topic!r} does not exist: create it, or set [topics] create = true; waiting for it")

    def _remind(self, message: str) -> None:
        now = time.monotonic()
        if now >= self._remind_at:
            self._remind_at = now + _REMIND_SECONDS
            log.warning(message)


def delivery_error(failure: Failure) -> errors.CdcError:
    """A delivery report with an error, as one of ours. Nothing is sent again by hand: the session starts anew."""
    error: Any = failure.error
    message: Any = failure.message
    where = f"topic {message.topic()!r}, key {_shown(message.key())}, transaction {failure.commit_lsn}"
    return kafka_error(error, f"delivering to {where}")


def _refused(error: Any, record: Record) -> errors.CdcError:
    event_id, _, position = (str(value) for _, value in record.headers[:3])
    size = len(record.value or b"")
    return kafka_error(
        error,
        f"sending event {event_id} at position {position} ({size} bytes) to topic {record.topic!r}",
    )


def _shown(key: bytes | None) -> str:
    return repr((key or b"").decode(errors="replace"))


def validate(settings: Settings) -> None:
    """Raises ConfigError when librdkafka does not take the properties. Waits for no server."""
    try:
        Producer(properties.producer(settings.kafka), logger=librdkafka.silent).purge()
    except KafkaException as error:
        raise errors.ConfigError(f"[kafka] {error.args[0].str()}") from None
