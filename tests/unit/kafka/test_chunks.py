"""Partitions that are read backwards: all that is there is taken, whatever else comes."""

from hypothesis import given
from hypothesis import strategies as st

from cdc.kafka.readback.chunks import LARGEST, Chunks, Sizes

OFFSETS = 60_000  # several chunks


class Reader:
    """Reads a partition as a consumer does: `records` are those that it gets, some of them sent after it began.

    `deleted` go when it has begun, after the first chunk.
    """

    def __init__(self, records: list[int], high: int, deleted: frozenset[int] = frozenset()) -> None:
        self.starts: list[int] = []
        self.taken: list[list[int]] = []
        self._records = sorted(records)
        self._end = max([high, *(offset + 1 for offset in records)]) + 1  # behind the mark of a transaction
        self._deleted = deleted
        self._chunks = Chunks(high, Sizes(2000))

    def read(self, floor: int = 0) -> list[int]:
        """All that was taken from `floor` on, oldest first."""
        while self._chunks.next(floor):
            assert len(self.starts) < 30
            self.starts.append(self._chunks.start)
            self.taken.append(self._chunk([offset for offset in self._records if offset >= self._chunks.start]))
            self._records = [offset for offset in self._records if offset not in self._deleted]
        return sorted({offset for chunk in self.taken for offset in chunk})

    def _chunk(self, coming: list[int]) -> list[int]:
        taken = []
        for offset in coming:
            if self._chunks.take(offset):
                taken.append(offset)
            if self._chunks.over:
                return taken
        self._chunks.ended(self._end)
        assert self._chunks.over, "the chunk has no end"
        return taken


@given(
    st.sets(st.integers(0, OFFSETS + 3000), max_size=60),
    st.integers(1, OFFSETS),
    st.integers(0, OFFSETS),
    st.data(),
)
def test_every_record_between_the_floor_and_the_end_is_taken_if_it_stays(
    records: set[int], high: int, floor: int, data: st.DataObject
) -> None:
    deleted = data.draw(st.frozensets(st.sampled_from(sorted(records)))) if records else frozenset()
    taken = Reader(list(records), high, deleted).read(floor)
    assert not [offset for offset in taken if offset >= high]
    assert {offset for offset in records - deleted if floor <= offset < high} <= set(taken)


def test_chunks_grow_and_each_begins_where_more_is_wanted() -> None:
    high = 2_000_000
    reader = Reader(list(range(0, high, 1000)), high)
    reader.read()
    sizes = [after - before for after, before in zip([high, *reader.starts], reader.starts, strict=False)]
    assert sizes[:5] == [2000, 8000, 32_000, 128_000, LARGEST]
    assert reader.starts[-1] == 0


def test_a_chunk_ends_with_the_first_record_of_the_one_behind_it() -> None:
    reader = Reader(list(range(10_000)), 10_000)
    reader.read(floor=5000)
    assert reader.starts == [8000, 5000]
    assert [(taken[0], taken[-1]) for taken in reader.taken] == [(8000, 9999), (5000, 8000)]


def test_a_chunk_of_which_the_last_record_is_gone_ends_with_one_behind_it() -> None:
    part = Chunks(10_000, Sizes(2000))
    assert part.next(0)
    assert part.take(8500)
    assert part.take(9999)
    assert part.next(0)
    assert part.take(3000)
    assert not part.take(9999)  # 8500 was removed
    assert part.over
    assert not part.next(0)


def test_a_chunk_of_which_all_was_deleted_meanwhile_ends_with_the_partition() -> None:
    part = Chunks(10_000, Sizes(2000))
    assert part.next(0)
    assert part.take(9999)
    assert part.next(0)
    assert part.start == 0
    part.ended(10_000)
    assert part.over
    assert not part.next(0)


def test_an_end_before_the_end_is_waited_for_and_then_given_up() -> None:
    part = Chunks(10_000, Sizes(2000))
    assert part.next(9000)
    assert part.take(9100)
    part.ended(9500)
    assert (part.over, part.held_back) == (False, True)
    assert part.take(9600)
    assert (part.over, part.held_back) == (False, False)
    part.ended(9700)
    part.give_up()
    assert part.over
    assert part.next(0)
    assert part.start == 1000
    assert part.take(2000)
    assert part.take(9100)
    assert part.over
    assert not part.next(1000)


def test_nothing_but_an_open_transaction_is_given_up_too() -> None:
    part = Chunks(10_000, Sizes(2000))
    assert part.next(9000)
    part.ended(9500)
    part.give_up()
    assert part.next(0)
    assert part.take(7000)
    part.ended(9500)
    assert part.over
    assert not part.held_back


def test_an_empty_partition_has_no_chunk() -> None:
    assert not Chunks(0).next(0)
    assert not Chunks(500).next(500)
