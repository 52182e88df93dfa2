"""Rate limit for repeated log messages.

The first record of a kind is written at once, and up to `BURST` in a window of `WINDOW_SECONDS`. Of the suppressed
records the last is written at the end of the window, or before the next record of its logger, with the field
`repeated`: the number of suppressed records before it. So no record is lost from the count.
"""

import copy
import logging
import re
from typing import Final

BURST: Final = 5  # records of a kind per window
WINDOW_SECONDS: Final = 30.0
KINDS: Final = 1000  # kept in memory at a time, because untrusted text makes new kinds

_LONGEST_KIND: Final = 300
_HOLE: Final = re.compile(r"%(?:\(\w+\))?[-#0 +]*[\d*]*(?:\.[\d*]+)?[a-zA-Z%]")
_LETTER: Final = re.compile(r"[a-zA-Z]")
_NUMBER: Final = re.compile(r"\d+")
_LIBRDKAFKA: Final = "cdc.kafka.librdkafka"

Kind = tuple[str, int, str]


class _Window:
    __slots__ = ("held", "last", "room", "since")

    def __init__(self, since: float, room: int) -> None:
        self.since = since
        self.room = room
        self.held = 0
        self.last: logging.LogRecord | None = None  # suppressed record

    def covers(self, now: float) -> bool:
        return 0 <= now - self.since < WINDOW_SECONDS  # the clock may be set back

    def ended(self) -> logging.LogRecord | None:
        """Return the last suppressed record with the number of those before it, or None."""
        return _counted(self.last, self.held - 1) if self.last else None


class RateLimit:
    """Decides which records to write. Not thread-safe. Times are Unix seconds."""

    def __init__(self) -> None:
        self._windows: dict[Kind, _Window] = {}  # the oldest first

    def take(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        """Return the records to write when `record` arrives, in order."""
        if record.levelno <= logging.DEBUG or record.levelno >= logging.CRITICAL:
            return [record]
        kind = _kind(record)
        window = self._windows.get(kind)
        if window is None or not window.covers(record.created):
            return self._begin(kind, record)
        if window.room:
            window.room -= 1
            return [*self._before(kind, record.created), record]
        window.held += 1
        window.last = record
        return []

    def _begin(self, kind: Kind, record: logging.LogRecord) -> list[logging.LogRecord]:
        due = self._before(kind, record.created)
        before = self._windows.pop(kind, None)
        due += self._make_room()
        held = before.held if before else 0
        # librdkafka logs each attempt to reach each broker; and after a window with many records, more will follow.
        room = 0 if held or record.name.startswith(_LIBRDKAFKA) else BURST - 1
        self._windows[kind] = _Window(record.created, room)
        return [*due, _counted(record, held)]

    def _before(self, kind: Kind, now: float) -> list[logging.LogRecord]:
        """Return suppressed records of other kinds of the same logger, so that the order of the log is right."""
        held = [other for other, window in self._windows.items() if window.last and other[0] == kind[0]]
        return [last for other in held if other != kind for last in self._end(other, now)]

    def _end(self, kind: Kind, now: float) -> list[logging.LogRecord]:
        """End a window; return its last suppressed record, after which a new window without burst begins."""
        last = self._windows.pop(kind).ended()
        if last is None:
            return []
        self._windows[kind] = _Window(now, 0)
        return [last]

    def _make_room(self) -> list[logging.LogRecord]:
        if len(self._windows) < KINDS:
            return []
        last = self._windows.pop(next(iter(self._windows))).ended()
        return [last] if last else []

    def due(self, now: float) -> list[logging.LogRecord]:
        """Return the records to write because their windows have ended."""
        due = []
        for kind, window in list(self._windows.items()):
            if window.covers(now):
                break
            due += self._end(kind, now)
        return due

    def rest(self) -> list[logging.LogRecord]:
        """Return all suppressed records and forget all kinds."""
        windows, self._windows = self._windows, {}
        return [last for window in windows.values() if (last := window.ended())]


def _counted(record: logging.LogRecord, repeated: int) -> logging.LogRecord:
    if not repeated:
        return record
    record = copy.copy(record)  # other handlers get the same record
    record.repeated = repeated
    return record


def _kind(record: logging.LogRecord) -> Kind:
    return record.name, record.levelno, _sentence(record)[:_LONGEST_KIND]


def _sentence(record: logging.LogRecord) -> str:
    """Return what records of a kind have in common: the template if it has words, or the message without numbers."""
    if record.name.startswith(_LIBRDKAFKA):
        return record.getMessage().split("]:")[0]  # facility, instance and broker
    template = str(record.msg)
    if record.args and _LETTER.search(_HOLE.sub("", template)):
        return template
    return _NUMBER.sub("#", record.getMessage())
