"""The lines of `check`: their names, their tables in docs/check.md, and the tests that produce each of them."""

import re

import pytest

from cdc.checks.finding import Side
from cdc.checks.meanings import MEANINGS, table
from tests import ROOT
from tests.integration import (
    test_check_contracts,
    test_check_kafka,
    test_check_postgres,
    test_check_server,
    test_messages,
    test_polling_check,
    test_slots,
    test_tables_below,
)
from tests.produced import claims, produces, record
from tests.unit.checks import test_check, test_check_fleet, test_check_values

PAGE = (ROOT / "docs" / "check.md").read_text()
CODE = "\n".join(path.read_text() for path in (ROOT / "cdc" / "checks").glob("*.py") if path.stem != "meanings")
MODULES = [
    test_check,
    test_check_fleet,
    test_check_values,
    test_check_contracts,
    test_check_kafka,
    test_check_postgres,
    test_check_server,
    test_messages,
    test_polling_check,
    test_slots,
    test_tables_below,
]
CLAIMED = set().union(*map(claims, MODULES))
NOT_PASSING = {
    f"{name}:{status}"
    for name, meaning in MEANINGS.items()
    for status, condition in (("warn", meaning.warns), ("fail", meaning.fails))
    if condition
}
SIDES: list[Side] = ["postgres", "kafka", "contracts", "fleet"]


@pytest.mark.parametrize("side", SIDES)
def test_page_has_the_table_of_each_side(side: Side) -> None:
    assert "\n".join(table(side)) in PAGE


def test_page_has_no_other_line() -> None:
    assert re.findall(r"^\| `([a-z_]+)` \|", PAGE, re.MULTILINE) == list(MEANINGS)


@pytest.mark.parametrize("name", MEANINGS)
def test_documented_line_is_in_the_code(name: str) -> None:
    assert f'"{name}"' in CODE


def test_each_documented_warning_and_failure_is_produced_by_a_test_and_no_other() -> None:
    assert CLAIMED == NOT_PASSING


def test_claim_without_the_line_fails() -> None:
    @produces("wal_level:fail", "wal_senders:fail")
    def test() -> None:
        record([("wal_level", "warn"), ("wal_senders", "fail")])

    with pytest.raises(AssertionError, match="not produced: wal_level:fail"):
        test()
