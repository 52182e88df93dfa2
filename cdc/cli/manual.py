"""The manual of all commands, from nothing but their own help: as Markdown and as a manual page.

`python -m cdc.cli.manual`, which is `make docs`, writes these files of the repository, and the reference of settings.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from cdc.cli.main import cli
from cdc.config.reference import reference

_WIDTH: Final = 80
_HEAD: Final = """\
# Commands

Written by `make docs` from the program's own help: `cdc-publisher COMMAND --help` says the same, and so does
`man cdc-publisher`. Options of `cdc-publisher` itself stand before the command; exit codes are in
[operating.md](operating.md#exit-codes).
"""
_EXIT_CODES: Final = """\
.SH EXIT STATUS
0 done; 1 needs a person; 2 usage; 75 temporary, start it again; 78 configuration.
.SH SEE ALSO
cdc-publisher config reference tells every setting.
"""


def commands(command: click.Command = cli, parent: click.Context | None = None) -> Iterator[click.Context]:
    """A context of every command: of a group first the group, then what is in it."""
    name = str(command.name) if parent else "cdc-publisher"
    settings: dict[str, Any] = {"terminal_width": _WIDTH, **command.context_settings}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield context
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            if (found := command.get_command(context, each)) is not None and not found.hidden:
                yield from commands(found, context)


def markdown() -> str:
    """One heading for each command, with its help below it."""
    parts = [_HEAD]
    for each in commands():
        title = each.command_path.removeprefix("cdc-publisher ")
        parts.append(f"## {title}\n\n```text\n{_help(each)}\n```\n")
    return "\n".join(parts)


def man() -> str:
    """The same as a page for man(1)."""
    parts = ['.TH CDC-PUBLISHER 1 "" "cdc-publisher" "User Commands"']
    parts += [".SH NAME", "cdc-publisher \\- publish a PostgreSQL transactional outbox to Kafka as Avro"]
    for each in commands():
        path = each.command_path
        heading = "SYNOPSIS" if each.parent is None else path.removeprefix("cdc-publisher ").upper()
        parts += [f".SH {heading}", ".nf", _escaped(_help(each)), ".fi"]
    return "\n".join([*parts, _EXIT_CODES])


def _help(context: click.Context) -> str:
    return "\n".join(line.rstrip() for line in context.get_help().splitlines()).strip()


def _escaped(text: str) -> str:
    """As it stands: a backslash, a hyphen and a dot or quote at the beginning of a line mean something to troff."""
    return re.sub(r"^(?=[.'])", r"\\&", text.replace("\\", "\\e").replace("-", "\\-"), flags=re.MULTILINE)


def pages() -> dict[Path, str]:
    """Every file of the repository that is made of definitions, and what it should hold."""
    root = Path(__file__).parents[2]
    return {
        root / "docs" / "configuration.md": reference(),
        root / "docs" / "commands.md": markdown(),
        root / "cdc" / "cli" / "cdc-publisher.1": man(),
    }


if __name__ == "__main__":
    for file, text in pages().items():
        file.write_text(text, encoding="utf-8")
