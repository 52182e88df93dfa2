"""The membership of an instance in the consumer group of its fleet, which distributes partitions and nothing else.

No record is read, no offset committed. Callbacks give partitions back at once: one that waited would hold up the units
of all other instances. Members are dynamic: a static one that stops is replaced only when its session ends.
"""

import logging
import threading
from typing import Final

from confluent_kafka import OFFSET_END, Consumer, KafkaError, TopicPartition

from cdc.config.librdkafka import connection
from cdc.config.settings import Settings
from cdc.errors import CdcError
from cdc.fleet.placement import Placement
from cdc.kafka import client
from cdc.kafka.errors import kafka_error

log = logging.getLogger(__name__)

LEAVE_SECONDS: Final = 1.0
_BEATS: Final = 3  # heartbeats within a session, at least
_BEAT_SECONDS: Final = 0.5
"""By its heartbeat a member learns that a partition is to move: until then its unit has no reader."""


class Membership:
    """Reports to a `Placement` what the coordinator says; `poll` often, at least every few seconds."""

    def __init__(self, settings: Settings, instance: str, placement: Placement) -> None:
        self._settings = settings
        self._instance = instance
        self._placement = placement
        self._leaving = False
        self._fatal = False
        self._consumer: Consumer | None = None

    def poll(self) -> None:
        """Let callbacks be called. Raises CdcError for what the coordinator refuses; a later call tries again."""
        if self._consumer is None:
            self._consumer = self._joining()
        refusal: CdcError | None = None
        while (message := self._consumer.poll(0)) is not None:
            error = message.error()
            if error is not None:
                refusal = self._judged(error) or refusal
        if self._fatal:
            self._fatal = False
            self._placement.lose(self._placement.assigned)
            consumer, self._consumer = self._consumer, None
            threading.Thread(target=consumer.close, daemon=True).start()
        if refusal:
            raise refusal

    def leave(self) -> None:
        """Leave the group; a coordinator that does not answer is not waited for long."""
        if self._consumer is None:
            return
        self._leaving = True
        thread = threading.Thread(target=self._consumer.close, name="leave", daemon=True)
        thread.start()
        thread.join(LEAVE_SECONDS)

    def _joining(self) -> Consumer:
        seconds = self._settings.fleet.session_seconds
        milliseconds = round(seconds * 1000)
        consumer = client.consumer(
            {
                **connection(self._settings.kafka),
                "client.id": self._instance,
                "group.id": self._settings.fleet.topic,
                "group.protocol": "classic",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": milliseconds,
                "heartbeat.interval.ms": round(min(seconds / _BEATS, _BEAT_SECONDS) * 1000),
                "max.poll.interval.ms": max(300_000, milliseconds),
                "topic.metadata.refresh.interval.ms": 10_000,
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "error_cb": self._meet,
            },
            silent=True,
        )
        topic = self._settings.fleet.topic
        consumer.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        return consumer

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # From the end, and paused: nothing is read here, and no committed offset is asked for.
        consumer.incremental_assign([TopicPartition(one.topic, one.partition, OFFSET_END) for one in partitions])
        consumer.pause(partitions)
        if not self._leaving:
            self._placement.assign(_numbers(partitions))
            log.info("assigned", extra={"event": "fleet_assigned", "partitions": _numbers(partitions)})

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_unassign(partitions)
        if not self._leaving:
            self._placement.revoke(_numbers(partitions))
            log.info("revoked", extra={"event": "fleet_revoked", "partitions": _numbers(partitions)})

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_unassign(partitions)
        if not self._leaving:
            self._placement.lose(_numbers(partitions))
            log.warning(
                "the group is lost; units continue until its next assignment",
                extra={"event": "fleet_lost", "partitions": _numbers(partitions)},
            )

    def _meet(self, error: KafkaError) -> None:
        self._fatal |= bool(error.fatal())

    def _judged(self, error: KafkaError) -> CdcError | None:
        self._fatal |= bool(error.fatal())
        doing = f"joining group {self._settings.fleet.topic!r}"
        found = kafka_error(error, doing)
        return found if found.exit_code == 1 else None


def _numbers(partitions: list[TopicPartition]) -> list[int]:
    return sorted(one.partition for one in partitions)
