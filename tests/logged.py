"""Every line that the program logs, found in its source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import cdc

PACKAGE: Final = Path(cdc.__file__).parent
LEVELS: Final = {
    "log": "any",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "critical": "critical",
}
HOLE: Final = re.compile(r"%[-#0 +]*[\d*]*(?:\.[\d*]+)?[a-zA-Z]")


class Line(NamedTuple):
    """The parts of a logged line that are the same every time. `event` names it for good; the sentence may change."""

    event: str
    level: str
    sentence: str
    fields: tuple[str, ...]


def lines() -> list[Line]:
    """Return every line of the program but those of level debug."""
    return sorted({line for path in PACKAGE.rglob("*.py") for line in _lines(path)})


def _lines(path: Path) -> Iterator[Line]:
    tree = ast.parse(path.read_text())
    loggers = {"log", *_loggers(tree)}
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        if call.func.attr in LEVELS and ast.unparse(call.func.value) in loggers:
            extra = _extra(call)
            event = extra.pop("event", None)
            assert isinstance(event, ast.Constant), f"{path}: {ast.unparse(call)} needs a constant field `event`"
            yield Line(str(event.value), LEVELS[call.func.attr], _sentence(call.args[0]), tuple(extra))


def _loggers(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("logging.getLogger("):
            yield ast.unparse(node.targets[0])


def _sentence(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return HOLE.sub("…", str(node.value))
    assert not isinstance(node, ast.JoinedStr), f"{ast.unparse(node)}: give it a template, so that it is one kind"
    return "…"


def _extra(call: ast.Call) -> dict[str, ast.expr]:
    for keyword in call.keywords:
        if keyword.arg == "extra":
            assert isinstance(keyword.value, ast.Dict), f"{ast.unparse(call)}: its fields belong here"
            fields = zip(keyword.value.keys, keyword.value.values, strict=True)
            return {str(key.value): value for key, value in fields if isinstance(key, ast.Constant)}
    return {}
