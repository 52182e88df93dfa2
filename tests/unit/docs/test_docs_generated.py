"""Generated documentation is up to date; `make docs` writes it."""

import re
from pathlib import Path

import click
import pytest

from cdc.cli import manual
from cdc.config.librdkafka import PROMISES
from cdc.config.reference import names
from cdc.config.settings import Settings
from tests import shell_lines
from tests.documents import ROOT

CONFIGURATION = ROOT / "docs" / "configuration.md"
LEAVES = [each for each in manual.commands() if not isinstance(each.command, click.Group)]


@pytest.mark.parametrize("file", manual.pages(), ids=lambda file: file.name)
def test_generated_pages_are_up_to_date(file: Path) -> None:
    assert file.read_text() == manual.pages()[file], "run: make docs"


def test_every_setting_is_in_the_reference_with_a_description() -> None:
    text = CONFIGURATION.read_text()
    for section, field in Settings.model_fields.items():
        assert f"\n## [{section}]\n" in text
        for name in getattr(field.annotation, "model_fields", {}):
            assert re.search(rf"^\| `{name}[`.].* \| [^|]+ \|$", text, re.MULTILINE), f"[{section}] {name}"
    assert all(f"| `{name}` |" in text for name in PROMISES)


def test_set_accepts_all_names_of_settings() -> None:
    assert {"postgres.dsn", "outbox.columns.id", "kafka.bootstrap.servers", "delivery.drain_seconds"} <= set(names())
    assert shell_lines.problem([f"--set={name}=x" for name in names()] + ["config", "show"]) == ""


@pytest.mark.parametrize("context", LEAVES, ids=lambda each: each.command_path)
def test_help_ends_with_valid_examples(context: click.Context) -> None:
    text = f"{context.command.help}\n{context.command.epilog or ''}"
    assert re.search(r"Examples?:", text), "a command's help ends with examples"
    # Behind three spaces stands a remark.
    lines = [
        re.split(r"(?<=\S) {3,}", line)[0]
        for line in re.split(r"\n|Example:", text.split("Examples:")[-1])
        if "cdc-publisher" in line
    ]
    assert any(context.command_path in re.sub(r"--(config|set) \S+ ", "", line) for line in lines)
    for line in lines:
        for command in shell_lines.commands(line):
            if command[0] == "cdc-publisher":
                assert shell_lines.problem(command[1:]) == "", line


@pytest.mark.parametrize("context", LEAVES, ids=lambda each: each.command_path)
def test_every_option_has_a_help_text(context: click.Context) -> None:
    silent = [p.opts for p in context.command.params if isinstance(p, click.Option) and not p.help]
    assert silent == []


def test_an_unknown_option_is_reported() -> None:
    assert "No such option" in shell_lines.problem(["slot", "list", "--nonsense"])
    assert "No such command" in shell_lines.problem(["slot", "nonsense"])
    assert shell_lines.problem(["--set", "a.b=c", "slot", "advance", "orders", "--to", "16/B374D848"]) == ""
