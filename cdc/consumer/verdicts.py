"""What a `GapDetector` says of a record: one of these classes, each telling which record and which event."""

from dataclasses import dataclass

from cdc.records.headers import Position

Place = tuple[str, int, int, str | None, Position | None, int | None]
"""The fields that every verdict begins with."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where the record is, and what its headers say; `id`, `position` and `sequence` are None where they do not."""

    topic: str
    partition: int
    offset: int
    id: str | None
    position: Position | None
    sequence: int | None

    def _told(self) -> str:
        return "in order"

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset} event {self.id or '(no id)'}: {self._told()}"


@dataclass(frozen=True, slots=True)
class InOrder(Verdict):
    """As it should be."""


@dataclass(frozen=True, slots=True)
class Started(Verdict):
    """The first record of its stream in this partition: it is taken as the start.

    `previous` is the stream of the record before, None for the first of the partition. Another stream begins after a
    failover, with a new slot, and where several publishers write to one topic. It is the same stream as `previous` when
    the topic was made anew.
    """

    previous: str | None

    def _told(self) -> str:
        stream = self.position.stream if self.position else ""
        return f"stream {stream} begins" + (f" after stream {self.previous}" if self.previous else "")


@dataclass(frozen=True, slots=True)
class Gap(Verdict):
    """Records are missing before this one: number `expected` was to come, and `found` came."""

    expected: int
    found: int

    @property
    def missing(self) -> int:
        """How many records."""
        return self.found - self.expected

    def _told(self) -> str:
        which = (
            f"number {self.expected} is" if self.missing == 1 else f"numbers {self.expected} to {self.found - 1} are"
        )
        return f"{which} missing"


@dataclass(frozen=True, slots=True)
class Duplicate(Verdict):
    """The event was there before, at `first_offset`.

    None stands for a presumption: the position is older than all that is remembered.
    """

    first_offset: int | None

    def _told(self) -> str:
        return "a duplicate" + (f" of offset {self.first_offset}" if self.first_offset is not None else ", presumably")


@dataclass(frozen=True, slots=True)
class Reordered(Verdict):
    """The event was not there before and stands behind later ones, the last of which is at position `after`."""

    after: Position

    def _told(self) -> str:
        return f"behind position {self.after}, which is later"


@dataclass(frozen=True, slots=True)
class Recounted(Verdict):
    """A new event with a number that was there before: `expected` was to come, `found` came.

    The publisher counts from an older number again, so the end of the partition that it read back was not the one that
    was read here: brokers lost confirmed records, or two publishers write as the same stream.
    """

    expected: int
    found: int

    def _told(self) -> str:
        return f"number {self.found} again for a new event, where {self.expected} was to come"


@dataclass(frozen=True, slots=True)
class Reread(Verdict):
    """This very record was read before, or is older than the first that was: the reader went back, all is well."""

    def _told(self) -> str:
        return "read again"


@dataclass(frozen=True, slots=True)
class Replayed(Verdict):
    """A dead letter that `dlq replay` sent after all (header `cdc-replayed`): late by nature, and without a number."""

    def _told(self) -> str:
        return "a replayed dead letter"


@dataclass(frozen=True, slots=True)
class Repaired(Verdict):
    """An event that `audit --repair` sent again because it was missing (header `cdc-repaired`)."""

    def _told(self) -> str:
        return "sent again by a repair"


@dataclass(frozen=True, slots=True)
class Foreign(Verdict):
    """No readable `cdc-position`: another program wrote it, and nothing can be said of it."""

    def _told(self) -> str:
        return "not written by cdc-publisher"
