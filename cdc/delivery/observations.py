"""What a sentinel sees of the server beside the stream, for the service to act on."""

from typing import NamedTuple

from cdc.errors import CdcError
from cdc.lsn import LSN


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
