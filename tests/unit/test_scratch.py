"""Temporary databases: errors name their content, and a transaction keeps what was added."""

import contextlib

import pytest

from cdc.errors import CdcError
from cdc.scratch import Scratch


def made() -> Scratch:
    return Scratch("the list of things", "create table things (name text);")


def test_a_full_disk_is_reported_with_the_content_and_the_setting() -> None:
    notes = made()
    notes.run("pragma max_page_count = 3")
    with pytest.raises(CdcError, match=r"^the list of things cannot be stored: .* is full; set TMPDIR to a folder"):
        notes.many("insert into things values (?)", (("x" * 1000,) for _ in range(100)))


def test_an_error_within_a_transaction_is_reported_as_itself_and_leaves_what_was_added() -> None:
    notes = made()

    def fill() -> None:
        with notes.filling():
            notes.run("insert into things values (?)", "first")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill()
    assert list(notes.rows("select name from things")) == [("first",)]
    with pytest.raises(CdcError, match="no such table"), notes.filling():
        notes.run("insert into others values (1)")


def test_changed_rows_are_counted_and_a_closed_database_holds_nothing() -> None:
    notes = made()
    notes.many("insert into things values (?)", [("a",), ("b",)])
    assert notes.run("delete from things") == 2
    assert notes.first("select name from things") is None
    notes.close()
    notes.close()
    with pytest.raises(CdcError, match="closed database"):
        notes.run("select 1")


def test_rows_that_were_not_read_to_their_end_may_be_left_when_the_database_is_closed() -> None:
    with contextlib.closing(Scratch("a list", "create table list (number int)")) as scratch:
        scratch.many("insert into list values (?)", [(1,), (2,)])
        rows = scratch.rows("select number from list order by number")
        assert next(rows) == (1,)
    rows.close()  # type: ignore[attr-defined]
