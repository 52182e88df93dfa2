"""Send events that keep failing to the consumer's dead-letter topic: key, value, headers, and the reason.

| header                  | value                                                            |
|-------------------------|------------------------------------------------------------------|
| `cdc-error-class`       | the exception's class, with its module                           |
| `cdc-error-message`     | its message, at most 1000 characters                             |
| `cdc-error-group`       | `group.id` of the consumer                                       |
| `cdc-error-topic`, `cdc-error-partition`, `cdc-error-offset` | place of the record         |
| `cdc-error-timestamp`   | the record's timestamp, milliseconds since 1970                  |
| `cdc-error-attempts`    | number of attempts                                               |

The timestamp of a dead letter is the time of sending, so that retention does not depend on the age of the event.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message

from cdc import errors
from cdc.config import librdkafka
from cdc.consumer.blame import class_of, message_of
from cdc.consumer.events import Event
from cdc.consumer.properties import connection
from cdc.kafka import client
from cdc.kafka.errors import kafka_error
from cdc.replication.settlement import delivered

_LOOKUP_SECONDS: Final = 30.0


class DeadLetterProducer:
    """A producer for one topic. Raises KafkaError if the topic does not exist, KafkaUnavailable or ConfigError."""

    def __init__(self, kafka: Mapping[str, Any], topic: str) -> None:
        self.topic = topic
        self._group = str(kafka["group.id"])
        self._producer = client.producer(
            {**librdkafka.producer({}), **connection(kafka), **librdkafka.ONE_BY_ONE},
        )
        try:
            found = self._producer.list_topics(topic, timeout=_LOOKUP_SECONDS).topics[topic]
        except KafkaException as error:
            raise kafka_error(error.args[0], f"looking up the dead-letter topic {topic!r}") from None
        if found.error is not None or not found.partitions:
            raise errors.KafkaError(
                f"the dead-letter topic {topic!r} does not exist", hint="create it, then start again"
            )

    def send(self, event: Event, error: BaseException, on_delivery: Callable[[errors.CdcError | None], None]) -> bool:
        """Send an event; `on_delivery` is called from a later `poll` with None, or with the error.

        Returns False if the queue is full. Raises KafkaError for an event that can never be sent.
        """

        doing = f"sending {event} to {self.topic!r}"

        def report(problem: KafkaError | None, message: Message) -> None:
            if delivered(problem, message):
                on_delivery(None)
            elif problem is None:
                reason = "the broker has taken a later record, and this one may be lost"
                on_delivery(errors.KafkaUnavailable(f"{doing}: {reason}"))
            else:
                on_delivery(kafka_error(problem, doing))

        try:
            self._producer.produce(
                self.topic, event.raw, event.key, on_delivery=report, headers=headers(event, error, self._group)
            )
        except BufferError:
            return False
        except KafkaException as refused:
            raise kafka_error(refused.args[0], doing) from None
        return True

    def poll(self, seconds: float = 0.0) -> None:
        """Process delivery reports for up to `seconds`. Raises KafkaError or KafkaUnavailable after a fatal error."""
        try:
            self._producer.poll(seconds)
        except KafkaException as error:
            raise kafka_error(error.args[0], "the dead-letter producer failed") from None

    def flush(self, seconds: float) -> None:
        """Wait up to `seconds` for all delivery reports. Raises what `poll` does."""
        try:
            client.flush(self._producer, seconds)
        except KafkaException as error:
            raise kafka_error(error.args[0], "the dead-letter producer failed") from None

    def close(self) -> None:
        """Discard undelivered letters, whose offsets are not committed."""
        self._producer.purge(in_flight=False)


def headers(event: Event, error: BaseException, group: str) -> list[tuple[str, str | bytes | None]]:
    """Return the headers of a dead letter: those of the event, then reason and origin."""
    # Headers of an earlier dead-lettering would precede those of this one.
    kept = [(name, value) for name, value in event.headers if not name.startswith("cdc-error-")]
    return [
        *kept,
        ("cdc-error-class", class_of(error, full=True)),
        ("cdc-error-message", message_of(error)),
        ("cdc-error-group", group),
        ("cdc-error-topic", event.topic),
        ("cdc-error-partition", str(event.partition)),
        ("cdc-error-offset", str(event.offset)),
        ("cdc-error-timestamp", str(event.timestamp)),
        ("cdc-error-attempts", str(event.attempt)),
    ]
