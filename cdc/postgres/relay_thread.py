"""The source of frames that reads the outbox table: a thread for its rows, and one for the heartbeat.

The thread of rows does what `cdc.polling.reader` decides, and reads ahead by a part of a batch at the most. The loop
takes frames from it, and gives it what is confirmed.
"""

import contextlib
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from cdc.errors import PostgresUnavailable
from cdc.lsn import LSN, EventPosition
from cdc.polling.progress import Progress, Sent
from cdc.polling.reader import PART_ROWS, Handed, Reader
from cdc.polling.schedule import BEAT_SECONDS, TRUST_SECONDS
from cdc.postgres.relay import PART_BYTES, Relay, RelayConnection
from cdc.replication import compose

_STOP_SECONDS: Final = 5.0
_CLEAN_SECONDS: Final = 2.0
"""How long a stop continues to delete what was confirmed; the next session deletes the rest."""
_LONGEST_SECONDS: Final = 1.0  # of a wait
_WAITING_BYTES: Final = PART_BYTES // 2

_confirmed_field = struct.Struct(">9xQ")  # of a status update: what is flushed


class Heart:
    """Counts the heartbeat up on a connection of its own, so that nothing that takes long is in its way.

    With `listens` it calls `notified` for each notification that is for the relay.
    """

    def __init__(self, relay: RelayConnection, *, listens: bool) -> None:
        self.beats = 0
        self.notified: Callable[[], None] = lambda: None
        if listens:
            relay.listen(lambda: self.notified())
        self._relay = relay
        self._ended, self._end = socket.socketpair()  # what wakes the thread
        self._beaten_at = time.monotonic()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise the error of the connection, and PostgresUnavailable when the last heartbeat is too long ago."""
        if self._failure:
            raise self._failure
        if (silent := time.monotonic() - self._beaten_at) > TRUST_SECONDS:
            raise PostgresUnavailable(f"PostgreSQL has not taken a heartbeat for {silent:.0f} s")

    def stop(self) -> None:
        """End the thread, and the connection with its lock."""
        self._end.close()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        try:
            due = self._beaten_at + BEAT_SECONDS
            while not self._relay.wait(due - time.monotonic(), self._ended):
                if (now := time.monotonic()) < due:
                    continue
                self._relay.beat()
                self._beaten_at, due = now, now + BEAT_SECONDS
                self.beats += 1
        except Exception as error:  # of any kind: the end of this thread would go unnoticed
            self._failure = error
        finally:
            self._relay.close()
            self._ended.close()


class RelaySource:
    """A stream of frames of one relay that was taken: see `cdc.delivery.ports.Source`.

    `begun` is how far rows were sent. Raises what the threads met.
    """

    def __init__(self, relay: Relay, heart: Heart, reader: Reader, begun: Progress) -> None:
        self._relay = relay
        self._heart = heart
        self._reader = reader
        self._sent = Sent(begun)
        self._beats = 0
        self._end = LSN(0)  # of what was read from here
        self._confirmed = LSN(0)
        # Both threads use these.
        self._changed = threading.Condition()
        self._handed: deque[tuple[Handed, int]] = deque()  # with their bytes
        self._size = self._count = 0
        self._confirm: tuple[LSN, Progress] | None = None
        self._notified = self._stopping = self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        heart.notified = self._wake

    def begin(self) -> None:
        """Begin to read rows."""
        self._thread.start()

    def progress(self, position: EventPosition | None) -> Progress:
        """Return how far rows were sent when the event at a position was the last one that was."""
        return self._sent.at(position)

    def read(self) -> list[bytes]:
        """Return the frames of some rows, without waiting."""
        self._check()
        with self._changed:
            if not self._handed:
                return self._alive()
            (frames, part), size = self._handed.popleft()
            self._size -= size
            self._count -= len(frames)
            self._changed.notify_all()
        if part:
            self._sent.add(part)
            self._end = LSN(part.number + 1)
        return frames

    def _alive(self) -> list[bytes]:
        """Return a keepalive for each heartbeat, as a walsender sends them."""
        if self._beats == self._heart.beats:
            return []
        self._beats = self._heart.beats
        return [compose.keepalive(self._end)]

    def wait(self, seconds: float) -> None:
        """Wait until there are frames, for at most `seconds`."""
        with self._changed:
            if not self._handed and not self._failure:
                self._changed.wait(max(0.0, seconds))

    def write(self, frame: bytes) -> None:
        """Take a status update; what it confirms is stored in the table soon."""
        self._check()
        (lsn,) = _confirmed_field.unpack_from(frame)
        if lsn <= self._confirmed:
            return
        self._confirmed = LSN(lsn)
        progress = self._sent.confirmed(self._confirmed)
        with self._changed:
            self._confirm = self._confirmed, progress
            self._changed.notify_all()

    def stop(self) -> None:
        """Store what was confirmed, and give the relay up, so that another process may have it at once."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(_STOP_SECONDS + _CLEAN_SECONDS)
        if self._failure:
            raise self._failure
        if self._thread.is_alive():
            raise PostgresUnavailable(f"PostgreSQL did not store what is confirmed within {_STOP_SECONDS:g} s")

    def close(self) -> None:
        """End the thread of rows, which closes its connection."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is None:
            self._relay.close()
        elif self._thread.is_alive():
            with contextlib.suppress(Exception):
                self._relay.connection.cancel_safe(timeout=1)
            self._thread.join(_STOP_SECONDS)

    def _check(self) -> None:
        if self._failure:
            raise self._failure
        self._heart.check()

    def _wake(self) -> None:
        with self._changed:
            self._notified = True
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            while not self._closed:
                self._obey()
                if self._stopping:
                    self._leave()
                    return
                self._turn()
        except Exception as error:  # of any kind: the end of this thread would go unnoticed
            self._failure = error
        finally:
            self._reader.close()
            self._relay.close()
            with self._changed:
                self._changed.notify_all()

    def _obey(self) -> None:
        with self._changed:
            confirm, self._confirm = self._confirm, None
            notified, self._notified = self._notified, False
        if notified:
            self._reader.notified()
        if confirm is not None:
            self._reader.confirm(*confirm)

    def _turn(self) -> None:
        now = time.monotonic()
        handed, due = self._reader.step(now, room=self._size < _WAITING_BYTES and self._count < PART_ROWS)
        with self._changed:
            for each in handed:
                size = sum(map(len, each.frames))
                self._handed.append((each, size))
                self._size += size
                self._count += len(each.frames)
            if handed:
                self._changed.notify_all()
            elif due > now and not (self._confirm or self._notified or self._stopping or self._closed):
                self._changed.wait(min(due - now, _LONGEST_SECONDS))

    def _leave(self) -> None:
        deadline = time.monotonic() + _CLEAN_SECONDS
        while self._reader.delete(now := time.monotonic()) and now < deadline:
            pass
        self._relay.release()
