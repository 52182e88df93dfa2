"""The ports of delivery: protocols of both ends of a session, and what a sentinel observes beside the stream.

`cdc.app.connections` opens the real ones; tests have twins in memory.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from cdc.delivery.positions import Mark, Memory
from cdc.errors import CdcError
from cdc.lsn import LSN
from cdc.outbox.events import Outbox
from cdc.records.encoding import DeadLetters, Encoder, Encoders, Framing, Topics
from cdc.records.record import Sendable
from cdc.replication.settlement import Failure


class WalEnd(NamedTuple):
    """The server's WAL has been flushed up to here."""

    lsn: LSN


class SlotHealth(NamedTuple):
    """How our slot fares, in bytes of WAL; None is what is not known, or has no limit."""

    retained: int | None
    limit: int | None  # max_slot_wal_keep_size
    safe: int | None  # may still be written before the slot is in danger
    wal_status: str | None


class Stopping(NamedTuple):
    """The server is shutting down."""

    reason: str


class Defect(NamedTuple):
    """The stream may not carry every row any more: nothing further may be confirmed."""

    error: CdcError


Observation = WalEnd | SlotHealth | Stopping | Defect


class Clock(Protocol):
    """Time, and the passing of it, in seconds."""

    def monotonic(self) -> float: ...
    def unix(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class Flag(Protocol):
    """Something that may be asked for, as threading.Event has it."""

    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...
    def wait(self, timeout: float, /) -> object: ...


class Source(Protocol):
    """Frames in, status updates out."""

    def read(self) -> list[bytes]: ...
    def wait(self, seconds: float) -> None: ...
    def write(self, frame: bytes) -> None: ...
    def stop(self) -> None: ...


class Sink(Protocol):
    """Records out, delivery reports in. `hasten` sends what waits for its batch to fill; it may take a millisecond."""

    def send(self, records: Sequence[Sendable]) -> int: ...
    def poll(self, seconds: float) -> None: ...
    def hasten(self) -> None: ...
    def __len__(self) -> int: ...


class Tail(Protocol):
    """What one topic holds of our stream."""

    @property
    def partitions(self) -> int:
        """How many the topic had when it was read; 0 when it did not exist."""
        ...

    @property
    def highest(self) -> LSN:
        """The last transaction, by its commit LSN, of which there is a record; 0 when there is none."""
        ...

    def id_at(self, partition: int | None, commit_lsn: int, index: int, /) -> str | None:
        """The id of the record of a position; None when there is none. A partition of None means any."""
        ...

    def elsewhere(self, partition: int, commit_lsn: int, index: int, /) -> bool:
        """Whether a position is in another partition than this."""
        ...

    def sequence(self, partition: int, /) -> int:
        """The last number in the header `cdc-sequence` of a partition; 0 when there is none."""
        ...


class Tails(Protocol):
    """What the topics hold of our stream since the slot was last moved."""

    def ask(self, topic: str, since: int, /) -> Tail | None:
        """One topic's; None while it is being read: never waits. `since` is the commit time of its first event that
        comes again, in milliseconds. Raises KafkaUnavailable, and KafkaError when it may not be read."""
        ...

    def forget(self) -> None:
        """Nothing but sequences will be asked for any more."""
        ...


class Ahead(NamedTuple):
    """Records, and bytes of their values."""

    records: int
    size: int


NOT_AHEAD: Final = Ahead(0, 0)


class Contracts(Encoders, Framing, Protocol):
    """Encoders and framing that can be read again."""

    @property
    def envelope(self) -> Encoder | None: ...
    @property
    def names(self) -> list[str]: ...
    def read(self) -> None: ...


class Sentinel(Protocol):
    """A second pair of eyes on the server."""

    def observe(self) -> list[Observation]:
        """What it saw since it was last asked. Never waits."""
        ...


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of a session that has been opened, and what was found on the way."""

    source: Source
    sink: Sink
    sentinel: Sentinel
    topics: Topics
    outbox: Outbox
    dead_letters: DeadLetters | None
    mark: Mark  # the slot as it is now
    remembered: Callable[[], Memory]  # what Kafka holds of it; waits for Kafka
    hand_over: Callable[[Mark], None]  # end what Kafka transactions of before left, and write the mark; waits for Kafka
    tails: Tails  # what the topics hold of the stream beyond the slot
    wal_end: LSN  # since the slot is ours: nobody else can have sent what was committed after it
    used: bool  # the slot was read from before
    timelines: Mapping[int, LSN]  # where earlier timelines ended
    failed: Callable[[Failure], CdcError]  # what a failed delivery means
    wal_sender_timeout: float  # seconds; 0 means never
    binary: bool


class Servers(Protocol):
    """PostgreSQL and Kafka."""

    def open(self, stack: contextlib.ExitStack) -> Ends:
        """Open one session, which `stack` closes. Raises CdcError; SlotActive while another process reads the slot."""
        ...
