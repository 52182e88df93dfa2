"""Tracks topics: whether they exist, how large their records may be, and whether they are still the same.

Nothing is sent to a topic that does not exist: librdkafka would drop it after 30 s. One object lives as long as the
service, so that a re-created topic is recognised in a later session too. Nothing here waits.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import TopicDescription

from cdc import errors
from cdc.config import librdkafka
from cdc.config.settings import Settings
from cdc.kafka.cluster import Cluster, Description, Identity, TopicState, already_exists, identity, is_missing
from cdc.kafka.limits import Limits
from cdc.kafka.rejections import CAREFUL_SECONDS, Rejections, RowRefused
from cdc.records.headers import ID, POSITION
from cdc.records.record import Delivered, Record
from cdc.replication.settlement import Failure

log = logging.getLogger(__name__)

_AHEAD_SECONDS: Final = 5.0
_ASK_AGAIN_SECONDS: Final = 1.0
_REMIND_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 5.0
_COLLECT_SECONDS: Final = 1.0
_LOOK_TOPICS: Final = 500  # at once
_SAFE_REPLICAS: Final = 3
_SAFE_IN_SYNC: Final = 2


class KnownTopics:
    """Looks topics up when they are first used in a session, and checks all of them every few seconds.

    `leaving` is set when this session must end as soon as nothing is in flight; `changes` counts how often a topic
    disappeared.
    """

    def __init__(
        self,
        settings: Settings,
        cluster: Callable[[], Cluster] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.leaving: errors.KafkaUnavailable | None = None
        self.changes = 0
        self._settings = settings.topics
        self._buries = settings.delivery.on_poison == "dead-letter"
        self._open = cluster or (lambda: Cluster(settings.kafka))
        self._cluster: Cluster | None = None
        self._monotonic = monotonic
        self._found: tuple[RowRefused, float] | None = None  # the first of this session, and when the session ends
        self._limits = Limits(settings.kafka)
        self._rejections = Rejections(settings.topics, monotonic)
        self._largest: dict[str, int] = {}  # of topics that exist, as found in this session
        self._seen: dict[str, Identity] = {}
        self._warned: set[str] = set()
        self._told_hidden = False
        self._asked: dict[str, Description | Future[None]] = {}
        self._ahead: dict[str, float] = {}  # when topics were requested ahead, in monotonic seconds
        self._looking: list[tuple[str, Future[TopicDescription]]] = []
        self._look_from = 0
        self._look_at = self._ask_at = self._remind_at = 0.0

    def renew(self) -> None:
        """Start a session, before its producer is created: limits are read again. Raises ConfigError."""
        self._cluster = self._cluster or self._open()
        self._largest.clear()
        self._asked.clear()
        self._ahead.clear()
        self._looking.clear()
        self._rejections.renew()
        self.leaving = self._found = None

    @property
    def refused(self) -> Mapping[str, str]:
        """The rows, by their header `cdc-position`, whose records Kafka refused, and why."""
        return self._rejections.rows

    @property
    def alone(self) -> Mapping[str, librdkafka.Value]:
        """The properties of the producer that sends each record alone.

        With dead letters, later records may pass a refused one, so that one session finds many refused ones.
        """
        passing = {**librdkafka.ONE_BY_ONE, "enable.gapless.guarantee": False}
        return librdkafka.ALONE | (passing if self._buries else {})

    @property
    def careful(self) -> bool:
        """Whether this session must send each record in a batch of its own, and its report through `reporting`."""
        return self._rejections.careful

    @property
    def passing(self) -> bool:
        """Whether later records may pass a refused one in this session."""
        return self.careful and self._buries

    @property
    def batch_bytes(self) -> int:
        """How many bytes the batches of this session's producer may have."""
        return self._limits.batch_bytes

    @property
    def most(self) -> int:
        """How many bytes a record batch may have in any topic."""
        return self._limits.most

    def largest(self, topic: str) -> int | None:
        """Return how many bytes a record batch of the topic may have; None until the topic is known to exist.

        Raises Unfit when the topic cannot be used and others may be, KafkaError when none can, KafkaUnavailable when
        the session must end.
        """
        known = self._largest.get(topic)
        return self._ask(topic) if known is None else known

    def ask_ahead(self, topics: Iterable[str]) -> None:
        """Request topics that are likely to be used soon: answers take time, but come side by side."""
        now = self._monotonic()
        for topic in topics:
            if self._cluster and topic not in self._largest and topic not in self._asked:
                self._asked[topic] = self._cluster.describe(topic)
                self._ahead[topic] = now

    def remember(self, topic: str, topic_id: str, partitions: int) -> None:
        """Take a topic for the one that an earlier process has sent to, unless it was looked up already."""
        self._seen.setdefault(topic, Identity(topic_id, partitions, 0))

    def identity(self, topic: str) -> Identity | None:
        """Return what distinguishes a topic; None when it was never looked up."""
        return self._seen.get(topic)

    def partitions(self, topic: str) -> int | None:
        """Return how many partitions a topic has; None when it was never looked up."""
        seen = self._seen.get(topic)
        return seen.partitions if seen else None

    def look(self, now: float) -> None:
        """Check that the topics in use are still the same; `now` is in monotonic seconds. Raises KafkaError."""
        if self._found and now >= self._found[1]:
            self.leaving = self.leaving or self._found[0]
        if self._rejections.over and not self.leaving:
            self.leaving = errors.KafkaUnavailable(
                f"Kafka refused no record for {CAREFUL_SECONDS:g} s: starting a new session, with batches of records"
            )
        while self._looking and self._looking[-1][1].done():
            self._compare(*self._looking.pop())
        if self._looking or now < self._look_at or self._cluster is None:
            return
        self._look_at = now + _LOOK_SECONDS
        topics = list(self._largest)
        self._look_from = self._look_from if self._look_from < len(topics) else 0
        part = topics[self._look_from : self._look_from + _LOOK_TOPICS]
        self._look_from += len(part)
        if part:
            self._looking = list(self._cluster.identities(part).items())

    def failed(self, failure: Failure) -> errors.CdcError:
        """Convert a failed delivery; the records are sent again by the next session, refused ones as poison events."""
        error: Any = failure.error
        message: Any = failure.message
        topic = message.topic()
        key = repr((message.key() or b"").decode(errors="replace"))
        doing = f"delivering to topic {topic!r}, key {key}, transaction {failure.commit_lsn}"
        if error is None:
            return errors.KafkaUnavailable(
                f"Kafka, {doing}: the broker accepted a later record, and this one may be lost; reading the topic back"
            )
        too_large = error.code() == KafkaError.MSG_SIZE_TOO_LARGE and not self.careful
        if too_large and self._limits.may_have_changed(topic):
            return errors.KafkaUnavailable(
                f"Kafka, {doing}: {error.str()} ({error.name()}); asking for the limit again"
            )
        return self._rejections.delivered(error, topic, doing)

    def transaction_failed(self, error: KafkaError, doing: str, last: Record | None) -> errors.CdcError:
        """Convert the error of a Kafka transaction; it is of the `last` record where each is sent alone."""
        if self.careful and last is not None:
            return self.refuses(error, last)
        return self._rejections.in_transaction(error, doing)

    def refuses(self, error: KafkaError, record: Record) -> errors.CdcError:
        """Convert the error of queueing a record, or of the delivery of one that was sent alone."""
        found = dict(record.headers)
        event = f"event {found[ID]!s} at position {found[POSITION]!s}" if POSITION in found else "a record"
        doing = f"sending {event} ({len(record.value or b'')} bytes) to topic {record.topic!r}"
        return self._rejections.delivered(error, record.topic, doing, record.headers)

    def reporting(self, record: Record, *, passing: bool = False) -> Delivered:
        """Wrap the delivery callback of a record that is sent alone: an error is this record's.

        `passing`: later records may be delivered; the session ends a little later, when more refused ones are known.
        """

        def report(error: Any, message: object) -> None:
            if error is not None:
                problem = self.refuses(error, record)
                if passing and self._buries and isinstance(problem, RowRefused):
                    self._found = self._found or (problem, self._monotonic() + _COLLECT_SECONDS)
                    return
            record.on_delivery(error, message)

        return report

    def _ask(self, topic: str) -> int | None:
        assert self._cluster, "renew() comes first"
        self._rejections.check(topic)
        asked = self._asked.get(topic)
        if self._ahead.pop(topic, now := self._monotonic()) < now - _AHEAD_SECONDS:
            asked = None  # too old by now
        if asked is None:
            if self._monotonic() >= self._ask_at:
                self._asked[topic] = self._cluster.describe(topic)
            return None
        if not asked.done():
            return None
        del self._asked[topic]
        try:
            answer = asked.result()
        except KafkaException as error:
            if not already_exists(error):
                self._failed(topic, error, creating=isinstance(asked, Future))
            return None
        return self._learn(topic, answer) if isinstance(answer, TopicState) else None  # else it was just created

    def _failed(self, topic: str, error: KafkaException, *, creating: bool) -> None:
        if is_missing(error):
            self._ask_at = self._monotonic() + _ASK_AGAIN_SECONDS
            self._missing(topic)
            return
        problem = self._rejections.looked_up(error.args[0], topic, creating=creating)
        if not isinstance(problem, errors.Temporary):
            raise problem
        self._ask_at = self._monotonic() + _ASK_AGAIN_SECONDS
        self._remind(str(problem))

    def _missing(self, topic: str) -> None:
        assert self._cluster
        if topic in self._seen:
            self._remind(f"topic {topic!r} does not exist any more, and the events in it are lost; waiting for it")
        elif self._settings.create:
            log.info("creating topic", extra={"event": "topic_creating", "topic": topic})
            self._asked[topic] = self._cluster.create(topic, self._settings, self._settings.config)
        else:
            self._remind(f"topic {topic!r} does not exist: create it, or set [topics] create = true; waiting for it")

    def _learn(self, topic: str, found: TopicState) -> int:
        self._same(topic, found.identity)
        self._check_replication(topic, found)
        if found.hidden and not self._told_hidden:
            self._told_hidden = True
            log.info(
                "the settings of topics cannot be read: a limit is unknown until the topic refuses a record",
                extra={"event": "topic_limits_unknown", "topic": topic, "reason": found.hidden},
            )
        limits = [int(found.config[name]) for name in ("max.message.bytes", "segment.bytes") if name in found.config]
        largest = self._largest[topic] = self._limits.learn(topic, min(limits, default=None))
        return largest

    def _compare(self, topic: str, answer: Future[TopicDescription]) -> None:
        try:
            found = identity(answer)
        except KafkaException as error:
            if is_missing(error):
                self._largest.pop(topic, None)  # its events wait from now on, and the topic is looked up again
                self.changes += 1
            return
        before = self._seen[topic].partitions
        if self._same(topic, found):
            self.leaving = errors.KafkaUnavailable(
                f"topic {topic!r} has {found.partitions} partitions instead of {before}: starting a new session after"
                " all sent records are delivered"
            )

    def _same(self, topic: str, found: Identity) -> bool:
        """Return whether partitions were added to the same topic. Raises KafkaError when it was re-created."""
        before = self._seen.setdefault(topic, found)
        if found.topic_id != before.topic_id:
            raise errors.KafkaError(
                f"topic {topic!r} was deleted and re-created: the events in it are lost",
                hint="publish what its consumers miss again from the outbox (cdc-publisher audit --repair); then start"
                " once with --accept-changes",
            )
        if found.partitions <= before.partitions:
            return False
        self._seen[topic] = found
        log.warning(
            "partitions were added to topic %r: keys move to other partitions, where consumers may read them"
            " before earlier events",
            topic,
            extra={"event": "partitions_added", "partitions": found.partitions, "before": before.partitions},
        )
        return True

    def _check_replication(self, topic: str, found: TopicState) -> None:
        wanted = self._settings.replication
        in_sync = found.config.get("min.insync.replicas")
        weak = [f"replication factor {found.identity.replicas}"] if found.identity.replicas < _SAFE_REPLICAS else []
        weak += [f"min.insync.replicas {in_sync}"] if in_sync and int(in_sync) < _SAFE_IN_SYNC else []
        if not weak or wanted == "any" or topic in self._warned:
            return
        hint = (
            f"have {_SAFE_REPLICAS} replicas and min.insync.replicas {_SAFE_IN_SYNC}, or accept it with [topics]"
            ' replication = "any"'
        )
        problem = f"topic {topic!r} has {' and '.join(weak)}: confirmed records may be lost with a broker"
        if wanted == "refuse":
            raise errors.KafkaError(problem, hint=hint)
        self._warned.add(topic)
        log.warning("%s; %s", problem, hint, extra={"event": "topic_unsafe"})

    def _remind(self, message: str) -> None:
        now = self._monotonic()
        if now >= self._remind_at:
            self._remind_at = now + _REMIND_SECONDS
            log.warning(message, extra={"event": "topic_waiting"})
