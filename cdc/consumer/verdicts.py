"""Verdicts of a `GapDetector`; each identifies its record and event."""

from dataclasses import dataclass

from cdc.records.headers import Position

Place = tuple[str, int, int, str | None, Position | None, int | None]
"""The fields of `Verdict`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Place and headers of a record; `id`, `position` and `sequence` are None if they are missing or malformed."""

    topic: str
    partition: int
    offset: int
    id: str | None
    position: Position | None
    sequence: int | None

    def _description(self) -> str:
        return "in order"

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset} event {self.id or '(no id)'}: {self._description()}"


@dataclass(frozen=True, slots=True)
class InOrder(Verdict):
    """The record is the expected next one."""


@dataclass(frozen=True, slots=True)
class Started(Verdict):
    """The first record of its stream in this partition, which is taken as the start.

    `previous` is the stream of the preceding record, or None for the first record of the partition. A new stream begins
    after a failover, with a new slot, and if several publishers write to one topic. `previous` is the same stream if
    the topic was re-created.
    """

    previous: str | None

    def _description(self) -> str:
        stream = self.position.stream if self.position else ""
        return f"stream {stream} begins" + (f" after stream {self.previous}" if self.previous else "")


@dataclass(frozen=True, slots=True)
class Gap(Verdict):
    """Records are missing before this one, which has the number `found` instead of `expected`."""

    expected: int
    found: int

    @property
    def missing(self) -> int:
        """The number of missing records."""
        return self.found - self.expected

    def _description(self) -> str:
        which = (
            f"number {self.expected} is" if self.missing == 1 else f"numbers {self.expected} to {self.found - 1} are"
        )
        return f"{which} missing"


@dataclass(frozen=True, slots=True)
class Duplicate(Verdict):
    """The event was read before, at `first_offset`.

    `first_offset` is None if the event is presumed a duplicate, because its position is older than all known ones.
    """

    first_offset: int | None

    def _description(self) -> str:
        return "a duplicate" + (f" of offset {self.first_offset}" if self.first_offset is not None else ", presumably")


@dataclass(frozen=True, slots=True)
class Reordered(Verdict):
    """A new event after later ones, the last of which has the position `after`."""

    after: Position

    def _description(self) -> str:
        return f"after position {self.after}, which is later"


@dataclass(frozen=True, slots=True)
class Recounted(Verdict):
    """A new event with a number that was used before: `found` instead of `expected`.

    The publisher continued from an older number, because it read back another end of the partition than this consumer:
    brokers lost acknowledged records, or two publishers write the same stream.
    """

    expected: int
    found: int

    def _description(self) -> str:
        return f"number {self.found} again for a new event, where {self.expected} was expected"


@dataclass(frozen=True, slots=True)
class Reread(Verdict):
    """The same record was read before, or precedes the first one read, because the reader went back; not an error."""

    def _description(self) -> str:
        return "read again"


@dataclass(frozen=True, slots=True)
class Replayed(Verdict):
    """A dead letter that `dlq replay` sent (header `cdc-replayed`); it is late and has no number."""

    def _description(self) -> str:
        return "a replayed dead letter"


@dataclass(frozen=True, slots=True)
class Repaired(Verdict):
    """A missing event that `audit --repair` sent (header `cdc-repaired`)."""

    def _description(self) -> str:
        return "sent again by a repair"


@dataclass(frozen=True, slots=True)
class Foreign(Verdict):
    """A record without a valid `cdc-position`, written by another program."""

    def _description(self) -> str:
        return "not written by cdc-publisher"
