"""The register: what entries mean, who writes which, and what happens when the topic is made anew."""

from hypothesis import given
from hypothesis import strategies as st

from cdc.fleet.register import AGAIN_SECONDS, FIRST, Register, Worked, entry, state, state_key


def read(*records: tuple[str, bytes | None], ends: bool = True) -> Register:
    register = Register()
    for key, value in records:
        assert register.take(key.encode(), value) == ""
    if ends:
        register.ends()
    return register


def test_the_last_entry_of_a_unit_counts() -> None:
    assert read(("shop", entry(3)), ("shop", entry(1)), ("cart", entry(2))).partitions == {"shop": 1, "cart": 2}


def test_entries_count_only_once_the_register_was_read_to_its_end() -> None:
    register = read(("shop", entry(3)), ends=False)
    assert register.partitions == {}
    register.take(b"shop", entry(1))
    register.ends()
    assert register.partitions == {"shop": 1}


def test_nothing_is_written_before_the_register_was_read_to_its_end() -> None:
    assert read(ends=False).plan(["shop"], 0.0) == ({}, 0)


def test_a_unit_without_an_entry_gets_the_first_free_partition_and_no_other_unit_moves() -> None:
    register = read(("shop", entry(1)), ("cart", entry(3)))
    assert register.plan(["a-new-one", "cart", "shop", "zoo"], 0.0) == ({"a-new-one": 2, "zoo": 4}, 5)


def test_the_topic_grows_to_what_its_entries_need() -> None:
    assert read(("shop", entry(7))).plan(["shop"], 0.0) == ({}, 8)


def test_a_forgotten_unit_frees_its_partition() -> None:
    register = read(("shop", entry(1)), ("cart", entry(2)), ("shop", None))
    assert register.partitions == {"cart": 2}
    assert register.plan(["cart", "new"], 0.0) == ({"new": 1}, 3)


def test_an_entry_counts_when_it_is_read_back_and_is_not_written_again_meanwhile() -> None:
    register = read()
    assert register.plan(["shop"], 0.0).entries == {"shop": 1}
    register.wrote(["shop"], 0.0)
    assert register.partitions == {}
    assert register.plan(["shop"], AGAIN_SECONDS / 2).entries == {}
    assert register.plan(["shop"], AGAIN_SECONDS).entries == {"shop": 1}
    register.take(b"shop", entry(4))  # another instance was faster
    assert register.plan(["shop"], AGAIN_SECONDS).entries == {}
    assert register.partitions == {"shop": 4}


def test_two_units_may_share_a_partition() -> None:
    register = read(("shop", entry(1)), ("cart", entry(1)))
    assert register.partitions == {"shop": 1, "cart": 1}
    assert register.plan(["shop", "cart"], 0.0) == ({}, 2)


def test_a_topic_that_is_made_anew_gets_the_entries_of_the_old_one() -> None:
    register = read(("shop", entry(5)), ("cart", entry(2)))
    register.begins()
    assert register.partitions == {"shop": 5, "cart": 2}  # units stay where they are
    assert register.plan(["shop", "cart"], 0.0).entries == {}
    register.take(b"cart", entry(1))  # another instance wrote it
    register.ends()
    assert register.partitions == {"shop": 5, "cart": 1}
    assert register.plan(["shop", "cart"], 0.0) == ({"shop": 5}, 6)


def test_a_unit_that_was_forgotten_in_the_new_topic_does_not_come_back() -> None:
    register = read(("shop", entry(5)))
    register.begins()
    register.take(b"shop", None)
    register.ends()
    assert register.partitions == {}


def test_an_entry_that_is_not_one_is_told_and_passed_over() -> None:
    register = read(("shop", entry(1)))
    for wrong in (b"", b"x", b"[]", b"{}", b'{"partition": 0}', b'{"partition": "2"}', b"\xff"):
        assert "the entry of 'shop' is not one of a fleet" in register.take(b"shop", wrong)
    assert register.partitions == {"shop": 1}


def test_the_last_word_about_a_unit_is_no_entry() -> None:
    register = read(("shop", entry(1)), (state_key("shop"), state(True, "one")), (state_key("cart"), None))
    assert register.partitions == {"shop": 1}
    assert register.states == {"shop": Worked(True, "one")}
    register.begins()
    assert register.states == {}


names = st.sampled_from([f"unit-{number}" for number in range(6)])
records = st.lists(st.tuples(names, st.one_of(st.none(), st.integers(FIRST, 8).map(entry))))


@given(records, st.sets(names))
def test_whoever_reads_the_same_entries_agrees_and_plans_no_partition_twice(
    log: list[tuple[str, bytes | None]], units: set[str]
) -> None:
    one, other = read(*log), read(*log)
    plan = one.plan(sorted(units), 0.0)
    assert plan == other.plan(sorted(units, reverse=True), 0.0) or len(plan.entries) > 1
    planned = list(plan.entries.values())
    assert len({*planned}) == len(planned)
    assert not {*planned} & {*one.partitions.values()}
    assert plan.entries.keys() == units - one.partitions.keys()
    assert plan.partitions > max([*one.partitions.values(), *planned, 0])
    for name, partition in plan.entries.items():
        one.take(name.encode(), entry(partition))
    assert one.plan(sorted(units), 0.0).entries == {}
