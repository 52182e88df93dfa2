"""Order of first occurrences: within a key, and in a partition's log. Pure; a part of the judge."""

from tests.torture.ledger import Row

Place = tuple[int, int]  # commit LSN and index in the transaction; LSN 0 when it is not known


class Latest:
    """The highest number of one key so far."""

    __slots__ = ("_id", "_seq")

    def __init__(self) -> None:
        self._seq, self._id = -1, ""

    def passed_by(self, seq: int, event: str) -> str:
        """Which event with a higher number came before this one; empty when none did."""
        if seq < self._seq:
            return self._id
        self._seq, self._id = seq, event
        return ""


class Log:
    """The two furthest places of one partition's log that belong to different keys.

    An event of the same key that was passed is reordered, which is reported as such: here only others count.
    """

    __slots__ = ("_first", "_second")

    def __init__(self) -> None:
        self._first: tuple[Place, str, str] = ((-1, -1), "", "")
        self._second: tuple[Place, str, str] = ((-1, -1), "", "")

    def passed_by(self, place: Place, row: Row) -> str:
        """Which event of another key, committed later, came before this one; empty when none did."""
        rival = self._second if self._first[1] == row.key else self._first
        if place > self._first[0]:
            if self._first[1] != row.key:
                self._second = self._first
            self._first = place, row.key, row.id
        elif self._first[1] != row.key and place > self._second[0]:
            self._second = place, row.key, row.id
        return rival[2] if rival[0] > place else ""
