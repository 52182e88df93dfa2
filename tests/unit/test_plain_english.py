"""Documentation, help texts, settings and code are in plain English, without the words in tests/prose.py."""

from collections.abc import Iterable
from pathlib import Path

import click
import pytest
from pydantic import BaseModel, Field

from cdc.cli.main import COMMANDS, cli
from cdc.config.settings import Settings
from tests import prose
from tests.documents import ROOT
from tests.prose import Text

# Files and folders whose comments, docstrings and texts are in plain English.
CODE = ["cdc", "docker", "benchmarks", "examples"]
# Words that are names: the account `nobody` of Unix.
NAMES = {("cdc/local/accounts.py", "nobody")}
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [
        ROOT / "README.md",
        *ROOT.glob("CONTRIBUTING.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "deploy").rglob("*.md"),
    ]
)


@pytest.mark.parametrize("page", PAGES)
def test_page_is_in_plain_english(page: str) -> None:
    found = prose.findings(prose.markdown(ROOT / page, page))
    assert not found, "\n".join(["", *found])


def _files(places: Iterable[str]) -> set[str]:
    files = [file for place in places for file in (*(ROOT / place).rglob("*.py"), ROOT / place)]
    return {str(file.relative_to(ROOT)) for file in files if file.suffix == ".py"}


@pytest.mark.parametrize("file", sorted(_files(CODE)))
def test_code_is_in_plain_english(file: str) -> None:
    names = [word for source, word in NAMES if source == file]
    found = prose.findings(prose.python(ROOT / file, file))
    found = [line for line in found if not any(f": {name} ->" in line for name in names)]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_of_command_is_in_plain_english(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    found = prose.findings([*prose.help_texts(command), Text(name, 1, COMMANDS[name][1])])
    assert not found, "\n".join(["", *found])


def test_settings_are_described_in_plain_english() -> None:
    found = prose.findings(prose.descriptions(Settings))
    assert not found, "\n".join(["", *found])


def test_finding_names_source_line_word_and_replacement() -> None:
    texts = [Text("a.md", 7, "Fine here.\nIt is retried for\never. What is missing stays."), Text("b", 1, "Is told")]
    assert prose.findings(texts) == [
        "a.md:8: for ever -> indefinitely",
        "a.md:9: What is -> name the thing",
        "b:1: told -> report, show",
    ]


def test_code_spans_and_ordinary_words_are_not_findings() -> None:
    text = "`told`, ``nobody`` and `mend\nit` are code; a foretold renewal on the side of the road-map of theirselves."
    assert prose.findings([Text("a", 1, text.replace("road-map", "roadmap"))]) == []


def test_markdown_yields_prose_with_its_line_and_skips_code(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Told\n\nOne `told`\nnobody.\n\n```sh\necho mended\n```\n\n| a | b |\n|---|---|\n| anew | x |\n")
    assert prose.findings(prose.markdown(page, "page.md")) == [
        "page.md:1: Told -> report, show",
        "page.md:4: nobody -> name the actor",
        "page.md:12: anew -> again, re-created, restart",
    ]


def test_help_texts_yields_commands_options_and_epilogs() -> None:
    @click.group(help="Group told.")
    def root() -> None: ...

    @root.command(help="Command mended.", epilog="Nobody.")
    @click.option("--old", help="Option anew.")
    def leaf(old: str) -> None: ...

    assert [found.partition(":")[0] for found in prose.findings(prose.help_texts(root))] == [
        "root",
        "root leaf",
        "root leaf",
        "root leaf --old",
    ]


def test_descriptions_yields_fields_of_nested_models() -> None:
    class Inner(BaseModel):
        """Settings told."""

        name: str = Field("", description="A name of ours.")

    class Outer(BaseModel):
        inner: Inner = Inner()

    assert prose.findings(prose.descriptions(Outer)) == [
        "inner:1: told -> report, show",
        "inner.name:1: of ours -> our, own",
    ]


def test_python_yields_comments_docstrings_and_literals(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text('"""Docstring.\n\nIs told."""\n\ntold = 1  # mended\nmessage = f"{told} for ever"\n')
    assert sorted(prose.findings(prose.python(file, "a.py"))) == [
        "a.py:3: told -> report, show",
        "a.py:5: mended -> fix",
        "a.py:6: for ever -> indefinitely",
    ]
