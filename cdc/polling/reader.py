"""Reads the outbox table in batches, as frames of a stream, and lets confirmed rows go: what is done next, and when.

The statements are behind the port `Table`; times are arguments, in monotonic seconds.
"""

import contextlib
import tempfile
from array import array
from collections import deque
from collections.abc import Iterator
from typing import IO, Final, NamedTuple, Protocol

from cdc.errors import CdcError
from cdc.lsn import LSN
from cdc.polling.numbers import Numbers
from cdc.polling.progress import Part, Progress
from cdc.polling.schedule import Looking
from cdc.polling.snapshots import Snapshot
from cdc.replication import compose

PART_ROWS: Final = 10_000
"""How many rows a part of a batch has at the most, and so how many are sent again after a kill."""
SLICE: Final = 1_000
"""How many frames are handed over at once."""
RETRY_SECONDS: Final = 1.0
"""How soon to try again to delete rows that another session had locked."""


class Present(NamedTuple):
    """What the database is at: a snapshot that is not stored, and the last number that a row got."""

    snapshot: Snapshot
    number: int


class Tick(NamedTuple):
    """A snapshot with its number."""

    number: LSN
    snapshot: Snapshot
    xid: int
    taken: int  # microseconds since 2000


class Rows(NamedTuple):
    """Rows of a batch in the order of `cdc_seq`: these numbers, and their Inserts."""

    numbers: "array[int]"
    frames: list[bytes]
    more: bool  # others of those that were asked for come behind them


class Table(Protocol):
    """The outbox and its relay. Every method raises CdcError; also when the relay is another's by now."""

    @property
    def relation(self) -> bytes:
        """The frame that describes the rows."""
        ...

    def present(self) -> Present:
        """Return what the database is at, without a look at the rows."""
        ...

    def has_rows(self, earlier: Snapshot, later: Snapshot, /) -> bool:
        """Whether rows became visible between two snapshots."""
        ...

    def tick(self, number: LSN, /) -> Tick:
        """Take a snapshot, and store it under a number; it may be used when this returns."""
        ...

    def read(self, earlier: Snapshot, later: Snapshot, after: int | None, /) -> Rows:
        """Read the rows that became visible between two snapshots, as many as fit into one part.

        With `after`, only those with a higher `cdc_seq`.
        """
        ...

    def numbers(self, earlier: Snapshot, later: Snapshot, after: int | None, /) -> Iterator["array[int]"]:
        """Yield the `cdc_seq` of all these rows in their order, in portions."""
        ...

    def portion(self, earlier: Snapshot, later: Snapshot, first: int, last: int, /) -> Rows:
        """Read those whose `cdc_seq` is between two, both included, as many as fit into one part."""
        ...

    def confirm(self, confirmed: LSN, progress: Progress, /) -> None:
        """Store what Kafka has confirmed, and drop the ticks that are not needed any more."""
        ...

    def delete(self, cleared: Snapshot, seen: Snapshot, /) -> int:
        """Delete some rows that `seen` sees and `cleared` does not, none that is locked; return how many."""
        ...

    def clear(self, cleared: Snapshot, seen: Snapshot, /) -> bool:
        """Store that all rows that a snapshot sees are deleted; return False when they are not."""
        ...


class Spooled:
    """The numbers of a large batch in a file, so that memory stays flat. Raises CdcError without disk space."""

    def __init__(self, portions: Iterator["array[int]"]) -> None:
        self._count = 0
        with contextlib.ExitStack() as filling:
            try:
                self._file: IO[bytes] = filling.enter_context(tempfile.TemporaryFile())
                for portion in portions:
                    portion.tofile(self._file)
                    self._count += len(portion)
                self._file.seek(0)
            except OSError as error:
                raise CdcError(f"a large batch cannot be stored: {error}", hint="free disk space in TMPDIR") from None
            filling.pop_all()

    def __len__(self) -> int:
        """Return how many numbers are left."""
        return self._count

    def take(self) -> "array[int]":
        """Return the next numbers, as many as a part has at the most; none at the end."""
        found = array("q")
        count = min(PART_ROWS, self._count)
        found.fromfile(self._file, count)
        self._count -= count
        return found

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


class Batch:
    """The rest of a batch: the rows that `tick` sees and `begun` has not."""

    def __init__(self, table: Table, begun: Progress, tick: Tick) -> None:
        self.tick = tick
        self._progress = begun  # as of what was read
        self._table = table
        self._earlier = begun.seen
        self._spooled: Spooled | None = None
        self._numbers = array("q")  # those that come next, of a batch that does not fit into one part

    def part(self, number: LSN) -> tuple[Part, list[bytes]]:
        """Read the next part, under a number; it `ends` when it was the last."""
        rows = self._first() if self._spooled is None else self._next(self._spooled)
        tick = self.tick
        part = Part(number, self._progress, tick.snapshot, tick.number, tick.xid, rows.numbers, not rows.more)
        self._progress = part.done
        if rows.more and self._spooled is None:
            self._spooled = Spooled(self._table.numbers(self._earlier, tick.snapshot, rows.numbers[-1]))
        return part, rows.frames

    def _first(self) -> Rows:
        after = self._progress.until if self._progress.partly == self.tick.snapshot else None
        return self._table.read(self._earlier, self.tick.snapshot, after)

    def _next(self, spooled: Spooled) -> Rows:
        numbers = self._numbers or spooled.take()
        if not numbers:
            return Rows(numbers, [], more=False)
        rows = self._table.portion(self._earlier, self.tick.snapshot, numbers[0], numbers[-1])
        # Numbers without a row are those of rows that another session has deleted.
        self._numbers = array("q", (each for each in numbers if rows.more and each > rows.numbers[-1]))
        return rows._replace(more=rows.more or len(spooled) > 0)

    def close(self) -> None:
        """Drop what was stored."""
        if self._spooled is not None:
            self._spooled.close()


class Handed(NamedTuple):
    """Frames for the loop; with the first of a part come its facts."""

    frames: list[bytes]
    part: Part | None


class Reader:
    """One session of a relay that this process holds: `step` does what is due, and says when something will be.

    It looks for new rows also while earlier ones are read, or wait for room, so that batches stay small.

    `begun` is how far rows were sent; `stored` and `confirmed` are what the table has of that as confirmed. `cleared`
    says what is deleted, and is None where rows stay. `taken` is the time of a batch that was begun before, in
    microseconds since 2000.
    """

    def __init__(
        self,
        table: Table,
        numbers: Numbers,
        begun: Progress,
        *,
        stored: Progress,
        confirmed: LSN,
        cleared: Snapshot | None,
        poll_seconds: float,
        now: float,
        taken: int,
    ) -> None:
        self.ticks = 0  # that were made
        self.rows: int | None = None  # of the last batch
        self.seconds: float | None = None  # between its snapshots
        self._table = table
        self._numbers = numbers
        self._progress = begun  # of what was read
        self._confirmed = confirmed
        self._seen = stored.seen  # that is confirmed: what it sees may be deleted
        self._cleared = cleared
        self._looking = Looking(poll_seconds, now)
        self._delete_at = now
        self._last = begun.partly or begun.seen  # the latest snapshot
        self._ahead: deque[Tick] = deque()  # whose batches are not read
        self._first: LSN | None = None  # the number of the first tick
        self._described = False
        self._taken: int | None = None  # when the snapshot of the last batch was
        rest = Tick(LSN(begun.tick), begun.partly, begun.xid, taken) if begun.partly else None
        self._batch: Batch | None = Batch(table, begun, rest) if rest else None

    def confirm(self, confirmed: LSN, progress: Progress) -> None:
        """Store what Kafka has confirmed, before any of it is deleted.

        Rows that were recognised have records of earlier sessions, which the next session must find again as long as
        any of these rows is not confirmed. So until then the number from which it reads back stays where it is.
        """
        if confirmed >= self._numbers.fresh:
            self._confirmed = confirmed
        self._table.confirm(self._confirmed, progress)
        self._seen = progress.seen
        if self._cleared is None:
            self._table.clear(self._seen, self._seen)

    def step(self, now: float, *, room: bool) -> tuple[list[Handed], float]:
        """Do what is due; return frames, and when something is due again. Without `room` nothing is read."""
        deleted = self.delete(now)
        behind = not room or self._batch is not None or bool(self._ahead)
        due = self._looking.due(behind=behind, ahead=len(self._ahead))
        if due <= now:
            self._look(now, behind=behind)
        if room and self._batch is None and self._ahead:
            self._batch = Batch(self._table, self._progress, self._ahead.popleft())
        if room and self._batch:
            return self._read(self._batch), now
        if self._cleared not in (None, self._seen):
            due = min(due, self._delete_at)
        return [], now if deleted else max(now, due)

    def delete(self, now: float) -> bool:
        """Delete some of the rows that are confirmed, if any are left; return whether some were."""
        if self._cleared is None or self._cleared == self._seen or now < self._delete_at:
            return False
        if self._table.delete(self._cleared, self._seen):
            return True
        if self._table.clear(self._cleared, self._seen):
            self._cleared = self._seen
        else:
            self._delete_at = now + RETRY_SECONDS
        return False

    def notified(self) -> None:
        """Look for rows soon: a writer says that there are some."""
        self._looking.notified()

    def close(self) -> None:
        """Drop what was stored."""
        if self._batch:
            self._batch.close()

    def _look(self, now: float, *, behind: bool) -> None:
        snapshot, number = self._table.present()
        if behind and not self._looking.glanced(now, number):
            return
        found = self._table.has_rows(self._last, snapshot)
        if found or self._first is None:
            tick = self._table.tick(self._numbers.next())
            self.ticks += 1
            self._first = self._first or tick.number
            self._ahead.append(tick)
            self._last = tick.snapshot
        self._looking.looked(now, number, found=found)

    def _read(self, batch: Batch) -> list[Handed]:
        part, rows = batch.part(self._numbers.next())
        handed = self._made(part, rows, batch.tick.taken)
        if part.ends:
            self.rows = part.done.rows - self._progress.rows
            self.seconds = None if self._taken is None else (batch.tick.taken - self._taken) / 1_000_000
            self._taken = batch.tick.taken
            self._progress = part.done
            batch.close()
            self._batch = None
            if part.tick == self._first:
                # All that was sent before is visible in the snapshot of the first tick.
                self._numbers.catch_up()
                handed.append(Handed([compose.keepalive(self._numbers.fresh)], None))
        return handed

    def _made(self, part: Part, rows: list[bytes], taken: int) -> list[Handed]:
        end = LSN(part.number + 1)
        if not rows:
            return [Handed([compose.keepalive(end)], part)]
        frames = [compose.begin(part.number, taken)]
        if not self._described:
            self._described = True
            frames.append(self._table.relation)
        frames += rows
        frames.append(compose.commit(part.number, end, taken))
        return [Handed(frames[at : at + SLICE], None if at else part) for at in range(0, len(frames), SLICE)]
