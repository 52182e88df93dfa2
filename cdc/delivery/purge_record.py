"""The record of what `outbox purge` has deleted for one slot, in the topic of positions.

| part  | value                                                                                            |
|-------|--------------------------------------------------------------------------------------------------|
| key   | `{system_identifier}/{slot}/purge`                                                               |
| value | JSON: version, purged (unix seconds, each with the rows purged by then), dropped (oids)           |

Purge deletes published rows only, so a recovery does not count them among those that may be lost.
"""

from dataclasses import dataclass
from typing import Final

import orjson

VERSION: Final = 1
NAME: Final = "purge"
_ENTRIES: Final = 100
_DROPPED: Final = 1000


@dataclass(frozen=True, slots=True)
class PurgeRecord:
    """How many rows were purged up to which time, the latest last, and the oids of dropped partitions."""

    purged: tuple[tuple[float, int], ...] = ()
    dropped: tuple[int, ...] = ()

    def add(self, time: float, rows: int, dropped: tuple[int, ...]) -> "PurgeRecord":
        """Return the record with rows and partitions that were purged before a time."""
        purged = [*(self.purged or ((0.0, 0),)), (time, (self.purged[-1][1] if self.purged else 0) + rows)]
        while len(purged) > _ENTRIES:
            gaps = [after[0] - before[0] for before, after in zip(purged, purged[2:], strict=False)]
            del purged[1 + gaps.index(min(gaps))]
        return PurgeRecord(tuple(purged), (*self.dropped, *dropped)[-_DROPPED:])

    def since(self, time: float) -> int:
        """Return how many rows were purged since a time, at the most."""
        if not self.purged:
            return 0
        before = [rows for taken, rows in self.purged if taken <= time]
        return self.purged[-1][1] - (before[-1] if before else self.purged[0][1])

    def encode(self) -> bytes:
        """The value of its record."""
        return orjson.dumps({"version": VERSION, "purged": self.purged, "dropped": self.dropped})

    @classmethod
    def decode(cls, value: bytes) -> "PurgeRecord | None":
        """Read a record's value; None for the record of a topic that is called like it. Raises ValueError."""
        try:
            read = orjson.loads(value)
            if "topic_id" in read:
                return None
            purged = tuple((float(taken), int(rows)) for taken, rows in read["purged"])
            return cls(purged, tuple(int(oid) for oid in read["dropped"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a record of a purge ({error!r})") from None


def purge_key(slot: str) -> str:
    """The key of the record; `slot` is that of the slot's record."""
    return f"{slot}/{NAME}"
