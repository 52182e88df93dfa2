"""What is remembered of a slot outside of PostgreSQL: a record in the compacted topic `cdc.positions`.

PostgreSQL says nothing when a slot was dropped and created again, or moved by somebody: the rows in between are
never seen. So before the slot is moved, Kafka is told how far; a slot that stands further than the last such record
was moved by another hand. The record also holds what the stream depends on (publication, table, settings that
decide about order), to notice what was changed while nobody was reading.

| part  | value                                                                                           |
|-------|-------------------------------------------------------------------------------------------------|
| key   | `{system_identifier}/{slot}`                                                                    |
| value | JSON: version, system_identifier, timeline, slot, confirmed (LSN as text), definition, settings |

An empty value forgets the slot.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import orjson

from cdc import definition
from cdc.encoding import Record
from cdc.ledger import Failure
from cdc.lsn import LSN

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Mark:
    """One slot, how far it was moved, and what its stream depends on, in words and texts."""

    system_identifier: str
    timeline: int
    slot: str
    confirmed: LSN
    definition: Mapping[str, str]  # of publication and table
    settings: Mapping[str, str]  # that decide about topic, key and partition

    @property
    def key(self) -> str:
        """The key of its records."""
        return f"{self.system_identifier}/{self.slot}"

    def encode(self) -> bytes:
        """The value of its record."""
        return orjson.dumps(
            {
                "version": VERSION,
                "system_identifier": self.system_identifier,
                "timeline": self.timeline,
                "slot": self.slot,
                "confirmed": str(self.confirmed),
                "definition": dict(self.definition),
                "settings": dict(self.settings),
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> "Mark":
        """Read a record's value; fields that are not known are passed over. Raises ValueError."""
        try:
            read = orjson.loads(value)
            return cls(
                str(read["system_identifier"]),
                int(read["timeline"]),
                str(read["slot"]),
                LSN.parse(read["confirmed"]),
                dict(read["definition"]),
                dict(read["settings"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a position record ({error!r})") from None


def latest(values: Iterable[bytes | None]) -> Mark | None:
    """What the records of one key say together, in their order. Raises ValueError for one that cannot be read.

    The last one tells, but on one timeline the highest position counts: a process that was frozen may have written
    its own late.
    """
    mark: Mark | None = None
    for value in values:
        read = Mark.decode(value) if value else None
        if mark and read and read.timeline == mark.timeline:
            read = replace(read, confirmed=max(read.confirmed, mark.confirmed))
        mark = read
    return mark


def differences(found: Mark, remembered: Mark) -> list[str]:
    """What is not as it was when the slot was last moved: one sentence for each."""
    told = []
    # Another timeline has an LSN of its own for everything after the switch: nothing can be compared.
    if found.timeline == remembered.timeline and found.confirmed > remembered.confirmed:
        told.append(
            f"replication slot {found.slot!r} stands at {found.confirmed}, but the publisher moved it only to"
            f" {remembered.confirmed}: it was advanced, or dropped and created again, and rows that were committed"
            " in between have not been published"
        )
    told += definition.differences(found.definition, remembered.definition)
    now, before = found.settings, remembered.settings
    told += [
        f"{name} is {now[name]!r}, and was {before[name]!r}" for name in now if before.get(name, now[name]) != now[name]
    ]
    return told


class Positions:
    """Tells Kafka how far the slot is going to be moved, and knows how far it may be by that."""

    def __init__(self, topic: str, mark: Mark, failed: Callable[[Failure], None], seconds: float) -> None:
        self.mark = mark  # as Kafka has it, but for the first record
        self._topic = topic
        self._failed = failed
        self._seconds = seconds  # between two records at the least
        self._told_at = float("-inf")
        self._telling = False
        self._fresh = True

    @property
    def confirmed(self) -> LSN:
        """The slot may be moved up to here."""
        return self.mark.confirmed

    def hasten(self) -> None:
        """From now on tell at once."""
        self._seconds = 0.0

    def tell(self, confirmed: LSN, now: float, unix_time: float) -> Record | None:
        """The record to send, if one is due at `now` (monotonic seconds)."""
        if self._telling or not (self._fresh or confirmed > self.mark.confirmed):
            return None
        if now - self._told_at < self._seconds:
            return None
        self._telling, self._told_at = True, now
        mark = replace(self.mark, confirmed=confirmed)

        def delivered(error: object, message: object) -> None:
            self._telling = False
            if error is None:
                self.mark, self._fresh = mark, False
            else:
                self._failed(Failure(error, message, confirmed))

        return Record(self._topic, mark.key.encode(), mark.encode(), int(unix_time * 1000), [], delivered)
