"""Both ends of a session, by shape: what the service opens, and what it has to know to begin.

`cdc.app.connections` has the
real ones."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cdc.delivery.deduplication import Tails
from cdc.delivery.loop import Sink, Source
from cdc.delivery.observations import Observation
from cdc.delivery.positions import Mark, Memory
from cdc.delivery.session import DeadLetters
from cdc.errors import CdcError
from cdc.lsn import LSN
from cdc.outbox.events import Outbox
from cdc.records.encoding import Topics
from cdc.replication.settlement import Failure


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
