"""The table of faults has every fault of the catalogue, and names only existing tests."""

import re

from tests import ROOT

TABLE = (ROOT / "docs" / "faults.md").read_text()
ROWS = {"A": 24, "B": 26, "C": 22, "D": 13, "P": 11}
CASES = {"A": 6, "B": 4, "C": 11, "D": 10, "E": 6, "G": 7, "H": 16}  # F is about tests


def test_every_fault_of_the_catalogue_is_in_the_table_once() -> None:
    found = [
        row.strip() for line in re.findall(r"^\| ([A-DP]\d[^|]*)\|", TABLE, re.MULTILINE) for row in line.split(",")
    ]
    assert found == [f"{part}{number}" for part, last in ROWS.items() for number in range(1, last + 1)]


def test_every_case_from_outside_is_in_the_table() -> None:
    found = {
        case for cell in re.findall(r"^\| case ([^|]*)\|", TABLE, re.MULTILINE) for case in cell.strip().split(", ")
    }
    assert found == {f"{part}{number}" for part, last in CASES.items() for number in range(1, last + 1)}


def test_every_test_named_in_the_table_exists() -> None:
    named = set(re.findall(r"`((?:unit(?:/\w+)?|integration|acceptance)/test_\w+\.py)`", TABLE))
    assert named
    assert [name for name in sorted(named) if not (ROOT / "tests" / name).is_file()] == []


def test_every_row_without_a_test_has_a_reason() -> None:
    for line in re.findall(r"^\| (?:case )?[A-HP]\d.*$", TABLE, re.MULTILINE):
        *_, shown, _ = line.split("|")
        assert "test_" in shown or "tortured" in shown or "not covered" in line, line
