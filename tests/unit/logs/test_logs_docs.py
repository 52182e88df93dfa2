"""docs/logs.md documents every log event with its level, message and fields."""

import re
from typing import Final

import pytest

from tests import ROOT
from tests.logged import Line, lines

DOCS = (ROOT / "docs" / "logs.md").read_text()
NO_FIELDS = {"time", "level", "logger", "message", "event", "slot", "repeated", "traceback"}

LOGGED: Final = lines()
ROW = re.compile(r"^\| `(?P<event>\w+)` \| (?P<level>\w+) \| `(?P<sentence>[^|]+)` \| (?P<fields>[^|]*) \|", re.M)
DOCUMENTED: Final = {
    row["event"]: Line(row["event"], row["level"], row["sentence"], tuple(re.findall(r"`(\w+)`", row["fields"])))
    for row in ROW.finditer(DOCS)
}


@pytest.mark.parametrize("line", LOGGED, ids=lambda line: f"{line.event}: {line.sentence[:50]}")
def test_a_logged_event_is_documented(line: Line) -> None:
    wanted = f"docs/logs.md needs: | `{line.event}` | {line.level} | `{line.sentence}` | … | …"
    row = DOCUMENTED.get(line.event)
    assert row is not None, wanted
    assert row[:3] == line[:3], wanted
    assert set(line.fields) <= set(row.fields), f"and its fields {line.fields}"


def test_every_documented_event_is_logged_and_stands_in_one_row() -> None:
    assert sorted({line.event for line in LOGGED}) == sorted(row["event"] for row in ROW.finditer(DOCS))


def test_names_of_events_are_snake_case() -> None:
    assert [line.event for line in LOGGED if not re.fullmatch(r"[a-z]+(_[a-z]+)*", line.event)] == []


def test_no_field_has_a_reserved_name() -> None:
    # `slot` is also a field of text lines in some messages.
    assert [line for line in LOGGED if (NO_FIELDS - {"slot"}) & set(line.fields)] == []


def test_each_log_call_has_a_fixed_level() -> None:
    assert [line for line in LOGGED if line.level == "any"] == []


def test_no_message_ends_with_punctuation() -> None:
    assert [line for line in LOGGED if line.sentence.endswith((".", ":", "!"))] == []
