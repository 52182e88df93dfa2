"""What the reader does next: looks while earlier rows wait, and reading that looks do not hold up."""

from array import array
from collections.abc import Iterator

from cdc.lsn import LSN
from cdc.polling.numbers import Numbers
from cdc.polling.progress import Progress
from cdc.polling.reader import PART_ROWS, Present, Reader, Rows, Tick
from cdc.polling.schedule import AHEAD_NUMBERS, AHEAD_SECONDS, BUSY_SECONDS, MOST_AHEAD
from cdc.polling.snapshots import Snapshot


class Table:
    """Each row is a transaction of its own, with its number as id; `last` is the last one."""

    relation = b"relation"

    def __init__(self) -> None:
        self.last = 0
        self.ticks: list[int] = []  # the last row of each

    def present(self) -> Present:
        return Present(Snapshot(self.last + 1, self.last + 1), self.last)

    def has_rows(self, earlier: Snapshot, later: Snapshot) -> bool:
        return later.xmax > earlier.xmax

    def tick(self, number: LSN) -> Tick:
        self.ticks.append(self.last)
        return Tick(number, self.present().snapshot, self.last, 0)

    def read(self, earlier: Snapshot, later: Snapshot, after: int | None) -> Rows:
        return self.portion(earlier, later, (after or earlier.xmax - 1) + 1, later.xmax - 1)

    def numbers(self, earlier: Snapshot, later: Snapshot, after: int | None) -> Iterator["array[int]"]:  # noqa: ARG002
        assert after is not None
        yield array("q", range(after + 1, later.xmax))

    def portion(self, earlier: Snapshot, later: Snapshot, first: int, last: int) -> Rows:  # noqa: ARG002
        chosen = range(first, min(last + 1, first + PART_ROWS))
        return Rows(array("q", chosen), [b"row"] * len(chosen), len(chosen) <= last - first)

    def confirm(self, confirmed: LSN, progress: Progress) -> None: ...

    def delete(self, cleared: Snapshot, seen: Snapshot) -> int:
        raise NotImplementedError

    def clear(self, cleared: Snapshot, seen: Snapshot) -> bool:
        raise NotImplementedError


def reading(table: Table) -> Reader:
    """A reader that has made its first tick at 100 s, of a table without rows."""
    before = Progress(Snapshot(1, 1))
    reader = Reader(
        table,
        Numbers(1),
        before,
        stored=before,
        confirmed=LSN(0),
        cleared=None,
        poll_seconds=60.0,
        now=100.0,
        taken=0,
    )
    while reader.step(100.0, room=True)[1] <= 100.0:
        pass
    assert table.ticks == [0]
    return reader


def test_rows_are_divided_into_batches_while_they_cannot_be_sent() -> None:
    table = Table()
    reader = reading(table)
    now = 100.0
    for _ in range(10):
        table.last += AHEAD_NUMBERS // 2
        now += BUSY_SECONDS
        reader.step(now, room=False)
    assert table.ticks[1:] == [AHEAD_NUMBERS * number for number in range(1, 6)]
    table.last += 1
    reader.step(now + AHEAD_SECONDS, room=False)
    assert table.ticks[-1] == table.last
    reader.close()


def test_rows_are_divided_into_batches_while_a_large_one_is_read() -> None:
    table = Table()
    reader = reading(table)
    table.last = 10 * PART_ROWS
    now = 200.0
    reader.step(now, room=True)
    for _ in range(4):
        now += BUSY_SECONDS
        table.last += AHEAD_NUMBERS
        reader.step(now, room=True)
    assert table.ticks[1:] == [10 * PART_ROWS + AHEAD_NUMBERS * number for number in range(5)]
    reader.close()


def test_looks_that_are_slow_do_not_hold_up_reading() -> None:
    table = Table()
    reader = reading(table)
    table.last, read = 3 * PART_ROWS, 0
    for turn in range(4):
        handed, _ = reader.step(200.0 + turn, room=True)  # a look is due at each
        read += sum(len(each.frames) > 0 for each in handed if each.part)
    assert read >= 3
    reader.close()


def test_snapshots_are_limited_until_there_is_room() -> None:
    table = Table()
    reader = reading(table)
    for turn in range(MOST_AHEAD + 10):
        table.last += 1
        reader.step(200.0 + turn, room=False)
    assert len(table.ticks) == 1 + MOST_AHEAD
    assert reader.step(5000.0, room=False)[1] == float("inf")
    for turn in range(20):
        reader.step(5001.0 + turn, room=True)
    assert len(table.ticks) > 1 + MOST_AHEAD
    assert table.ticks[-1] == table.last
