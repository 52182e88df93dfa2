"""How often, and after which pauses, a handler that failed is tried again."""

from collections.abc import Callable
from dataclasses import dataclass

from cdc.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` in all, the first included; pauses double from `first_seconds` up to `longest_seconds`.

    Each pause is jittered: from half of that to all of it. Raises ConfigError for numbers that make no sense.
    """

    attempts: int = 10
    first_seconds: float = 0.25
    longest_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 < self.first_seconds <= self.longest_seconds:
            raise ConfigError("Retry needs at least one attempt and pauses above zero, the first not above the longest")

    def pause(self, failures: int, random: Callable[[], float]) -> float:
        """Seconds until the next attempt, after so many failures; `random` returns numbers from 0 to 1."""
        step = min(self.longest_seconds, self.first_seconds * (1 << min(max(failures, 1) - 1, 30)))
        return step * (0.5 + 0.5 * random())
