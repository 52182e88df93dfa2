"""How large records and batches may be, from what topics and the client take.

librdkafka does not split a batch that a topic refuses for its size, so the producer's batches must fit the topic with
the smallest limit. A limit may be lowered while records are on their way: then the refusal is worth another try, with
the limit asked again, but only if that can teach us something new.
"""

import logging
from collections.abc import Mapping
from typing import Final

from cdc import errors
from cdc.config import librdkafka

log = logging.getLogger(__name__)

_BYTES_PER_KBYTE: Final = 1024


class Limits:
    """What is known of topics' limits. `batch_bytes` is for the next producer, all others for this session."""

    def __init__(self, given: Mapping[str, librdkafka.Value]) -> None:
        made = librdkafka.producer(given)
        self.batch_bytes = int(made["batch.size"])
        # A record that is larger than the whole queue would wait for room for ever.
        queue = int(made["queue.buffering.max.kbytes"]) * _BYTES_PER_KBYTE
        self._client = min(int(made["message.max.bytes"]), queue)
        self._compresses = str(made.get("compression.type", "none")).lower() not in ("none", "inherit")
        self._limits: dict[str, int | None] = {}
        self._refused: dict[str, int | None] = {}

    def learn(self, topic: str, limit: int | None) -> int:
        """Take a topic's max.message.bytes, None when it cannot be known; returns how large its records may be.

        Raises KafkaUnavailable when this session's producer makes batches that are too large for the topic.
        """
        self._limits[topic] = limit
        if self._refused.get(topic, limit) != limit:
            del self._refused[topic]
        if limit is None:
            return self._client
        if limit < self.batch_bytes:
            self.batch_bytes = limit
            raise errors.KafkaUnavailable(
                f"topic {topic!r} takes no more than {limit} bytes at once (max.message.bytes):"
                " a new session begins, with batches of that size for all topics"
            )
        # The topic's limit is on the batch as it is compressed, which only the broker sees.
        return self._client if self._compresses else min(limit, self._client)

    def may_have_changed(self, topic: str) -> bool:
        """Whether a batch that `topic` refused as too large is worth another try: once for each limit that is known."""
        limit = self._limits.get(topic)
        if limit is None or (topic in self._refused and self._refused[topic] == limit):
            return False
        self._refused[topic] = limit
        return True
