"""Pauses between attempts: exponential, capped, jittered, and short again after something worked."""

from collections.abc import Callable
from typing import Final

FIRST_SECONDS: Final = 0.25
LONGEST_SECONDS: Final = 5.0


class Backoff:
    """`random` returns numbers from 0 to 1; jitter keeps publishers that failed together from returning together."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._attempts = 0

    def pause(self) -> float:
        """Seconds to wait before the next attempt: from half of the exponential step to all of it."""
        step = min(LONGEST_SECONDS, FIRST_SECONDS * (1 << min(self._attempts, 16)))
        self._attempts += 1
        return step * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """Something worked."""
        self._attempts = 0
