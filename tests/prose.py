"""Prose of the project as data, and the words that it must not contain.

Documentation, help texts, settings, log messages and docstrings are written in plain English, with the terms of
PostgreSQL, Kafka and Avro. Every collector yields `Text`s; `findings` compares them with `WORDS`. Code is not prose:
code blocks and text in backticks are ignored.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic import BaseModel

# Regular expressions, matched without regard to case, with a suggested replacement. A space matches a line break too.
WORDS = {
    r"tell|tells|telling|told": "report, show",
    r"nobody|somebody|anybody|everybody": "name the actor",
    r"whoever|whatever|wherein": "name the thing",
    r"(?:\A|(?<=[.!?]\s))what (?:is|was|are|were|has|cannot)(?![^.]*\?)": "name the thing",
    r"mend|mends|mended|mending": "fix",
    r"anew": "again, re-created, restart",
    r"for ever": "indefinitely",
    r"of (?:ours|yours|theirs)": "our, own",
    r"bystanders?": "observer",
    r"vitals": "metrics",
    r"(?:take|takes|taken|took) for (?:dead|lost|a|an|the|sent|published)": "presumed, treated as",
    r"put through": "fault injection",
    r"in silence": "silently",
    r"by turns": "alternately",
    r"(?:come|comes|came|coming) again": "redelivered",
    r"(?:go|goes|going|went) on": "continue, resume",
    r"repeats? itself|repeat themselves": "repeated",
    r"(?:can|may|could|must) ?not be kept": "cannot be stored",
    r"on the side(?! of)": "implicitly",
    r"strangers?": "unknown program, new user",
    r"people": "users, operators",
    r"a person": "an operator",
    r"roads?": "path",
}
_WORDS = [
    (re.compile(rf"\b(?:{words})\b".replace(" ", r"\s+"), re.IGNORECASE), plain) for words, plain in WORDS.items()
]
_CODE = re.compile(r"``.+?``|`[^`]+`", re.DOTALL)


class Text(NamedTuple):
    """One piece of prose, and where its first line is: `source` is a file or a command."""

    source: str
    line: int
    text: str


def findings(texts: Iterable[Text]) -> list[str]:
    """Return one line per word that is not plain English, as `source:line: word -> replacement`."""
    found = []
    for source, line, text in texts:
        prose = _CODE.sub(_blank, text)
        matches = [(match, plain) for pattern, plain in _WORDS for match in pattern.finditer(prose)]
        for match, plain in sorted(matches, key=lambda each: each[0].start()):
            at = line + prose.count("\n", 0, match.start())
            found.append(f"{source}:{at}: {' '.join(match[0].split())} -> {plain}")
    return found


def markdown(path: Path, source: str) -> Iterator[Text]:
    """Yield the paragraphs, headings, list items and table cells of a Markdown file, without code."""
    for token in MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8")):
        if token.type == "inline" and token.map:
            yield Text(source, token.map[0] + 1, "".join(map(_inline, token.children or ())))


def help_texts(command: click.Command, path: str = "") -> Iterator[Text]:
    """Yield the help and the epilog of a command and its subcommands, and the help of their options."""
    path = f"{path} {command.name}".strip()
    for text in (command.help, command.short_help, command.epilog):
        yield Text(path, 1, text or "")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield Text(f"{path} {parameter.opts[-1]}", 1, parameter.help or "")
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):  # loads commands that are imported lazily
            if (each := command.get_command(context, name)) is not None:
                yield from help_texts(each, path)


def descriptions(model: type[BaseModel], path: str = "") -> Iterator[Text]:
    """Yield the docstring of a settings model and the description of each field, including nested models."""
    yield Text(path or model.__name__, 1, model.__doc__ or "")
    for name, field in model.model_fields.items():
        place = f"{path}.{name}".strip(".")
        yield Text(place, 1, field.description or "")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from descriptions(field.annotation, place)


def python(path: Path, source: str) -> Iterator[Text]:
    """Yield the comments, docstrings and string literals of a Python file."""
    code = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            yield Text(source, token.start[0], token.string.lstrip("# "))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(source, node.lineno, node.value)


def _inline(token: Token) -> str:
    if token.type in ("softbreak", "hardbreak"):
        return "\n"
    return token.content if token.type == "text" else "``" if token.type == "code_inline" else ""


def _blank(code: re.Match[str]) -> str:
    """Keep the line breaks of a code span, so that lines are still counted correctly."""
    return "`" + "\n" * code[0].count("\n")
