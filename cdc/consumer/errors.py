"""What the consumer side raises on purpose; all of it is a `cdc.errors.CdcError`, with `message` and `hint`.

From `cdc.errors` come ConfigError (arguments or properties are wrong), KafkaError (Kafka refuses for good) and
Temporary with its PostgresUnavailable and KafkaUnavailable (passes by itself).
"""

from cdc.errors import CdcError


class InboxError(CdcError):
    """The inbox is used in a way in which it could not promise that an event is applied once."""


class Rejected(CdcError):
    """A handler raises this for an event that no second try would mend: no retry, straight to what failing means."""


class MissingId(Rejected):
    """The record has no header `id`, so no inbox can tell whether it was applied before."""


class HandlerFailed(CdcError):
    """The handler failed for one event and was not to be tried again; `__cause__` is what it raised.

    `topic`, `partition` and `offset` say which record, `event_id` which event (None for a record without id). Its
    offset is not committed: the next start begins with it.
    """

    hint = "mend the cause and start again, or give Consumer a dead_letter topic for events like this"

    def __init__(self, reason: str, *, topic: str, partition: int, offset: int, event_id: str | None) -> None:
        self.topic, self.partition, self.offset, self.event_id = topic, partition, offset, event_id
        super().__init__(
            f"the handler failed for event {event_id or '(no id)'} at {topic}[{partition}]@{offset}: {reason}"
        )
