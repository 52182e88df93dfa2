"""What was seen in topics: kept by position, found by position."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import CdcError
from cdc.kafka.readback.seen import Seen, Sighting

SMALL = st.integers(0, 3)


@given(st.lists(st.lists(st.tuples(SMALL, SMALL, SMALL, SMALL, st.sampled_from([b"a", b"b"])))))
def test_it_answers_like_a_dictionary_in_which_the_first_stays(batches: list[list[Sighting]]) -> None:
    seen, first, ids = Seen(), dict[tuple[int, ...], str](), dict[tuple[int, ...], set[bytes]]()
    for batch in batches:
        seen.add(batch)
        for *place, event_id in batch:
            first.setdefault(tuple(place), event_id.decode())
            ids.setdefault(tuple(place), set()).add(event_id)
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
    seen = Seen()
    seen.add([(0, 2**63 - 1, 2**32 - 1, 7, b"id")])
    assert seen.id_at(0, 7, 2**63 - 1, 2**32 - 1) == "id"


def test_an_id_that_is_no_text_is_no_id_of_ours() -> None:
    seen = Seen()
    seen.add([(0, 1, 0, 0, b"\xff")])
    assert seen.id_at(0, 0, 1, 0) == "\N{REPLACEMENT CHARACTER}"


def test_what_was_forgotten_is_not_there_and_nothing_is_learned_after_it() -> None:
    seen = Seen()
    row = (0, 1, 0, 0, b"id")
    seen.add([row])
    seen.forget()
    seen.forget()
    seen.add([row])
    assert seen.id_at(0, 0, 1, 0) is None
    assert not seen.elsewhere(0, 1, 1, 0)
    assert seen.differing(0) == 0


def fill(seen: Seen) -> None:
    database = seen._database
    assert database
    (pages,) = database.execute("pragma page_count").fetchone()
    database.execute(f"pragma max_page_count = {pages + 1}")


def test_without_room_it_says_what_to_do_and_knows_nothing_more() -> None:
    seen = Seen()
    fill(seen)
    with pytest.raises(CdcError, match=r"cannot be stored: database or disk is full; set TMPDIR to a folder"):
        seen.add([(0, lsn, 0, 0, b"x" * 100) for lsn in range(1000)])
    assert seen.id_at(0, 0, 1, 0) is None


def test_one_thread_asks_while_another_adds() -> None:
    seen = Seen()

    def add() -> None:
        for lsn in range(200):
            seen.add([(0, lsn, index, 0, b"%d" % index) for index in range(50)])

    writer = threading.Thread(target=add)
    writer.start()
    while writer.is_alive():
        assert seen.id_at(0, 0, 150, 7) in (None, "7")
    writer.join()
    assert seen.id_at(0, 0, 199, 49) == "49"
