"""How fast frames come, which decides how to wait for the next ones.

Close behind PostgreSQL's walsender each message costs it a system call, and us another: a reader that discards took
110,000 events/s so, and 236,000 when it let 20 ms worth of them gather in the socket. But to wait is latency, and so is
a batch that is waited for: while little comes, the socket wakes us and what was made of it is sent at once.
"""

from typing import Final

BRISK_FRAMES: Final = 2_000
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
        """Whether more than 2,000 frames came lately, that is in 10 to 20 ms."""
        return self._frames + self._before > BRISK_FRAMES
