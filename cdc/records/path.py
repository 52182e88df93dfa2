"""The general path: one row of the outbox to one Kafka record, with every check.

The interface of a path is `take`. Paths wrap each other in the order in which a row passes them: deduplication, route
and encoding (the fast path, and the general path behind it), numbering. A wrapper that is not needed is left out.
"""

from typing import Final, NamedTuple, Protocol

from cdc.errors import PoisonEvent, Unfit
from cdc.outbox.events import Event, Outbox
from cdc.records.encoding import DeadLetters, Encoding, Topics
from cdc.records.record import Record, Sendable, at_most, batch_size
from cdc.records.router import Pending
from cdc.replication.settlement import Transaction
from cdc.replication.transactions import MESSAGE, Row, Transactions

_LIMITS: Final = " (max.message.bytes of the topic; message.max.bytes or queue.buffering.max.kbytes in [kafka])"
_LARGER: Final = (
    "raise these limits, or fix the source of the row, then start again; the slot has not moved past the event"
)


class Taken(NamedTuple):
    """The records of some frames, in their order."""

    records: list[Sendable]
    at: int  # the first frame that was not read
    transaction: Transaction | None  # of the last event; None when the frames held no row of the outbox


class Path(Protocol):
    """Makes records of rows."""

    def take(self, frames: list[bytes], at: int, transaction: Transaction, /) -> Taken:
        """Read `frames[at]`, an Insert or a message in the open `transaction`, and as many of the frames behind it as
        fit.

        The transactions have counted the events then. Raises Pending and PoisonEvent: then nothing was read. After
        Pending the same call is to be repeated.
        """
        ...


class GeneralPath:
    """Makes one record at a time, and alone refuses rows. Without `dead_letters` a poison event is raised.

    `reserve` is how many bytes are added to each record afterwards, at the most.
    """

    def __init__(
        self,
        transactions: Transactions,
        outbox: Outbox,
        encoding: Encoding,
        topics: Topics,
        dead_letters: DeadLetters | None,
        reserve: int = 0,
    ) -> None:
        self.transactions = transactions
        self.outbox = outbox
        self.encoding = encoding
        self.topics = topics
        self.dead_lettered = 0
        self._dead_letters = dead_letters
        self._reserve = reserve
        self._last: tuple[Row, Event] | None = None

    def record(self, row: Row) -> tuple[Record, Event | None]:
        """Make the record of a row; without an event it is a dead letter. Raises Pending and PoisonEvent."""
        event = None
        try:
            event = self._event(row)
            reason = self.topics.refused.get(self.outbox.position(row)) if self.topics.refused else None
            if reason:
                raise self._poison(row, event, "kafka-refused", reason)
            return self._fitting(self.encoding.record(event), row, event), event
        except PoisonEvent as poison:
            if self._dead_letters is None or not self._dead_letters.takes(poison):
                raise
            record = self._fitting(self._dead_letters.record(row, event, poison), row, event)
            self.dead_lettered += 1
            return record, None

    def destination(self, row: Row) -> tuple[str, bytes | None, str]:
        """Return topic, key and event id of the record that a row would become. Raises PoisonEvent."""
        try:
            event = self._event(row)
        except PoisonEvent as poison:
            if self._dead_letters is None or not self._dead_letters.takes(poison):
                raise
            record = self._dead_letters.record(row, None, poison)
            return record.topic, record.key, poison.event_id
        return event.topic, event.key, event.id

    def largest(self, topic: str) -> int | None:
        """Return how many bytes a record batch may have here; None while the topic is not known to exist."""
        largest = self.topics.largest(topic)
        return None if largest is None else largest - self._reserve

    def _event(self, row: Row) -> Event:
        """Convert a row, once where its destination is asked for before its record."""
        last = self._last
        if last is not None and last[0] is row:
            return last[1]
        event = self._converted(row)
        self._last = row, event
        return event

    def _converted(self, row: Row) -> Event:
        """Convert a row. A message is poison by its length, which is looked at before what it holds is parsed."""
        if row.relation is not MESSAGE:
            return self.outbox.event(row)
        size = len(row.data.cells[0])
        if size > self.topics.most:
            raise self._poison(row, None, "too-large", f"a message of {size} bytes is too large for any topic{_LIMITS}")
        event = self.outbox.event(row)
        try:
            largest = self.largest(event.topic)
        except Unfit:
            return event  # its record is refused, unless it has another fault
        if largest is not None and size > largest:
            of_topic = f"topic {event.topic!r}, which takes {largest + self._reserve}"
            reason = f"a message of {size} bytes is too large for {of_topic}{_LIMITS}"
            raise self._poison(row, event, "too-large", reason)
        return event

    def _fitting(self, record: Record, row: Row, event: Event | None) -> Record:
        """Return the record. Raises Pending while its topic is not known, PoisonEvent when the topic cannot take it."""
        try:
            largest = self.largest(record.topic)
        except Unfit as unfit:
            raise self._poison(row, event, unfit.kind, str(unfit)) from None
        if largest is None:
            raise Pending
        if at_most(record) > largest and (size := batch_size(record)) > largest:
            reason = (
                f"a record of {size + self._reserve} bytes is too large for topic {record.topic!r}, which takes"
                f" {largest + self._reserve}{_LIMITS}"
            )
            raise self._poison(row, event, "too-large", reason)
        return record

    def _poison(self, row: Row, event: Event | None, kind: str, reason: str) -> PoisonEvent:
        hint = _LARGER if kind == "too-large" else ""
        event_id = event.id if event else ""
        return PoisonEvent(reason, position=self.outbox.position(row), event_id=event_id, kind=kind, hint=hint)
