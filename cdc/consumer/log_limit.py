"""A rate limit for log lines of the consumer, which runs within other programs and their logging configuration."""

import logging
from typing import Final

_LINES: Final = 10
_SECONDS: Final = 10.0


class LogLimit(logging.Filter):
    """Passes ten lines per ten seconds; the next line has the number of suppressed ones in its field `not_shown`."""

    def __init__(self) -> None:
        super().__init__()
        self._since = float("-inf")
        self._lines = self._suppressed = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if not 0 <= record.created - self._since < _SECONDS:
            self._since, self._lines = record.created, 0
        self._lines += 1
        if self._lines > _LINES:
            self._suppressed += 1
            return False
        if self._suppressed:
            record.not_shown, self._suppressed = self._suppressed, 0
        return True
