"""Decides whether a permanent error of Kafka is one row's or the stream's, and remembers those of rows.

A row chooses its topic and makes its record. Where Kafka refuses one of these, the row becomes a poison event and later
rows continue. Every other permanent error would meet all rows, and ends the program.

A broker refuses whole batches: each record of the batch is reported with the same error, the innocent ones too. So the
session after a refusal is careful: it sends each record in a batch of its own, until no record is refused for a while.
"""

import time
from collections.abc import Callable
from typing import Final

from confluent_kafka import KafkaError

from cdc import errors
from cdc.config.settings import Topics
from cdc.kafka.errors import kafka_error
from cdc.outbox.topic_template import TopicTemplate
from cdc.records.headers import POSITION
from cdc.records.record import Headers

KIND: Final = "kafka-refused"
CAREFUL_SECONDS: Final = 30.0
_LOOKED_UP_SECONDS: Final = 30.0  # until a refused topic is looked up or created again
_DELIVERED_SECONDS: Final = 300.0  # until a record is sent to it again, which costs a session when it is still refused

_OF_TOPIC: Final = frozenset({KafkaError.TOPIC_EXCEPTION, KafkaError.TOPIC_AUTHORIZATION_FAILED})
_OF_RECORD: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError._INVALID_DIFFERENT_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.POLICY_VIOLATION,
    }
)


class RowRefused(errors.KafkaUnavailable):
    """Kafka refused a topic or a record of one row: the next session makes it a poison event."""


class Rejections:
    """The topics and records that Kafka has refused; lives as long as the service.

    `rows` maps the header `cdc-position` of refused records to the reason; it is empty unless this session is
    `careful`. `settings` are [topics].
    """

    def __init__(self, settings: Topics, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.rows: dict[str, str] = {}
        self.careful = False
        self._own = {settings.positions, settings.dead_letter}
        self._positions = settings.positions
        self._chosen_by_rows = TopicTemplate(settings.name, settings.map).fixed is None
        self._monotonic = monotonic
        self._topics: dict[str, tuple[str, float]] = {}  # reason, and when to try again
        self._careful_until = float("-inf")

    def renew(self) -> None:
        """Start a session."""
        self.careful = self._monotonic() < self._careful_until
        if not self.careful:
            self.rows.clear()

    @property
    def over(self) -> bool:
        """Whether this careful session may end, as Kafka has refused nothing for a while."""
        return self.careful and self._monotonic() >= self._careful_until

    def check(self, topic: str) -> None:
        """Raise Unfit for a topic that rows may not choose, or that Kafka refused a while ago."""
        if topic == self._positions:
            raise errors.Unfit(KIND, f"topic {topic!r} is the publisher's own: correct the row, or [topics] positions")
        reason, again_at = self._topics.get(topic, ("", 0.0))
        if self._monotonic() < again_at:
            raise errors.Unfit(KIND, reason)

    def looked_up(self, error: KafkaError, topic: str, *, creating: bool) -> errors.CdcError | errors.Unfit:
        """Convert the error of looking a topic up, or of creating it. Unfit: another topic may be usable."""
        problem = kafka_error(error, f"{'creating' if creating else 'looking up'} topic {topic!r}")
        of_topic = error.code() in _OF_TOPIC or (creating and error.code() == KafkaError.POLICY_VIOLATION)
        if not (of_topic and self._is_chosen(topic)):
            return problem
        self._topics[topic] = str(problem), self._monotonic() + _LOOKED_UP_SECONDS
        return errors.Unfit(KIND, str(problem))

    def delivered(self, error: KafkaError, topic: str, doing: str, headers: Headers | None = None) -> errors.CdcError:
        """Convert the error of a delivery. With the `headers` of a record that was sent alone, its row is known."""
        problem = kafka_error(error, doing)
        if isinstance(problem, errors.Temporary) or topic in self._own:
            return problem
        if error.code() in _OF_TOPIC and self._is_chosen(topic):
            self._topics[topic] = str(problem), self._monotonic() + _DELIVERED_SECONDS
            return RowRefused(f"{problem.message}: events of this topic become poison events")
        if error.code() not in _OF_RECORD:
            return problem
        found = self._search(problem)
        position = str(dict(headers or []).get(POSITION, ""))
        if position:
            self.rows[position] = str(problem)
        if position or self.careful:
            return RowRefused(f"{problem.message}: its row becomes a poison event")
        return found

    def in_transaction(self, error: KafkaError, doing: str) -> errors.CdcError:
        """Convert the error of a Kafka transaction, which names no record: the next session finds it."""
        problem = kafka_error(error, doing)
        if isinstance(problem, errors.Temporary) or error.code() not in _OF_TOPIC | _OF_RECORD:
            return problem
        return self._search(problem)

    def _search(self, problem: errors.CdcError) -> errors.CdcError:
        self._careful_until = self._monotonic() + CAREFUL_SECONDS
        return errors.KafkaUnavailable(f"{problem.message}: sending each record alone to find the refused one")

    def _is_chosen(self, topic: str) -> bool:
        """Return whether rows choose the topic: one that all have in common cannot be a row's fault."""
        return self._chosen_by_rows and topic not in self._own
