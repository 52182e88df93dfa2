"""Repeats: the same sentence again and again is told a few times, then once with how many were left out.

The first of a kind is told at once. In each half minute that follows, so many more are; of the others the last is
told when the time is over, or before the next line of its logger, with `repeated`, the number of those before it that
are not in the log: what is written and what is left out always make the whole.
"""

import copy
import logging
import re
from typing import Final

TOLD: Final = 5  # of a kind, in
SECONDS: Final = 30.0
KINDS: Final = 1000  # that are remembered: what strangers write must not fill the memory

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
        self.last: logging.LogRecord | None = None  # of those that are held back

    def covers(self, now: float) -> bool:
        return 0 <= now - self.since < SECONDS  # the clock may be set back

    def ended(self) -> logging.LogRecord | None:
        """What is left to tell."""
        return _counted(self.last, self.held - 1) if self.last else None


class Repeats:
    """Decides which records are written. Not for several threads at a time. Times are unix seconds."""

    def __init__(self) -> None:
        self._windows: dict[Kind, _Window] = {}  # the oldest first

    def take(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        """What is to be written when this record comes."""
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
        told = self._before(kind, record.created)
        before = self._windows.pop(kind, None)
        told += self._make_room()
        held = before.held if before else 0
        # librdkafka tells of each attempt to reach each broker; and where many were held back, many more will come.
        room = 0 if held or record.name.startswith(_LIBRDKAFKA) else TOLD - 1
        self._windows[kind] = _Window(record.created, room)
        return [*told, _counted(record, held)]

    def _before(self, kind: Kind, now: float) -> list[logging.LogRecord]:
        """What the same logger held back of other kinds: nobody should take it for what came last."""
        held = [other for other, window in self._windows.items() if window.last and other[0] == kind[0]]
        return [last for other in held if other != kind for last in self._told(other, now)]

    def _told(self, kind: Kind, now: float) -> list[logging.LogRecord]:
        """What a window has left; where it has, more will come."""
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
        """What is to be written because its time is over."""
        told = []
        for kind, window in list(self._windows.items()):
            if window.covers(now):
                break
            told += self._told(kind, now)
        return told

    def rest(self) -> list[logging.LogRecord]:
        """All that was held back; what comes from now on is new."""
        windows, self._windows = self._windows, {}
        return [last for window in windows.values() if (last := window.ended())]


def _counted(record: logging.LogRecord, repeated: int) -> logging.LogRecord:
    if not repeated:
        return record
    record = copy.copy(record)  # other handlers have it too
    record.repeated = repeated
    return record


def _kind(record: logging.LogRecord) -> Kind:
    return record.name, record.levelno, _sentence(record)[:_LONGEST_KIND]


def _sentence(record: logging.LogRecord) -> str:
    """What records of a kind have in common: the template; where that says nothing, the message but for its numbers."""
    if record.name.startswith(_LIBRDKAFKA):
        return record.getMessage().split("]:")[0]  # facility, instance and broker
    template = str(record.msg)
    if record.args and _LETTER.search(_HOLE.sub("", template)):
        return template
    return _NUMBER.sub("#", record.getMessage())
