"""Shell text of the documentation, taken apart into simple commands, and our own command lines parsed by click."""

import re
import shlex
from collections.abc import Iterator

import click

from cdc.cli.main import cli

_HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?([^\n]*)\n.*?\n\s*\1(?=\n|$)", re.DOTALL)
_INNER = re.compile(r"\$\((cdc-publisher [^()]*)\)")
_TAKEN = re.compile(r"^\w+=\"?\$\((.*)\)\"?$", re.MULTILINE)  # name=$(command)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_BEFORE = {"sudo", "exec", "time", "env", "nohup"}
_SHELL = {"if", "then", "else", "fi", "for", "do", "done", "while", "until", "!", "{", "}"}


def commands(text: str) -> Iterator[list[str]]:
    """Every simple command of shell text as its words; those in $(...) when they are ours."""
    text = _TAKEN.sub(r"\1", _HEREDOC.sub(r"\2", text).replace("\\\n", " "))
    for inner in _INNER.findall(text):
        yield from commands(inner)
    for line in text.split("\n"):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        yield from _split(list(lexer))


def _split(words: list[str]) -> Iterator[list[str]]:
    command: list[str] = []
    skip = False
    for word in [*words, ";"]:
        if set(word) <= set("|&;"):
            if command := list(_bare(command)):
                yield command
            command = []
        elif set(word) <= set("<>&"):
            skip = True
        elif skip:
            skip = False
        else:
            command.append(word)


def _bare(command: list[str]) -> Iterator[str]:
    """Without assignments and words before the program."""
    rest = iter(command)
    for word in rest:
        if not (_ASSIGNMENT.fullmatch(word) or word in _BEFORE or word in _SHELL):
            yield word
            break
    yield from rest


def typed(transcript: str) -> str:
    """What was typed in a console: the lines behind the prompt, with those that they are continued by."""
    lines, continued = [], False
    for line in transcript.split("\n"):
        if continued or line.startswith("$ "):
            lines.append(line.removeprefix("$ ").removeprefix("> "))
            continued = line.endswith("\\")
    return "\n".join(lines)


def problem(arguments: list[str]) -> str:
    """Why the program would not take these arguments; empty when it would. Nothing is run."""
    command, name, context = click.Command("none"), "cdc-publisher", None
    command = cli
    try:
        while True:
            context = command.make_context(name, list(arguments), parent=context)
            if not isinstance(command, click.Group):
                return ""
            found, subcommand, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
            assert found is not None
            assert subcommand is not None
            name, command = found, subcommand
    except click.exceptions.Exit:
        return ""  # --help, --version
    except click.BadParameter as error:
        # A folder of the reader's, or what a variable of the shell holds.
        told = error.format_message()
        return "" if "does not exist" in told or "'$" in told else told
    except click.UsageError as error:
        return error.format_message()
