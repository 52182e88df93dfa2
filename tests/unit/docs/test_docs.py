"""README and docs: links exist, and code blocks are valid."""

import ast
import json
import re
import tomllib
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from cdc.cli.main import COMMANDS
from cdc.config.loading import load
from tests import documents, shell_lines
from tests.documents import PAGES, ROOT, Block

# Why a block of shell, SQL or Python is not run by any test; nothing else is a reason.
# A program in another language has a test of its own, or such a reason.
REASONS = {"needs Docker", "needs Kubernetes", "needs systemd", "needs your servers", "takes minutes"}
PROGRAMS = ("go", "java", "js")
MOST_NOT_RUN = 16

_OTHERS = """
. cat cd chmod cp createdb curl docker echo export git helm install jq journalctl kafka-acls.sh kafka-configs.sh
kafka-console-consumer.sh kafka-topics.sh kubectl less ls mkdir openssl pg_dump pip promtool psql python python3 rm
sleep source systemctl systemd-analyze systemd-creds tee test umask useradd
"""
OTHERS = frozenset(_OTHERS.split())  # programs that are not ours
PACKAGED = [
    ROOT / "docker-compose.yml",
    ROOT / "Dockerfile",
    *sorted(p for p in (ROOT / "deploy").rglob("*") if p.is_file()),
]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def described(block: Block) -> str:
    return block.where


@pytest.mark.parametrize("page", PAGES, ids=documents.name)
def test_every_code_block_has_a_language(page: Path) -> None:
    assert [b.where for b in documents.blocks(page) if b.language not in documents.LANGUAGES] == []


@pytest.mark.parametrize("page", PAGES, ids=documents.name)
def test_links_anchors_and_images_exist(page: Path) -> None:
    broken = []
    for target, line in documents.links(page):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        found = (page.parent / path).resolve() if path else page
        known = found.suffix != ".md" or not anchor or (found.is_file() and anchor in documents.anchors(found))
        if not (found.exists() and known):
            broken.append(f"{documents.name(page)}:{line}: {target}")
    assert broken == []


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {target.partition("#")[0] for target, _ in documents.links(ROOT / "README.md")}
    assert [documents.name(page) for page in PAGES[1:] if documents.name(page) not in linked] == []


@pytest.mark.parametrize("block", documents.all_blocks("toml"), ids=described)
def test_toml_blocks_are_valid_settings(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "cdc-publisher.toml"
    file.write_text(block.text)
    given = tomllib.loads(block.text)
    if "registry" in json.dumps(given.get("avro", {})) or "confluent" in json.dumps(given.get("avro", {})):
        given.setdefault("schema_registry", {}).setdefault("url", "http://127.0.0.1:8081")
        options = [f"schema_registry.url={given['schema_registry']['url']}"]
    else:
        options = []
    assert load(file, options, {})


def test_yaml_and_json_blocks_are_valid() -> None:
    for block in documents.all_blocks("json"):
        json.loads(block.text)
    for block in documents.all_blocks("yaml"):
        assert list(yaml.safe_load_all(block.text)), block.where


@pytest.mark.parametrize("block", documents.all_blocks("python"), ids=described)
def test_python_blocks_compile_and_their_imports_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            assert all(import_module(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("block", documents.all_blocks("sh", "console"), ids=described)
def test_command_lines_name_programs_commands_and_options_that_exist(block: Block) -> None:
    text = shell_lines.typed(block.text) if block.language == "console" else block.text
    written = frozenset(re.findall(r"^cat > (\S+) <<", (ROOT / block.page).read_text(), re.MULTILINE))
    wrong = [
        f"{' '.join(command)}: {why}" for command in shell_lines.commands(text) if (why := _problem(command, written))
    ]
    assert wrong == []


def _problem(command: list[str], written: frozenset[str] = frozenset()) -> str:
    """Why the command cannot work; `written` are the files that its page creates."""
    if command[0] in ("docker", "kubectl") and "--" in command:
        command = command[command.index("--") + 1 :]
    program, *arguments = command
    program = program.removeprefix(".venv/bin/")
    if program == "cdc-publisher":
        return shell_lines.problem(arguments)
    if program == "make":
        unknown = [word for word in arguments if "=" not in word and word not in TARGETS]
        return f"no target {unknown}" if unknown else ""
    if program in ("python", "python3") and arguments[:1] == ["-m"]:
        return "" if find_spec(arguments[1]) else f"no module {arguments[1]}"
    if program in ("python", "python3") and arguments[0].endswith(".py"):
        return "" if arguments[0] in written or (ROOT / arguments[0]).is_file() else f"no file {arguments[0]}"
    return "" if program in OTHERS else "unknown program"


@pytest.mark.parametrize("page", PAGES, ids=documents.name)
def test_own_commands_in_the_text_exist(page: Path) -> None:
    sentences = page.name == "logs.md"  # some of the program's begin with a command's word
    wrong = []
    for span in documents.spans(page):
        words = span.removeprefix("cdc-publisher ").split()
        short = len(words) > 1 and words[0] in COMMANDS and not sentences
        if short or (span.startswith("cdc-publisher ") and words[0].islower()):
            problem = shell_lines.problem(words)
            wrong += [f"{span}: {problem}"] if problem and not re.search("Missing|requires an", problem) else []
    assert wrong == []


@pytest.mark.parametrize("file", PACKAGED, ids=lambda path: str(path.relative_to(ROOT)))
def test_own_commands_in_deployment_files_exist(file: Path) -> None:
    lines = re.findall(
        rf"\bcdc-publisher ((?:{'|'.join(COMMANDS)})\b[\w\s-]*?)(?=[^\w \t-]|$)", file.read_text(), re.MULTILINE
    )
    assert [line for line in lines if _problem(["cdc-publisher", *line.split()])] == []


def test_blocks_that_are_not_run_are_few_and_have_a_reason() -> None:
    skipped = [b for b in documents.all_blocks("sh", "sql", "python", *PROGRAMS) if b.reason]
    assert [b.where for b in documents.all_blocks(*PROGRAMS) if b.is_run] == []
    assert {f"{b.where}: {b.reason}" for b in skipped if b.reason not in REASONS} == set()
    assert len(skipped) <= MOST_NOT_RUN, Counter(b.reason for b in skipped)


def test_tests_named_as_running_a_block_exist() -> None:
    assert [b.where for b in documents.all_blocks() if b.test and not (ROOT / b.test).is_file()] == []
