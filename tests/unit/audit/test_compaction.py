"""Keys of compacted topics that end with an older event, and everything that is none."""

from typing import Any

import pytest

from cdc.audit.compaction import Stale, stale
from cdc.audit.verdicts import REPAIRED, STALE, Kept, TableRow, TopicRecord
from tests.unit.audit.test_audit import History, simple

COMPACTED = {topic: Kept(trimmed=False, compacted=True, keeps_since=None) for topic in ("t0", "t1")}


def record(event: str, lsn: int, offset: int, **changes: Any) -> TopicRecord:
    """A record of key k that was committed at the millisecond of its LSN."""
    made = TopicRecord(offset, event, 1, lsn, 0, "t", 0, offset, b"k", lsn, None, 0, True)
    return made._replace(**changes)


def row(event: str, **times: int) -> TableRow:
    return TableRow(event, "t", b"k", times.get("age"), times.get("committed", 0), 1, 1)


def ends(*entries: TopicRecord | TableRow, began: bool = True) -> list[tuple[str, str]]:
    return [(found.last.id, found.newest) for found in stale(entries, began=began)]


def test_a_key_that_ends_with_its_newest_event_is_right_whatever_came_before() -> None:
    assert ends(record("a", 1, 0), record("b", 2, 1)) == []
    assert ends(record("b", 2, 0), record("a", 1, 1), record("b", 2, 2)) == []
    assert ends(record("b", 2, 5)) == []


def test_an_older_record_behind_the_newest_is_stale_also_behind_a_later_one_of_another_key() -> None:
    assert ends(record("b", 2, 0), record("a", 1, 1)) == [("a", "b")]
    other = record("z", 9, 0, key=b"z")
    assert ends(record("b", 2, 0), record("a", 1, 1), other) == [("a", "b")]


def test_each_partition_is_compacted_by_itself() -> None:
    assert ends(record("a", 1, 7), record("b", 2, 0, partition=1)) == []


def test_a_row_without_a_record_is_newer_only_where_times_prove_it() -> None:
    last = record("a", 1000, 3)
    assert ends(row("b", age=1000), last) == [("a", "b")]
    assert ends(row("b", age=999), last) == []
    assert ends(row("b", age=2000), last, began=False) == []
    assert ends(row("b"), last) == []
    assert ends(row("b", committed=1_001_000, age=10), last, began=False) == [("a", "b")]
    assert ends(row("b", committed=1_000_999, age=2000), last) == []


def test_a_removed_row_is_no_finding_where_any_partition_ends_with_a_newer_one() -> None:
    assert ends(row("b", age=1500), record("a", 1000, 3), record("c", 2000, 0, partition=1)) == []
    assert ends(row("b", age=1500)) == []


def test_a_repaired_record_without_a_position_says_nothing() -> None:
    assert ends(record("b", 2, 0), record("a", 0, 1, stream=0, kind=REPAIRED)) == []


def test_of_two_removed_rows_the_newest_is_named() -> None:
    assert ends(row("b", age=1500), row("c", age=1600), record("a", 1000, 3)) == [("a", "c")]


def spoiled() -> tuple[History, str, str]:
    """A history of which the cleaner left one record of a key: not the newest. Returns that, and the newest's id."""
    history = simple()
    of_key = [r for r in history.log if r.key == b"k0"]
    history.log = [r for r in history.log if r.key != b"k0" or r is of_key[0]]
    return history, of_key[0].id, of_key[-1].id


def test_an_audit_finds_the_key_both_events_and_what_to_do() -> None:
    history, last, newest = spoiled()
    (finding,) = history.audit(kept=COMPACTED).found
    assert (finding.kind, finding.id, finding.key) == (STALE, last, b"k0")
    assert finding.meaning == (
        f"the last record of its key, which compaction keeps, but event {newest} is newer:"
        " insert an event with the key's current state"
    )


def test_an_audit_is_silent_about_events_that_may_be_sent_again_now() -> None:
    history, last, _ = spoiled()
    history.in_flight = [last]
    assert history.audit(kept=COMPACTED).found == []
    history, _, _ = spoiled()
    history.in_flight = [row.id for row in history.rows if row.key == b"k0"]
    assert history.audit(kept=COMPACTED).found == []


@pytest.mark.parametrize("kept", [{}, COMPACTED])
def test_a_topic_that_ends_with_the_newest_has_no_finding(kept: dict[str, Kept]) -> None:
    assert simple().audit(kept=kept).found == []


def test_a_stale_key_counts_where_one_of_its_events_is_within_the_range() -> None:
    newest, last = record("b", 2, 0), record("a", 1, 1, judged=False)
    assert list(stale([newest, last], began=True)) == [Stale(last, "b", judged=True)]
    newest = newest._replace(judged=False)
    assert list(stale([newest, last], began=True)) == [Stale(last, "b", judged=False)]
