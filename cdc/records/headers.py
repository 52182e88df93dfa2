"""The headers of records: their names, reading them from a message, and positions.

| header         | value                                                                                  |
|----------------|----------------------------------------------------------------------------------------|
| `id`           | the event's id                                                                         |
| `eventType`    | the event's type                                                                       |
| `cdc-position` | identity and order of the event: see `Position`                                        |
| `content-type` | `application/json`, `text/plain`, or where it is enabled `avro/binary`                  |
| `cdc-sequence` | number of the event within its stream and partition, from 1; only where it is enabled  |
| `cdc-replayed` | when a dead letter was replayed, ISO 8601                                              |
| `cdc-repaired` | when `audit --repair` sent the event, ISO 8601                                         |
| `cdc-recovered` | `true`: `recover` or `slot create --backfill` sent the event, from its row            |
| `cdc-committed` | when the transaction was committed, ISO 8601: only where the record has another time  |
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from operator import methodcaller
from typing import Any, Final, Protocol

ID: Final = "id"
TYPE: Final = "eventType"
POSITION: Final = "cdc-position"
CONTENT_TYPE: Final = "content-type"
APPLICATION_JSON, TEXT_PLAIN, AVRO_BINARY = "application/json", "text/plain", "avro/binary"
SEQUENCE: Final = "cdc-sequence"
REPLAYED: Final = "cdc-replayed"
REPAIRED: Final = "cdc-repaired"
RECOVERED: Final = "cdc-recovered"
COMMITTED: Final = "cdc-committed"

Pairs = tuple[tuple[str, bytes | None], ...]
"""The headers of a record that was received: in their order, with values of bytes."""

Order = tuple[int, int]
"""What orders the positions of one stream: commit LSN and index."""

_POSITION: Final = re.compile(r"([0-9a-f]{8})-([0-9A-F]{16})-([0-9A-F]{8,15})")
_SEQUENCE: Final = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Position:
    """Identity and order of an event within the stream that issued it."""

    stream: str
    commit_lsn: int
    index: int

    @classmethod
    def parse(cls, text: str) -> "Position | None":
        """Parse the value of the header; return None for any other text."""
        found = _POSITION.fullmatch(text)
        return cls(found[1], int(found[2], 16), int(found[3], 16)) if found else None

    @property
    def order(self) -> Order:
        """The part by which it is compared with others of its stream."""
        return self.commit_lsn, self.index

    def __str__(self) -> str:
        return f"{self.stream}-{self.commit_lsn:016X}-{self.index:08X}"


def sequence(text: str) -> int | None:
    """Parse the value of `cdc-sequence`; return None for anything but a positive number of 64 bits."""
    return int(text) if _SEQUENCE.fullmatch(text) else None


def committed(text: str, timestamp: int) -> int:
    """Return the commit time that the value of `cdc-committed` says, in milliseconds; `timestamp` for other text."""
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000 + 0.5)
    except ValueError:
        return timestamp


def positions_of(stream: str) -> Callable[[bytes], re.Match[bytes] | None]:
    """Return a function that matches positions of one stream: commit LSN and index are the groups 1 and 2.

    LSNs of more than 63 bits do not match: no WAL reaches them, and SQLite has signed numbers.
    """
    return re.compile(rb"%s-([0-7][0-9A-F]{15})-([0-9A-F]{8,15})" % re.escape(stream.encode())).fullmatch


def stream_id(system_identifier: str, timeline: int, slot: str) -> str:
    """Identify who issues positions: 8 hex digits of a hash over the cluster, its timeline and the slot."""
    return hashlib.sha256(f"{system_identifier}/{timeline}/{slot}".encode()).hexdigest()[:8]


class Message(Protocol):
    """A message of confluent-kafka, as far as its headers go."""

    def headers(self) -> Any: ...


# Confluent's client answers with a list that has NULL in it, and leaves an exception behind. Python finds that, and
# raises SystemError, only where C code makes the call: its own interpreter does not look once a call is specialized.
_call_headers: Final = methodcaller("headers")


def headers_of(message: Message) -> Pairs:
    """Read the headers of a message; call it once for each message.

    A header whose name is no UTF-8 makes confluent-kafka raise SystemError, and end the process with a segmentation
    fault when it is asked again: such a message counts as one without headers.
    """
    try:
        return tuple(_call_headers(message) or ())
    except (SystemError, UnicodeDecodeError):
        return ()
