"""A subscription to topics in a consumer group, with the interpretation of librdkafka's errors.

No call waits without a limit. librdkafka has none for a synchronous commit, nor for leaving the group while a commit is
not answered, so commits are asynchronous, and a thread leaves the group.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from cdc import errors
from cdc.consumer.assignment import Place
from cdc.consumer.events import Decode, Event
from cdc.consumer.log_limit import LogLimit
from cdc.consumer.properties import consumer
from cdc.kafka import client
from cdc.kafka.errors import kafka_error, not_created

log = logging.getLogger(__name__)
log.addFilter(LogLimit())

_REPEAT_SECONDS: Final = 30.0
_LEAVE_SECONDS: Final = 5.0  # until offsets are committed and the group is left
_LEAST_SECONDS: Final = 1.0  # of these for leaving the group
_MISSING: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
_FENCED: Final = 'another process has the same "group.instance.id": give each its own'
# Errors that end the consumer, with hints.
_PERMANENT: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant the principal READ and DESCRIBE on the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "grant the principal READ on the group",
    KafkaError._AUTO_OFFSET_RESET: "records were deleted before they were read, or this group has never read: commit"
    ' the offsets where reading should continue, or use "auto.offset.reset" = earliest',
    KafkaError.FENCED_INSTANCE_ID: _FENCED,
    KafkaError.TOPIC_EXCEPTION: "correct the topic's name",
    KafkaError.UNSUPPORTED_VERSION: "the brokers are too old",
}


class Group:
    """A subscription. `poll` and `close` call `assigned`, `revoked` and `lost` in the same thread.

    Raises ConfigError if librdkafka rejects the properties.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topics: Sequence[str],
        *,
        decoder: Decode | None,
        assigned: Callable[[list[Place]], None],
        revoked: Callable[[list[Place]], None],
        lost: Callable[[list[Place]], None],
        ended: Callable[[str, int, int], None],
        committed: Callable[[str, int, int], None],
    ) -> None:
        self._decoder = decoder
        self._ended, self._committed = ended, committed
        self._logged_until: dict[str, float] = {}
        self._fatal: KafkaError | None = None
        self._unreported = 0  # commits
        self._abandoned = False
        properties = consumer(kafka)
        for name, own in (("on_commit", self._on_commit), ("error_cb", self._on_error)):
            properties[name] = _both(own, properties.get(name))
        self._consumer = client.consumer(properties)
        try:
            self._consumer.subscribe(
                list(topics),
                on_assign=lambda _, found: self._call(assigned, found),
                on_revoke=lambda _, found: self._call(revoked, found),
                on_lost=lambda _, found: self._call(lost, found),
            )
        except KafkaException as error:
            raise not_created(error) from None

    def _call(self, callback: Callable[[list[Place]], None], found: Iterable[TopicPartition]) -> None:
        if not self._abandoned:
            callback([(part.topic, part.partition) for part in found])

    def poll(self, seconds: float) -> Event | None:
        """Return the next record, or None after `seconds`. Raises KafkaError for permanent errors.

        At the end of a partition it calls `ended` with the offset, behind markers and aborted records of transactions.
        """
        try:
            message = self._consumer.poll(seconds)
        except KafkaException as error:
            raise failure(error.args[0]) from None
        if self._fatal is not None:
            raise failure(self._fatal)
        if message is None:
            return None
        problem = message.error()
        if problem is None:
            return Event.of(message, self._decoder)
        if problem.code() == KafkaError._PARTITION_EOF:
            self._ended(message.topic() or "", message.partition() or 0, message.offset() or 0)
        else:
            self._handle_error(problem, message.topic())
        return None

    def _handle_error(self, error: KafkaError, topic: str | None) -> None:
        code = error.code()
        if code in _MISSING:
            now = time.monotonic()
            if now >= self._logged_until.get(topic or "", 0.0):
                self._logged_until[topic or ""] = now + _REPEAT_SECONDS
                log.warning(
                    "topic %r does not exist; waiting for it",
                    topic,
                    extra={"event": "topic_missing", "error": error.name()},
                )
        elif code == KafkaError._MAX_POLL_EXCEEDED:
            log.warning(
                "a handler took longer than max.poll.interval.ms, so the group reassigns the partitions",
                extra={"event": "poll_interval_exceeded"},
            )
        elif _is_fatal(error) or code in _PERMANENT:
            raise failure(error)
        else:
            log.warning("Kafka: %s (%s)", error.str(), error.name(), extra={"event": "kafka_error"})

    def _on_error(self, error: KafkaError) -> None:
        if _is_fatal(error):
            self._fatal = error
        else:
            log.warning("Kafka: %s (%s)", error.str(), error.name(), extra={"event": "kafka_error"})

    def pause(self, topic: str, partition: int) -> None:
        """Stop fetching from a partition."""
        self._quietly(self._consumer.pause, topic, partition)

    def resume(self, topic: str, partition: int) -> None:
        """Fetch from a paused partition again."""
        self._quietly(self._consumer.resume, topic, partition)

    def _quietly(self, function: Callable[[list[TopicPartition]], None], topic: str, partition: int) -> None:
        try:
            function([TopicPartition(topic, partition)])
        except KafkaException as error:  # it is being revoked
            log.debug("Kafka: %s", error)

    def commit(self, offsets: Mapping[Place, int]) -> None:
        """Begin to commit offsets. A later `poll` passes each committed one to `committed`, and logs failures.

        Kafka answers the requests of a connection in order, so a commit for revoked partitions precedes their next
        owner.
        """
        parts = [TopicPartition(topic, number, offset) for (topic, number), offset in offsets.items()]
        if not parts:
            return
        self._unreported += 1
        try:
            self._consumer.commit(offsets=parts, asynchronous=True)
        except KafkaException as error:
            self._on_commit(error.args[0], parts)

    def _on_commit(self, error: KafkaError | None, parts: list[TopicPartition]) -> None:
        self._unreported -= 1
        for part in parts:
            problem = error or part.error
            if problem is None:
                self._committed(part.topic, part.partition, part.offset)
            else:
                log.warning(
                    "offset %d of %s[%d] could not be committed: %s; its events may be redelivered",
                    part.offset,
                    part.topic,
                    part.partition,
                    problem.str(),
                    extra={"event": "commit_failed"},
                )

    def close(self, offsets: Mapping[Place, int]) -> None:
        """Commit offsets, and leave the group after revoking its partitions. Takes at most six seconds.

        If Kafka does not answer within that time, the group notices after the session timeout, and events since the
        last commit are redelivered.
        """
        deadline = time.monotonic() + _LEAVE_SECONDS
        self.commit(offsets)
        while self._unreported and time.monotonic() < deadline:
            with contextlib.suppress(KafkaException):
                self._consumer.poll(0.05)  # records that it returns are not committed
        leaving = threading.Thread(target=self._leave, name="leave the consumer group", daemon=True)
        leaving.start()
        leaving.join(max(_LEAST_SECONDS, deadline - time.monotonic()))
        if leaving.is_alive():
            self._abandoned = True
            log.warning(
                "leaving the group failed: %s", "Kafka does not answer in time", extra={"event": "leaving_failed"}
            )

    def _leave(self) -> None:
        try:
            self._consumer.close()
        except KafkaException as error:
            log.warning("leaving the group failed: %s", error.args[0].str(), extra={"event": "leaving_failed"})


def _both(own: Callable[..., None], given: Any) -> Any:
    """Return a callback that calls both; anything but a callable is left for the client to refuse."""
    if given is None:
        return own
    if not callable(given):
        return given

    def both(*arguments: Any) -> None:
        own(*arguments)
        given(*arguments)

    return both


def failure(error: KafkaError) -> errors.CdcError:
    """Return the CdcError for an error of librdkafka that ends the consumer."""
    # Only the text of a fatal error names its cause.
    hint = _PERMANENT.get(error.code(), _FENCED if "group.instance.id" in error.str() else "")
    if hint or _is_fatal(error):
        return errors.KafkaError(f"Kafka, consuming: {error.str()} ({error.name()})", hint=hint)
    return kafka_error(error, "consuming")


def _is_fatal(error: KafkaError) -> bool:
    return error.fatal() or error.code() == KafkaError._FATAL
