"""The ports of delivery: protocols of both ends of a session, and what a sentinel observes beside the stream.

`cdc.app.connections` opens the real ones; tests have twins in memory.
"""

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from cdc.delivery.positions import ForeignWindow, Memory, RememberedTopic, SlotRecord
from cdc.errors import CdcError
from cdc.lsn import LSN, EventPosition
from cdc.outbox.events import Outbox
from cdc.polling.progress import Progress
from cdc.records.encoding import DeadLetters, Topics
from cdc.records.record import Sendable
from cdc.records.router import Encoder, Encoders, Framing
from cdc.replication.horizon import Horizon
from cdc.replication.settlement import Failure
from cdc.telemetry.metrics import RelayHealth


class WalEnd(NamedTuple):
    """The server's WAL has been flushed up to here."""

    lsn: LSN


class SlotHealth(NamedTuple):
    """The health of our slot, in bytes of WAL; None where it is not known, or has no limit."""

    retained: int | None
    limit: int | None  # max_slot_wal_keep_size
    safe: int | None  # may still be written before the slot is in danger
    wal_status: str | None


class Synchronous(NamedTuple):
    """The server's commits wait for our status updates (`synchronous_standby_names`)."""


class Stopping(NamedTuple):
    """The server is shutting down."""

    reason: str


class Batches(NamedTuple):
    """What the process has read from the table of a relay."""

    ticks: int
    rows: int | None  # of the last batch
    seconds: float | None  # between its snapshots


class StreamDefect(NamedTuple):
    """The stream may not carry every row any more: nothing further may be confirmed."""

    error: CdcError


Observation = WalEnd | SlotHealth | Synchronous | Stopping | StreamDefect | Horizon | RelayHealth | Batches


class Clock(Protocol):
    """The clocks, and sleeping, in seconds."""

    def monotonic(self) -> float: ...
    def unix(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class Flag(Protocol):
    """A flag, with the methods of threading.Event that are used."""

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
    """The events of our stream that one topic holds."""

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

    def indexes(self, partition: int | None, commit_lsn: int, event_id: str, /) -> list[int]:
        """The indexes at which a transaction's records have an id, ascending. A partition of None means any."""
        ...

    def last(self, partition: int | None, event_id: str, /) -> int | None:
        """The offset of the last record with an id, at any position. A partition of None means any."""
        ...

    def count(self) -> int:
        """How many ids the records have."""
        ...

    def elsewhere(self, partition: int, commit_lsn: int, index: int, /) -> bool:
        """Whether a position is in another partition than this."""
        ...

    def overtaken(self, partition: int, key: bytes, commit_lsn: int, index: int, /) -> bool:
        """Whether an older event of the key comes behind that of a position: in the partition, or by `repeat`."""
        ...

    def repeat(self, key: bytes, /) -> None:
        """Take note that an event of the key is sent again, and so comes behind all that the topic holds."""
        ...

    def sequence(self, partition: int, /) -> int:
        """The last number in the header `cdc-sequence` of a partition; 0 when there is none."""
        ...


class Tails(Protocol):
    """The events of our stream that the topics hold beyond the slot."""

    def ask(self, topic: str, since: int, /) -> Tail | None:
        """One topic's; None while it is being read: never waits. `since` is the commit time of its first
        redelivered event, in milliseconds. Raises KafkaUnavailable, and KafkaError when it may not be read."""
        ...

    def forget(self) -> None:
        """Drop everything but the sequences: nothing else is asked for any more."""
        ...


class Foreign(Protocol):
    """The records that another program sent from the slot before the publisher took it over."""

    def holds(self, topic: str, event_id: str, /) -> bool | None:
        """Whether a topic has a record with an event's id; None while it is being read: never waits.

        Raises KafkaUnavailable, and KafkaError when the topic may not be read.
        """
        ...

    def count(self, topic: str, /) -> int:
        """How many ids the records of a topic have, which was read."""
        ...

    def forget(self) -> None:
        """Drop everything: nothing is asked for any more."""
        ...


class Ahead(NamedTuple):
    """Records, and bytes of their values."""

    records: int
    size: int


NOT_AHEAD: Final = Ahead(0, 0)


class Contracts(Encoders, Framing, Protocol):
    """Encoders and framing that can be reloaded."""

    @property
    def envelope(self) -> Encoder | None: ...
    @property
    def names(self) -> list[str]: ...
    def read(self) -> None: ...
    def examine(self, event_type: str, body: bytes) -> bool: ...


class Sentinel(Protocol):
    """Observes the server beside the stream."""

    def observe(self) -> list[Observation]:
        """Return the observations since the last call. Never waits."""
        ...


def _nothing_exists(topics: Collection[str]) -> Mapping[str, RememberedTopic]:  # noqa: ARG001
    return {}


def _ignore(topics: Mapping[str, RememberedTopic]) -> None:
    pass


def _nothing_foreign(window: ForeignWindow) -> Foreign:
    raise NotImplementedError(window)


def _begun(record: SlotRecord) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of an open session, and what opening it found."""

    source: Source
    sink: Sink
    sentinel: Sentinel
    topics: Topics
    outbox: Outbox
    dead_letters: DeadLetters | None
    slot: SlotRecord  # as it is now
    remembered: Callable[[], Memory]  # what Kafka holds of it; waits for Kafka
    hand_over: Callable[[SlotRecord], None]
    """End open Kafka transactions of the slot, and write its record; waits for Kafka."""
    tails: Tails  # what the topics hold of the stream beyond the slot
    wal_end: LSN  # when we acquired the slot: no other process can have sent what was committed after it
    used: bool  # the slot was read from before
    timelines: Mapping[int, LSN]  # where earlier timelines ended
    failed: Callable[[Failure], CdcError]  # what a failed delivery means
    wal_sender_timeout: float  # seconds; 0 means never
    binary: bool
    identities: Callable[[Collection[str]], Mapping[str, RememberedTopic]] = _nothing_exists
    """Return what distinguishes topics now, of those that exist; waits for Kafka."""
    trust: Callable[[Mapping[str, RememberedTopic]], None] = _ignore
    """Take these topics for what is remembered of them: no other topic of the same name may be sent to."""
    foreign: Callable[[ForeignWindow], Foreign] = _nothing_foreign
    """Read the records of another program within a window."""
    progress: Callable[[EventPosition | None], Progress] | None = None
    """How far a relay has sent rows at a position; None with a slot. Its rows have other positions in each session."""
    resumes: bool = False
    """Whether the relay resumes right behind the position that Kafka has."""
    begin: Callable[[SlotRecord], None] = _begun
    """Begin the stream; of a relay, first write its record with the epoch of the session. Waits for Kafka."""


class Servers(Protocol):
    """PostgreSQL and Kafka."""

    def open(self, stack: contextlib.ExitStack, *, text: bool) -> Ends:
        """Open one session, which `stack` closes; with `text`, it does not request binary values.

        Raises CdcError; SlotActive while another process reads the slot.
        """
        ...
