"""docs/logs.md documents every log message with its level, logger and fields."""

import re
from typing import Final

import pytest

from tests import ROOT
from tests.logged import Line, lines

DOCS = (ROOT / "docs" / "logs.md").read_text()
NO_FIELDS = {"time", "level", "logger", "message", "slot", "repeated", "traceback"}

LOGGED: Final = lines()
ROW = re.compile(r"^\| `(?P<sentence>[^|]+)` \| (?P<level>\w+) \| `(?P<logger>[\w.]+)` \| (?P<fields>[^|]*) \|", re.M)
DOCUMENTED = [
    Line(row["logger"], row["level"], row["sentence"], tuple(re.findall(r"`(\w+)`", row["fields"])))
    for row in ROW.finditer(DOCS)
]


def _id(line: Line) -> str:
    return f"{line.logger}: {line.sentence[:50]}"


@pytest.mark.parametrize("line", LOGGED, ids=_id)
def test_a_logged_message_is_documented(line: Line) -> None:
    rows = [row for row in DOCUMENTED if row[:3] == line[:3]]
    assert rows, f"docs/logs.md needs a row: | `{line.sentence}` | {line.level} | `{line.logger}` | … | …"
    assert any(set(line.fields) <= set(row.fields) for row in rows), f"and its fields {line.fields}"


@pytest.mark.parametrize("line", DOCUMENTED, ids=_id)
def test_a_documented_message_is_logged(line: Line) -> None:
    known = [logged for logged in LOGGED if logged[:3] == line[:3]]
    assert any(set(logged.fields) <= set(line.fields) for logged in known), known


def test_no_field_has_a_reserved_name() -> None:
    # `slot` is also a field of text lines in some messages.
    assert [line for line in LOGGED if (NO_FIELDS - {"slot"}) & set(line.fields)] == []


def test_each_log_call_has_a_fixed_level() -> None:
    assert [line for line in LOGGED if line.level == "any"] == []


def test_no_message_ends_with_punctuation() -> None:
    assert [line for line in LOGGED if line.sentence.endswith((".", ":", "!"))] == []
