"""Exponential backoff with a cap and jitter."""

from collections.abc import Callable
from typing import Final

FIRST_SECONDS: Final = 0.25
LONGEST_SECONDS: Final = 5.0


class Backoff:
    """Pauses between attempts, with jitter so that publishers that failed together do not retry together.

    `random` returns numbers from 0 to 1.
    """

    def __init__(self, random: Callable[[], float], longest_seconds: float = LONGEST_SECONDS) -> None:
        self._random = random
        self._longest_seconds = longest_seconds
        self._attempts = 0

    def pause(self) -> float:
        """Return the seconds until the next attempt, from half the exponential step to the full step."""
        step = min(self._longest_seconds, FIRST_SECONDS * (1 << min(self._attempts, 16)))
        self._attempts += 1
        return step * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """Start again with the shortest pause, after a success."""
        self._attempts = 0
