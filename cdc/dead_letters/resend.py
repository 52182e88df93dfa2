"""Sends events, batch by batch: dead letters for `dlq replay`, missing events for `audit --repair` and `recover`."""

import time
from collections.abc import Callable, Generator, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

from cdc.config.settings import Settings
from cdc.dead_letters.producer import Outgoing, ResendProducer
from cdc.dead_letters.record_maker import RecordMaker
from cdc.errors import CdcError, PoisonEvent, Temporary
from cdc.logs.format import plain
from cdc.quantities import moment
from cdc.records.record import Record

T = TypeVar("T")


class ResendOutcome(NamedTuple):
    """What became of one event: a line to print, if any, and whether the event stays unsent."""

    line: str
    stays: bool


class Source(Protocol[T]):
    """The events to send, in the order in which they go.

    `whole`: a batch is sent as a whole, or not at all.
    """

    whole: bool

    def batches(self) -> Iterator[list[T]]:
        """Yield the events; each batch is one transaction."""
        ...

    def records(self, batch: list[T], at: str) -> Iterator[tuple[T, Record | CdcError]]:
        """Yield the record of each event, or why there is none; `at` is the time of now. Raises Temporary."""
        ...

    def outgoing(self, event: T, record: Record, at: str) -> Outgoing:
        """Return what is sent for an event."""
        ...

    def refuse(self, event: T, error: CdcError) -> None:
        """Decide about an event of a whole batch that Kafka refused: `records` is called again, unless this raises."""
        ...

    def name(self, event: T) -> str:
        """Return how an event is called in lines for users."""
        ...


class Resend(Generic[T]):
    """Sends the events of a source. Raises ConfigError when the contracts cannot be used, and the registry's errors.

    One resend of each `name` runs at a time; without a name it is a replay of the dead-letter topic.
    """

    def __init__(
        self, settings: Settings, source: Callable[[RecordMaker], Source[T]], *, dry_run: bool, name: str = ""
    ) -> None:
        self.sent = self.stays = 0
        self._dry_run = dry_run
        self._maker = RecordMaker(settings, dry_run=dry_run)
        self._producer = ResendProducer(settings, self._maker.destinations, name)
        self._source = source(self._maker)

    def begin(self) -> None:
        """End every other resend of the same name."""
        self._producer.begin()

    def close(self) -> None:
        """Close all connections; what is not committed is rolled back."""
        self._producer.close()
        self._maker.close()

    def run(self) -> Iterator[ResendOutcome]:
        """Send the events, or show what would be sent. Raises KafkaUnavailable, and KafkaError when another began."""
        for batch in self._source.batches():
            again = True
            while again:
                again = yield from self._batch(batch)

    def _batch(self, batch: list[T]) -> Generator[ResendOutcome, None, bool]:
        """Send a batch; return whether it has to be made again, as a whole, because of events that Kafka refused."""
        at = now()
        outgoing: list[tuple[T, Outgoing]] = []
        for event, record in self._source.records(batch, at):
            if isinstance(record, CdcError):
                yield self._stays(event, record)
            elif self._dry_run:
                size = len(record.value or b"")
                yield self._sent(f"would send {self._source.name(event)} to {record.topic} ({size} bytes)")
            else:
                outgoing.append((event, self._source.outgoing(event, record, at)))
        whole = self._source.whole
        refused = self._producer.send([each for _, each in outgoing], whole=whole) if outgoing else {}
        if refused and whole:
            for place, error in refused.items():
                self._source.refuse(outgoing[place][0], error)
            return True
        for place, (event, _) in enumerate(outgoing):
            yield self._stays(event, refused[place]) if place in refused else self._sent("")
        return False

    def _sent(self, line: str) -> ResendOutcome:
        self.sent += 1
        return ResendOutcome(line, stays=False)

    def _stays(self, event: T, error: CdcError) -> ResendOutcome:
        self.stays += 1
        reason = error.reason if isinstance(error, PoisonEvent) else str(error)
        return ResendOutcome(f"stays: {self._source.name(event)}: {plain(reason)}", stays=True)


def attempt(make: Callable[[], Record]) -> Record | CdcError:
    """Return the record, or the error that only a change of contracts or data fixes. Raises Temporary."""
    try:
        return make()
    except Temporary:
        raise
    except CdcError as error:
        return error


def now() -> str:
    """Return the time as ISO 8601."""
    return moment(time.time())
