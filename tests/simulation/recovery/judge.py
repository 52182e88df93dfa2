"""The oracle of recovery worlds: every committed event once, in order per key, at positions that ascend."""

from cdc.records.headers import Position
from cdc.records.record import Headers
from tests.simulation.recovery.server import Committed
from tests.simulation.world import Violation


def text(header: str | bytes | None) -> str:
    """Return the value of a header."""
    return header.decode() if isinstance(header, bytes) else header or ""


class Judge:
    """Looks at each record that is appended; `ordered` says whether the table shows the order of commits."""

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._ranks: dict[str, tuple[int, int]] = {}  # of events: commit, and number of the row
        self._keys: dict[str, str] = {}
        self._times: dict[str, int] = {}  # how often each was appended
        self._last: dict[str, tuple[int, int]] = {}  # rank of the newest of a key
        self._places: dict[tuple[int, str], tuple[int, int]] = {}  # the highest position by partition and stream
        self._taken: dict[str, str] = {}  # positions
        self._again: dict[str, tuple[int, int]] = {}  # by key, the oldest event that was sent again
        self._lost: set[str] = set()

    @property
    def rows(self) -> int:
        """How many rows were committed."""
        return len(self._ranks)

    def committed(self, commits: list[Committed]) -> None:
        """Take note of what was committed; may be called with the same commits again."""
        for one in commits:
            for row in one.rows:
                self._ranks.setdefault(row.id, (one.rank, row.number))
                self._keys[row.id] = row.key

    def lost(self, commits: list[Committed]) -> None:
        """Take note of what a failover has lost."""
        self._lost |= {row.id for one in commits for row in one.rows}

    def appended(self, event: str, partition: int, headers: Headers, present: set[str], *, may_repeat: bool) -> None:
        """Judge a record. Raises Violation."""
        rank = self._ranks.get(event)
        if rank is None:
            raise Violation(f"I5: {event} was never committed")
        key = self._keys[event]
        times = self._times[event] = self._times.get(event, 0) + 1
        if event in present and not (may_repeat and key in self._again and self._again[key] < rank):
            raise Violation(f"I4: {event} is sent again, although the topic holds it")
        if times > 1:
            self._again[key] = min(rank, self._again.get(key, rank))
        elif self._ordered and self._last.get(key, (0, 0)) > rank:
            raise Violation(f"I2: {event} comes behind a later event of {key}")
        else:
            if may_repeat and self._last.get(key, (0, 0)) > rank:
                self._again[key] = min(rank, self._again.get(key, rank))
            self._last[key] = max(rank, self._last.get(key, rank))
        self._place(event, partition, text(dict(headers)["cdc-position"]))

    def streamed_again(self, event: str, headers: Headers) -> None:
        """Judge an event that the stream brings, and that a topic has. Raises Violation if it was not streamed."""
        if self._taken.get(position := text(dict(headers)["cdc-position"])) != event:
            raise Violation(f"I4: the new slot streams {event} at {position}, although it was recovered")

    def _place(self, event: str, partition: int, text: str) -> None:
        position = Position.parse(text)
        assert position
        if self._taken.setdefault(text, event) != event:
            raise Violation(f"I3: {event} has the position {text} of {self._taken[text]}")
        place = partition, position.stream
        if self._places.get(place, (0, -1)) >= position.order:
            raise Violation(f"I3: {event} has the position {text}, which is not behind the one before")
        self._places[place] = position.order

    def ended(self, newest: dict[bytes | None, str], *, compacted: bool) -> None:
        """Judge the end: all that the database has is, or was, in Kafka. Raises Violation."""
        missing = sorted(self._ranks.keys() - self._times.keys() - self._lost)
        if missing:
            raise Violation(f"I1: {', '.join(missing)} are in no topic")
        if compacted:
            ordered = sorted(self._keys.items(), key=lambda one: self._ranks[one[0]])
            last = {key: event for event, key in ordered if event not in self._lost}
            for key, event in last.items():
                found = newest.get(key.encode(), "")
                if found != event and found not in self._lost:
                    raise Violation(f"I2: the newest record of {key} is {found}, and not {event}")

    def skip(self, event: str) -> None:
        """Take note that an event was committed before there was a slot."""
        self._lost.add(event)
