"""Computes how large records and batches may be, from the limits of topics and of the client.

librdkafka does not split a batch that a topic refuses for its size, so the producer's batches must fit the topic with
the smallest limit. A limit may be lowered while records are in flight: the refusal is then retried once for each known
limit, after the limit was read again.
"""

import logging
from collections.abc import Mapping
from typing import Final

from cdc import errors
from cdc.config import librdkafka

log = logging.getLogger(__name__)

_BYTES_PER_KBYTE: Final = 1024
_SMALLEST_BATCH: Final = 16_384


class Limits:
    """The limits of topics. `batch_bytes` is for the next producer, all others for this session."""

    def __init__(self, given: Mapping[str, librdkafka.Value]) -> None:
        made = librdkafka.producer(given)
        self.batch_bytes = int(made["batch.size"])
        # A record that is larger than the whole queue would wait for room indefinitely.
        queue = int(made["queue.buffering.max.kbytes"]) * _BYTES_PER_KBYTE
        self._client = min(int(made["message.max.bytes"]), queue)
        self._compresses = str(made.get("compression.type", "none")).lower() not in ("none", "inherit")
        self._limits: dict[str, int | None] = {}
        self._refused: dict[str, int | None] = {}

    @property
    def most(self) -> int:
        """How many bytes the client sends at the most in one batch."""
        return self._client

    def learn(self, topic: str, limit: int | None) -> int:
        """Note a topic's max.message.bytes, None when it is unknown; return how large its records may be.

        Raises KafkaUnavailable when the batches of this session's producer are too large for the topic.
        """
        self._limits[topic] = limit
        if self._refused.get(topic, limit) != limit:
            del self._refused[topic]
        if limit is None:
            return self._client
        if limit < self.batch_bytes:
            self.batch_bytes = limit
            raise errors.KafkaUnavailable(
                f"topic {topic!r} accepts at most {limit} bytes at once (max.message.bytes):"
                " starting a new session, with batches of that size for all topics"
            )
        # The topic's limit is on the batch as it is compressed, which only the broker sees.
        return self._client if self._compresses else min(limit, self._client)

    def may_have_changed(self, topic: str) -> bool:
        """Return whether to retry a batch that `topic` refused as too large: once for each known limit.

        Below an unknown limit, the batches of the next session are half as large.
        """
        limit = self._limits.get(topic)
        if limit is None:
            self.batch_bytes = max(_SMALLEST_BATCH, self.batch_bytes // 2)
            return False
        if topic in self._refused and self._refused[topic] == limit:
            return False
        self._refused[topic] = limit
        return True
