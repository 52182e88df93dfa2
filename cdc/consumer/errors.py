"""Exceptions of the consumer library, all derived from `cdc.errors.CdcError` with `message` and `hint`.

The library also raises from `cdc.errors`: ConfigError for invalid arguments or properties, KafkaError for permanent
errors of Kafka, and Temporary, PostgresUnavailable and KafkaUnavailable for transient errors.
"""

from cdc.errors import CdcError


class InboxError(CdcError):
    """The inbox is used in a way that does not guarantee that an event is applied exactly once."""


class Rejected(CdcError):
    """Raised by a handler for an event that a retry cannot fix: it is dead-lettered, or ends `run`, at once."""


class MissingId(Rejected):
    """The record has no header `id`, so the inbox cannot detect whether it was applied before."""


class InvalidId(InboxError, Rejected):
    """The inbox cannot store the event's id."""


class CommittedEarly(InboxError, Rejected):
    """The block of an event executed COMMIT: the event counts as applied, and a retry would not apply the rest."""


class HandlerFailed(CdcError):
    """The handler failed for an event and will not be retried; `__cause__` is its exception.

    `topic`, `partition` and `offset` identify the record; `event_id` is None for a record without id. The offset is not
    committed, so the next run begins with this record.
    """

    hint = "fix the cause and start again, or configure Consumer with a dead_letter topic"

    def __init__(
        self, reason: str, *, topic: str, partition: int, offset: int, event_id: str | None, hint: str = ""
    ) -> None:
        self.topic, self.partition, self.offset, self.event_id = topic, partition, offset, event_id
        super().__init__(
            f"the handler failed for event {event_id or '(no id)'} at {topic}[{partition}]@{offset}: {reason}", hint
        )


class AlreadyRun(CdcError, RuntimeError):
    """`Consumer.run` was called a second time, or after `close`."""
