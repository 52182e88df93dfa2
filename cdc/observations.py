"""What a sentinel sees of the server beside the stream, for the service to act on."""

from typing import NamedTuple

from cdc.errors import CdcError
from cdc.lsn import LSN


class WalEnd(NamedTuple):
    """The server's WAL has been flushed up to here."""

    lsn: LSN


class Stopping(NamedTuple):
    """The server is shutting down."""

    reason: str


class Defect(NamedTuple):
    """The stream may not carry every row any more: nothing further may be confirmed."""

    error: CdcError


Observation = WalEnd | Stopping | Defect
