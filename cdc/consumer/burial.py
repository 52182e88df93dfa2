"""What keeps failing, sent to a dead-letter topic of the consumer: key, value and headers as they were, and why.

| header                  | value                                                            |
|-------------------------|------------------------------------------------------------------|
| `cdc-error-class`       | the exception's class, with its module                           |
| `cdc-error-message`     | its text, in at most 1000 characters                             |
| `cdc-error-group`       | `group.id` of the consumer                                       |
| `cdc-error-topic`, `cdc-error-partition`, `cdc-error-offset` | where the record stands     |
| `cdc-error-timestamp`   | the record's timestamp, milliseconds since 1970                  |
| `cdc-error-attempts`    | how often it was tried                                           |

The letter's own timestamp is when it was sent: retention counts from there, however old the event is.
"""

from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message

from cdc import errors
from cdc.config import librdkafka
from cdc.consumer.events import Event
from cdc.kafka import client
from cdc.kafka.errors import kafka_error
from cdc.replication.settlement import delivered

_LONGEST_MESSAGE: Final = 1000
_LOOK_SECONDS: Final = 30.0


class Burial:
    """A producer for one topic. Raises KafkaError when the topic is missing, KafkaUnavailable, ConfigError."""

    def __init__(self, kafka: Mapping[str, librdkafka.Value], topic: str) -> None:
        self.topic = topic
        self._group = str(kafka["group.id"])
        made = librdkafka.producer(librdkafka.connection(kafka)) | librdkafka.ONE_BY_ONE
        self._producer = client.producer(made)
        try:
            found = self._producer.list_topics(topic, timeout=_LOOK_SECONDS).topics[topic]
        except KafkaException as error:
            raise kafka_error(error.args[0], f"looking up the dead-letter topic {topic!r}") from None
        if found.error is not None or not found.partitions:
            raise errors.KafkaError(
                f"the dead-letter topic {topic!r} does not exist", hint="create it, then start again"
            )

    def send(self, event: Event, error: BaseException, told: Callable[[errors.CdcError | None], None]) -> bool:
        """Send one; `told` is called from a later `poll` with None when Kafka has it, or what went wrong.

        False means that there is no room now. Raises KafkaError for a letter that can never be sent.
        """

        doing = f"burying {event} in {self.topic!r}"

        def report(problem: KafkaError | None, message: Message) -> None:
            if delivered(problem, message):
                told(None)
            elif problem is None:
                told(errors.KafkaUnavailable(f"{doing}: the broker has taken a later record, and this one may be lost"))
            else:
                told(kafka_error(problem, doing))

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
        """Let reports in. Raises KafkaUnavailable when this producer will deliver nothing more."""
        try:
            self._producer.poll(seconds)
        except KafkaException as error:
            raise errors.KafkaUnavailable(f"the producer of dead letters failed: {error.args[0].str()}") from None

    def flush(self, seconds: float) -> None:
        """Wait until all are reported, but no longer."""
        self._producer.flush(seconds)

    def close(self) -> None:
        """Drop what is not delivered: its offset is not committed."""
        self._producer.purge(in_flight=False)


def headers(event: Event, error: BaseException, group: str) -> list[tuple[str, str | bytes | None]]:
    """The headers of a letter: those of the event, then why and where from."""
    # What an earlier burial said would be in the way of what this one says.
    kept = [(name, value) for name, value in event.headers if not name.startswith("cdc-error-")]
    kind = type(error)
    # Neither zero bytes nor lone surrogates pass the client.
    message = str(error).encode(errors="replace").decode().replace("\0", " ")
    return [
        *kept,
        ("cdc-error-class", f"{kind.__module__}.{kind.__qualname__}"),
        ("cdc-error-message", message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"),
        ("cdc-error-group", group),
        ("cdc-error-topic", event.topic),
        ("cdc-error-partition", str(event.partition)),
        ("cdc-error-offset", str(event.offset)),
        ("cdc-error-timestamp", str(event.timestamp)),
        ("cdc-error-attempts", str(event.attempt)),
    ]
