"""Commands and names in the README exist."""

import re

import click
import pytest

from cdc.cli import manual
from cdc.cli.main import COMMANDS
from tests.documents import ROOT

README = (ROOT / "README.md").read_text()
LEAVES = [each for each in manual.commands() if not isinstance(each.command, click.Group)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_table(command: str) -> None:
    assert f"| `{command}" in README


@pytest.mark.parametrize("context", LEAVES, ids=lambda each: each.command_path)
def test_every_command_of_a_group_is_in_its_row(context: click.Context) -> None:
    *groups, name = context.command_path.split()[1:]
    if groups:
        (row, *_) = re.findall(rf"^\| `{groups[0]} .*$", README, re.MULTILINE)
        assert re.search(rf"`({groups[0]} )?{name}`", row)


def test_the_readme_is_short() -> None:
    assert README.count("\n") < 200
