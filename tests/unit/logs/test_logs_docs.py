"""docs/logs.md knows every line that the program logs, with its level, its logger and its fields."""

import re
from typing import Final

import pytest

from tests import ROOT
from tests.logged import Line, lines

DOCS = (ROOT / "docs" / "logs.md").read_text()
NO_FIELDS = {"time", "level", "logger", "message", "slot", "repeated", "traceback"}

LOGGED: Final = lines()
ROW = re.compile(r"^\| `(?P<sentence>[^|]+)` \| (?P<level>\w+) \| `(?P<logger>[\w.]+)` \| (?P<fields>[^|]*) \|", re.M)
TOLD = [
    Line(row["logger"], row["level"], row["sentence"], tuple(re.findall(r"`(\w+)`", row["fields"])))
    for row in ROW.finditer(DOCS)
]


def _id(line: Line) -> str:
    return f"{line.logger}: {line.sentence[:50]}"


@pytest.mark.parametrize("line", LOGGED, ids=_id)
def test_a_line_that_is_logged_is_in_the_docs(line: Line) -> None:
    rows = [told for told in TOLD if told[:3] == line[:3]]
    assert rows, f"docs/logs.md needs a row: | `{line.sentence}` | {line.level} | `{line.logger}` | … | …"
    assert any(set(line.fields) <= set(told.fields) for told in rows), f"and its fields {line.fields}"


@pytest.mark.parametrize("line", TOLD, ids=_id)
def test_a_line_that_is_in_the_docs_is_logged(line: Line) -> None:
    known = [logged for logged in LOGGED if logged[:3] == line[:3]]
    assert any(set(logged.fields) <= set(line.fields) for logged in known), known


def test_no_field_has_the_name_of_something_else() -> None:
    # `slot` may be said again where it is said to people too.
    assert [line for line in LOGGED if (NO_FIELDS - {"slot"}) & set(line.fields)] == []


def test_each_level_is_told_by_the_name_of_its_method() -> None:
    assert [line for line in LOGGED if line.level == "any"] == []


def test_a_sentence_has_no_end_that_its_fields_would_follow() -> None:
    assert [line for line in LOGGED if line.sentence.endswith((".", ":", "!"))] == []
