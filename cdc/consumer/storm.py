"""A storm of lines, held back: a consumer runs in a program of others, whose handlers of logs are not ours."""

import logging
from typing import Final

_LINES: Final = 10
_SECONDS: Final = 10.0


class Storm(logging.Filter):
    """Lets ten lines through in ten seconds, and tells with the next one how many it held back."""

    def __init__(self) -> None:
        super().__init__()
        self._since = float("-inf")
        self._lines = self._held_back = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if not 0 <= record.created - self._since < _SECONDS:
            self._since, self._lines = record.created, 0
        self._lines += 1
        if self._lines > _LINES:
            self._held_back += 1
            return False
        if self._held_back:
            record.not_shown, self._held_back = self._held_back, 0
        return True
