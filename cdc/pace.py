"""How fast frames come, which decides how to wait for the next ones.

A server that is woken, and wakes us, for each message spends its time on that: 168,000 events/s were read so, and
240,000 in bursts between short sleeps. But a sleep is latency, and a batch that is waited for is latency, too: while
little comes, the socket wakes us and what was made of it is sent at once.
"""

from typing import Final

BRISK_FRAMES: Final = 1_000
WINDOW_SECONDS: Final = 0.01


class Pace:
    """Counts frames in windows of time; `now` is in monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._frames = 0
        self._before = 0  # in the window before this one

    def took(self, frames: int, now: float) -> None:
        """Some frames came."""
        passed = now - self._since
        if passed >= WINDOW_SECONDS:
            self._before = self._frames if passed < 2 * WINDOW_SECONDS else 0
            self._since, self._frames = now, 0
        self._frames += frames

    def brisk(self) -> bool:
        """Whether more than 1,000 frames came lately, that is in 10 to 20 ms."""
        return self._frames + self._before > BRISK_FRAMES
