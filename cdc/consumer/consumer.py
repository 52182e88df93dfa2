"""A loop over a consumer group that commits an offset only when its event is handled.

    with Consumer(kafka, ["outbox.event.order"], handle, decoder=Decoder(folder="schemas")) as consumer:
        signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
        consumer.run()

Events of one partition are handled one after the other, in their order. One that fails holds up its partition alone:
it is tried again after pauses, during which the others go on, and at last buried in a dead-letter topic, or the loop
ends. The handler is a plain function on the thread of `run`; for more at a time start more processes in the group.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self, cast, overload

from cdc.config.librdkafka import Value
from cdc.consumer.applying import Applying, Connect, InboxHandler
from cdc.consumer.assignment import Assignment, Partition, Place
from cdc.consumer.burial import Burial
from cdc.consumer.decoding import Undecodable
from cdc.consumer.errors import HandlerFailed, Rejected
from cdc.consumer.events import Decode, Event
from cdc.consumer.gaps import GapDetector
from cdc.consumer.group import Group
from cdc.consumer.inbox import Inbox
from cdc.consumer.properties import problems
from cdc.consumer.retries import Retry
from cdc.consumer.storm import Storm
from cdc.errors import CdcError, ConfigError, Temporary

log = logging.getLogger(__name__)
failures = logging.getLogger(f"{__name__}.failures")
failures.addFilter(Storm())

Handler = Callable[[Event], None]

_POLL_SECONDS: Final = 0.2
_LETTER_SECONDS: Final = 0.02  # how soon a partition hears that its letter is delivered
_FLUSH_SECONDS: Final = 5.0


class Consumer:
    """Gives each event of `topics` to `handler`, and commits its offset after that has returned.

    `kafka` are librdkafka's properties, "bootstrap.servers" and "group.id" among them; those that would break the
    promise are refused. `decoder` makes `event.value` of the bytes. `detector` sees each record before the handler
    does.

    With `inbox` the handler is also given a connection (from `connect`, a function that opens one), and what it writes
    there is one transaction with the event's row in the inbox: each event is applied once. Without it an event comes
    again when the process dies between the handler's return and the commit of the offset, at most `commit_seconds`
    later.

    A handler that raises is tried again as `retry` says. One that raises Rejected, or Undecodable because the value
    cannot be decoded, is not. One that raises a `cdc.errors.Temporary` says that it is not the event's fault: that,
    and a lost connection of the inbox, is tried for ever. What fails for good goes to the topic `dead_letter`; without
    one, `run` raises HandlerFailed.

    Raises ConfigError, which names every property that is wrong.
    """

    @overload
    def __init__(
        self,
        kafka: Mapping[str, Value],
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
        kafka: Mapping[str, Value],
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
        kafka: Mapping[str, Value],
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
            wrong.append("an inbox and the function that connects come together")
        if wrong:
            raise ConfigError(*wrong)
        self._kafka, self._topics, self._decoder = dict(kafka), topics, decoder
        self._applying = Applying(inbox, connect, cast(InboxHandler, handler)) if inbox and connect else None
        self._apply = self._applying or cast(Handler, handler)
        self._dead_letter = dead_letter
        self._retry, self._detector, self._commit_seconds = retry, detector, commit_seconds
        self._assignment = Assignment()
        self._commit_at = 0.0
        self._stopping = threading.Event()
        self._problem: CdcError | None = None
        self._group: Group | None = None
        self._burial: Burial | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stop(self) -> None:
        """Let `run` return once the event in hand is handled. From a signal handler, another thread, or the handler."""
        self._stopping.set()

    def run(self) -> None:
        """Join the group and consume until `stop`; then leave it. Can be called once.

        Raises HandlerFailed, KafkaError when Kafka refuses for good or a dead letter cannot be delivered,
        KafkaUnavailable when the dead-letter topic cannot be looked up, PostgresUnavailable when the inbox cannot
        connect at the start. Everything else is waited for. Whatever it raises, offsets of what was handled are
        committed.
        """
        try:
            self._open()
            while not self._stopping.is_set():
                self._turn()
            if self._burial is not None:
                self._burial.flush(_FLUSH_SECONDS)
        finally:
            self.close()

    def close(self) -> None:
        """Commit what is handled and leave the group; what is in hand is abandoned. `run` does it by itself."""
        self._stopping.set()
        if self._group is not None:
            self._group.close()  # which revokes, and that commits
            self._group = None
        if self._burial is not None:
            self._burial.close()
            self._burial = None
        if self._applying is not None:
            self._applying.close()

    def _open(self) -> None:
        if self._stopping.is_set():
            return
        if self._applying is not None:
            self._applying.open()
        if self._dead_letter is not None:
            self._burial = Burial(self._kafka, self._dead_letter)
        self._group = Group(
            self._kafka,
            self._topics,
            decoder=self._decoder,
            assigned=self._assigned,
            revoked=self._revoked,
            lost=self._lost,
            committed=self._assignment.committed,
        )

    def _turn(self) -> None:
        assert self._group
        event = self._group.poll(self._patience())
        if event is not None and self._assignment.take(event) and self._detector is not None:
            self._detector.observe(event.topic, event.partition, event.offset, event.headers)
        if self._burial is not None:
            self._burial.poll()
        if self._problem is not None:
            raise self._problem
        for partition in self._assignment.ready(time.monotonic()):
            if not self._stopping.is_set():
                self._work(partition)
        if time.monotonic() >= self._commit_at:
            self._commit_at = time.monotonic() + self._commit_seconds
            self._group.commit(self._assignment.uncommitted(), wait=False)

    def _patience(self) -> float:
        """Seconds until something else is to be done than to wait for a record."""
        longest = _LETTER_SECONDS if self._assignment.burying else _POLL_SECONDS
        due = self._assignment.due()
        return longest if due is None else min(longest, max(0.0, due - time.monotonic()))

    def _work(self, partition: Partition) -> None:
        event = partition.events[0]
        event.attempt = partition.failures + partition.waits + 1
        try:
            self._apply(event)
        except Temporary as error:
            partition.waits += 1
            self._hold(partition, self._retry.pause(partition.waits, random.random), error)
        except Exception as error:
            partition.failures += 1
            if isinstance(error, (Rejected, Undecodable)) or partition.failures >= self._retry.attempts:
                self._give_up(partition, error)
            else:
                self._hold(partition, self._retry.pause(partition.failures, random.random), error)
        else:
            self._finish(partition)

    def _hold(self, partition: Partition, seconds: float, error: Exception) -> None:
        """Try the oldest event again after so long, and fetch no more of its partition."""
        assert self._group
        event = partition.events[0]
        failures.warning(
            "the handler failed for %s (attempt %d), which is tried again in %.1f s: %s: %s",
            event,
            event.attempt,
            seconds,
            type(error).__name__,
            error,
            exc_info=error if partition.failures == 1 and not isinstance(error, Temporary) else None,
        )
        if not partition.held:
            self._group.pause(partition.topic, partition.number)
        partition.due = time.monotonic() + seconds

    def _give_up(self, partition: Partition, error: Exception) -> None:
        event = partition.events[0]
        if self._burial is None or self._group is None:
            raise HandlerFailed(
                f"{type(error).__name__}: {error}",
                topic=event.topic,
                partition=event.partition,
                offset=event.offset,
                event_id=event.id,
            ) from error

        def told(problem: CdcError | None) -> None:
            if problem is not None:
                self._problem = problem
            elif self._assignment.has(partition):
                failures.warning("%s is buried in %r: %s: %s", event, self._dead_letter, type(error).__name__, error)
                self._finish(partition)

        if not partition.held:
            self._group.pause(partition.topic, partition.number)
        if self._burial.send(event, error, told):
            partition.burying = True
        else:
            partition.failures -= 1  # no room: the handler is asked once more
            partition.due = time.monotonic() + _POLL_SECONDS

    def _finish(self, partition: Partition) -> None:
        held = partition.held
        partition.finish()
        if held and self._group is not None:
            self._group.resume(partition.topic, partition.number)

    def _assigned(self, places: list[Place]) -> None:
        self._assignment.add(places)
        log.info("assigned: %s", _listed(places))

    def _revoked(self, places: list[Place]) -> None:
        assert self._group
        self._group.commit(self._assignment.uncommitted(places), wait=True)
        self._forget(places)
        log.info("revoked: %s", _listed(places))

    def _lost(self, places: list[Place]) -> None:
        # They are somebody else's already: a commit now could take back what that one has committed.
        self._forget(places)
        log.warning("lost to others in the group: %s", _listed(places))

    def _forget(self, places: list[Place]) -> None:
        assert self._group
        for topic, number in self._assignment.forget(places):
            self._group.resume(topic, number)  # librdkafka remembers a pause for when it is given the partition again
        if self._detector is not None:
            for topic, number in places:
                self._detector.forget(topic, number)


def _listed(places: list[Place]) -> str:
    return ", ".join(f"{topic}[{number}]" for topic, number in sorted(places)) or "nothing"
