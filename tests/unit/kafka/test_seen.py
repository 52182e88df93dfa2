"""What was seen in topics: kept by position, found by position."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import CdcError
from cdc.kafka.readback.seen import SeenPositions, Sighting

SMALL = st.integers(0, 3)


def row(topic: int, lsn: int, index: int, partition: int, event_id: bytes, key: bytes = b"k", at: int = 0) -> Sighting:
    return Sighting(topic, lsn, index, partition, event_id, key, at)


ROWS = st.builds(row, SMALL, SMALL, SMALL, SMALL, st.sampled_from([b"a", b"b"]))


@given(st.lists(st.lists(ROWS)))
def test_it_answers_like_a_dictionary_in_which_the_first_stays(batches: list[list[Sighting]]) -> None:
    seen, first, ids = SeenPositions(), dict[tuple[int, ...], str](), dict[tuple[int, ...], set[bytes]]()
    for batch in batches:
        seen.add(batch)
        for sighting in batch:
            first.setdefault(sighting[:4], sighting.event_id.decode())
            ids.setdefault(sighting[:4], set()).add(sighting.event_id)
    for topic, lsn, index, partition in [
        (t, c, i, p) for t in range(4) for c in range(4) for i in range(4) for p in range(4)
    ]:
        there = {
            number: first[topic, lsn, index, number] for number in range(4) if (topic, lsn, index, number) in first
        }
        assert seen.id_at(topic, partition, lsn, index) == there.get(partition)
        found = seen.id_at(topic, None, lsn, index)
        assert found in there.values() if there else found is None
        assert seen.elsewhere(topic, partition, lsn, index) == bool(there.keys() - {partition})
    for topic in range(4):
        assert seen.differing(topic) == sum(len(found) > 1 for place, found in ids.items() if place[0] == topic)
    seen.forget()


def test_the_largest_position_that_it_takes_is_found() -> None:
    seen = SeenPositions()
    seen.add([row(0, 2**63 - 1, 2**32 - 1, 7, b"id")])
    assert seen.id_at(0, 7, 2**63 - 1, 2**32 - 1) == "id"


def test_an_id_that_is_no_text_is_no_id_of_ours() -> None:
    seen = SeenPositions()
    seen.add([row(0, 1, 0, 0, b"\xff")])
    assert seen.id_at(0, 0, 1, 0) == "\N{REPLACEMENT CHARACTER}"


def test_what_was_forgotten_is_not_there_and_nothing_is_learned_after_it() -> None:
    seen = SeenPositions()
    seen.add([row(0, 1, 0, 0, b"id")])
    seen.repeat(0, b"k")
    seen.forget()
    seen.forget()
    seen.add([row(0, 1, 0, 0, b"id")])
    seen.compare(0)
    assert seen.id_at(0, 0, 1, 0) is None
    assert not seen.elsewhere(0, 1, 1, 0)
    assert seen.differing(0) == 0
    assert not seen.repeated(0, b"k")


KEYS = st.sampled_from([b"x", b"y"])


@given(st.lists(st.tuples(SMALL, SMALL, KEYS), max_size=12))
def test_a_record_is_overtaken_when_an_older_one_of_its_key_comes_behind_it(log: list[tuple[int, int, bytes]]) -> None:
    seen, last = SeenPositions(), dict[tuple[int, int], tuple[int, bytes]]()
    for at, (lsn, index, key) in enumerate(log):
        last.setdefault((lsn, index), (at, key))
        last[lsn, index] = at, last[lsn, index][1]
    sightings = [row(0, lsn, index, 0, b"id", last[lsn, index][1], at) for at, (lsn, index, _) in enumerate(log)]
    seen.add(sightings[len(log) // 2 :])  # chunks are read from the end
    seen.add(sightings[: len(log) // 2])
    seen.compare(0)
    for order, (at, key) in last.items():
        older = [place for other, (place, its) in last.items() if other < order and its == key]
        assert seen.overtaken(0, 0, *order) == any(place > at for place in older)
        assert not seen.overtaken(0, 1, *order)


def fill(seen: SeenPositions) -> None:
    notes = seen._opened()
    (pages,) = notes.first("pragma page_count")
    notes.run(f"pragma max_page_count = {pages + 1}")


def test_without_room_it_says_what_to_do_and_knows_nothing_more() -> None:
    seen = SeenPositions()
    fill(seen)
    with pytest.raises(CdcError, match=r"cannot be stored: database or disk is full; set TMPDIR to a folder"):
        seen.add([row(0, lsn, 0, 0, b"x" * 100) for lsn in range(1000)])
    assert seen.id_at(0, 0, 1, 0) is None


def test_one_thread_asks_while_another_adds() -> None:
    seen = SeenPositions(threading.Lock())

    def add() -> None:
        for lsn in range(200):
            seen.add([row(0, lsn, index, 0, b"%d" % index) for index in range(50)])

    writer = threading.Thread(target=add)
    writer.start()
    while writer.is_alive():
        assert seen.id_at(0, 0, 150, 7) in (None, "7")
    writer.join()
    assert seen.id_at(0, 0, 199, 49) == "49"


def test_the_last_record_of_an_id_is_known_by_partition() -> None:
    seen = SeenPositions(by_id=True)
    seen.add([row(1, 5, 0, 0, b"a", at=3), row(1, 6, 0, 0, b"a", at=9), row(1, 7, 0, 2, b"a", at=40)])
    assert seen.last(1, 0, "a") == 9
    assert seen.last(1, None, "a") == 40
    assert seen.last(1, 1, "a") is None
    assert seen.last(2, 0, "a") is None
