"""An instance is ready unless it fails at what worked elsewhere, or has units without a file for a minute."""

from cdc.fleet.readiness import FILE_SECONDS, NO_FILE, Readiness
from cdc.fleet.register import Worked

ELSEWHERE, HERE = Worked(True, "other"), Worked(True, "me")


def test_a_unit_that_needs_a_person_leaves_the_instance_ready() -> None:
    readiness = Readiness("me")
    assert readiness.fails("shop", "poison", None) is None
    assert readiness.problems(0.0) == []
    assert readiness.failing == {"shop": "poison"}


def test_a_unit_that_worked_elsewhere_and_fails_here_stops_a_rollout() -> None:
    readiness = Readiness("me")
    assert readiness.fails("shop", "no such setting", ELSEWHERE) is None  # the instance may be what is wrong
    assert readiness.problems(0.0) == ["unit shop fails here and worked elsewhere: no such setting"]


def test_a_unit_that_worked_here_and_then_fails_says_so_to_the_others() -> None:
    readiness = Readiness("me")
    assert readiness.works("shop", None) is True
    assert readiness.works("shop", HERE) is None
    assert readiness.fails("shop", "poison", HERE) is False
    assert readiness.problems(0.0) == []
    assert readiness.fails("shop", "poison", Worked(False, "me")) is None


def test_a_unit_that_failed_elsewhere_leaves_the_instance_ready() -> None:
    readiness = Readiness("me")
    readiness.fails("shop", "poison", Worked(False, "other"))
    assert readiness.problems(0.0) == []


def test_a_unit_that_works_again_ends_the_failure() -> None:
    readiness = Readiness("me")
    readiness.fails("shop", "no such setting", ELSEWHERE)
    assert readiness.works("shop", ELSEWHERE) is None
    assert (readiness.problems(0.0), readiness.failing) == ([], {})


def test_what_was_seen_of_a_unit_ends_when_it_leaves() -> None:
    readiness = Readiness("me")
    readiness.works("shop", None)
    readiness.left("shop")
    assert readiness.known == set()
    readiness.fails("shop", "broken", ELSEWHERE)
    assert len(readiness.problems(0.0)) == 1
    readiness.left("shop")
    assert readiness.problems(0.0) == []


def test_a_unit_without_a_file_is_a_problem_after_a_minute() -> None:
    readiness = Readiness("me")
    readiness.without_file({"shop"}, 0.0)
    assert readiness.problems(FILE_SECONDS - 1) == []
    readiness.without_file({"shop"}, FILE_SECONDS)
    assert readiness.problems(FILE_SECONDS) == [f"unit shop is placed here, and has no file in the folder: {NO_FILE}"]
    readiness.without_file(set(), FILE_SECONDS)
    assert readiness.problems(FILE_SECONDS) == []
