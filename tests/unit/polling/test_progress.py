"""How far rows were sent, at each position of a session."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from cdc.lsn import LSN, EventPosition
from cdc.polling.progress import Part, Progress, Sent
from cdc.polling.snapshots import NOTHING, Snapshot

BEGUN = Progress(NOTHING)
SEEN = Snapshot(10, 10)


def part(number: int, before: Progress, *numbers: int, ends: bool = True, seen: Snapshot = SEEN) -> Part:
    return Part(LSN(number), before, seen, 7, 9, array("q", numbers), ends)


def test_a_whole_batch_is_all_that_its_snapshot_sees() -> None:
    assert part(1, BEGUN, 4, 5).done == Progress(SEEN, None, None, 7, 9, 2)


def test_within_a_batch_it_is_a_number_of_the_sequence() -> None:
    assert part(1, BEGUN, 4, 5).after(1) == Progress(NOTHING, SEEN, 4, 7, 9, 1)
    assert part(1, BEGUN, 4, 5, ends=False).done == Progress(NOTHING, SEEN, 5, 7, 9, 2)


def test_a_part_of_which_all_rows_are_gone_changes_nothing_until_the_batch_ends() -> None:
    first = part(1, BEGUN, 4, ends=False).done
    assert part(2, first, ends=False).done == first
    assert part(2, first).done == Progress(SEEN, None, None, 7, 9, 1)


def test_positions_before_the_session_are_what_it_began_with() -> None:
    sent = Sent(BEGUN)
    sent.add(part(5, BEGUN, 1, 2))
    assert sent.at(None) == BEGUN
    assert sent.at(EventPosition(LSN(4), 3)) == BEGUN


def test_what_is_confirmed_is_not_forgotten() -> None:
    sent = Sent(BEGUN)
    one = part(5, BEGUN, 1, 2)
    sent.add(one)
    two = part(6, one.done, 3, 4, seen=Snapshot(20, 20))
    sent.add(two)
    assert sent.confirmed(LSN(6)) == one.done
    assert sent.at(EventPosition(LSN(5), 0)) == one.done  # more is known by now
    assert sent.at(EventPosition(LSN(6), 0)) == two.after(1)
    assert sent.confirmed(LSN(7)) == two.done
    assert sent.last == two.done


@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=8), ends=st.lists(st.booleans(), min_size=8, max_size=8))
def test_progress_counts_each_row_once(sizes: list[int], ends: list[bool]) -> None:
    sent, before, number = Sent(BEGUN), BEGUN, 0
    expected = 0
    for at, size in enumerate(sizes, 1):
        made = part(at, before, *range(number + 1, number + size + 1), ends=ends[at - 1], seen=Snapshot(at, at))
        sent.add(made)
        for row in range(size):
            assert sent.at(EventPosition(LSN(at), row)).rows == expected + row + 1
        number, expected, before = number + size, expected + size, made.done
        assert sent.last.rows == expected
    assert sent.confirmed(LSN(len(sizes) + 1)).rows == expected


@given(
    seen=st.sampled_from([NOTHING, Snapshot(10, 20, (10, 14))]),
    partly=st.none() | st.just(Snapshot(20, 30, (20,))),
    until=st.none() | st.integers(-(1 << 62), 1 << 62),
)
def test_a_progress_is_read_as_it_was_written(seen: Snapshot, partly: Snapshot | None, until: int | None) -> None:
    progress = Progress(seen, partly, until, 1 << 50, 1 << 40, 12)
    assert Progress.parse(progress.document()) == progress
