"""The part of table and topics that is judged. Rows and records outside of it still count as present."""

from dataclasses import dataclass

from cdc.lsn import LSN


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A range with inclusive ends; None means no end. Times are milliseconds since 1970."""

    since: int | None = None  # of rows by their age, of records by their timestamp
    until: int | None = None
    from_lsn: LSN | None = None  # by commit
    to_lsn: LSN | None = None
    ids: frozenset[str] = frozenset()
    from_id: str | None = None
    to_id: str | None = None
    numeric: bool = False  # ids are numbers; otherwise they are compared as text
    by_row: bool = False  # times limit rows alone: those of records come from a column

    def holds(self, event_id: str, lsn: int, timestamp: int) -> bool:
        """Return whether a record is within."""
        return (
            (self.since is None or self.by_row or timestamp >= self.since)
            and (self.until is None or self.by_row or timestamp <= self.until)
            and (self.from_lsn is None or lsn >= self.from_lsn)
            and (self.to_lsn is None or lsn <= self.to_lsn)
            and self.holds_id(event_id)
        )

    def holds_id(self, event_id: str) -> bool:
        """Return whether an id is within."""
        if self.ids and event_id not in self.ids:
            return False
        if self.from_id is None and self.to_id is None:
            return True
        try:
            return (self.from_id is None or self._order(event_id) >= self._order(self.from_id)) and (
                self.to_id is None or self._order(event_id) <= self._order(self.to_id)
            )
        except ValueError:
            return False  # no number, as the ids of the table are

    def _order(self, event_id: str) -> tuple[int, str]:
        return (int(event_id), "") if self.numeric else (0, event_id)

    @property
    def by_id(self) -> bool:
        """Whether ids limit the range."""
        return bool(self.ids) or self.from_id is not None or self.to_id is not None

    @property
    def by_time(self) -> bool:
        """Whether times limit the range."""
        return self.since is not None or self.until is not None

    @property
    def by_lsn(self) -> bool:
        """Whether positions limit the range."""
        return self.from_lsn is not None or self.to_lsn is not None

    @property
    def whole(self) -> bool:
        """Whether the range has no limit."""
        return not self.by_id and not self.by_lsn and not self.by_time
