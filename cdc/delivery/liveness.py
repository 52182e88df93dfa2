"""Detects a dead server, and a process that stood still: by received bytes, and by the loop's own turns.

libpq reports a frozen or black-holed server as healthy indefinitely, and our own status updates keep anything else from
noticing it. So each status update that only the timer caused asks for a reply, and silence is counted while the loop
listens.
"""

from typing import Final

from cdc.errors import PostgresUnavailable

STATUSES_UNANSWERED: Final = 3
SHORTEST_SECONDS: Final = 5.0
_LONGEST_TURN: Final = 1.0  # of one turn of the loop, as far as it counts as listening


class Liveness:
    """Two watches of one session, in monotonic seconds; the server is asked for a reply every `status_seconds`."""

    def __init__(self, status_seconds: float, now: float) -> None:
        self._still = STATUSES_UNANSWERED * status_seconds  # `wal_sender_timeout`, or less where that is long
        self._limit = max(self._still, SHORTEST_SECONDS)
        self._turned_at = now
        self.silence = 0.0  # seconds

    def turn(self, now: float) -> None:
        """Begin a turn of the loop. Raises PostgresUnavailable when it stood still: a process that was frozen must
        presume slot and producer lost, because another one may own them by now."""
        stood, self._turned_at = now - self._turned_at, now
        if stood > self._still:
            raise PostgresUnavailable(f"the process stood still for {stood:.0f} s: its slot may be another's by now")
        self.silence += min(stood, _LONGEST_TURN)

    def heard(self) -> None:
        """Reset the silence: bytes came, or the loop does not listen now."""
        self.silence = 0.0

    def silent(self) -> None:
        """Take note that nothing came. Raises PostgresUnavailable when the silence is too long."""
        if self.silence > self._limit:
            raise PostgresUnavailable(f"PostgreSQL has been silent for {self.silence:.0f} s, although asked to reply")
