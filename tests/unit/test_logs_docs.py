"""docs/logs.md knows every line that the program logs, with its level, its logger and its fields."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cdc"
DOCS = (ROOT / "docs" / "logs.md").read_text()
LEVELS = {
    "log": "any",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "critical": "critical",
}
HOLE = re.compile(r"%[-#0 +]*[\d*]*(?:\.[\d*]+)?[a-zA-Z]")
GIVEN = {"cdc.cli.signals": "cdc.start"}  # whose logger is given by the caller
NO_FIELDS = {"time", "level", "logger", "message", "slot", "repeated", "traceback"}


class Line(NamedTuple):
    """What does not change from one time to the next."""

    logger: str
    level: str
    sentence: str
    fields: tuple[str, ...]


def logged(path: Path) -> Iterator[Line]:
    """Every line but those for the verbose."""
    tree = ast.parse(path.read_text())
    logger = ".".join(["cdc", *path.relative_to(PACKAGE).with_suffix("").parts])
    logger = GIVEN.get(logger, logger)
    loggers = dict(_loggers(tree, logger))
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS:
            of = ast.unparse(call.func.value)
            if of == "log" or of in loggers:
                yield Line(loggers.get(of, logger), LEVELS[call.func.attr], _sentence(call.args[0]), _fields(call))


def _loggers(tree: ast.Module, module: str) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("logging.getLogger("):
            assert isinstance(node.value, ast.Call)
            (name,) = node.value.args
            yield ast.unparse(node.targets[0]), str(name.value) if isinstance(name, ast.Constant) else module


def _sentence(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return HOLE.sub("…", str(node.value))
    assert not isinstance(node, ast.JoinedStr), f"{ast.unparse(node)}: give it a template, so that it is one kind"
    return "…"


def _fields(call: ast.Call) -> tuple[str, ...]:
    keys = []
    for keyword in call.keywords:
        if keyword.arg == "extra":
            assert isinstance(keyword.value, ast.Dict), f"{ast.unparse(call)}: its fields belong here"
            keys += [str(key.value) for key in keyword.value.keys if isinstance(key, ast.Constant)]
    return tuple(keys)


LOGGED = sorted({line for path in sorted(PACKAGE.rglob("*.py")) for line in logged(path)})
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
