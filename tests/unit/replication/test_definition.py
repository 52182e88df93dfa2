"""What the stream depends on: a change is told by its cause, in one sentence, and what changes nothing is not told."""

import pytest

from cdc.lsn import LSN
from cdc.replication.publication import differences, suspect

BEFORE = {
    "table": "public.outbox",
    "table oid": "16385",
    "publication": "shop",
    "publication oid": "16390",
    "published by": "name (oid 16391)",
    "inserts": "yes",
    "row filter": "none",
    "column list": "none",
    "via partition root": "no",
}


def test_nothing_has_changed() -> None:
    assert differences(BEFORE, dict(BEFORE)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"publication oid": "16400"}, "publication shop was dropped and created again (oid 16400, was 16390)"),
        (
            {"publication oid": "none", "published by": "none", "inserts": "no"},
            "publication shop does not exist any more (it had oid 16390)",
        ),
        (
            {"table oid": "17000", "published by": "none"},
            "table public.outbox was replaced by another of its name (oid 17000, was 16385)",
        ),
        (
            {"table oid": "none", "published by": "none"},
            "table public.outbox does not exist any more (it had oid 16385)",
        ),
        ({"published by": "none", "row filter": "x"}, "publication shop has no table public.outbox any more"),
        ({"inserts": "no"}, "publication shop publishes no inserts now"),
        (
            {"row filter": "(id > 1)", "published by": "name (oid 17001)"},
            "publication shop got a row filter for table public.outbox: (id > 1)",
        ),
        ({"column list": "id, type"}, "publication shop got a column list for table public.outbox: id, type"),
        (
            {"published by": "name (oid 17001)"},
            "publication shop publishes table public.outbox by name (oid 17001), and did by name (oid 16391)",
        ),
        ({"via partition root": "yes"}, "publication shop publishes table public.outbox via partition root: yes now"),
        ({"publication": "store", "publication oid": "1"}, "publication is store, and was shop"),
    ],
)
def test_b4_b5_b6_a_change_is_told_by_its_cause(change: dict[str, str], told: str) -> None:
    assert differences({**BEFORE, **change}, BEFORE) == [told]


def test_b5_a_row_filter_that_changes_or_goes_is_told_too() -> None:
    before = {**BEFORE, "row filter": "(id > 1)"}
    (gone,) = differences({**before, "row filter": "none"}, before)
    assert gone == "publication shop lost its row filter for table public.outbox, which was (id > 1)"
    (other,) = differences({**before, "row filter": "(id > 2)"}, before)
    assert other == "publication shop has another row filter for table public.outbox: (id > 2), was (id > 1)"


def test_causes_that_are_independent_are_all_told() -> None:
    now = {**BEFORE, "table oid": "1", "publication oid": "2"}
    assert [sentence.split(" was ")[0] for sentence in differences(now, BEFORE)] == [
        "table public.outbox",
        "publication shop",
    ]


def test_a_part_that_an_older_record_does_not_hold_is_no_difference() -> None:
    older = {part: text for part, text in BEFORE.items() if part != "row filter"}
    assert differences({**BEFORE, "row filter": "(id > 1)"}, older) == []


def test_the_suspect_rows_begin_at_the_last_good_look() -> None:
    assert suspect(LSN.parse("0/10"), LSN.parse("0/20")).startswith(
        "rows committed between LSN 0/10 and 0/20, and later"
    )
    assert suspect(None, LSN.parse("0/20")).startswith("rows committed up to LSN 0/20, and later")


def test_a_slot_that_was_only_created_has_nothing_to_compare_b1() -> None:
    assert differences({}, BEFORE) == differences(BEFORE, {}) == []
