"""The lines of `check`: their names, their table in the docs, and a test for each that may not pass."""

import re

import pytest

from cdc.checks.finding import Side
from cdc.checks.meanings import MEANINGS, table
from tests import ROOT

PAGE = (ROOT / "docs" / "check.md").read_text()
CODE = "\n".join(path.read_text() for path in (ROOT / "cdc" / "checks").glob("*.py") if path.stem != "meanings")
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests" / "integration").glob("test_check_*.py"))
# Of a server that is too old there is none to be had; its rule is tried without one.
WITHOUT_SERVER = {"postgres_version"}
SIDES: list[Side] = ["postgres", "kafka", "contracts"]


@pytest.mark.parametrize("side", SIDES)
def test_the_page_has_the_table_of_each_side(side: Side) -> None:
    assert "\n".join(table(side)) in PAGE


def test_the_page_has_no_other_line() -> None:
    assert re.findall(r"^\| `([a-z_]+)` \|", PAGE, re.MULTILINE) == list(MEANINGS)


@pytest.mark.parametrize("name", MEANINGS)
def test_each_line_is_one_that_is_looked_at(name: str) -> None:
    assert f'"{name}"' in CODE


@pytest.mark.parametrize("name", [name for name, meaning in MEANINGS.items() if meaning.warns or meaning.fails])
def test_each_line_that_may_not_pass_is_seen_on_real_servers(name: str) -> None:
    assert name in WITHOUT_SERVER or f'"{name}"' in TESTS
