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
GIVEN: Final = {"cdc.cli.signals": "cdc.start"}  # whose logger is given by the caller


class Line(NamedTuple):
    """The parts of a logged line that are the same every time."""

    logger: str
    level: str
    sentence: str
    fields: tuple[str, ...]


def lines() -> list[Line]:
    """Return every line of the program but those of level debug."""
    return sorted({line for path in PACKAGE.rglob("*.py") for line in _lines(path)})


def _lines(path: Path) -> Iterator[Line]:
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
