"""The port between reading back and Kafka: what the pure modules of this folder ask of a consumer."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from cdc.records.headers import Pairs

Place = tuple[str, int]
"""Topic and partition."""

Entry = tuple[str, int, int, bytes | None, Pairs | None]
"""A record: topic, partition, offset, key, headers. Without headers (None) the partition is reported to end at the
offset, which is before its real end while a transaction is open there."""


class Bounds(NamedTuple):
    """Offsets of a partition. `since` is the first record of a time or later; None where no time was asked for, and
    negative where no record is as new."""

    low: int
    high: int
    since: int | None


class Log(Protocol):
    """A consumer of committed records. Its calls may wait, and raise what ends the reading."""

    def partitions(self, topics: Sequence[str], /) -> Mapping[str, int]:
        """Return the number of partitions of each topic; 0 when it does not exist."""
        ...

    def bounds(self, places: Collection[Place], since: int | None, /) -> Mapping[Place, Bounds]:
        """Return the bounds of partitions; `since` is in milliseconds since 1970."""
        ...

    def seek(self, offsets: Mapping[Place, int], /) -> None:
        """Read these partitions from these offsets on, and no others; an empty mapping ends the reading.

        Entries that were fetched for an earlier call do not arrive any more.
        """
        ...

    def receive(self) -> Sequence[Entry]:
        """Return what has arrived, in the order of each partition; wait a little when nothing has."""
        ...

    def now(self) -> float:
        """Return the time in seconds, from any origin."""
        ...
