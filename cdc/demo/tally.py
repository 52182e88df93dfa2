"""Count rows that the writers committed and rolled back."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from cdc.demo.shop import ShopEvent

Key = tuple[str, str]  # topic's aggregate, key


@dataclass(slots=True)
class Tally:
    """Counts of all writers; thread-safe."""

    per_key: dict[Key, list[str]] = field(default_factory=dict)  # ids in the order of their commits
    large: frozenset[str] = frozenset()  # ids of the one large transaction
    undone: set[str] = field(default_factory=set)  # ids that were inserted and rolled back
    rows: int = 0
    transactions: int = 0
    rollbacks: int = 0
    savepoint_rollbacks: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def committed(self, events: Iterable[ShopEvent]) -> None:
        """Count a committed transaction with these rows, in this order.

        Must be called before another writer uses the same keys, because the topics are compared with this order.
        """
        with self._lock:
            self.transactions += 1
            for event in events:
                self.rows += 1
                self.per_key.setdefault((event.aggregate, event.key), []).append(event.id)

    def rolled_back(self, events: Iterable[ShopEvent]) -> None:
        """Count a rolled-back transaction with these rows."""
        with self._lock:
            self.rollbacks += 1
            self.undone.update(event.id for event in events)

    def rolled_back_to_savepoint(self, events: Iterable[ShopEvent]) -> None:
        """Count rows that were rolled back to a savepoint."""
        with self._lock:
            self.savepoint_rollbacks += 1
            self.undone.update(event.id for event in events)

    def ids(self) -> set[str]:
        """Return the ids of all committed rows."""
        with self._lock:
            return {event_id for ids in self.per_key.values() for event_id in ids}
