"""A consumer loop that commits an offset only after its event is handled.

    with Consumer(kafka, ["outbox.event.order"], handle, decoder=Decoder(folder="schemas")) as consumer:
        signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
        consumer.run()

Events of a partition are handled in order, one at a time. A failing event blocks only its own partition: it is retried
with backoff, and finally sent to a dead-letter topic, or the loop ends. The handler runs in the thread of `run`; to
handle events in parallel, start more processes in the group.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, cast, overload

from cdc.consumer.assignment import Assignment, Partition, Place
from cdc.consumer.blame import Blame, blame, class_of, ends_the_program, message_of
from cdc.consumer.dead_letters import DeadLetterProducer
from cdc.consumer.errors import AlreadyRun, HandlerFailed
from cdc.consumer.events import Decode, Event
from cdc.consumer.gaps import GapDetector
from cdc.consumer.group import Group
from cdc.consumer.inbox import Inbox
from cdc.consumer.inbox_handler import Connect, InboxHandler, InboxRunner
from cdc.consumer.log_limit import LogLimit
from cdc.consumer.properties import problems
from cdc.consumer.retries import Retry
from cdc.errors import CdcError, ConfigError, Temporary

log = logging.getLogger(__name__)
failures = logging.getLogger(f"{__name__}.failures")
failures.addFilter(LogLimit())

Handler = Callable[[Event], None]

_POLL_SECONDS: Final = 0.2
_LETTER_SECONDS: Final = 0.02  # while a dead letter is in flight
_FLUSH_SECONDS: Final = 5.0


class Consumer:
    """Calls `handler` with each event of `topics`, and commits its offset after the handler has returned.

    `kafka` contains librdkafka properties, including "bootstrap.servers" and "group.id"; properties that would break
    the guarantees are refused. `decoder` decodes `event.value`. `detector` observes each record before the handler.

    With `inbox`, the handler also gets a connection, opened by `connect`. Its writes there and the event's row in the
    inbox are one transaction, so each event is applied exactly once. Without `inbox`, an event is redelivered if the
    process dies between the handler's return and the commit of the offset, at most `commit_seconds` later.

    A handler that raises is retried as configured by `retry`, except after Rejected, or Undecodable for a value that
    cannot be decoded. An event becomes a dead letter only if the failure is its own. A `cdc.errors.Temporary`, a lost
    connection and other transient errors of PostgreSQL, and a schema id that the registry does not know yet are retried
    indefinitely; after a missing table, privilege or contract `run` raises HandlerFailed. Other failing events are sent
    to the topic `dead_letter`; without one, `run` raises HandlerFailed.

    Raises ConfigError with all invalid properties.
    """

    @overload
    def __init__(
        self,
        kafka: Mapping[str, Any],
        topics: Sequence[str],
        handler: Handler,
        *,
        decoder: Decode | None = None,
        dead_letter: str | None = None,
        retry: Retry = ...,
        detector: GapDetector | None = None,
        commit_seconds: float = 1.0,
    ) -> None: ...

    @overload
    def __init__(
        self,
        kafka: Mapping[str, Any],
        topics: Sequence[str],
        handler: InboxHandler,
        *,
        inbox: Inbox,
        connect: Connect,
        decoder: Decode | None = None,
        dead_letter: str | None = None,
        retry: Retry = ...,
        detector: GapDetector | None = None,
        commit_seconds: float = 1.0,
    ) -> None: ...

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topics: Sequence[str],
        handler: Handler | InboxHandler,
        *,
        inbox: Inbox | None = None,
        connect: Connect | None = None,
        decoder: Decode | None = None,
        dead_letter: str | None = None,
        retry: Retry = Retry(),  # noqa: B008 -- it is frozen
        detector: GapDetector | None = None,
        commit_seconds: float = 1.0,
    ) -> None:
        topics = [topics] if isinstance(topics, str) else list(topics)
        wrong = problems(kafka, topics, dead_letter)
        if (inbox is None) != (connect is None):
            wrong.append("inbox and connect must be given together")
        if wrong:
            raise ConfigError(*wrong)
        self._kafka, self._topics, self._decoder = dict(kafka), topics, decoder
        self._inbox_runner = InboxRunner(inbox, connect, cast(InboxHandler, handler)) if inbox and connect else None
        self._apply = self._inbox_runner or cast(Handler, handler)
        self._dead_letter = dead_letter
        self._retry, self._detector, self._commit_seconds = retry, detector, commit_seconds
        self._assignment = Assignment()
        self._commit_at = 0.0
        self._stopping = threading.Event()
        self._used = False
        self._problem: CdcError | None = None
        self._group: Group | None = None
        self._dead_letters: DeadLetterProducer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stop(self) -> None:
        """Make `run` return after the current event. Callable from signal handlers, other threads and the handler."""
        self._stopping.set()

    def run(self) -> None:
        """Join the group, consume until `stop`, and leave the group.

        Raises AlreadyRun at a second call and after `close`; HandlerFailed; KafkaError for permanent errors of Kafka or
        an undeliverable dead letter; KafkaUnavailable if the dead-letter topic cannot be looked up; PostgresUnavailable
        if the inbox cannot connect at the start; ConfigError if librdkafka refuses a property. Other errors are
        retried. Offsets of handled events are committed even if it raises.
        """
        if self._used:
            raise AlreadyRun("a Consumer runs once", hint="create another Consumer, and call its run")
        self._used = True
        try:
            self._open()
            while not self._stopping.is_set():
                self._step()
            if self._dead_letters is not None:
                self._dead_letters.flush(_FLUSH_SECONDS)
        finally:
            self.close()

    def close(self) -> None:
        """Commit offsets of handled events and leave the group, without handling fetched events. `run` calls this.

        Takes at most six seconds, also if Kafka does not answer; events of a last commit that failed are redelivered.
        """
        self._stopping.set()
        self._used = True
        if self._group is not None:
            self._group.close(self._assignment.uncommitted())
            self._group = None
        if self._dead_letters is not None:
            self._dead_letters.close()
            self._dead_letters = None
        if self._inbox_runner is not None:
            self._inbox_runner.close()

    def _open(self) -> None:
        if self._stopping.is_set():
            return
        if self._inbox_runner is not None:
            self._inbox_runner.open()
        if self._dead_letter is not None:
            self._dead_letters = DeadLetterProducer(self._kafka, self._dead_letter)
        self._group = Group(
            self._kafka,
            self._topics,
            decoder=self._decoder,
            assigned=self._assigned,
            revoked=self._revoked,
            lost=self._lost,
            ended=self._assignment.ended,
            committed=self._assignment.committed,
        )

    def _step(self) -> None:
        assert self._group
        event = self._group.poll(self._poll_seconds())
        if event is not None and self._assignment.take(event) and self._detector is not None:
            self._detector.observe(event.topic, event.partition, event.offset, event.headers)
        if self._dead_letters is not None:
            self._dead_letters.poll()
        if self._problem is not None:
            raise self._problem
        for partition in self._assignment.ready(time.monotonic()):
            if not self._stopping.is_set():
                self._handle(partition)
        if time.monotonic() >= self._commit_at:
            self._commit_at = time.monotonic() + self._commit_seconds
            self._group.commit(self._assignment.uncommitted())

    def _poll_seconds(self) -> float:
        """Return how long the next poll may wait for a record, in seconds."""
        longest = _LETTER_SECONDS if self._assignment.dead_lettering else _POLL_SECONDS
        due = self._assignment.due()
        return longest if due is None else min(longest, max(0.0, due - time.monotonic()))

    def _handle(self, partition: Partition) -> None:
        event = partition.events[0]
        event.attempt = partition.failures + partition.waits + 1
        try:
            self._apply(event)
        except BaseException as error:
            if ends_the_program(error):
                raise
            due_to = blame(error, event)
            if due_to is Blame.OUTAGE:
                partition.waits += 1
                self._retry_later(partition, self._retry.pause(partition.waits, random.random), error)
                return
            partition.failures += 1
            if due_to is Blame.EVENT_ALWAYS or partition.failures >= self._retry.attempts:
                self._give_up(partition, error, due_to)
            else:
                self._retry_later(partition, self._retry.pause(partition.failures, random.random), error)
        else:
            self._finish(partition)

    def _retry_later(self, partition: Partition, seconds: float, error: BaseException) -> None:
        """Retry the oldest event after `seconds`, and pause its partition until then."""
        assert self._group
        event = partition.events[0]
        failures.warning(
            "the handler failed for %s (attempt %d); retrying in %.1f s: %s: %s",
            event,
            event.attempt,
            seconds,
            class_of(error),
            message_of(error),
            exc_info=error if partition.failures == 1 and not isinstance(error, Temporary) else None,
            extra={"event": "handler_failed"},
        )
        if not partition.paused:
            self._group.pause(partition.topic, partition.number)
        partition.due = time.monotonic() + seconds

    def _give_up(self, partition: Partition, error: BaseException, due_to: Blame) -> None:
        event = partition.events[0]
        if self._dead_letters is None or self._group is None or not due_to.is_event:
            raise HandlerFailed(
                f"{class_of(error)}: {message_of(error)}",
                topic=event.topic,
                partition=event.partition,
                offset=event.offset,
                event_id=event.id,
                hint="" if due_to.is_event else "other events would fail alike: fix the cause and start again",
            ) from error

        def on_delivery(problem: CdcError | None) -> None:
            if problem is not None:
                self._problem = problem
            elif self._assignment.is_current(partition):
                failures.warning(
                    "sent %s to dead-letter topic %r: %s: %s",
                    event,
                    self._dead_letter,
                    class_of(error),
                    message_of(error),
                    extra={"event": "event_dead_lettered"},
                )
                self._finish(partition)

        if not partition.paused:
            self._group.pause(partition.topic, partition.number)
        if self._dead_letters.send(event, error, on_delivery):
            partition.dead_lettering = True
        else:
            partition.failures -= 1  # the queue is full: run the handler once more later
            partition.due = time.monotonic() + _POLL_SECONDS

    def _finish(self, partition: Partition) -> None:
        paused = partition.paused
        partition.finish()
        if paused and self._group is not None:
            self._group.resume(partition.topic, partition.number)

    def _assigned(self, places: list[Place]) -> None:
        self._assignment.add(places)
        log.info("assigned: %s", _listed(places), extra={"event": "partitions_assigned"})

    def _revoked(self, places: list[Place]) -> None:
        assert self._group
        self._group.commit(self._assignment.uncommitted(places))
        self._forget(places)
        log.info("revoked: %s", _listed(places), extra={"event": "partitions_revoked"})

    def _lost(self, places: list[Place]) -> None:
        # Another consumer owns them already: a commit now could revert its offsets.
        self._forget(places)
        log.warning("lost partitions to other consumers: %s", _listed(places), extra={"event": "partitions_lost"})

    def _forget(self, places: list[Place]) -> None:
        assert self._group
        for topic, number in self._assignment.forget(places):
            self._group.resume(topic, number)  # librdkafka keeps a partition paused when it is assigned again
        if self._detector is not None:
            for topic, number in places:
                self._detector.forget(topic, number)


def _listed(places: list[Place]) -> str:
    return ", ".join(f"{topic}[{number}]" for topic, number in sorted(places)) or "nothing"
