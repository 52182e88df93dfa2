"""The wheel in an environment without any extra: every command gives a result, or one line that says why not."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import cdc
from tests import ROOT, in_wheel, surface

PACKAGE: Final = Path(cdc.__file__).parent
UV: Final = Path(sys.executable).with_name("uv")
COMMANDS: Final = [
    name.removeprefix("cdc-publisher").split()
    for name, kind in surface.load()["commands"].items()
    if kind in ("command", "group")
]
LOCAL: Final = "pip install 'cdc-publisher[local]'"
REGISTRY: Final = "[schema_registry] needs the extra packages"
REGISTRY_HINT: Final = "run: pip install 'cdc-publisher[registry]'"
UNREACHABLE: Final = {
    "CDC_POSTGRES__DSN": "postgresql://127.0.0.1:1/shop?user=cdc",
    "CDC_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "CDC_DELIVERY__STARTUP_SECONDS": "0",
}
UNIT_ONLY: Final = "CDC_POSTGRES__DSN: [postgres] belongs in the files of the units"
WITH_REGISTRY: Final = {"CDC_SCHEMA_REGISTRY__URL": "http://127.0.0.1:1"}
FROM_REGISTRY: Final = {"CDC_AVRO__SOURCE": "registry"}

# Words, what they add to the environment, exit code, and a part of the output.
CALLS: Final[list[tuple[str, dict[str, str], int, str]]] = [
    ("--version", {}, 0, f"cdc-publisher, version {cdc.__version__}"),
    ("schema list --topic t", {}, 0, "shop.OrderPlaced"),
    ("schema check --topic t", {}, 0, "3 contracts: "),
    ("schema show shop.OrderPlaced --compiled", {}, 0, "def "),
    ("schema show shop.OrderPlaced --json", {}, 0, '"fingerprint"'),
    ("schema register --topic t", {}, 78, "[schema_registry] url is required"),
    ("config show", {}, 0, "[postgres]"),
    ("config show --json", {}, 0, '"postgres"'),
    ("config validate", {}, 0, "are valid"),
    ("config reference", {}, 0, "# Configuration"),
    ("completion bash", {}, 0, "_cdc_publisher_completion"),
    ("outbox init --print", {}, 0, "CREATE TABLE"),
    ("start", {}, 75, "Kafka cannot be reached"),
    ("start", {"CDC_AVRO__UNKNOWN_TYPES": "envelope"}, 75, "Kafka cannot be reached"),
    ("status", {}, 75, "cdc_publisher"),
    ("status --json", {}, 75, '"slot"'),
    ("check", {}, 1, "fail  postgres_reachable"),
    ("check --json", {}, 1, '"ok": false'),
    ("outbox init", {}, 75, "Kafka cannot be reached"),
    ("outbox purge", {}, 75, "PostgreSQL cannot be reached"),
    ("slot create", {}, 75, "PostgreSQL cannot be reached"),
    ("slot list", {}, 75, "PostgreSQL cannot be reached"),
    ("slot drop --yes", {}, 75, "PostgreSQL cannot be reached"),
    ("slot advance --yes", {}, 75, "PostgreSQL cannot be reached"),
    ("recover", {}, 75, "Kafka cannot be reached"),
    ("takeover plan connector.json", {}, 78, "connector.json"),
    ("takeover compare", {}, 75, "cannot be reached"),
    ("takeover run --stop manual", {}, 75, "cannot be reached"),
    ("takeover undo --stop manual", {}, 75, "cannot be reached"),
    ("fleet start .", {}, 78, UNIT_ONLY),
    ("fleet status", {}, 78, UNIT_ONLY),
    ("fleet forget orders", {}, 78, UNIT_ONLY),
    ("schema infer", {}, 75, "PostgreSQL cannot be reached"),
    ("dlq list", {}, 75, "Kafka cannot be reached"),
    ("dlq show 1", {}, 75, "Kafka cannot be reached"),
    ("dlq replay --all --yes", {}, 75, "Kafka cannot be reached"),
    ("audit", {}, 75, "Kafka cannot be reached"),
    ("audit --repair --yes", {}, 75, "Kafka cannot be reached"),
    # Of what is missing, the extra is named.
    ("local up", {}, 1, LOCAL),
    ("local down", {}, 1, LOCAL),
    ("demo", {}, 1, LOCAL),
    ("demo --stop", {}, 1, LOCAL),
    ("demo --follow", {}, 1, LOCAL),
    ("start", WITH_REGISTRY, 78, REGISTRY_HINT),
    ("schema list --topic t", WITH_REGISTRY, 78, REGISTRY_HINT),
    ("schema check --topic t", WITH_REGISTRY, 78, REGISTRY_HINT),
    ("schema register --topic t", WITH_REGISTRY, 78, REGISTRY_HINT),
    ("check", WITH_REGISTRY, 1, "pip install 'cdc-publisher[registry]'"),
    ("schema show shop.OrderPlaced --json", WITH_REGISTRY, 0, '"fingerprint"'),
    ("start", WITH_REGISTRY | FROM_REGISTRY, 78, REGISTRY_HINT),
    ("check", WITH_REGISTRY | FROM_REGISTRY, 1, "pip install 'cdc-publisher[registry]'"),
    ("config validate", WITH_REGISTRY | FROM_REGISTRY, 0, "are valid"),
    ("config validate", {"CDC_KAFKA__PLUGIN_LIBRARY_PATHS": "x"}, 78, "kafka_code"),
    ("schema check --topic t --table", {}, 75, "PostgreSQL cannot be reached"),
    ("schema list", {}, 75, "PostgreSQL cannot be reached"),
    ("start", {"CDC_TRACING__ENABLED": "true"}, 78, "pip install cdc-publisher[otel]"),
    ("start", {"CDC_DELIVERY__ACCELERATOR": "native"}, 78, "pip install 'cdc-publisher[native]'"),
    ("check", {"CDC_DELIVERY__ACCELERATOR": "native"}, 1, "pip install 'cdc-publisher[native]'"),
]
MANY_LINES: Final = {"check", "status"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(UV, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path) -> Path:
    environment = wheel.parent / "environment"
    _run(UV, "venv", "--quiet", "--python", sys.executable, environment)
    _run(UV, "pip", "install", "--quiet", "--python", environment / "bin" / "python", wheel)
    return environment / "bin" / "python"


@pytest.fixture(scope="module")
def answers(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What every call printed, and what the program finds of its own files."""
    folder = tmp_path_factory.mktemp("calls")
    (contracts,) = python.parents[1].rglob("OrderPlaced.avsc")
    environment = {**UNREACHABLE, "CDC_AVRO__SCHEMAS": str(contracts.parent)}
    calls = {
        _name(words, more): {"words": words.split(), "environment": {**environment, **more}}
        for words, more, _, _ in CALLS
    }
    helps = {_help(words): {"words": [*words, "--help"], "environment": {}} for words in COMMANDS}
    done = subprocess.run(
        [python, "-P", in_wheel.__file__],
        input=json.dumps(calls | helps),
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _name(words: str, environment: dict[str, str]) -> str:
    return "-".join([*words.replace("/", "").split(), *sorted(environment)])


def _help(words: list[str]) -> str:
    return "-".join(["help-of", *words])


def _contracts() -> Iterator[Path]:
    return (ROOT / "schemas").rglob("*.avsc")


def test_the_wheel_holds_every_file_of_the_package_and_every_contract(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    for path in PACKAGE.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert packed[str(path.relative_to(PACKAGE.parent))] == path.read_bytes()
    for contract in _contracts():
        assert contract.read_bytes() in [data for name, data in packed.items() if Path(name).name == contract.name]
    assert any(name.endswith("share/man/man1/cdc-publisher.1") for name in packed)


@pytest.mark.parametrize("words", COMMANDS, ids=_help)
def test_every_command_has_help(words: list[str], answers: Any) -> None:
    answer = answers["called"][_help(words)]
    assert (answer["code"], answer["err"]) == (0, "")
    assert answer["out"].startswith(f"Usage: {' '.join(['cdc-publisher', *words])}")


@pytest.mark.parametrize(("words", "environment", "code", "part"), CALLS, ids=[_name(*call[:2]) for call in CALLS])
def test_a_command_gives_a_result_or_says_why_not(
    words: str, environment: dict[str, str], code: int, part: str, answers: Any
) -> None:
    answer = answers["called"][_name(words, environment)]
    said = answer["out"] + answer["err"]
    assert "Traceback" not in said
    assert (answer["code"], part in said) == (code, True), said
    if code != 0 and words.split()[0] not in MANY_LINES:
        errors = [line for line in said.splitlines() if line.startswith("cdc-publisher: ")]
        assert len(errors) == 1, said


def test_the_calls_reach_every_command() -> None:
    reached = {" ".join(words.split()[:count]) for words, *_ in CALLS for count in (1, 2)}
    groups = {" ".join(words[:-1]) for words in COMMANDS}
    assert {" ".join(words) for words in COMMANDS} - groups <= reached


def test_the_program_finds_its_status_page_and_contracts(answers: Any) -> None:
    found = answers["found"]
    assert found["page"].startswith("<!doctype html>")
    assert found["contracts"] == sorted(path.name for path in _contracts() if path.parent.name == "shop")


def test_a_decoder_names_the_extra_that_its_registry_needs(answers: Any) -> None:
    assert REGISTRY in answers["found"]["decoder"]
    assert REGISTRY_HINT in answers["found"]["decoder"]
