"""Number of attempts of a failing handler, and pauses between them."""

from collections.abc import Callable
from dataclasses import dataclass

from cdc.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Retry:
    """At most `attempts` including the first, with pauses that double from `first_seconds` to `longest_seconds`.

    Each pause has jitter, from half its length to its full length. Raises ConfigError for invalid numbers.
    """

    attempts: int = 10
    first_seconds: float = 0.25
    longest_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 < self.first_seconds <= self.longest_seconds:
            raise ConfigError("Retry needs at least one attempt, and 0 < first_seconds <= longest_seconds")

    def pause(self, failures: int, random: Callable[[], float]) -> float:
        """Return the seconds until the next attempt after `failures`; `random` returns numbers from 0 to 1."""
        step = min(self.longest_seconds, self.first_seconds * (1 << min(max(failures, 1) - 1, 30)))
        return step * (0.5 + 0.5 * random())
