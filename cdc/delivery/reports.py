"""Reports to Kafka how far the slot is going to be moved; see `cdc.delivery.positions` for the record."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from cdc.delivery.positions import SlotRecord
from cdc.lsn import LSN, EventPosition
from cdc.polling.progress import Progress
from cdc.records.record import Record, Sendable, value_bytes
from cdc.replication.horizon import Horizon, Horizons, remembered
from cdc.replication.settlement import Failure, delivered


class Batch(NamedTuple):
    """How much a Kafka transaction may hold at the most, and for how long it may be open."""

    events: int
    size: int  # bytes of the values
    seconds: float


class Positions:
    """Reports to Kafka how far the slot is going to be moved, and knows how far Kafka has confirmed that.

    With `batch`, each record is the last of a Kafka transaction, and makes it end. `progress` says how far a relay has
    sent rows at a position.
    """

    def __init__(
        self,
        topic: str,
        record: SlotRecord,
        failed: Callable[[Failure], None],
        seconds: float,
        batch: Batch | None = None,
        progress: Callable[[EventPosition | None], Progress] | None = None,
    ) -> None:
        self._progress = progress
        self.record = record  # as Kafka has it, but for the first record
        self._topic = topic
        self._failed = failed
        self._seconds = seconds  # between two records at the least
        self._batch = batch
        self._reported_at = float("-inf")
        self._reporting = False  # a record is on its way to Kafka
        self._fresh = True
        self._position = record.position  # of the last event that was handed on
        self._events = self._size = 0  # since the last record
        self._since: float | None = None  # when the first of them was seen here
        self._caught_up = record.caught_up
        self._horizons = Horizons()  # that are not confirmed

    @property
    def confirmed(self) -> LSN:
        """How far the slot may be moved."""
        return self.record.confirmed

    def hasten(self) -> None:
        """From now on report at once."""
        self._seconds = 0.0
        if self._batch:
            self._batch = self._batch._replace(seconds=0.0)

    def handed_on(self, position: EventPosition, records: list[Sendable]) -> None:
        """Count events that were handed to the producer, or that Kafka has; the last of them is at `position`."""
        if self._batch:
            self._position = position
            self._events += len(records)
            self._size += value_bytes(records)

    def caught_up(self) -> None:
        """Take note that nothing was sent before of what follows."""
        self._caught_up = self._batch is not None

    def taken(self, horizon: Horizon) -> None:
        """Take note of a new horizon, which becomes part of the record once it is confirmed."""
        if horizon.timeline == self.record.timeline:  # else it is of a server that this session does not read
            self._horizons.add(horizon)

    def report(self, confirmed: LSN, now: float, unix_time: float) -> Record | None:
        """Make the record to send, if one is due at `now` (monotonic seconds)."""
        if self._reporting or not (self._moved(confirmed, now) or self._full(now)):
            return None
        self._reporting, self._reported_at = True, now
        self._events, self._size, self._since = 0, 0, None
        record = replace(self.record, confirmed=confirmed, position=self._position, caught_up=self._caught_up)
        if record.relay and self._progress:
            record = replace(record, relay=record.relay._replace(progress=self._progress(self._position)))
        if fit := self._horizons.confirmed(confirmed):
            record = replace(record, horizons=remembered((*record.horizons, *fit)))

        def reported(error: object, message: object) -> None:
            self._reporting = False
            if delivered(error, message):
                self.record, self._fresh = record, False
                self._horizons.pass_by(confirmed)
            else:
                self._failed(Failure(error, message, confirmed))

        return Record.to(self._topic, record.key.encode(), record.encode(), int(unix_time * 1000), [], reported)

    def due(self, confirmed: LSN) -> float:
        """Return when `report` will make a record, in monotonic seconds; infinity while nothing is to be reported."""
        dues = [float("inf")]
        if not self._reporting and self._unreported(confirmed):
            dues.append(self._reported_at + self._seconds)
        if not self._reporting and self._batch and self._since is not None:
            dues.append(self._since + self._batch.seconds)
        return min(dues)

    def _unreported(self, confirmed: LSN) -> bool:
        return self._fresh or confirmed > self.record.confirmed or bool(self._horizons.confirmed(confirmed))

    def _moved(self, confirmed: LSN, now: float) -> bool:
        return self._unreported(confirmed) and now - self._reported_at >= self._seconds

    def _full(self, now: float) -> bool:
        """Whether the Kafka transaction has to end."""
        if self._batch is None or not self._events:
            return False
        if self._since is None:
            self._since = now
        events, size, seconds = self._batch
        return self._events >= events or self._size >= size or now - self._since >= seconds
